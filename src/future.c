/* future.c - the state of a Future, its waiters, and the type.
 *
 * Every comparison, repr and call may run code of the user's, which may do anything to
 * the future: what is used across such a call is held, and fields are read again after. */
#include "future.h"

#include "args.h"
#include "freelist.h"

PyObject *
future_not_initialised(void)
{
    PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
    return NULL;
}

static void
invalid_state(const Future *self, const char *message)
{
    PyObject *type = self->state_ptr->asyncio_InvalidStateError;
    PyErr_SetString(type, self->loop == NULL ? "Future object is not initialized." : message);
}

/* -- life ------------------------------------------------------------------------ */

static int
future_set_source_traceback(Future *self)
{
    PyObject *frame = (PyObject *)PyEval_GetFrame();
    if (frame == NULL || Py_IsFinalizing()) {
        return 0;
    }
    Py_INCREF(frame);
    PyObject *traceback = PyObject_CallOneArg(self->state_ptr->extract_stack, frame);
    Py_DECREF(frame);
    Py_XSETREF(self->source_traceback, traceback);
    return traceback == NULL ? -1 : 0;
}

static int
loop_object_debugs(struct state *state, PyObject *loop)
{
    PyObject *debug = PyObject_CallMethodNoArgs(loop, state->names.get_debug);
    if (debug == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(debug);
    Py_DECREF(debug);
    return result;
}

static inline void
future_bind(Future *self, PyObject *loop)
{
    self->loop = Py_NewRef(loop);
    self->own_loop = loop_check(self->state_ptr, loop) ? (Loop *)loop : NULL;
    SHARED_STORE(self->future_state, FUTURE_PENDING);
}

int
future_init(Future *self, PyObject *loop)
{
    struct state *state = self->state_ptr;
    if (loop == NULL || loop == Py_None) {
        loop = PyObject_CallNoArgs(state->events_get_event_loop);
        if (loop == NULL) {
            return -1;
        }
    }
    else {
        Py_INCREF(loop);
    }
    if (UNLIKELY(self->loop != NULL || self->future_state != FUTURE_UNINITIALISED)) {
        future_clear(self);    /* __init__ called again */
    }
    bool own = loop_check(state, loop);
    int debug = own ? SHARED_LOAD(((Loop *)loop)->debug) : loop_object_debugs(state, loop);
    if (debug < 0) {
        Py_DECREF(loop);
        return -1;
    }
    /* get_debug() may have initialised it in between */
    Py_XDECREF(self->loop);
    self->loop = loop;
    self->own_loop = own ? (Loop *)loop : NULL;
    SHARED_STORE(self->future_state, FUTURE_PENDING);
    return UNLIKELY(debug) ? future_set_source_traceback(self) : 0;
}

PyObject *
future_new(struct state *state, PyObject *loop)
{
    Future *self = (Future *)freelist_take(&state->free_futures, state->FutureType);
    if (self == NULL) {
        return NULL;
    }
    self->state_ptr = state;
    if (LIKELY(loop_check(state, loop) && !SHARED_LOAD(((Loop *)loop)->debug))) {
        future_bind(self, loop);
    }
    else if (future_init(self, loop) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

bool
future_is_ours(struct state *state, PyObject *op)
{
    return future_check_native(state, op) || PyObject_TypeCheck(op, state->FutureType)
           || PyObject_TypeCheck(op, state->TaskType);
}

int
future_traverse(Future *self, visitproc visit, void *arg)
{
    Py_VISIT(self->loop);
    Py_VISIT(self->result);
    Py_VISIT(self->callback0);
    Py_VISIT(self->context0);
    Py_VISIT(self->callbacks);
    Py_VISIT(self->exception);
    Py_VISIT(self->exception_traceback);
    Py_VISIT(self->source_traceback);
    Py_VISIT(self->cancel_message);
    Py_VISIT(self->cancelled_error);
    return 0;
}

void
future_clear(Future *self)
{
    SHARED_STORE(self->future_state, FUTURE_UNINITIALISED);
    self->parked0 = false;
    SHARED_STORE(self->blocking, false);
    SHARED_STORE(self->log_traceback, false);
    self->own_loop = NULL;
    Py_CLEAR(self->loop);
    Py_CLEAR(self->result);
    Py_CLEAR(self->callback0);
    Py_CLEAR(self->context0);
    Py_CLEAR(self->callbacks);
    Py_CLEAR(self->exception);
    Py_CLEAR(self->exception_traceback);
    Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->cancel_message);
    Py_CLEAR(self->cancelled_error);
}

bool
future_is_deep(const Future *self)
{
    return self->callback0 != NULL || self->callbacks != NULL || self->exception != NULL
           || self->cancelled_error != NULL
           || (self->result != NULL && Py_REFCNT(self->result) == 1
               && PyType_IS_GC(Py_TYPE(self->result)));
}

/* False if anything in the base's own fields was filled: by `future_add_to_awaited_by`,
 * an attribute in the instance's dict, or a method of the base that was called unbound. */
static inline bool
future_base_is_clean(const Future *self)
{
    const uint64_t *word = (const uint64_t *)(const void *)(self->asyncio_fields + sizeof(PyObject));
    uint64_t any = 0;
    for (size_t i = 0; i < (ASYNCIO_FUTURE_SIZE - sizeof(PyObject)) / sizeof(uint64_t); i++) {
        any |= word[i];
    }
    return any == 0;
}

void
future_free(Future *self, struct freelist *list, PyTypeObject *exact,
            const struct base_slots *base)
{
    PyObject *op = (PyObject *)self;
    PyTypeObject *type = Py_TYPE(op);
    if (LIKELY(type == exact)) {
#if PY_VERSION_HEX >= 0x030D0000
        PyObject_ClearManagedDict(op);    /* before the header, not in the base's fields */
#endif
        if (LIKELY(future_base_is_clean(self))) {
            if (!freelist_keep(list, op)) {
                type->tp_free(op);
            }
            Py_DECREF(type);
            return;
        }
    }
    PyObject_GC_Track(op);    /* the base's dealloc wants it so */
    base->dealloc(op);
#if PY_VERSION_HEX < 0x030C0000
    Py_DECREF(type);          /* a static base knows nothing of heap types */
#endif
}

/* -- waking ------------------------------------------------------------------------ */

int
future_check_own_loop(Loop *loop)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    return SHARED_LOAD(loop->debug) ? loop_check_thread(loop) : 0;
}

int
future_call_soon(Future *self, PyObject *callback, PyObject *argument, PyObject *context)
{
    Loop *loop = self->own_loop;
    if (LIKELY(loop != NULL)) {
        if (UNLIKELY(SHARED_LOAD(loop->debug)) && future_check_own_loop(loop) < 0) {
            return -1;
        }
        Handle *handle = loop_call_soon(loop, callback, &argument, argument != NULL, context);
        Py_XDECREF(handle);
        return handle == NULL ? -1 : 0;
    }
    struct state *state = self->state_ptr;
    PyObject *loop_object = Py_NewRef(self->loop);
    PyObject *args[4] = {loop_object, callback};
    size_t nargs = 2;
    if (argument != NULL) {
        args[nargs++] = argument;
    }
    args[nargs] = context;
    PyObject *result = PyObject_VectorcallMethod(state->names.call_soon, args, nargs,
                                                 context == NULL ? NULL : state->keywords_context);
    Py_DECREF(loop_object);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* One waiter; `context` NULL: a parked Task. Both borrowed. */
static int
future_wake_one(Future *self, PyObject *callback, PyObject *context)
{
    if (context == NULL) {
        return future_push_task_steal(self->own_loop, Py_NewRef(callback));
    }
    return future_call_soon(self, callback, (PyObject *)self, context);
}

/* No memory for the Handle of a callback: what is left of them comes out of the ring by way of the
 * future, which takes a place and nothing more. True if the current exception is about that, and
 * gone. */
static bool
future_wake_later(Future *self)
{
    if (self->own_loop == NULL || !PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return false;
    }
    PyObject *exc = PyErr_GetRaisedException();
    bool comes = loop_push_steal(self->own_loop, Py_NewRef(self), READY_DONE) == 0;
    if (!comes && PyErr_ExceptionMatches(PyExc_MemoryError)
        && PyObject_TypeCheck((PyObject *)self, self->state_ptr->TaskType)) {
        self->state_ptr->owe_task(self->own_loop, (PyObject *)self);
        comes = true;
    }
    PyErr_Clear();
    if (comes) {
        Py_XDECREF(exc);
    }
    else {
        PyErr_SetRaisedException(exc);
    }
    return comes;
}

/* After the first failure (a closed loop) the others still come: the exception of the first is
 * kept. */
static int
future_wake_next(Future *self, PyObject *callback, PyObject *context, PyObject **failure)
{
    if (future_wake_one(self, callback, context) == 0) {
        return 0;
    }
    if (future_wake_later(self)) {
        return 1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (*failure == NULL) {
        *failure = exc;
    }
    else {
        Py_XDECREF(exc);
    }
    return -1;
}

/* Waiters are taken off first: call_soon() of a foreign loop may do anything to `self`,
 * but the references here are ours alone. Where they have to wait for memory they are put back,
 * with None in the place of who is awake. */
static int
future_wake_several(Future *self)
{
    PyObject *failure = NULL;
    PyObject *callback = self->callback0;
    PyObject *context = self->context0;
    PyObject *later = self->callbacks;
    self->callback0 = self->context0 = self->callbacks = NULL;
    self->parked0 = false;

    int result = 0, woken = 0;
    if (callback != NULL) {
        woken = future_wake_next(self, callback, context, &failure);
        result |= woken < 0;
    }
    if (UNLIKELY(woken > 0)) {
        self->callback0 = callback;
        self->context0 = context;
    }
    else {
        Py_XDECREF(callback);
        Py_XDECREF(context);
    }
    for (Py_ssize_t i = 0; later != NULL && woken <= 0 && i < PyList_GET_SIZE(later); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(later, i));
        bool parked = !PyTuple_CheckExact(item);
        if (LIKELY(item != Py_None)) {
            woken = future_wake_next(self, parked ? item : PyTuple_GET_ITEM(item, 0),
                                     parked ? NULL : PyTuple_GET_ITEM(item, 1), &failure);
            result |= woken < 0;
        }
        if (UNLIKELY(woken > 0)) {
            for (Py_ssize_t j = 0; j < i; j++) {
                (void)PyList_SetItem(later, j, Py_NewRef(Py_None));
            }
        }
        Py_DECREF(item);
    }
    if (UNLIKELY(woken > 0)) {
        self->callbacks = later;
    }
    else {
        Py_XDECREF(later);
    }
    if (failure != NULL) {
        PyErr_SetRaisedException(failure);
    }
    return result ? -1 : 0;
}

/* What a Handle would do, without one. 0 / -1 */
static int
future_call_now(Future *self, PyObject *callback, PyObject *context)
{
    if (!PyContext_CheckExact(context)) {
        PyErr_NoMemory();    /* its run() wants a bound method and a tuple */
        return -1;
    }
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallOneArg(callback, (PyObject *)self);
    PyObject *exc = PyErr_GetRaisedException();
    (void)PyContext_Exit(context);
    PyErr_SetRaisedException(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 0, or -1 with an exit exception */
static int
future_call_back_one(Future *self, Loop *loop, PyObject *callback, PyObject *context)
{
    if (future_wake_one(self, callback, context) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        if (future_call_now(self, callback, context) == 0) {
            return 0;
        }
    }
    if (is_exit_exception()) {
        return -1;
    }
    loop_report(loop, "Exception in a callback of a future", "future", (PyObject *)self);
    return 0;
}

/* The loop's upward call: the callbacks of a future that had to wait for memory. */
static int
future_call_back(Loop *loop, PyObject *op)
{
    Future *self = (Future *)op;
    PyObject *callback, *context, *later;
    Py_BEGIN_CRITICAL_SECTION(self);
    callback = self->callback0;
    context = self->context0;
    later = self->callbacks;
    self->callback0 = self->context0 = self->callbacks = NULL;
    self->parked0 = false;
    Py_END_CRITICAL_SECTION();
    int result = 0;
    PyObject *leaving = NULL;
    if (callback != NULL) {
        result = future_call_back_one(self, loop, callback, context);
        leaving = PyErr_GetRaisedException();
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    for (Py_ssize_t i = 0; later != NULL && i < PyList_GET_SIZE(later); i++) {
        PyObject *item = PyList_GET_ITEM(later, i);
        bool parked = !PyTuple_CheckExact(item);
        if (item != Py_None
            && future_call_back_one(self, loop, parked ? item : PyTuple_GET_ITEM(item, 0),
                                    parked ? NULL : PyTuple_GET_ITEM(item, 1)) < 0) {
            result = -1;
            Py_XSETREF(leaving, PyErr_GetRaisedException());
        }
    }
    Py_XDECREF(later);
    PyErr_SetRaisedException(leaving);
    return result;
}

static inline int
future_wake(Future *self)
{
    if (LIKELY(self->callbacks == NULL)) {
        PyObject *first = self->callback0;
        if (first == NULL) {
            return 0;
        }
        if (self->parked0) {
            self->callback0 = NULL;
            self->parked0 = false;
            return future_push_task_steal(self->own_loop, first);
        }
    }
    return future_wake_several(self);
}

static int
future_append_waiter(Future *self, PyObject *item)
{
    if (self->callbacks == NULL) {
        self->callbacks = PyList_New(0);
        if (self->callbacks == NULL) {
            return -1;
        }
    }
    return PyList_Append(self->callbacks, item);
}

int
future_park_later(Future *self, PyObject *task)
{
    return future_append_waiter(self, task);
}

#ifdef Py_GIL_DISABLED
int
future_park(Future *self, PyObject *task, bool *done)
{
    int result = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    *done = !future_is_pending(self);
    if (!*done) {
        result = future_park_pending(self, task);
    }
    Py_END_CRITICAL_SECTION();
    return result;
}
#endif

static inline int
future_add_callback_inside(Future *self, PyObject *callback, PyObject *context)
{
    context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (context == NULL) {
        return -1;
    }
    int result = 0;
    if (self->future_state != FUTURE_PENDING) {
        result = future_call_soon(self, callback, (PyObject *)self, context);
        Py_DECREF(context);
    }
    else if (LIKELY(self->callback0 == NULL && self->callbacks == NULL)) {
        self->callback0 = Py_NewRef(callback);
        self->context0 = context;
    }
    else {
        PyObject *item = PyTuple_Pack(2, callback, context);
        Py_DECREF(context);
        result = item == NULL ? -1 : future_append_waiter(self, item);
        Py_XDECREF(item);
    }
    return result;
}

int
future_add_callback(Future *self, PyObject *callback, PyObject *context)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(self);
    result = future_add_callback_inside(self, callback, context);
    Py_END_CRITICAL_SECTION();
    return result;
}

/* -- settling ------------------------------------------------------------------------ */

static inline int
future_set_result_inside(Future *self, PyObject *value)
{
    if (UNLIKELY(self->future_state != FUTURE_PENDING)) {
        invalid_state(self, "invalid state");
        return -1;
    }
    self->result = Py_NewRef(value);
    SHARED_STORE(self->future_state, FUTURE_FINISHED);
    return future_wake(self);
}

int
future_set_result(Future *self, PyObject *value)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(self);
    result = future_set_result_inside(self, value);
    Py_END_CRITICAL_SECTION();
    return result;
}

int
future_set_result_if_pending(Future *self, PyObject *value)
{
    int result = 0;
    Py_BEGIN_CRITICAL_SECTION(self);
    if (LIKELY(future_is_pending(self))) {
        result = future_set_result_inside(self, value);
    }
    Py_END_CRITICAL_SECTION();
    return result;
}

/* A StopIteration would end the coroutine that awaits. Steals and gives back a reference. */
static PyObject *
replace_stop_iteration_steal(PyObject *exc)
{
    const char *message =
        "StopIteration interacts badly with generators and cannot be raised into a Future";
#if PY_VERSION_HEX < 0x030C0200
    /* as those versions do: exactly StopIteration is refused, subclasses pass */
    if (Py_IS_TYPE(exc, (PyTypeObject *)PyExc_StopIteration)) {
        PyErr_SetString(PyExc_TypeError, message);
        Py_CLEAR(exc);
    }
    return exc;
#else
    if (!PyErr_GivenExceptionMatches(exc, PyExc_StopIteration)) {
        return exc;
    }
    PyObject *instead = PyObject_CallFunction(PyExc_RuntimeError, "s", message);
    if (instead != NULL) {
        PyException_SetCause(instead, Py_NewRef(exc));
        PyException_SetContext(instead, Py_NewRef(exc));
    }
    Py_DECREF(exc);
    return instead;
#endif
}

static int
future_set_exception_inside(Future *self, PyObject *exception)
{
    if (UNLIKELY(self->future_state != FUTURE_PENDING)) {
        invalid_state(self, "invalid state");
        return -1;
    }
    PyObject *exc = PyExceptionClass_Check(exception) ? PyObject_CallNoArgs(exception)
                                                      : Py_NewRef(exception);
    if (exc == NULL) {
        return -1;
    }
    if (!PyExceptionInstance_Check(exc)) {
        Py_DECREF(exc);
        PyErr_SetString(PyExc_TypeError, "invalid exception object");
        return -1;
    }
    exc = replace_stop_iteration_steal(exc);
    if (exc == NULL) {
        return -1;
    }
    /* the exception's class may have settled the future */
    if (UNLIKELY(self->future_state != FUTURE_PENDING)) {
        Py_DECREF(exc);
        invalid_state(self, "invalid state");
        return -1;
    }
    self->exception = exc;
    self->exception_traceback = PyException_GetTraceback(exc);
    SHARED_STORE(self->future_state, FUTURE_FINISHED);
    SHARED_STORE(self->log_traceback, true);
    if (future_wake(self) < 0) {
        SHARED_STORE(self->log_traceback, false);    /* the caller has an exception to look at already */
        return -1;
    }
    return 0;
}

int
future_set_exception(Future *self, PyObject *exception)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(self);
    result = future_set_exception_inside(self, exception);
    Py_END_CRITICAL_SECTION();
    return result;
}

#ifdef Py_GIL_DISABLED
/* The Operation's watch is the business of the loop's thread, which alone knows whether the
 * Operation still is there. */
static int
future_tell_watcher(PyObject *op, PyObject *ignored UNUSED)
{
    Future *self = (Future *)op;
    if (self->watcher != NULL) {
        self->state_ptr->future_cancelled(self->watcher);
    }
    return 0;
}
#endif

static inline void
future_stop_watcher(Future *self)
{
#ifdef Py_GIL_DISABLED
    if (self->own_loop != NULL && !loop_is_mine(self->own_loop)) {
        if (loop_call_soon_native(self->own_loop, future_tell_watcher, (PyObject *)self, NULL) < 0) {
            PyErr_Clear();    /* the loop is closed: nothing waits any more */
        }
        return;
    }
#endif
    self->state_ptr->future_cancelled(self->watcher);
}

static inline int
future_cancel_inside(Future *self, PyObject *message)
{
    SHARED_STORE(self->log_traceback, false);
    if (self->future_state != FUTURE_PENDING) {
        return 0;
    }
    SHARED_STORE(self->future_state, FUTURE_CANCELLED);
    Py_XSETREF(self->cancel_message, Py_XNewRef(message));
    if (self->watcher != NULL) {
        future_stop_watcher(self);
    }
    return future_wake(self) < 0 ? -1 : 1;
}

int
future_cancel(Future *self, PyObject *message)
{
    int result;
    Py_BEGIN_CRITICAL_SECTION(self);
    result = future_cancel_inside(self, message);
    Py_END_CRITICAL_SECTION();
    return result;
}

/* Whether a future-like object of any kind is done: 1, 0, -1 */
static int
future_like_is_done(struct state *state, PyObject *future)
{
    if (LIKELY(future_check_exact(state, future))) {
        return !future_is_pending((Future *)future);
    }
    PyObject *done = PyObject_CallMethodNoArgs(future, state->names.done);
    if (done == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(done);
    Py_DECREF(done);
    return result;
}

int
future_settle_result(struct state *state, PyObject *future, PyObject *value)
{
    int done = future_like_is_done(state, future);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    if (LIKELY(future_check_exact(state, future))) {
        return future_set_result_if_pending((Future *)future, value);
    }
    PyObject *result = PyObject_CallMethodOneArg(future, state->names.set_result, value);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
future_settle_exception(struct state *state, PyObject *future, PyObject *exception)
{
    int done = future_like_is_done(state, future);
    if (done != 0) {
        return done < 0 ? -1 : 0;
    }
    if (LIKELY(future_check_exact(state, future))) {
        int result = 0;
        Py_BEGIN_CRITICAL_SECTION(future);
        if (future_is_pending((Future *)future)) {
            result = future_set_exception_inside((Future *)future, exception);
        }
        Py_END_CRITICAL_SECTION();
        return result;
    }
    PyObject *result = PyObject_CallMethodOneArg(future, state->names.set_exception, exception);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* -- asking ---------------------------------------------------------------------------- */

static PyObject *
future_make_cancelled_error_inside(Future *self)
{
    if (self->cancelled_error != NULL) {
        /* Whoever raises it adds to its traceback: it is given away only once. */
        PyObject *exc = self->cancelled_error;
        self->cancelled_error = NULL;
        return exc;
    }
    PyObject *type = self->state_ptr->asyncio_CancelledError;
    if (self->cancel_message == NULL || self->cancel_message == Py_None) {
        return PyObject_CallNoArgs(type);
    }
    PyObject *message = Py_NewRef(self->cancel_message);
    PyObject *error = PyObject_CallOneArg(type, message);
    Py_DECREF(message);
    return error;
}

PyObject *
future_make_cancelled_error(Future *self)
{
    PyObject *error;
    Py_BEGIN_CRITICAL_SECTION(self);
    error = future_make_cancelled_error_inside(self);
    Py_END_CRITICAL_SECTION();
    return error;
}

/* The exception that was set, with the traceback that it had then: each retrieval would
 * add to it otherwise. New reference. */
static PyObject *
future_take_exception(Future *self)
{
    PyObject *traceback = self->exception_traceback;
    self->exception_traceback = NULL;
    PyObject *exc = Py_NewRef(self->exception);
    (void)PyException_SetTraceback(exc, traceback != NULL ? traceback : Py_None);
    Py_XDECREF(traceback);
    return exc;
}

static PyObject *
new_invalid_state(Future *self, const char *message)
{
    invalid_state(self, message);
    return PyErr_GetRaisedException();
}

static inline int
future_take_inside(Future *self, PyObject **outcome)
{
    switch (self->future_state) {
    case FUTURE_FINISHED:
        SHARED_STORE(self->log_traceback, false);
        if (LIKELY(self->exception == NULL)) {
            *outcome = Py_NewRef(self->result);
            return 0;
        }
        *outcome = future_take_exception(self);
        return 1;
    case FUTURE_CANCELLED:
        *outcome = future_make_cancelled_error_inside(self);
        break;
    default:
        *outcome = new_invalid_state(self, "Result is not set.");
        break;
    }
    return *outcome == NULL ? -1 : 1;
}

int
future_take(Future *self, PyObject **outcome)
{
    int failed;
    Py_BEGIN_CRITICAL_SECTION(self);
    failed = future_take_inside(self, outcome);
    Py_END_CRITICAL_SECTION();
    return failed;
}

/* -- methods ------------------------------------------------------------------------------ */

/* raises `exc`, with what is being handled now as its context */
static PyObject *
raise_steal(PyObject *exc)
{
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return NULL;
}

PyObject *
Future_result(PyObject *op, PyObject *ignored UNUSED)
{
    PyObject *outcome;
    int failed = future_take((Future *)op, &outcome);
    return LIKELY(failed == 0) ? outcome : raise_steal(outcome);
}

SYNCHRONIZED_METHOD(Future_exception)(PyObject *op, PyObject *ignored UNUSED)
{
    Future *self = (Future *)op;
    if (self->future_state == FUTURE_CANCELLED) {
        return raise_steal(future_make_cancelled_error_inside(self));
    }
    if (self->future_state != FUTURE_FINISHED) {
        invalid_state(self, "Exception is not set.");
        return NULL;
    }
    SHARED_STORE(self->log_traceback, false);
    if (self->exception == NULL) {
        Py_RETURN_NONE;
    }
    return Py_NewRef(self->exception);
}

static PyObject *
Future_set_result(PyObject *op, PyObject *value)
{
    Future *self = (Future *)op;
    if (UNLIKELY(self->loop == NULL)) {
        return future_not_initialised();
    }
    if (future_set_result(self, value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Future_set_exception(PyObject *op, PyObject *exception)
{
    Future *self = (Future *)op;
    if (UNLIKELY(self->loop == NULL)) {
        return future_not_initialised();
    }
    if (future_set_exception(self, exception) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Future_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"msg", NULL};
    Future *self = (Future *)op;
    PyObject *message = NULL;
    if ((nargs != 0 || kwnames != NULL)
        && args_unpack("cancel", args, nargs, kwnames, names, 1, 0, &message) < 0) {
        return NULL;
    }
    if (UNLIKELY(self->loop == NULL)) {
        return future_not_initialised();
    }
    int result = future_cancel(self, message);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

/* `context` is what the loop's call_soon() will be given: a foreign loop may take anything. */
static int
future_parse_context(Future *self, PyObject *const *values, PyObject *kwnames, PyObject **context)
{
    static const char *const names[] = {"context", NULL};
    if (self->own_loop != NULL) {
        return args_context("add_done_callback", values, 0, kwnames, context);
    }
    if (args_unpack("add_done_callback", values, 0, kwnames, names, 0, 0, context) < 0) {
        return -1;
    }
    if (*context == Py_None) {
        *context = NULL;
    }
    return 0;
}

PyObject *
Future_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Future *self = (Future *)op;
    PyObject *context = NULL;
    if (UNLIKELY(nargs != 1)) {
        return PyErr_Format(PyExc_TypeError,
                            "add_done_callback() takes exactly 1 positional argument (%zd given)",
                            nargs);
    }
    if (UNLIKELY(self->loop == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Future object");
        return NULL;
    }
    if (kwnames != NULL && future_parse_context(self, args + 1, kwnames, &context) < 0) {
        return NULL;
    }
    if (future_add_callback(self, args[0], context) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Whether a waiter is what remove_done_callback() was asked for: 1, 0, -1. `waiter` is held
 * by the caller. */
static int
waiter_matches(Future *self, PyObject *waiter, bool parked, PyObject *wanted)
{
    if (!parked) {
        return PyObject_RichCompareBool(waiter, wanted, Py_EQ);
    }
    PyObject *callback, *context;
    if (self->state_ptr->task_as_callback(waiter, &callback, &context) < 0) {
        return -1;
    }
    int result = PyObject_RichCompareBool(callback, wanted, Py_EQ);
    Py_DECREF(callback);
    Py_DECREF(context);
    return result;
}

/* 1 removed, 0 not, -1 */
static int
future_remove_first(Future *self, PyObject *wanted)
{
    PyObject *first = Py_XNewRef(self->callback0);
    if (first == NULL) {
        return 0;
    }
    int result = waiter_matches(self, first, self->parked0, wanted);
    /* the comparison may have settled the future, and even made it wait again */
    if (result > 0 && self->callback0 == first) {
        self->parked0 = false;
        Py_CLEAR(self->callback0);
        Py_CLEAR(self->context0);
    }
    else if (result > 0) {
        result = 0;
    }
    Py_DECREF(first);
    return result;
}

/* Takes `item` off the list if it is still there, near `index`: 1, 0, -1 */
static int
future_remove_item(Future *self, PyObject *item, Py_ssize_t index)
{
    PyObject *list = Py_XNewRef(self->callbacks);
    int result = 0;
    for (Py_ssize_t i = index; list != NULL && i >= 0; i--) {
        if (i < PyList_GET_SIZE(list) && PyList_GET_ITEM(list, i) == item) {
            result = PyList_SetSlice(list, i, i + 1, NULL) < 0 ? -1 : 1;
            break;
        }
    }
    Py_XDECREF(list);
    return result;
}

SYNCHRONIZED_METHOD(Future_remove_done_callback)(PyObject *op, PyObject *wanted)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    Py_ssize_t removed = future_remove_first(self, wanted);
    if (removed < 0) {
        return NULL;
    }
    /* What a comparison adds is not looked at, so that this comes to an end. */
    Py_ssize_t left = self->callbacks == NULL ? 0 : PyList_GET_SIZE(self->callbacks);
    for (Py_ssize_t i = 0; left-- > 0;) {
        if (self->callbacks == NULL || i >= PyList_GET_SIZE(self->callbacks)) {
            break;
        }
        PyObject *item = Py_NewRef(PyList_GET_ITEM(self->callbacks, i));
        bool parked = !PyTuple_CheckExact(item);
        PyObject *waiter = parked ? item : PyTuple_GET_ITEM(item, 0);
        int result = item == Py_None ? 0 : waiter_matches(self, waiter, parked, wanted);
        if (result > 0) {
            result = future_remove_item(self, item, i);
        }
        Py_DECREF(item);
        if (result < 0) {
            return NULL;
        }
        removed += result;
        i += !result;
    }
    if (self->callbacks != NULL && PyList_GET_SIZE(self->callbacks) == 0) {
        Py_CLEAR(self->callbacks);
    }
    return PyLong_FromSsize_t(removed);
}

PyObject *
Future_cancelled(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Future *)op)->future_state) == FUTURE_CANCELLED);
}

PyObject *
Future_done(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Future *)op)->future_state) > FUTURE_PENDING);
}

SYNCHRONIZED_METHOD(Future_get_loop)(PyObject *op, PyObject *ignored UNUSED)
{
    Future *self = (Future *)op;
    return self->loop == NULL ? future_not_initialised() : Py_NewRef(self->loop);
}

PyObject *
Future__make_cancelled_error(PyObject *op, PyObject *ignored UNUSED)
{
    return future_make_cancelled_error((Future *)op);
}

static PyObject *
Future_repr(PyObject *op)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return PyObject_CallOneArg(self->state_ptr->base_futures_repr, op);
}

/* -- attributes ------------------------------------------------------------------------------ */

PyObject *
Future_get__state(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    struct state_names *names = &self->state_ptr->names;
    switch (SHARED_LOAD(self->future_state)) {
    case FUTURE_PENDING:
        return Py_NewRef(names->PENDING);
    case FUTURE_CANCELLED:
        return Py_NewRef(names->CANCELLED);
    case FUTURE_FINISHED:
        return Py_NewRef(names->FINISHED);
    default:
        return future_not_initialised();
    }
}

int
future_attribute_bool(PyObject *value)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    return PyObject_IsTrue(value);
}

