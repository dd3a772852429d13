/* insides.c - the ring, the heap and the poll, for asyncloop/_insides.py. */
#include "loop/owner.h"

#include "loop/current.h"
#include "loop/handle_inside.h"
#include "loop/inbox.h"
#include "loop/owed.h"
#include "loop/poll.h"
#include "loop/timer.h"
#include "loop/watch.h"
#include "tasks/future.h"
#include "tasks/future_waiters.h"
#include "tasks/task.h"
#include "insides.h"
#include "item.h"
#include "iteration.h"
#include "life.h"
#include "readers.h"

/* -- handles of somebody else's ------------------------------------------------------ */

/* As asyncio does where it takes a timer out of its heap. Keeps the error indicator. */
static void
foreign_timer_left(PyObject *handle)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (PyObject_SetAttrString(handle, "_scheduled", Py_False) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(exc);
}

/* A timer that is in the heap for an asyncio.TimerHandle. */
static int
foreign_timer_run(PyObject *handle, PyObject *loop)
{
    foreign_timer_left(handle);
    if (loop_run_foreign((Loop *)loop, handle) < 0) {
        loop_propagate((Loop *)loop);
    }
    return 0;
}

/* What a user is to see of a handle of ours; borrowed. */
static PyObject *
handle_as_seen(Handle *handle)
{
    bool stands_for = handle->is_native && handle->how.native == foreign_timer_run
                      && handle->callback != NULL;
    return stands_for ? handle->callback : (PyObject *)handle;
}

/* -- the ring --------------------------------------------------------------------------- */

static int
done_run(PyObject *future, PyObject *arg UNUSED)
{
    Loop *loop = ((Future *)future)->own_loop;
    return loop == NULL ? 0 : future_run_left_callbacks(loop, (Future *)future);
}

/* A Handle in place of a Task or Future in the ring (new reference), or NULL. */
static Handle *
handle_for(Loop *loop, uintptr_t item)
{
    PyObject *op = ready_object(item);
    if ((item & READY_KIND_MASK) == READY_DONE) {
        return handle_new_native(loop, done_run, op, NULL);
    }
    return task_step_handle(loop, (Task *)op);
}

static uintptr_t *
ring_slot(Loop *loop, size_t index)
{
    struct ready *ready = &loop->ready;
    return index < ready_length(ready) ? &ready->items[(ready->head + index) & ready->mask] : NULL;
}

/* What is in the ring at `index`, as a user is to see it: a new reference, or NULL with MemoryError. */
static PyObject *
ring_look(Loop *loop, size_t index)
{
    uintptr_t item = *ring_slot(loop, index);
    PyObject *object = ready_object(item);
    enum ready_kind kind = item & READY_KIND_MASK;
    if (kind != READY_TASK && kind != READY_DONE) {
        return Py_NewRef(kind == READY_HANDLE ? handle_as_seen((Handle *)object) : object);
    }
    Py_INCREF(object);
    Handle *handle = handle_for(loop, item);
    uintptr_t *slot = ring_slot(loop, index);
    /* To make one may run the collector, and that anything. */
    if (handle != NULL && slot != NULL && *slot == item) {
        *slot = (uintptr_t)Py_NewRef(handle) | READY_HANDLE;
        Py_DECREF(object);
    }
    else if (handle != NULL) {
        handle_track(handle);
    }
    Py_DECREF(object);
    return (PyObject *)handle;
}

PyObject *
Loop__ready_length(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    inbox_drain_all(loop);
    return PyLong_FromSize_t(ready_length(&loop->ready));
}

