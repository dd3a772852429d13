/* operation.c - see operation.h.
 *
 * Invariants:
 *   - the watch is active only while the future is pending;
 *   - the future knows its Operation (future->watcher) as long as the Operation holds it.
 *
 * A closed socket: epoll says nothing when a descriptor is closed that it watches, so that
 * an Operation would wait for ever. Operations that wait are in a list of the loop, and
 * operation_check_waiting() asks their sockets now and then. */
#include "ops/operation_inside.h"

#include "base/args.h"
#include "base/checked.h"
#include "base/tuning.h"
#include "loop/owner.h"
#include "loop/timer.h"
#include "tasks/future.h"
#include "net/transport.h"

#include <errno.h>
#include <fcntl.h>

/* A socket closed under an Operation is noticed within this time, by a loop that runs. */
#define CHECK_INTERVAL_NS TUNED(CHECK_INTERVAL_NS, INT64_C(100000000))

/* -- waiting ------------------------------------------------------------------------- */

/* Has another one the place that a program's _add_reader() or _add_writer() gave, or nobody? -1 with an exception */
static int
handle_is_cancelled(PyObject *handle)
{
    PyObject *cancelled = handle == Py_None ? Py_NewRef(Py_False)
                                            : PyObject_CallMethod(handle, "cancelled", NULL);
    int result = cancelled == NULL ? -1 : PyObject_IsTrue(cancelled);
    Py_XDECREF(cancelled);
    return result;
}

/* From whoever has its place now asyncio takes nothing away. Apart, because hardly any has such a handle (guarded
 * path: sock). */
static __attribute__((noinline)) void
operation_give_back(Operation *op)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *handle = op->handle;
    op->handle = NULL;
    if (watch_is_active(&op->watch)) {
        int gone = handle_is_cancelled(handle);
        if (gone < 0) {
            loop_report(op->loop, "Exception in callback of a future that waited for a socket", NULL, NULL);
        }
        if (gone != 0) {
            watch_abandon(&op->watch);
        }
    }
    Py_DECREF(handle);
    PyErr_SetRaisedException(exc);
}

static inline void
operation_stop_waiting(Operation *op)
{
    list_remove(&op->waiting);
    if (UNLIKELY(op->handle != NULL)) {
        operation_give_back(op);
    }
    watch_stop(&op->watch);
    if (op->timer != NULL) {
        timer_cancel(op->timer);
        Py_CLEAR(op->timer);
    }
}

static void
operation_drop_future(Operation *op)
{
    if (op->future != NULL) {
        if (op->kind->leave != NULL) {
            op->kind->leave(op);
        }
        {
            GUARD(op->future);    /* whoever reads it there has us until then */
            SHARED_STORE(op->future->watcher, NULL);
        }
        Py_CLEAR(op->future);
    }
}

void
operation_cancelled(PyObject *watcher)
{
    Operation *op = (Operation *)watcher;
    if (!watch_is_active(&op->watch) && op->timer == NULL) {
        return;    /* nothing of the loop holds it: another thread may be about to free it */
    }
    Py_INCREF(op);
    operation_stop_waiting(op);
    Py_DECREF(op);
}

static int
operation_wake(Operation *op)
{
    operation_stop_waiting(op);
    return op->future == NULL ? 0 : future_set_result_if_pending(op->future, Py_None);
}

static void
operation_ready(struct watch *watch, int revents)
{
    Operation *op = container_of(watch, Operation, watch);
    Loop *loop = (Loop *)Py_NewRef(watch_loop(watch));
    op->descriptor_gone = (revents & EV_ERROR) != 0;
    if (operation_wake(op) < 0) {
        loop_report(loop, "An operation on a socket could not go on", NULL, NULL);
    }
    Py_DECREF(loop);
}

static int
operation_retry(PyObject *owner, PyObject *ignored UNUSED)
{
    Py_INCREF(owner);    /* the timer lets go of it */
    int result = operation_wake((Operation *)owner);
    Py_DECREF(owner);
    return result;
}

static bool
socket_is_closed(Operation *op)
{
    PyCFunction fileno = ops_state(op->state)->sockops.socket_fileno;
    if (fileno == NULL || op->sock == NULL
        || !Py_IS_TYPE(op->sock, (PyTypeObject *)op->state->standard.socket_class)) {
        return fcntl(op->fd, F_GETFD) < 0 && errno == EBADF;
    }
    PyObject *number = fileno(op->sock, NULL);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        PyErr_Clear();
    }
    return fd != op->fd;
}