PyObject *
Future_get_blocking(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Future *)op)->blocking));
}

int
Future_set_blocking(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        future_not_initialised();
        return -1;
    }
    int blocking = future_attribute_bool(value);
    if (blocking < 0) {
        return -1;
    }
    SHARED_STORE(self->blocking, blocking);
    return 0;
}

/* (callable, context) of a parked Task, as asyncio would have stored it */
static PyObject *
parked_as_tuple(Future *self, PyObject *task)
{
    PyObject *callback, *context;
    if (self->state_ptr->task_as_callback(task, &callback, &context) < 0) {
        return NULL;
    }
    PyObject *tuple = PyTuple_Pack(2, callback, context);
    Py_DECREF(callback);
    Py_DECREF(context);
    return tuple;
}

static int
list_append_steal(PyObject *list, PyObject *item)
{
    int result = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return result;
}

SYNCHRONIZED_GETTER(Future_get__callbacks)(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    if (self->callback0 == NULL && self->callbacks == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    /* Allocations may collect garbage, and so run anything: no item is kept across one. */
    if (self->callback0 != NULL) {
        PyObject *first = Py_NewRef(self->callback0);
        PyObject *item = self->parked0 ? parked_as_tuple(self, first)
                                       : PyTuple_Pack(2, first, self->context0);
        Py_DECREF(first);
        if (list_append_steal(list, item) < 0) {
            goto failed;
        }
    }
    for (Py_ssize_t i = 0; self->callbacks != NULL && i < PyList_GET_SIZE(self->callbacks); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(self->callbacks, i));
        if (item == Py_None) {
            Py_DECREF(item);    /* is awake already */
            continue;
        }
        if (!PyTuple_CheckExact(item)) {
            Py_SETREF(item, parked_as_tuple(self, item));
        }
        if (list_append_steal(list, item) < 0) {
            goto failed;
        }
    }
    return list;
failed:
    Py_DECREF(list);
    return NULL;
}

