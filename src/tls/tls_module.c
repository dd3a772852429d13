/* tls_module.c - what the module has of TLS: its functions, and its part of the state. */
#include "tls/tls.h"

#include "base/standard.h"
#include "loop/owner.h"

/* -- functions of the module --------------------------------------------------------------------------- */

static PyObject *
module_tls_new(PyObject *module, PyObject *args)
{
    OWN_LOOP_ARGUMENT(module, args);
    struct state *state = PyModule_GetState(module);
    PyObject *loop, *protocol, *sslcontext, *waiter, *hostname, *handshake_timeout;
    PyObject *shutdown_timeout, *context;
    int server_side, call_connection_made;
    if (!PyArg_ParseTuple(args, "O!OOOpOOOpO:_tls_new", loop_state(state)->types.Loop, &loop, &protocol,
                          &sslcontext, &waiter, &server_side, &hostname, &handshake_timeout,
                          &shutdown_timeout, &call_connection_made, &context)) {
        return NULL;
    }
    if (context != Py_None && !PyContext_CheckExact(context)) {
        PyErr_SetString(PyExc_TypeError, "context must be a contextvars.Context or None");
        return NULL;
    }
    if (tls_state(state)->tls.SSLObject == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Python ssl module is not available");
        return NULL;
    }
    return (PyObject *)tls_new((Loop *)loop, protocol, sslcontext,
                               waiter == Py_None ? NULL : waiter, server_side,
                               hostname == Py_None ? NULL : hostname, handshake_timeout,
                               shutdown_timeout, call_connection_made,
                               context == Py_None ? NULL : context);
}

static PyObject *
module_tls_engine(PyObject *module, PyObject *ignored UNUSED)
{
    struct state *state = PyModule_GetState(module);
    if (tls_state(state)->tls.SSLObject == NULL) {
        return Py_NewRef(Py_None);
    }
    return PyUnicode_FromString(tls_default_engine(state)->name);
}

static PyObject *
module_tls_set_engine(PyObject *module, PyObject *name)
{
    struct state *state = PyModule_GetState(module);
    if (name == Py_None) {
        tls_state(state)->tls.engine = NULL;
        return Py_NewRef(Py_None);
    }
    if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, "portable") == 0) {
        tls_state(state)->tls.engine = &tls_portable_ops;
        return Py_NewRef(Py_None);
    }
    PyErr_SetString(PyExc_ValueError, "'portable' or None");
    return NULL;
}

static PyMethodDef tls_functions[] = {
    {"_tls_new", module_tls_new, METH_VARARGS,
     INSIDE_DOC("_tls_new(loop, protocol, sslcontext, waiter, server_side, server_hostname,\n"
                "         handshake_timeout, shutdown_timeout, call_connection_made, context,\n"
                "         /)\n--\n\n"
                "A TLS transport, to be given to the transport below it as its protocol.")},
    {"_tls_check", module_tls_check, METH_O,
     INSIDE_DOC("_tls_check(context, /)\n--\n\n"
                "True: TLS is what the standard library has, and so is the context. False: it is not.\n"
                "None: nothing is known, look at it and call _tls_stamp().")},
    {"_tls_stamp", module_tls_stamp, METH_VARARGS,
     INSIDE_DOC("_tls_stamp(classes, functions, names, /)\n--\n\n"
                "This is what the standard library has. See asyncloop/_tls_shipped.py.")},
    {"_tls_engine", module_tls_engine, METH_NOARGS,
     INSIDE_DOC("_tls_engine()\n--\n\n"
                "The engine that serves TLS: 'direct' or 'portable'; None without the ssl module.")},
    {"_tls_set_engine", module_tls_set_engine, METH_O,
     INSIDE_DOC("_tls_set_engine(name, /)\n--\n\n"
                "For tests: 'portable' for new transports; None chooses anew.")},
    {NULL, NULL, 0, NULL},
};

static int
import_ssl(struct tls_objects *tls)
{
    PyObject *module = PyImport_ImportModule("ssl");
    if (module == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
            return -1;
        }
        PyErr_Clear();    /* a Python without OpenSSL: no TLS, but everything else */
        return 0;
    }
    struct {
        PyObject **slot;
        const char *name;
    } wanted[] = {
        {&tls->SSLError, "SSLError"},
        {&tls->SSLWantReadError, "SSLWantReadError"},
        {&tls->SSLSyscallError, "SSLSyscallError"},
        {&tls->SSLZeroReturnError, "SSLZeroReturnError"},
        {&tls->CertificateError, "CertificateError"},
        {&tls->MemoryBIO, "MemoryBIO"},
        {&tls->SSLObject, "SSLObject"},
    };
    int result = 0;
    for (size_t i = 0; i < ARRAY_LEN(wanted) && result == 0; i++) {
        *wanted[i].slot = PyObject_GetAttrString(module, wanted[i].name);
        result = *wanted[i].slot == NULL ? -1 : 0;
    }
    Py_DECREF(module);
    return result;
}

int
tls_type_init(PyObject *module, struct state *state)
{
    struct tls_objects *tls = &tls_state(state)->tls;
    PyTypeObject **slot = &tls_state(state)->types.Tls;
    STATE_OWN_UNTIL(state, tls, engine);
    STATE_OWN_UNTIL(state, &tls->shipped, versions);
    if (import_ssl(tls) < 0
        || tls_type_add(module, state, slot) < 0
        || standard_transport_init(state, &net_state(state)->protocols.tls_methods, *slot) < 0) {
        return -1;
    }
    net_state(state)->protocols.TlsType = *slot;
    net_state(state)->protocols.feed_tls = tls_feed;
    tls->keywords_wrap_bio = Py_BuildValue("(ss)", "server_side", "server_hostname");
    tls->record_bytes = PyLong_FromLong(TLS_RECORD_BYTES);
    tls->empty_bytes = PyBytes_FromStringAndSize(NULL, 0);
    tls->one_byte = PyBytes_FromStringAndSize("", 1);
    PyObject *constants = PyImport_ImportModule("asyncio.constants");
    PyObject *modes = constants == NULL ? NULL : PyObject_GetAttrString(constants, "_SendfileMode");
    PyObject *mode = modes == NULL ? NULL : PyObject_GetAttrString(modes, "FALLBACK");
    PyObject *type = (PyObject *)*slot;
    int result = mode == NULL || tls->keywords_wrap_bio == NULL || tls->record_bytes == NULL
                         || tls->empty_bytes == NULL || tls->one_byte == NULL
                         || PyObject_SetAttrString(type, "_sendfile_compatible", mode) < 0
                         || PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) < 0
                     ? -1
                     : PyModule_AddFunctions(module, tls_functions);
    Py_XDECREF(constants);
    Py_XDECREF(modes);
    Py_XDECREF(mode);
    return result;
}