static void
operation_check_all(Loop *loop)
{
    struct list_node *head = &ops_loop(loop)->waiting_operations;
    for (struct list_node *node = head->next; node != head;) {
        Operation *op = container_of(node, Operation, waiting);
        node = node->next;
        if (op->watch.removed) {
            list_remove(&op->waiting);    /* asked for: it waits until it is cancelled */
            continue;
        }
        if (!socket_is_closed(op)) {
            continue;
        }
        Py_INCREF(op);
        op->descriptor_gone = true;
        if (operation_wake(op) < 0) {
            loop_report(loop, "An operation on a socket could not go on", NULL, NULL);
        }
        Py_DECREF(op);
        node = head->next;    /* the list may be another one */
    }
}

/* Before each poll: how long it may last. Whatever ran since the last one may have closed a
 * socket. After a check the loop may sleep as long as it likes, for nothing runs then. */
int64_t
operation_check_waiting(Loop *loop, int64_t now, int64_t wait_ns)
{
    int64_t since = now - ops_loop(loop)->operations_checked_ns;
    if (since < CHECK_INTERVAL_NS) {
        int64_t left = CHECK_INTERVAL_NS - since;
        return wait_ns > left ? left : wait_ns;
    }
    ops_loop(loop)->operations_checked_ns = now;
    operation_check_all(loop);
    return ready_length(&loop->ready) > 0 ? 0 : wait_ns;
}

int
operation_ask_fileno(Operation *op)
{
    if (op->number == NULL) {
        op->number = PyObject_CallMethodNoArgs(op->sock, op->state->names.fileno);
    }
    return op->number == NULL ? -1 : 0;
}

/* What asyncio's selector would say of the descriptor. Of a plain socket nothing: the attempt before
 * has just used it. 0 / -1 */
static int
operation_check_descriptor(Operation *op)
{
    if (UNLIKELY(op->fd < 0)) {
        if (operation_ask_fileno(op) < 0) {
            return -1;
        }
        op->fd = args_descriptor(op->number);
        if (op->fd < 0) {
            return -1;
        }
    }
    if (UNLIKELY(op->kind->beside_transport)) {
        return 0;
    }
    /* What was replaced is known: the method has looked. */
    if (UNLIKELY(SHARED_LOAD(op->loop->overrides.replaced) & LOOP_BIT(_ensure_fd_no_transport))) {
        PyObject *result = PyObject_CallMethod((PyObject *)op->loop, "_ensure_fd_no_transport", "i", op->fd);
        Py_XDECREF(result);
        if (result == NULL) {
            return -1;
        }
    }
    else if (UNLIKELY(transport_ensure_free(op->loop, op->fd, NULL) < 0)) {
        return -1;
    }
    return LIKELY(Py_IS_TYPE(op->sock, (PyTypeObject *)op->state->standard.socket_class))
               ? 0
               : watch_check_pollable(op->fd);
}

/* Waits as `what` says: PYGEN_NEXT with the future to yield, or PYGEN_ERROR. */
static PySendResult
operation_wait(Operation *op, enum attempt what, PyObject **result)
{
    Loop *loop = op->loop;
    if (what != ATTEMPT_WAIT_RETRY && UNLIKELY(operation_check_descriptor(op) < 0)) {
        return PYGEN_ERROR;
    }
    Future *future = (Future *)future_new(loop->state, (PyObject *)loop);
    if (future == NULL) {
        return PYGEN_ERROR;
    }
    if (what == ATTEMPT_WAIT_RETRY) {
        double delay = OPERATION_RETRY_SECONDS * (1 << op->retries);
        op->timer = loop_call_later_native(loop, delay, operation_retry, (PyObject *)op, NULL);
        if (op->timer == NULL) {
            Py_DECREF(future);
            return PYGEN_ERROR;
        }
        op->retries += op->retries < OPERATION_RETRY_DOUBLINGS;
    }
    else {
        /* remove_writer() refuses the descriptor of a transport */
        enum watch_user user = LIKELY(!op->kind->beside_transport) ? WATCH_OPERATION : WATCH_TRANSPORT;
        watch_init(&op->watch, loop, (PyObject *)op, user, op->fd,
                   what == ATTEMPT_WAIT_READ ? EV_READ : EV_WRITE, operation_ready);
        op->future = future;    /* a method in the place of ours may say at once that it is ready */
        int started = LIKELY(!op->kind->beside_transport) ? watch_take_place(&op->watch, &op->handle)
                                                          : watch_start(&op->watch);
        if (UNLIKELY(started < 0)) {
            Py_CLEAR(op->future);
            return PYGEN_ERROR;
        }
        if (LIKELY(watch_is_active(&op->watch))) {
            list_append(&ops_loop(loop)->waiting_operations, &op->waiting);
        }
    }
    SHARED_STORE(future->watcher, (PyObject *)op);
    SHARED_STORE(future->blocking, true);
    op->future = future;
    *result = Py_NewRef(future);
    return PYGEN_NEXT;
}