SYNCHRONIZED_GETTER(Future_get__loop)(PyObject *op, void *closure UNUSED)
{
    PyObject *value = ((Future *)op)->loop;
    return Py_NewRef(value != NULL ? value : Py_None);
}

SYNCHRONIZED_GETTER(Future_get__result)(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return Py_NewRef(self->result != NULL ? self->result : Py_None);
}

SYNCHRONIZED_GETTER(Future_get__exception)(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return Py_NewRef(self->exception != NULL ? self->exception : Py_None);
}

PyObject *
Future_get__log_traceback(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    return PyBool_FromLong(SHARED_LOAD(self->log_traceback));
}

int
Future_set__log_traceback(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int wanted = future_attribute_bool(value);
    if (wanted > 0) {
        PyErr_SetString(PyExc_ValueError, "_log_traceback can only be set to False");
    }
    if (wanted != 0) {
        return -1;
    }
    SHARED_STORE(((Future *)op)->log_traceback, false);
    return 0;
}

SYNCHRONIZED_GETTER(Future_get__source_traceback)(PyObject *op, void *closure UNUSED)
{
    PyObject *value = ((Future *)op)->source_traceback;
    return Py_NewRef(value != NULL ? value : Py_None);
}

SYNCHRONIZED_GETTER(Future_get__cancel_message)(PyObject *op, void *closure UNUSED)
{
    PyObject *value = ((Future *)op)->cancel_message;
    return Py_NewRef(value != NULL ? value : Py_None);
}

