/* stream_adopt.c - see stream_adopt.h. */
#include "streams/stream_adopt.h"

#include "net/proto.h"
#include "net/reader.h"

#ifdef Py_GIL_DISABLED
static bool
has_same_layout(const PyTypeObject *from, const PyTypeObject *to)
{
    unsigned long flags = Py_TPFLAGS_HEAPTYPE | Py_TPFLAGS_MANAGED_DICT | Py_TPFLAGS_INLINE_VALUES;
    return from->tp_basicsize == to->tp_basicsize && from->tp_itemsize == to->tp_itemsize
           && from->tp_dictoffset == to->tp_dictoffset && from->tp_weaklistoffset == to->tp_weaklistoffset
           && from->tp_dealloc == to->tp_dealloc && ((from->tp_flags ^ to->tp_flags) & flags) == 0;
}

/* An assignment to __class__ stops all threads there, twice for each connection (with seven busy threads
 * on two cores 0.9 ms each, and up to 160), because another thread may be looking for an attribute
 * meanwhile. Nobody else knows an object whose references are all of this thread. Both classes live for
 * ever; what an object keeps by the order of its class's names goes into a dict before. 0, or -1, with
 * an exception or without. */
static int
change_class(struct state *state UNUSED, PyObject *op, PyTypeObject *to)
{
    PyTypeObject *from = Py_TYPE(op);
    bool is_ours = op->ob_tid == _Py_ThreadId()
                   && (SHARED_LOAD(op->ob_ref_shared) >> _Py_REF_SHARED_SHIFT) == 0;
    PyObject *dict = is_ours && has_same_layout(from, to) ? PyObject_GenericGetDict(op, NULL) : NULL;
    PyObject *copy = dict == NULL ? NULL : PyDict_Copy(dict);
    int result = copy == NULL ? -1 : PyObject_SetAttrString(op, "__dict__", copy);
    Py_XDECREF(dict);
    Py_XDECREF(copy);
    if (result == 0) {
        Py_SET_TYPE(op, (PyTypeObject *)Py_NewRef(to));
        Py_DECREF(from);
    }
    return result;
}
#else
static int
change_class(struct state *state, PyObject *op, PyTypeObject *to)
{
    return PyObject_SetAttr(op, state->names.__class__, (PyObject *)to);
}
#endif

/* Changes an object that is exactly of the class `from`, and whose loop is ours. */
static void
adopt(struct state *state, PyObject *op, PyObject *from, PyTypeObject *to)
{
    PyObject *loop = NULL;
    if ((PyObject *)Py_TYPE(op) != from
        || PyObject_GetOptionalAttr(op, state->names._loop, &loop) < 0
        || loop == NULL || !loop_check(state, loop)
        || change_class(state, op, to) < 0) {
        PyErr_Clear();    /* it stays what it is, and works */
    }
    Py_XDECREF(loop);
}

static void
adopt_reader(struct state *state, PyObject *protocol)
{
    PyObject *reader = NULL;
    PyObject *reference = PyObject_GetAttr(protocol, state->names._stream_reader_wr);
    if (reference != NULL && PyWeakref_CheckRefExact(reference)) {
        reader = PyObject_CallNoArgs(reference);
    }
    if (reader == NULL) {
        PyErr_Clear();
    }
    else {
        adopt(state, reader, net_state(state)->reader.ReaderType, net_state(state)->types.FastReader);
    }
    Py_XDECREF(reader);
    Py_XDECREF(reference);
}

/* Stands for the server's callback: self is (module, callback). */
static PyObject *
client_connected(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct state *state = PyModule_GetState(PyTuple_GET_ITEM(self, 0));
    if (nargs == 2) {
        adopt(state, args[1], net_state(state)->reader.WriterType, net_state(state)->types.FastWriter);
    }
    return PyObject_Vectorcall(PyTuple_GET_ITEM(self, 1), args, (size_t)nargs, kwnames);
}

static PyMethodDef client_connected_def = {
    "client_connected_cb",
    (PyCFunction)(void (*)(void))client_connected,
    METH_FASTCALL | METH_KEYWORDS,
    NULL,
};

/* Puts client_connected() before the server's callback, for connection_made() to call.
 * New reference to the callback that was there, or NULL. Sets no exception. */
static PyObject *
put_before_callback(struct state *state, PyObject *protocol)
{
    PyObject *callback = NULL, *pair = NULL, *stand_in = NULL;
    PyObject *module = PyType_GetModule(net_state(state)->types.FastWriter);
    if (PyObject_GetOptionalAttr(protocol, state->names._client_connected_cb, &callback) <= 0
        || callback == Py_None || module == NULL) {
        goto failed;
    }
    pair = PyTuple_Pack(2, module, callback);
    stand_in = pair == NULL ? NULL : PyCFunction_NewEx(&client_connected_def, pair, NULL);
    if (stand_in == NULL
        || PyObject_SetAttr(protocol, state->names._client_connected_cb, stand_in) < 0) {
        goto failed;
    }
    Py_DECREF(pair);
    Py_DECREF(stand_in);
    return callback;
failed:
    PyErr_Clear();
    Py_XDECREF(pair);
    Py_XDECREF(stand_in);
    Py_XDECREF(callback);
    return NULL;
}

PyObject *
stream_adopt_connection_made(struct state *state, struct proto *proto, PyObject *transport)
{
    PyObject *protocol = Py_NewRef(proto->protocol);
    PyObject *callback = NULL;
    if (reader_protocol_is_plain(state, protocol)) {
        adopt_reader(state, protocol);
        callback = put_before_callback(state, protocol);
    }
    PyObject *result = proto_call(proto, state->names.connection_made, transport);
    if (callback != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        if (PyObject_SetAttr(protocol, state->names._client_connected_cb, callback) < 0) {
            PyErr_WriteUnraisable(protocol);
        }
        PyErr_SetRaisedException(exc);
        Py_DECREF(callback);
    }
    Py_DECREF(protocol);
    return result;
}