/* -- going on --------------------------------------------------------------------------- */

void
operation_finish(Operation *op)
{
    operation_stop_waiting(op);
    operation_drop_future(op);
    Py_CLEAR(op->inner);
    Py_CLEAR(op->value);
    Py_CLEAR(op->sock);
    Py_CLEAR(op->number);
    for (int i = 0; i < op->nargs; i++) {
        Py_CLEAR(op->args[i]);
    }
    shared_loop_drop((PyObject *)op, &op->loop);
}

static PySendResult
operation_go_on(Operation *op, PyObject **result)
{
    enum attempt outcome = ATTEMPT_AWAIT;
    while (outcome == ATTEMPT_AWAIT) {
        if (op->inner != NULL) {
            PyObject *value;
            PySendResult sent = PyIter_Send(op->inner, Py_None, &value);
            if (sent == PYGEN_NEXT) {
                *result = value;
                return PYGEN_NEXT;
            }
            if (sent == PYGEN_ERROR) {
                break;
            }
            Py_CLEAR(op->inner);
            Py_XSETREF(op->value, value);
        }
        outcome = op->kind->attempt(op, result);
        VERIFY((outcome == ATTEMPT_FAILED) == (PyErr_Occurred() != NULL));
        VERIFY((outcome == ATTEMPT_DONE) == (*result != NULL));
    }
    switch (outcome) {
    case ATTEMPT_DONE:
        operation_finish(op);
        return PYGEN_RETURN;
    case ATTEMPT_WAIT_READ:
    case ATTEMPT_WAIT_WRITE:
    case ATTEMPT_WAIT_RETRY:
        if (LIKELY(operation_wait(op, outcome, result) == PYGEN_NEXT)) {
            return PYGEN_NEXT;
        }
        break;
    case ATTEMPT_WAIT_FUTURE:
        SHARED_STORE(op->future->blocking, true);
        *result = Py_NewRef(op->future);
        return PYGEN_NEXT;
    default:
        break;
    }
    operation_finish(op);
    return PYGEN_ERROR;
}

