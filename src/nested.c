/* nested.c - see nested.h. */
#include "nested.h"

#include "loop/handle_inside.h"
#include "loop/owner.h"
#include "tasks/task.h"

/* Of what is in the ring: a new reference, or NULL. */
static PyObject *
item_context(uintptr_t item)
{
    PyObject *op = ready_object(item), *context = NULL;
    if ((item & READY_KIND_MASK) == READY_TASK) {
        context = task_context_ref(op);
    }
    else if ((item & READY_KIND_MASK) == READY_HANDLE) {
        {
            GUARD(op);
            context = Py_XNewRef(handle_context((Handle *)op));
        }
    }
    return context;
}

static bool
context_is_entered(PyObject *context)
{
    if (!PyContext_CheckExact(context)) {
        return false;
    }
    if (PyContext_Enter(context) == 0 && PyContext_Exit(context) == 0) {
        return false;
    }
    PyErr_Clear();
    return true;
}

bool
loop_defer(Loop *loop)
{
    uintptr_t item = loop->ready.items[loop->ready.head & loop->ready.mask];
    PyObject *context = item_context(item);
    bool entered = context != NULL && context_is_entered(context);
    Py_XDECREF(context);
    if (LIKELY(!entered) || (loop->deferred.items == NULL && ready_init(&loop->deferred) < 0)
        || !ready_has_room(&loop->deferred)) {
        PyErr_Clear();    /* without memory it runs, and the error is told */
        return false;
    }
    item = ready_pop(&loop->ready);
    (void)ready_push_steal(&loop->deferred, ready_object(item), item & READY_KIND_MASK);
    return true;
}

void
loop_enter_nested(Loop *loop)
{
    loop->nested++;
}

int
loop_leave_nested(Loop *loop)
{
    size_t count = ready_length(&loop->deferred);
    loop->nested--;
    if (count > 0 && ready_reserve(&loop->ready, count) < count) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        uintptr_t item = ready_pop(&loop->deferred);
        (void)ready_push_steal(&loop->ready, ready_object(item), item & READY_KIND_MASK);
    }
    ready_put_first(&loop->ready, count);
    return 0;
}