PyObject *
Loop__ready_list(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    inbox_drain_all(loop);
    PyObject *list = PyList_New(0);
    /* By position: the ring may change when an object is made. */
    for (size_t i = 0; list != NULL && i < ready_length(&loop->ready); i++) {
        PyObject *seen = ring_look(loop, i);
        if (seen == NULL || PyList_Append(list, seen) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(seen);
    }
    return list;
}

/* Whatever a user puts there; twice, perhaps. 0 / -1 */
static int
ring_push(Loop *loop, PyObject *item)
{
    bool ours = handle_check(loop->state, item);
    if (ours) {
        handle_track((Handle *)item);
    }
    return loop_push_steal(loop, Py_NewRef(item), ours ? READY_HANDLE : READY_FOREIGN);
}

/* From any thread, as to a deque: BaseEventLoop's own call_soon_threadsafe() does that. */
PyObject *
Loop__ready_push(PyObject *op, PyObject *item)
{
    Loop *loop = (Loop *)op;
    struct claim claim;
    bool claimed = loop_claim(&claim, loop) == 0;
    if (LIKELY(claimed)) {
        inbox_drain_all(loop);
    }
    else {
        PyErr_Clear();
    }
    int result = ring_push(loop, item);
    if (LIKELY(claimed)) {
        loop_unclaim(&claim);
    }
    return none_or_error(result);
}

/* The ring's reference of an item that a user has taken out. */
static void
drop_taken(uintptr_t item)
{
    if ((item & READY_KIND_MASK) == READY_HANDLE) {
        handle_left((Handle *)ready_object(item));
    }
    Py_DECREF(ready_object(item));
}

/* The loop's own reference goes to the caller. */
PyObject *
Loop__ready_pop(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    inbox_drain_all(loop);
    if (ready_length(&loop->ready) == 0) {
        PyErr_SetString(PyExc_IndexError, "pop from an empty deque");
        return NULL;
    }
    PyObject *seen = ring_look(loop, 0);
    if (seen != NULL && ready_length(&loop->ready) > 0) {
        drop_taken(ready_pop(&loop->ready));
    }
    return seen;
}

/* All of it, by a list of what a user has seen there or made. */
PyObject *
Loop__ready_replace(PyObject *op, PyObject *items)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    if (!PyList_Check(items)) {
        PyErr_SetString(PyExc_TypeError, "a list is expected");
        return NULL;
    }
    inbox_drain_all(loop);
    size_t count = (size_t)PyList_GET_SIZE(items);
    size_t before = ready_length(&loop->ready);
    if (ready_reserve(&loop->ready, count) < count) {
        return PyErr_NoMemory();
    }
    for (size_t i = 0; i < count && i < (size_t)PyList_GET_SIZE(items); i++) {
        if (ring_push(loop, PyList_GET_ITEM(items, (Py_ssize_t)i)) < 0) {
            return NULL;
        }
    }
    /* Not discarded, as ready_clear() does: who has taken it out may still run it. */
    while (before-- > 0 && ready_length(&loop->ready) > 0) {
        drop_taken(ready_pop(&loop->ready));
    }
    Py_RETURN_NONE;
}

/* -- the heap ----------------------------------------------------------------------------- */

