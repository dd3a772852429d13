/* item.c - see item.h. */
#include "item.h"

#include "tasks/record.h"
#include "tasks/trace.h"

/* Steals what _run() has returned, or NULL: asyncio lets out whatever that raises. */
static int
loop_foreign_ran(PyObject *result)
{
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* What somebody else has put into the ring. */
int
loop_run_foreign(Loop *loop, PyObject *item)
{
    PyObject *cancelled = PyObject_GetAttrString(item, "_cancelled");
    int skip = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
    Py_XDECREF(cancelled);
    if (skip != 0) {
        return skip < 0 ? -1 : 0;
    }
    return loop_foreign_ran(PyObject_CallMethodNoArgs(item, loop->state->names._run));
}

/* A handle of ours, and Handle._run() is somebody else's, who may look at it and at what it calls. */
int
loop_run_replaced(Loop *loop, PyObject *op)
{
    handle_track((Handle *)op);
    return loop_foreign_ran(PyObject_CallMethodOneArg(loop_state(loop->state)->handles.asyncio_Handle,
                                                      loop->state->names._run, op));
}

/* With what a step of a Task costs. */
static int
loop_run_item_counted(Loop *loop, uintptr_t item)
{
    if (!loop->task_accounting || (item & READY_KIND_MASK) != READY_TASK) {
        return loop_run_item(loop, item);
    }
    int result = record_step(loop, ready_object(item), task_run);
    COUNT(loop->counters->task_steps, 1);    /* when it is done, as all items are */
    return result;
}

/* What asyncio has for a step of a Task, for its reports: a Handle that knows where it was made. New
 * reference or NULL. */
static PyObject *
handle_of_step(Loop *loop, PyObject *task)
{
    PyObject *place = record_take_place(task, loop);
    Handle *handle = place == NULL ? NULL : task_step_handle(loop, (Task *)task);
    if (handle != NULL && handle->has_extra) {
        Py_XSETREF(handle_extra(handle)->source_traceback, Py_NewRef(place));
    }
    PyErr_Clear();
    Py_XDECREF(place);
    return (PyObject *)handle;
}

static int
loop_run_item_debug(Loop *loop, uintptr_t item)
{
    double started = loop_time(loop);
    PyObject *op = ready_object(item);
    PyObject *outer = Py_XNewRef(loop->current_handle);    /* of a run around this one */
    loop_set_current_handle_steal(loop, (item & READY_KIND_MASK) == READY_TASK
                                            ? handle_of_step(loop, op)
                                            : Py_NewRef(op));
    int result = loop_run_item_counted(loop, item);
    loop_set_current_handle_steal(loop, outer);
    if (LIKELY(result == 0)) {
        loop_warn_slow(loop, op, started);
    }
    return result < 0 || loop->run->exception != NULL ? -1 : 0;
}

static int
loop_run_item_somehow(Loop *loop, uintptr_t item)
{
    return FLAG(loop->debug) ? loop_run_item_debug(loop, item) : loop_run_item_counted(loop, item);
}

int
loop_run_item_carefully(Loop *loop, uintptr_t item, bool event)
{
    return loop->trace == NULL ? loop_run_item_somehow(loop, item)
                               : trace_run(loop, item, event, loop_run_item_somehow);
}

void
loop_run_handle(Loop *loop, Handle *handle)
{
    uintptr_t item = (uintptr_t)Py_NewRef(handle) | READY_HANDLE;
    int result = LIKELY(!FLAG(loop->careful)) ? loop_run_item(loop, item)
                                              : loop_run_item_carefully(loop, item, true);
    Py_DECREF(handle);
    if (UNLIKELY(result < 0)) {
        loop_propagate(loop);
    }
}
