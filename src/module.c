/* module.c - the definition of asyncloop._core. */
#include "loop_type.h"
#include "ops/resolve.h"
#include "base/state.h"
#include "tls/tls.h"

#include <ev.h>

static PyObject *
module_build_info(PyObject *module, PyObject *ignored UNUSED)
{
#ifdef ASYNCLOOP_EMBED_LIBEV
    const char *libev = "embedded";
#else
    const char *libev = "system";
#endif
    unsigned int backends = ev_recommended_backends() & ev_supported_backends();
    const char *backend = backends & EVBACKEND_EPOLL    ? "epoll"
                          : backends & EVBACKEND_KQUEUE ? "kqueue"
                                                        : "poll";
    struct state *state = PyModule_GetState(module);
    PyObject *tls = state->tls.SSLObject == NULL
                        ? Py_NewRef(Py_None)
                        : PyUnicode_FromString(tls_default_engine(state)->name);
    return Py_BuildValue("{s:s,s:N,s:s,s:N}", "libev", libev, "libev_version",
                         PyUnicode_FromFormat("%d.%d", ev_version_major(), ev_version_minor()),
                         "backend", backend, "tls", tls);
}

static PyObject *
module_drain_free_lists(PyObject *module, PyObject *ignored UNUSED)
{
    state_drain_free_lists(PyModule_GetState(module));
    return Py_NewRef(Py_None);
}

static PyObject *
module_libev_memory(PyObject *module UNUSED, PyObject *args)
{
    int system, blocks;
    if (!PyArg_ParseTuple(args, "pp:_libev_memory", &system, &blocks)) {
        return NULL;
    }
    reserve_set_failing(!system, !blocks);
    return Py_NewRef(Py_None);
}

static PyMethodDef module_methods[] = {
    {"build_info", module_build_info, METH_NOARGS,
     PyDoc_STR("build_info()\n--\n\nHow the core was built: libev ('system' or 'embedded'), "
               "libev_version, backend, and the\n"
               "TLS engine: 'direct' or 'portable' (None without the ssl module).")},
    RESOLVE_FUNCTIONS,
    {"_running_loops", running_loops, METH_NOARGS,
     PyDoc_STR("_running_loops()\n--\n\n"
               "A list of (number, thread, loop), one for each loop that runs.")},
    {"_loop_by_number", loop_by_number, METH_O,
     PyDoc_STR("_loop_by_number(number, /)\n--\n\n"
               "The loop that is told of under this number, or None if it does not run.")},
    {"_drain_free_lists", module_drain_free_lists, METH_NOARGS,
     PyDoc_STR("_drain_free_lists()\n--\n\n"
               "For tests: from now on each object is an allocation.")},
    {"_libev_memory", module_libev_memory, METH_VARARGS,
     PyDoc_STR("_libev_memory(system, blocks, /)\n--\n\n"
               "For tests: whether libev gets memory from the system from now on, and its reserve.")},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    return state_init(module, PyModule_GetState(module));
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    return state_traverse(PyModule_GetState(module), visit, arg);
}

static int
module_clear(PyObject *module)
{
    state_clear(PyModule_GetState(module));
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    /* Everything is in the module's state; see poll.c and tls_libssl.c for what the process
     * has only one of. */
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},    /* owner.h says why */
#endif
    {0, NULL},
};

struct PyModuleDef asyncloop_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "asyncloop._core",
    .m_doc = PyDoc_STR("The event loop, Future and Task of asyncloop."),
    .m_size = sizeof(struct state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&asyncloop_module);
}