int
Future_set__cancel_message(PyObject *op, PyObject *value, void *closure UNUSED)
{
    if (value == NULL) {
        return future_attribute_bool(value);
    }
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(op);
    old = ((Future *)op)->cancel_message;
    ((Future *)op)->cancel_message = Py_NewRef(value);
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
    return 0;
}

#if PY_VERSION_HEX >= 0x030E0000
/* Those whom asyncio's functions recorded, in the base's fields: new reference to a
 * frozenset or None. */
static PyObject *
base_awaited_by(Future *self)
{
    struct state *state = self->state_ptr;
    PyObject *attribute = PyObject_GetAttr((PyObject *)state->asyncio_Future,
                                           state->names._asyncio_awaited_by);
    if (attribute == NULL) {
        return NULL;
    }
    PyObject *result = Py_TYPE(attribute)->tp_descr_get(attribute, (PyObject *)self,
                                                        (PyObject *)Py_TYPE(self));
    Py_DECREF(attribute);
    return result;
}

/* A parked Task awaits, without having been recorded anywhere. */
SYNCHRONIZED_GETTER(Future_get__awaited_by)(PyObject *op, void *closure UNUSED)
{
    Future *self = (Future *)op;
    PyObject *recorded = base_awaited_by(self);
    if (recorded == NULL || (!self->parked0 && self->callbacks == NULL)) {
        return recorded;
    }
    PyObject *set = PySet_New(recorded == Py_None ? NULL : recorded);
    Py_DECREF(recorded);
    if (set == NULL) {
        return NULL;
    }
    PyObject *first = self->parked0 ? Py_NewRef(self->callback0) : NULL;
    int failed = first == NULL ? 0 : PySet_Add(set, first);
    Py_XDECREF(first);
    for (Py_ssize_t i = 0;
         failed == 0 && self->callbacks != NULL && i < PyList_GET_SIZE(self->callbacks); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(self->callbacks, i));
        if (!PyTuple_CheckExact(item) && item != Py_None) {
            failed = PySet_Add(set, item);
        }
        Py_DECREF(item);
    }
    PyObject *result = NULL;
    if (failed == 0) {
        result = PySet_GET_SIZE(set) == 0 ? Py_NewRef(Py_None) : PyFrozenSet_New(set);
    }
    Py_DECREF(set);
    return result;
}
#endif

