/* introspect.c - finds the fields of _asyncio.Task that tools read from outside.
 *
 * By calibration: one Task and one Future of asyncio's own are made, whose name, coroutine
 * and awaiter are known objects, and the Task's memory is searched for their addresses. Only
 * numbers are compared; nothing that is found is followed. */
#include "tasks/introspect.h"

#if PY_VERSION_HEX >= 0x030E0000


#include "base/args.h"
#include "tasks/find_word.h"

/* The offset of the only byte that is 1 in `task` and 0 in `future`, or 0. Neither has been
 * used, so whatever else differs is a reference, or behind what they have in common. */
static size_t
find_flag(PyObject *task, PyObject *future)
{
    size_t found = 0;
    size_t size = (size_t)Py_TYPE(future)->tp_basicsize;
    for (size_t i = sizeof(PyObject); i < size; i++) {
        if (((const char *)task)[i] == 1 && ((const char *)future)[i] == 0) {
            if (found != 0) {
                return 0;
            }
            found = i;
        }
    }
    return found;
}

/* The least that Task() and Future() accept as a loop: get_debug() is False, and call_soon()
 * takes anything and keeps nothing. New reference, or NULL. */
static PyObject *
make_inert_loop(void)
{
    PyObject *types = PyImport_ImportModule("types");
    PyObject *functools = types == NULL ? NULL : PyImport_ImportModule("functools");
    PyObject *loop = functools == NULL ? NULL
                                       : PyObject_CallMethod(types, "SimpleNamespace", NULL);
    PyObject *partial = loop == NULL ? NULL : PyObject_GetAttrString(functools, "partial");
    if (partial == NULL
        || PyObject_SetAttrString(loop, "get_debug", (PyObject *)&PyBool_Type) < 0
        || PyObject_SetAttrString(loop, "call_soon", partial) < 0) {
        Py_CLEAR(loop);
    }
    Py_XDECREF(partial);
    Py_XDECREF(functools);
    Py_XDECREF(types);
    return loop;
}

/* A coroutine that never starts: any of asyncio's will do. New reference, or NULL. */
static PyObject *
make_coroutine(void)
{
    PyObject *tasks = PyImport_ImportModule("asyncio.tasks");
    PyObject *coro = tasks == NULL ? NULL : PyObject_CallMethod(tasks, "sleep", "i", 0);
    Py_XDECREF(tasks);
    return coro;
}

static PyObject *
call_with_keywords(PyTypeObject *type, PyObject *positional, PyObject *loop, PyObject *name)
{
    PyObject *args = positional == NULL ? PyTuple_New(0) : PyTuple_Pack(1, positional);
    PyObject *kwargs = name == NULL ? Py_BuildValue("{sO}", "loop", loop)
                                    : Py_BuildValue("{sOsO}", "loop", loop, "name", name);
    PyObject *result =
        args == NULL || kwargs == NULL ? NULL : PyObject_Call((PyObject *)type, args, kwargs);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

/* 0 with *at filled or not; -1 with an exception */
static int
measure(struct state *state, PyObject *task, PyObject *future, PyObject *name, PyObject *coro,
        struct introspect_offsets *at)
{
    size_t is_task = find_flag(task, future);
    if (call_for_effect(tasks_state(state)->awaited_by.add, task, future) < 0) {
        return -1;
    }
    size_t name_at = find_word(task, name);
    size_t coro_at = find_word(task, coro);
    size_t awaited_by = find_word(task, future);
    if (call_for_effect(tasks_state(state)->awaited_by.discard, task, future) < 0) {
        return -1;
    }
    if (is_task != 0 && name_at != 0 && coro_at != 0 && awaited_by != 0
        && find_word(task, future) == 0) {
        *at = (struct introspect_offsets){
            .name = name_at,
            .coro = coro_at,
            .awaited_by = awaited_by,
            .is_task = is_task,
        };
#ifdef Py_GIL_DISABLED
        at->thread = find_word(task, (PyObject *)_Py_ThreadId());
#endif
    }
    return 0;
}

/* Fills tasks_state(state)->introspect, or leaves it 0. -1 only for what is no Exception (an interrupt). */
int
introspect_init(PyObject *module UNUSED, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    STATE_OWN(state, &own->awaited_by);
    const struct state_import wanted[] = {
        {&own->awaited_by.add, "_asyncio", "future_add_to_awaited_by", false},
        {&own->awaited_by.discard, "_asyncio", "future_discard_from_awaited_by", false},
    };
    if (STATE_IMPORT(wanted) < 0) {
        return -1;
    }
    struct introspect_offsets at = {0};
    PyObject *task = NULL, *future = NULL;
    PyObject *loop = make_inert_loop();
    PyObject *name = loop == NULL ? NULL : PyUnicode_FromString("asyncloop looks at this Task");
    PyObject *coro = name == NULL ? NULL : make_coroutine();
    int result = -1;
    if (coro == NULL || !PyCoro_CheckExact(coro)) {
        goto done;    /* somebody has replaced sleep() */
    }
    future = call_with_keywords(tasks_state(state)->futures.asyncio_Future, NULL, loop, NULL);
    task = future == NULL ? NULL : call_with_keywords(tasks_state(state)->tasks.asyncio_Task, coro, loop, name);
    if (task != NULL) {
        /* It will not be finished, and nobody is to hear of it; this also is a flag that
         * could be taken for the wanted one. */
        if (PyObject_SetAttrString(task, "_log_destroy_pending", Py_False) == 0
            && call_for_effect(tasks_state(state)->all.unregister_task, task, NULL) == 0) {
            result = measure(state, task, future, name, coro, &at);
        }
    }
done:;
    PyObject *exc = PyErr_GetRaisedException();
    /* Without this it would be "never awaited". */
    PyObject *closed = coro == NULL || !PyCoro_CheckExact(coro)
                           ? NULL
                           : PyObject_CallMethod(coro, "close", NULL);
    if (closed == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(closed);
    Py_XDECREF(task);
    Py_XDECREF(future);
    Py_XDECREF(coro);
    Py_XDECREF(name);
    Py_XDECREF(loop);
    if (result == 0) {
        tasks_state(state)->introspect = at;
    }
    else if (exc != NULL && !PyErr_GivenExceptionMatches(exc, PyExc_Exception)) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    Py_XDECREF(exc);
    return 0;
}

#else

int
introspect_init(PyObject *module UNUSED, struct state *state UNUSED)
{
    return 0;
}

#endif
