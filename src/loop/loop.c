/* loop.c - what is asked of a loop, and its clock. */
#include "loop/loop.h"

#include "loop/activity.h"

#include <time.h>

int
loops_init(PyObject *module UNUSED, struct state *state)
{
    struct loop_state *own = loop_state(state);
    list_init(&own->loops.all);
#ifdef Py_GIL_DISABLED
    pthread_mutex_init(&own->loops.lock, NULL);
#endif
    STATE_OWN_UNTIL(state, &own->loops, all);
    own->loops.activities = activities_new();
    if (own->loops.activities == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    const struct state_import wanted[] = {
        {&own->loops.base_events, "asyncio", "base_events", false},
        {&own->loops.format_handle, "asyncio.base_events", "_format_handle", false},
    };
    return STATE_IMPORT(wanted);
}

/* -- clocks ------------------------------------------------------------------------- */

double
loop_time(Loop *loop UNUSED)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* -- checks ------------------------------------------------------------------------------ */

int
loop_closed_error(Loop *loop UNUSED)
{
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

int
loop_check_thread(Loop *loop)
{
    unsigned long thread_id = SHARED_LOAD(loop->thread_id);
    if (thread_id == 0 || thread_id == PyThread_get_thread_ident()) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "Non-thread-safe operation invoked on an event loop other than the current one");
    return -1;
}

int
loop_check_callback(Loop *loop, PyObject *callback, const char *function)
{
    PyObject *result = PyObject_CallMethod((PyObject *)loop, "_check_callback", "Os", callback,
                                           function);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

Loop *
loop_from_argument(PyObject *module, PyObject *object)
{
    struct state *state = PyModule_GetState(module);
    if (!PyObject_TypeCheck(object, loop_state(state)->types.Loop)) {
        PyErr_Format(PyExc_TypeError, "a loop of asyncloop is needed, not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (Loop *)object;
}

/* -- runs ---------------------------------------------------------------------------- */

struct run *
loop_begin_run(Loop *loop)
{
    struct run *run = loop->spare_run;
    loop->spare_run = NULL;
    if (UNLIKELY(run == NULL)) {
        run = PyMem_Malloc(sizeof(*run));
        if (run == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    *run = (struct run){.outer = loop->run};
    SHARED_STORE(loop->run, run);
    return run;
}

PyObject *
loop_end_run(Loop *loop, struct run *run)
{
    if (LIKELY(loop->run == run)) {
        SHARED_STORE(loop->run, run->outer);
    }
    else {
        struct run *inner = loop->run;
        while (inner->outer != run) {
            inner = inner->outer;
        }
        inner->outer = run->outer;
    }
    PyObject *exception = run->exception;
    PyMem_Free(loop->spare_run);
    loop->spare_run = run;
    return exception;
}

void
loop_set_current_handle_steal(Loop *loop, PyObject *handle)
{
    PyObject *old;
    {
        GUARD(loop);
        old = loop->current_handle;
        loop->current_handle = handle;
    }
    Py_XDECREF(old);
}