/* -- the end ---------------------------------------------------------------------------------- */

void
future_report_steal(Future *self, PyObject *context)
{
    struct state *state = self->state_ptr;
    PyObject *loop = Py_XNewRef(self->loop);
    if (context == NULL || loop == NULL
        || (self->source_traceback != NULL
            && PyDict_SetItem(context, state->names.source_traceback, self->source_traceback) < 0)) {
        goto done;
    }
    PyObject *result = PyObject_CallMethodOneArg(loop, state->names.call_exception_handler, context);
    Py_XDECREF(result);
done:
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(context);
    Py_XDECREF(loop);
}

void
future_error_is_known(Future *self)
{
    SHARED_STORE(self->log_traceback, false);
}

void
future_finalize(Future *self)
{
    if (!self->log_traceback || self->exception == NULL) {
        return;
    }
    SHARED_STORE(self->log_traceback, false);
    struct state *state = self->state_ptr;
    PyObject *context = NULL, *message = NULL;
    PyObject *name = PyType_GetName(Py_TYPE(self));
    if (name == NULL) {
        goto failed;
    }
    message = PyUnicode_FromFormat("%U exception was never retrieved", name);
    context = message == NULL ? NULL : PyDict_New();
    if (context == NULL
        || PyDict_SetItem(context, state->names.message, message) < 0
        || PyDict_SetItem(context, state->names.exception, self->exception) < 0
        || PyDict_SetItem(context, state->names.future, (PyObject *)self) < 0) {
        Py_CLEAR(context);
    }
failed:
    Py_XDECREF(name);
    Py_XDECREF(message);
    future_report_steal(self, context);
}