PyObject *
Loop__timer_list(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    PyObject *list = PyList_New(0);
    GUARD(loop);    /* another thread may schedule meanwhile */
    /* A heap of four children is no heap of two: asyncloop/_insides.py sorts. */
    for (size_t i = 0; list != NULL && i < loop->timers.length; i++) {
        if (PyList_Append(list, handle_as_seen(&loop->timers.heap[i].timer->handle)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static bool
timer_is_ours(Loop *loop, PyObject *handle)
{
    return Py_IS_TYPE(handle, loop_state(loop->state)->types.TimerHandle)
           && ((TimerHandle *)handle)->handle.loop == loop;
}

PyObject *
Loop__timer_put(PyObject *op, PyObject *handle)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    if (loop_check_closed(loop) < 0) {
        return NULL;
    }
    if (timer_is_ours(loop, handle) && !((TimerHandle *)handle)->handle.waits) {
        TimerHandle *timer = (TimerHandle *)handle;
        handle_track(&timer->handle);
        return timer_schedule(loop, timer) < 0 ? NULL : Py_NewRef(Py_None);
    }
    /* Somebody else's, or ours for the second time: one in the heap that stands for it. */
    PyObject *when = PyObject_GetAttrString(handle, "_when");
    double seconds = when == NULL ? -1. : PyFloat_AsDouble(when);
    Py_XDECREF(when);
    if (seconds == -1. && PyErr_Occurred()) {
        return NULL;
    }
    TimerHandle *timer = timer_handle_new_native(loop, foreign_timer_run, handle, op);
    if (timer == NULL) {
        return NULL;
    }
    timer->when = seconds;
    int result = timer_schedule(loop, timer);
    Py_DECREF(timer);
    return result < 0 ? NULL : Py_NewRef(Py_None);
}

/* The timer that is in the heap for it; borrowed, or NULL. */
static TimerHandle *
timer_standing_for(Loop *loop, PyObject *handle)
{
    GUARD(loop);
    for (size_t i = 0; i < loop->timers.length; i++) {
        TimerHandle *timer = loop->timers.heap[i].timer;
        if (handle_as_seen(&timer->handle) == handle) {
            return timer;
        }
    }
    return NULL;
}

PyObject *
Loop__timer_take(PyObject *op, PyObject *handle)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    bool waits = timer_is_ours(loop, handle) && ((TimerHandle *)handle)->handle.waits;
    TimerHandle *timer = waits ? (TimerHandle *)handle : timer_standing_for(loop, handle);
    if (timer != NULL) {
        handle_track(&timer->handle);
        timer_unschedule(loop, timer);
    }
    Py_RETURN_NONE;
}

void
insides_timer_cancelled(Loop *loop, PyObject *handle)
{
    if (!Py_IS_TYPE(handle, loop_state(loop->state)->types.TimerHandle) && loop_is_mine(loop)) {
        TimerHandle *timer = timer_standing_for(loop, handle);
        if (timer != NULL) {
            Py_INCREF(timer);
            timer_cancel(timer);
            Py_DECREF(timer);
            foreign_timer_left(handle);
        }
    }
}

/* -- the poll ------------------------------------------------------------------------------- */

/* None: for ever. 0, or -1 with an exception. */
static int
nanoseconds_of(PyObject *timeout, int64_t *wait_ns)
{
    *wait_ns = TIMER_NEVER;
    if (timeout == Py_None) {
        return 0;
    }
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1. && PyErr_Occurred()) {
        return -1;
    }
    *wait_ns = seconds > 0. ? timer_deadline(seconds) : 0;
    return 0;
}

/* Polls, whether the loop runs or not, and gives the events of it as [(descriptor, event)]: they are
 * not told by themselves. */
PyObject *
Loop__select(PyObject *op, PyObject *timeout)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    int64_t wait_ns;
    if (loop_check_closed(loop) < 0 || nanoseconds_of(timeout, &wait_ns) < 0) {
        return NULL;
    }
    struct hand hand;
    if (loop_begin_by_hand(loop, &hand) < 0) {
        return NULL;
    }
    loop_end_turn_by_hand(loop, hand.run);    /* asyncio's own, that ended before this poll */
    loop->slept_ns = 0;    /* of an earlier poll: the time begins now */
    if (loop_look(loop, wait_ns) < 0 || PyErr_CheckSignals() < 0) {
        loop_propagate(loop);
    }
    return loop_end_by_hand(loop, &hand) < 0 ? NULL : readers_take_events(loop);
}

PyObject *
Loop__watched(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    return readers_list((Loop *)op);
}

PyObject *
Loop__transport_dict(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    return watch_transports((Loop *)op);
}

PyObject *
Loop__post_event(PyObject *op, PyObject *event)
{
    OWN_LOOP(op);
    int fd, events;
    if (!PyArg_Parse(event, "(ii)", &fd, &events)
        || readers_post_event((Loop *)op, fd, events) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}