/* May it be resumed? 0, or -1 with what is wrong. */
static int
operation_check_resumable(Operation *op)
{
    if (UNLIKELY(op->running)) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (UNLIKELY(op->loop == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    return 0;
}

/* The future that we yielded is done: how did it end? 0, or -1 with what to raise. */
static int
operation_take_future(Operation *op)
{
    Future *future = op->future;
    if (UNLIKELY(future_is_pending(future))) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return -1;
    }
    PyObject *error = NULL;
    bool failed = false;
    uint8_t outcome = SHARED_LOAD(future->future_state);
    if (UNLIKELY(op->descriptor_gone && outcome >= FUTURE_FINISHED)) {
        errno = EBADF;
        PyErr_SetFromErrno(PyExc_OSError);
        error = PyErr_GetRaisedException();
        failed = true;
    }
    else if (UNLIKELY(outcome == FUTURE_CANCELLED || outcome == FUTURE_FAILED)) {
        failed = true;
        if (future_take(future, &error) < 0) {
            error = PyErr_GetRaisedException();
        }
    }
    operation_drop_future(op);
    if (LIKELY(!failed)) {
        return 0;
    }
    operation_finish(op);
    PyErr_SetRaisedException(error);
    return -1;
}

static PySendResult
operation_send(Operation *op, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (operation_check_resumable(op) < 0) {
        return PYGEN_ERROR;
    }
    if (UNLIKELY(!op->started && value != Py_None)) {
        PyErr_SetString(PyExc_TypeError,
                        "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    if (op->future != NULL && operation_take_future(op) < 0) {
        return PYGEN_ERROR;
    }
    op->running = true;
    Py_INCREF(op);    /* an attempt may run Python */
    PySendResult sent = operation_go_on(op, result);
    op->started = true;
    op->running = false;
    Py_DECREF(op);
    return sent;
}

#ifdef Py_GIL_DISABLED
PySendResult
Operation_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    struct claim claim;
    *result = NULL;
    if (loop_claim_steal(&claim, shared_loop_ref(self, &((Operation *)self)->loop)) < 0) {
        return PYGEN_ERROR;
    }
    PySendResult sent = operation_send((Operation *)self, value, result);
    loop_unclaim(&claim);
    return sent;
}
#else
PySendResult
Operation_am_send(PyObject *self, PyObject *value, PyObject **result)
{
    return operation_send((Operation *)self, value, result);
}
#endif

PyObject *
Operation_iternext(PyObject *self)
{
    PyObject *result;
    if (Operation_am_send(self, Py_None, &result) != PYGEN_RETURN) {
        return result;
    }
    if (result == Py_None) {
        Py_DECREF(result);
    }
    else {
        stop_iteration_bytes_steal(((Operation *)self)->state, result);
    }
    return NULL;
}

PyObject *
Operation_send(PyObject *self, PyObject *value)
{
    PyObject *result;
    if (Operation_am_send(self, value, &result) != PYGEN_RETURN) {
        return result;
    }
    stop_iteration_steal(result);
    return NULL;
}

/* -- being stopped ------------------------------------------------------------------------ */

/* throw() of the inner awaitable: what it yields, or NULL with an exception. */
static PyObject *
operation_throw_inner(Operation *op, PyObject *exc)
{
    op->running = true;
    Py_INCREF(op);
    PyObject *result = PyObject_CallMethodOneArg(op->inner, op->loop->state->names.throw, exc);
    if (result == NULL && PyErr_ExceptionMatches(PyExc_StopIteration)) {
        PyObject *stop = PyErr_GetRaisedException();
        PyObject *value = ((PyStopIterationObject *)stop)->value;
        Py_XSETREF(op->value, Py_NewRef(value == NULL ? Py_None : value));
        Py_DECREF(stop);
        Py_CLEAR(op->inner);
        if (operation_go_on(op, &result) == PYGEN_RETURN) {
            stop_iteration_steal(result);
            result = NULL;
        }
    }
    else if (result == NULL) {
        operation_finish(op);
    }
    op->running = false;
    Py_DECREF(op);
    return result;
}

static PyObject *
operation_throw(Operation *op, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        return PyErr_Format(PyExc_TypeError, "throw expected at %s, got %zd",
                            nargs < 1 ? "least 1 argument" : "most 3 arguments", nargs);
    }
    PyObject *exc = exception_from_throw(args[0], nargs > 1 ? args[1] : NULL,
                                         nargs > 2 ? args[2] : NULL);
    if (exc == NULL) {
        return NULL;
    }
    if (operation_check_resumable(op) < 0) {
        Py_DECREF(exc);
        return NULL;
    }
    if (op->inner != NULL) {
        PyObject *result = operation_throw_inner(op, exc);
        Py_DECREF(exc);
        return result;
    }
    operation_finish(op);
    PyErr_SetRaisedException(exc);
    return NULL;
}

PyObject *
Operation_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct claim claim;
    Loop *loop = shared_loop_ref(self, &((Operation *)self)->loop);
    if (loop_claim_steal(&claim, loop) < 0) {
        return NULL;
    }
    PyObject *result = operation_throw((Operation *)self, args, nargs);
    loop_unclaim(&claim);
    return result;
}

PyObject *
Operation_close(PyObject *self, PyObject *ignored UNUSED)
{
    OWN_LOOP_OF(self, Operation);
    Operation *op = (Operation *)self;
    if (op->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return NULL;
    }
    PyObject *result = Py_NewRef(Py_None);
    if (op->inner != NULL) {
        op->running = true;
        Py_SETREF(result, PyObject_CallMethodNoArgs(op->inner, op->loop->state->names.close));
        op->running = false;
    }
    operation_finish(op);
    return result;
}

enum attempt
operation_await_steal(Operation *op, PyObject *awaitable)
{
    if (awaitable == NULL) {
        return ATTEMPT_FAILED;
    }
    PyAsyncMethods *async = Py_TYPE(awaitable)->tp_as_async;
    if (async == NULL || async->am_await == NULL) {
        PyErr_Format(PyExc_TypeError, "'%.200s' object can't be awaited",
                     Py_TYPE(awaitable)->tp_name);
    }
    else {
        op->inner = async->am_await(awaitable);
    }
    Py_DECREF(awaitable);
    return op->inner == NULL ? ATTEMPT_FAILED : ATTEMPT_AWAIT;
}