static void
Future_finalize(PyObject *op)
{
    if (!((Future *)op)->log_traceback) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    future_finalize((Future *)op);
    PyErr_SetRaisedException(exc);
}

static int
Future_traverse(PyObject *op, visitproc visit, void *arg)
{
    Future *self = (Future *)op;
#if PY_VERSION_HEX < 0x030C0000
    Py_VISIT(Py_TYPE(op));    /* the base is a heap type later, and does it */
#endif
    if (self->state_ptr != NULL) {
        int result = self->state_ptr->future_base.traverse(op, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return future_traverse(self, visit, arg);
}

static int
Future_clear(PyObject *op)
{
    Future *self = (Future *)op;
    future_clear(self);
    return self->state_ptr->future_base.clear(op);
}

static void
future_dealloc_now(Future *self)
{
    struct state *state = self->state_ptr;
    PyObject *op = (PyObject *)self;
    if (UNLIKELY(*(PyObject **)((char *)op + Py_TYPE(op)->tp_weaklistoffset) != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    future_clear(self);
    future_free(self, &state->free_futures, state->FutureType, &state->future_base);
}

static void
Future_dealloc(PyObject *op)
{
    Future *self = (Future *)op;
    /* A subclass with __del__ has run it by now, in the interpreter's own dealloc. */
    if (UNLIKELY(self->log_traceback) && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
    if (LIKELY(!future_is_deep(self))) {
        future_dealloc_now(self);
        return;
    }
    Py_TRASHCAN_BEGIN(op, Future_dealloc)
    future_dealloc_now(self);
    Py_TRASHCAN_END
}

static PyObject *
Future_new(PyTypeObject *type, PyObject *args UNUSED, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    if (state == NULL) {
        return NULL;
    }
    PyObject *op = type == state->FutureType
                       ? freelist_take(&state->free_futures, type)
                       : type->tp_alloc(type, 0);
    if (op != NULL) {
        ((Future *)op)->state_ptr = state;
    }
    return op;
}

static int
Future_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"loop", NULL};
    PyObject *loop = NULL;
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "Future() takes no positional arguments");
        return -1;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", names, &loop)) {
        return -1;
    }
#if PY_VERSION_HEX >= 0x030F0000
    if (((Future *)op)->loop != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%T object is already initialized", op);
        return -1;
    }
#endif
    int result;
    Py_BEGIN_CRITICAL_SECTION(op);    /* __init__ may be called again, from anywhere */
    result = future_init((Future *)op, loop);
    Py_END_CRITICAL_SECTION();
    return result;
}

static PyMethodDef future_methods[] = {
    FUTURE_METHODS,
    {"set_result", Future_set_result, METH_O,
     PyDoc_STR("set_result($self, result, /)\n--\n\n"
               "Set the result and wake who waits; InvalidStateError if it is done already.")},
    {"set_exception", Future_set_exception, METH_O,
     PyDoc_STR("set_exception($self, exception, /)\n--\n\n"
               "Set an exception (or a class of one) and wake who waits; InvalidStateError\n"
               "if it is done already.")},
    {"cancel", (PyCFunction)(void (*)(void))Future_cancel, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("cancel($self, /, msg=None)\n--\n\n"
               "Cancel it and wake who waits. Returns False if it is done already.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef future_getsets[] = {
    FUTURE_GETSETS,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
        "Future(*, loop=None)\n--\n\n"
        "A result that is not there yet; asyncio.Future of an asyncloop loop.")},
    {Py_tp_new, Future_new},
    {Py_tp_init, Future_init},
    {Py_tp_dealloc, Future_dealloc},
    {Py_tp_finalize, Future_finalize},
    {Py_tp_traverse, Future_traverse},
    {Py_tp_clear, Future_clear},
    {Py_tp_repr, Future_repr},
    {Py_tp_iter, Future_await},
    {Py_am_await, Future_await},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getsets},
    {0, NULL},
};

static PyType_Spec future_spec = {
    .name = "asyncloop.Future",
    .basicsize = sizeof(Future),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};

int
future_types_init(PyObject *module, struct state *state)
{
    PyTypeObject *base = state->asyncio_Future;
    state->call_back = future_call_back;
    state->future_base = (struct base_slots){base->tp_traverse, base->tp_clear, base->tp_dealloc};
    state->keywords_context = PyTuple_Pack(1, state->names.context);
    state->keywords_msg = PyTuple_Pack(1, state->names.msg);
    state->keywords_debug = PyTuple_Pack(1, state->names.debug);
    if (state->keywords_context == NULL || state->keywords_msg == NULL
        || state->keywords_debug == NULL) {
        return -1;
    }
    if (state_add_type(module, &future_spec, (PyObject *)base, ASYNCIO_FUTURE_SIZE,
                       &state->FutureType) < 0) {
        return -1;
    }
    return future_iter_type_init(module, state);
}
