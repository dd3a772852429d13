/* module.c - the definition of asyncloop._core. */
#include "iteration.h"

#include "base/checked.h"
#include "base/freelist.h"
#include "base/immortal.h"
#include "base/instance.h"
#include "base/standard.h"
#include "loop/activity.h"
#include "loop/overrides.h"
#include "tasks/visible.h"
#include "tls/tls.h"
#include "ops/coroutine_method.h"
#include "ops/resolve.h"
#include "streams/stream_api.h"
#include "life.h"
#include "loop_type.h"
#include "stats.h"
#include "verify.h"

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
    PyObject *tls = tls_state(state)->tls.SSLObject == NULL
                        ? Py_NewRef(Py_None)
                        : PyUnicode_FromString(tls_default_engine(state)->name);
    return Py_BuildValue("{s:s,s:N,s:s,s:N"
#ifdef ASYNCLOOP_HOSTILE
                         "s:s"
#endif
                         "}",
                         "libev", libev, "libev_version",
                         PyUnicode_FromFormat("%d.%d", ev_version_major(), ev_version_minor()),
                         "backend", backend, "tls", tls
#ifdef ASYNCLOOP_HOSTILE
                         ,
                         "constants", "hostile"    /* for tests that count what goes into a buffer */
#endif
    );
}

static PyObject *
module_drain_free_lists(PyObject *module, PyObject *ignored UNUSED)
{
    freelist_drain_all(PyModule_GetState(module));
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
     INSIDE_DOC("_running_loops()\n--\n\n"
                "A list of (number, thread, loop), one for each loop that runs.")},
    {"_loop_by_number", loop_by_number, METH_O,
     INSIDE_DOC("_loop_by_number(number, /)\n--\n\n"
                "The loop that is told of under this number, or None if it does not run.")},
    {"_give_methods", loop_give_methods, METH_O,
     INSIDE_DOC("_give_methods(class, /)\n--\n\n"
                "A class derived from Loop gets the methods of that as its own.")},
    STATS_FUNCTIONS,
    {"_find_task_fields", visible_find, METH_VARARGS,
     INSIDE_DOC("_find_task_fields(task, loop, coro, name, /)\n--\n\n"
                "Whether a Task of asyncio's own has these in its fields: see visible.h.")},
    {"_drain_free_lists", module_drain_free_lists, METH_NOARGS,
     INSIDE_DOC("_drain_free_lists()\n--\n\n"
                "For tests: from now on each object is an allocation.")},
    {"_libev_memory", module_libev_memory, METH_VARARGS,
     INSIDE_DOC("_libev_memory(system, blocks, /)\n--\n\n"
                "For tests: whether libev gets memory from the system from now on, and its reserve.")},
    VERIFY_FUNCTIONS{NULL, NULL, 0, NULL},
};

/* From the ground up: what a type needs is there before it is made. */
#define CALLED(name) name##_init,
/* clang-format off */
static int (*const initialisers[])(PyObject *module, struct state *state) = {
    state_init,
#ifdef ASYNCLOOP_DEBUG
    checked_init,
#endif
    instance_init,
    LOOP_TABLE(STATE_NOTHING, CALLED)
    TASKS_TABLE(STATE_NOTHING, CALLED)
    NET_TABLE(STATE_NOTHING, CALLED)
    TLS_TABLE(STATE_NOTHING, CALLED)
    OPS_TABLE(STATE_NOTHING, CALLED)
    stream_api_init,
    life_init,
    iteration_init,
    loop_type_init,
    /* These look at the type that is made. */
    coroutine_methods_init,
    overrides_init,
    standard_init,
    immortal_init,
};
/* clang-format on */

static int
module_exec(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    STATE_OWN(state, &loop_state(state)->types);
    STATE_OWN(state, &tasks_state(state)->types);
    STATE_OWN(state, &net_state(state)->types);
    STATE_OWN(state, &tls_state(state)->types);
    STATE_OWN(state, &ops_state(state)->types);
    for (size_t i = 0; i < ARRAY_LEN(initialisers); i++) {
        if (initialisers[i](module, state) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct state *state = PyModule_GetState(module);
    int result = standard_traverse(state, visit, arg);
    return result != 0 ? result : state_traverse(state, visit, arg);
}

static int
module_clear(PyObject *module)
{
    struct state *state = PyModule_GetState(module);
    activities_drop(loop_state(state)->loops.activities);
    loop_state(state)->loops.activities = NULL;
    freelist_drain_all(state);
    standard_clear(state);
    state_clear(state);
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

static struct PyModuleDef asyncloop_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "asyncloop._core",
    .m_doc = PyDoc_STR("The event loop, Future and Task of asyncloop."),
    .m_size = sizeof(struct ops_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    state_set_definition(&asyncloop_module);
    return PyModuleDef_Init(&asyncloop_module);
}
