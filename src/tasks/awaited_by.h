/* awaited_by.h - that a Task awaits a future, for tools and call graphs (3.14 and later).
 *
 * asyncio's own function notes it for futures in general; for a Task that is parked in a Task of ours
 * the base's field is written, which introspect.h finds. Before 3.14 all of it is nothing. */
#ifndef ASYNCLOOP_AWAITED_BY_H
#define ASYNCLOOP_AWAITED_BY_H

#include "tasks/introspect.h"
#include "tasks/task_inside.h"

#if PY_VERSION_HEX >= 0x030E0000
static inline void
task_forget_awaited_by(Task *self, PyObject *waiter)
{
    self->awaited_by_added = false;
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *args[] = {waiter, (PyObject *)self};
    PyObject *result =
        PyObject_Vectorcall(tasks_state(self->future.state_ptr)->awaited_by.discard, args, 2, NULL);
    Py_XDECREF(result);
    PyErr_SetRaisedException(exc);
}

/* For tools and call graphs alone nothing may fail: the waiter would wake the Task all the same, a
 * second time. */
static inline void
task_tell_awaited_by(Task *self, PyObject *waiter)
{
    PyObject *args[] = {waiter, (PyObject *)self};
    PyObject *result = PyObject_Vectorcall(tasks_state(self->future.state_ptr)->awaited_by.add, args, 2, NULL);
    Py_XDECREF(result);
    self->awaited_by_added = result != NULL;
    if (result == NULL) {
        PyErr_Clear();
    }
}

/* The Task is parked in a Task: what awaits it is known from there, inside the process; tools
 * outside need it in the base's field. */
static inline void
task_show_awaited_by(Task *self, PyObject *waiter)
{
    bool shown;
    QUICKLY(waiter, { shown = introspect_add_awaiter(self, waiter, &self->awaited_by_added); });
    if (!shown) {
        task_tell_awaited_by(self, waiter);
    }
}

static inline void
task_hide_awaited_by(Task *self, PyObject *waiter)
{
    bool hidden;
    QUICKLY(waiter, { hidden = introspect_remove_awaiter(self, waiter); });
    if (hidden) {
        self->awaited_by_added = false;
        Py_DECREF(self);
    }
    else {
        task_forget_awaited_by(self, waiter);
    }
}

/* Whether tools outside can be shown that a Task of ours is parked in this one. */
static inline bool
task_is_shown(struct state *state, PyObject *waiter)
{
    return Py_IS_TYPE(waiter, tasks_state(state)->types.Task) && tasks_state(state)->introspect.awaited_by != 0;
}
#else
#define task_forget_awaited_by(self, waiter) ((void)(self), (void)(waiter))
#define task_tell_awaited_by(self, waiter) ((void)(self), (void)(waiter))
#define task_show_awaited_by(self, waiter) ((void)(self), (void)(waiter))
#define task_hide_awaited_by(self, waiter) ((void)(self), (void)(waiter))
#define task_is_shown(state, waiter) false
#endif

#endif
