/* task_foreign.c - see task_inside.h. */
#include "tasks/task_inside.h"

void
task_set_pending_exception_steal(Task *self, PyObject *exc)
{
    PyObject *old;
    {
        FUTURE_GUARD(self);
        old = self->pending_exception;
        self->pending_exception = exc;
    }
    Py_XDECREF(old);
}

int
task_bad_yield(Task *self, const char *format, PyObject *first, PyObject *second)
{
    PyObject *text = PyUnicode_FromFormat(format, first, second);
    PyObject *exc = text == NULL ? NULL : PyObject_CallOneArg(PyExc_RuntimeError, text);
    Py_XDECREF(text);
    if (exc != NULL) {
        task_set_pending_exception_steal(self, exc);
    }
    return exc == NULL ? -1 : 0;
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
 * flag. As task_await_foreign(). */
static int
await_future(Task *self, PyObject *waiter, int blocking)
{
    struct state *state = self->future.state_ptr;
    if (waiter == (PyObject *)self) {
        return task_bad_yield(self, "Task cannot await on itself: %R", (PyObject *)self, NULL);
    }
    PyObject *loop = loop_of_future(state, waiter);
    if (loop == NULL) {
        return -1;
    }
    Py_DECREF(loop);    /* only compared */
    if (loop != self->future.loop) {
        return task_bad_yield(self, "Task %R got Future %R attached to a different loop",
                              (PyObject *)self, waiter);
    }
    if (!blocking) {
        return task_bad_yield(self, "yield was used instead of yield from in task %R with %R",
                              (PyObject *)self, waiter);
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
    return added == NULL ? -1 : 1;
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
    else if (found >= 0) {
        int generator = PyObject_IsInstance(yielded, (PyObject *)&PyGen_Type);
        if (generator > 0) {
            result = task_bad_yield(self, "yield was used instead of yield from for generator in task %R with %R",
                                    (PyObject *)self, yielded);
        }
        else if (generator == 0) {
            result = task_bad_yield(self, "Task got bad yield: %R", yielded, NULL);
        }
    }
    Py_XDECREF(attribute);
    return result;
}
