/* task_foreign.c - see task_inside.h. */
#include "tasks/task_inside.h"

void
task_bad_yield(const char *format, PyObject *first, PyObject *second)
{
    PyErr_Format(PyExc_RuntimeError, format, first, second);
    PyObject *exc = PyErr_GetRaisedException();
    PyException_SetContext(exc, NULL);
    PyErr_SetRaisedException(exc);
}

/* new reference, or NULL */
static PyObject *
loop_of_future(struct state *state, PyObject *future)
{
    PyObject *method;
    int found = PyObject_GetOptionalAttr(future, state->names.get_loop, &method);
    if (found < 0) {
        return NULL;
    }
    if (found > 0) {
        PyObject *loop = PyObject_CallNoArgs(method);
        Py_DECREF(method);
        return loop;
    }
    return PyObject_GetAttr(future, state->names._loop);
}

/* The coroutine yielded a future of another kind, with the given truth of its blocking
 * flag. 0, or -1 with what is wrong. */
static int
await_future(Task *self, PyObject *waiter, int blocking)
{
    struct state *state = self->future.state_ptr;
    PyObject *loop = loop_of_future(state, waiter);
    if (loop == NULL) {
        return -1;
    }
    Py_DECREF(loop);    /* only compared */
    if (loop != self->future.loop) {
        task_bad_yield("Task %R got Future %R attached to a different loop",
                       (PyObject *)self, waiter);
        return -1;
    }
    if (!blocking) {
        task_bad_yield("yield was used instead of yield from in task %R with %R",
                       (PyObject *)self, waiter);
        return -1;
    }
    if (waiter == (PyObject *)self) {
        task_bad_yield("Task cannot await on itself: %R", (PyObject *)self, NULL);
        return -1;
    }
    if (PyObject_SetAttr(waiter, state->names._asyncio_future_blocking, Py_False) < 0) {
        return -1;
    }
    PyObject *wakeup, *context;
    if (tasks_state(state)->tasks.as_callback((PyObject *)self, &wakeup, &context) < 0) {
        return -1;
    }
    PyObject *args[] = {waiter, wakeup, context};
    PyObject *added = PyObject_VectorcallMethod(state->names.add_done_callback, args, 2,
                                                state->keywords.context);
    Py_DECREF(context);
    Py_DECREF(wakeup);
    Py_XDECREF(added);
    return added == NULL ? -1 : 0;
}

int
task_await_foreign(Task *self, PyObject *yielded)
{
    struct state *state = self->future.state_ptr;
    PyObject *attribute;
    int result = -1;
    int found = PyObject_GetOptionalAttr(yielded, state->names._asyncio_future_blocking, &attribute);
    if (found > 0 && attribute != Py_None) {
        int blocking = PyObject_IsTrue(attribute);
        result = blocking < 0 ? -1 : await_future(self, yielded, blocking);
    }
    else if (found >= 0 && PyGen_CheckExact(yielded)) {
        task_bad_yield("yield was used instead of yield from for generator in task %R with %R",
                       (PyObject *)self, yielded);
    }
    else if (found >= 0) {
        task_bad_yield("Task got bad yield: %R", yielded, NULL);
    }
    Py_XDECREF(attribute);
    return result;
}
