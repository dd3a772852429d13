/* task.c - making and cancelling a Task, and its eager start. */
#include "tasks/task_inside.h"

#include "base/checked.h"
#include "base/freelist.h"
#include "loop/current.h"
#include "loop/owner.h"
#include "tasks/introspect.h"
#include "tasks/record.h"

/* -- eager start -------------------------------------------------------------------------------- */

/* Inside whatever runs now. Everything is put back in any case: the current task, the
 * context, and the place among all tasks unless the Task goes on later. */
static int
task_start_eagerly(Task *self)
{
    struct state *state = self->future.state_ptr;
    PyObject *loop = Py_NewRef(self->future.loop);
    PyObject *context = Py_NewRef(self->context);
    int result = -1;
    PyObject *previous = current_swap(state, loop, (PyObject *)self);
    if (previous == NULL) {
        goto done;
    }
    task_set_registered(self);
    if (all_tasks_add(state, (PyObject *)self, &self->node) == 0
        && PyContext_Enter(context) == 0) {
        if (self->future.own_loop != NULL) {
            COUNT_SHARED(self->future.own_loop->counters->eager_steps, 1);
        }
        result = task_resume(self, NULL);
        PyObject *raised = PyErr_GetRaisedException();
        if (PyContext_Exit(context) < 0 && raised == NULL) {
            result = -1;
        }
        else {
            PyErr_SetRaisedException(raised);
        }
    }
    PyObject *raised = PyErr_GetRaisedException();
    PyObject *inner = current_swap(state, loop, previous);
    Py_DECREF(previous);
    if (inner == NULL && raised == NULL) {
        result = -1;
    }
    else {
        PyErr_SetRaisedException(raised);
    }
    Py_XDECREF(inner);
    if (!future_is_pending(&self->future)) {
        /* It never was anything but a call: nobody asks where its coroutine is. */
        introspect_drop_coro(self);
        Py_CLEAR(self->coro);
    }
    if (result < 0) {
        task_done(self);
    }
done:
    Py_DECREF(context);
    Py_DECREF(loop);
    return result;
}

/* -- making ---------------------------------------------------------------------- */

static int
check_coroutine(struct state *state, PyObject *coro)
{
    if (LIKELY(PyCoro_CheckExact(coro))) {
        return 0;
    }
    PyObject *answer = PyObject_CallOneArg(tasks_state(state)->tasks.iscoroutine, coro);
    if (answer == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (result == 0) {
        PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
    }
    return result > 0 ? 0 : -1;
}

int
task_set_name(Task *self, PyObject *name)
{
    PyObject *text = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    if (text == NULL) {
        return -1;
    }
    PyObject *old;
    {
        GUARD(self);
        old = self->named ? self->name : NULL;
        self->name = text;
        self->named = true;
    }
    Py_XDECREF(old);
    return 0;
}

void
task_clear(Task *self)
{
    task_unlink(self);
    if (UNLIKELY(self->recorded)) {
        record_end(self);
    }
    self->log_destroy_pending = false;
    SHARED_STORE(self->must_cancel, false);
    self->parked = false;
    introspect_clear(self);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->context);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->pending_exception);
    PyObject *name = self->named ? self->name : NULL;
    self->named = false;
    self->number = 0;
    Py_XDECREF(name);
}

/* Whether the first step is made at once: 1, 0, -1. As asyncio: only on a running loop. */
static int
task_starts_eagerly(Task *self)
{
    struct state *state = self->future.state_ptr;
    PyObject *running = PyObject_CallMethodNoArgs(self->future.loop, state->names.is_running);
    if (running == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(running);
    Py_DECREF(running);
#if PY_VERSION_HEX < 0x030E0000
    /* asyncio would make the step here, in the wrong thread; from 3.14 on current_swap() refuses. */
    Loop *loop = self->future.own_loop;
    if (result > 0 && loop != NULL && SHARED_LOAD(loop->thread_id) != 0
        && SHARED_LOAD(loop->thread_id) != PyThread_get_thread_ident()) {
        PyErr_Format(PyExc_RuntimeError, "loop %R is not the running loop", loop);
        self->log_destroy_pending = false;
        return -1;
    }
#endif
    return result;
}

uint64_t
task_next_number(struct state *state)
{
#ifdef Py_GIL_DISABLED
    return __atomic_add_fetch(&tasks_state(state)->numbers.next, 1, __ATOMIC_RELAXED);
#else
    return ++tasks_state(state)->numbers.next;
#endif
}

/* `context` may be NULL, or None: a copy of the current one. 0 / -1 */
static inline int
task_set_context(Task *self, PyObject *context)
{
    if (context != NULL && context != Py_None) {
        if (!PyContext_CheckExact(context)) {
#if PY_VERSION_HEX >= 0x030F0000
            PyErr_Format(PyExc_TypeError, "a contextvars.Context was expected, got %s", Py_TYPE(context)->tp_name);
            return -1;
#else
            /* A double of a context has a method run(), which is for a Handle: each step is a callback, as on a
             * loop of somebody else. */
            self->future.own_loop = NULL;
#endif
        }
        Py_INCREF(context);
    }
    else {
        context = PyContext_CopyCurrent();
        if (context == NULL) {
            return -1;
        }
    }
    Py_XSETREF(self->context, context);
    return 0;
}

/* The first step is made later. 0, or -1: nobody will make it. */
static inline int
task_start_later(Task *self, struct state *state)
{
    /* In this order: a step of a Task that its maker does not get would be nobody's. */
    if (all_tasks_add(state, (PyObject *)self, &self->node) < 0) {
        return -1;
    }
    task_set_registered(self);
    if (task_schedule(self) < 0) {
        task_set_unregistered(self);
        all_tasks_remove(state, (PyObject *)self, &self->node);
        return -1;
    }
    return 0;
}

int
task_init(Task *self, PyObject *coro, PyObject *name, PyObject *context, bool eager_start)
{
    struct state *state = self->future.state_ptr;
    if (check_coroutine(state, coro) < 0 || task_set_context(self, context) < 0) {
        return -1;
    }
    Py_XSETREF(self->coro, Py_NewRef(coro));
    if (name == NULL || name == Py_None) {
        self->number = task_next_number(state);
    }
    else if (task_set_name(self, name) < 0) {
        return -1;
    }
    if (introspect_fill(self) < 0) {
        return -1;
    }
    Loop *loop = self->future.own_loop;
    if (loop != NULL && UNLIKELY(SHARED_LOAD(loop->records) != NULL)
        && record_begin(self, loop) < 0) {
        return -1;
    }
    self->log_destroy_pending = true;
    if (UNLIKELY(eager_start)) {
        int eagerly = task_starts_eagerly(self);
        if (eagerly > 0 && task_start_eagerly(self) < 0) {
            return -1;
        }
        if (eagerly != 0) {
            return eagerly > 0 ? 0 : -1;
        }
    }
    return task_start_later(self, state);
}

Task *
task_alloc(struct state *state, PyTypeObject *type)
{
    PyObject *op = LIKELY(type == tasks_state(state)->types.Task) ? freelist_take(&tasks_state(state)->tasks.free, type)
                                                                  : type->tp_alloc(type, 0);
    if (op == NULL) {
        return NULL;
    }
    Task *self = (Task *)op;
#if PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
    /* PyUnstable_EnableTryIncRef(), without its locked instruction: no other thread knows it yet. */
    __atomic_store_n(&op->ob_ref_shared, _Py_REF_MAYBE_WEAKREF, __ATOMIC_RELAXED);
#endif
    self->future.state_ptr = state;
    self->future.cancel_requests = 0;
    list_init(&self->node);
    return self;
}

PyObject *
task_new(struct state *state, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context,
         int eager_start)
{
    Task *self = task_alloc(state, tasks_state(state)->types.Task);
    if (self == NULL) {
        return NULL;
    }
    if (future_init(&self->future, loop) < 0
        || task_init(self, coro, name, context, eager_start) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* -- cancelling --------------------------------------------------------------------- */

/* Has the object, a Future or Task, been given a cancel() of its own? May run Python. */
static bool
has_own_cancel(struct state *state, PyObject *waiter)
{
#if PY_VERSION_HEX >= 0x030D0000
    {
        GUARD(waiter);
        if (LIKELY(!future_has_attributes(waiter))) {
            return false;
        }
    }
#else
    PyObject **place = _PyObject_GetDictPtr(waiter);
    if (LIKELY(place == NULL || *place == NULL)) {
        return false;
    }
#endif
    PyObject *dict = PyObject_GenericGetDict(waiter, NULL);
    int has = dict == NULL ? -1 : PyDict_Contains(dict, state->names.cancel);
    Py_XDECREF(dict);
    if (has < 0) {
        PyErr_Clear();    /* the look-up will fail as well */
    }
    return has != 0;
}

int
task_cancel_waiter(struct state *state, PyObject *waiter, PyObject *message)
{
    if (Py_IS_TYPE(waiter, tasks_state(state)->types.Future) && !has_own_cancel(state, waiter)) {
        return future_cancel((Future *)waiter, message);
    }
    if (Py_IS_TYPE(waiter, tasks_state(state)->types.Task) && !has_own_cancel(state, waiter)) {
        return task_cancel((Task *)waiter, message);
    }
    /* by position, as asyncio's Task in C: whoever writes a future of his own may call it what he likes */
    PyObject *answer = PyObject_CallMethodOneArg(waiter, state->names.cancel, message == NULL ? Py_None : message);
    if (answer == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return result;
}

int
task_forward_cancel(Task *self)
{
    PyObject *waiter, *message;
    {
        FUTURE_GUARD(self);
        waiter = Py_NewRef(self->waiter);
        message = Py_XNewRef(self->future.cancel_message);
    }
    int result = task_cancel_waiter(self->future.state_ptr, waiter, message);
    if (result > 0) {
        task_take_must_cancel(self);
    }
    Py_DECREF(waiter);
    Py_XDECREF(message);
    return result < 0 ? -1 : 0;
}

/* Counts a request to cancel: false if the Task is done already. */
static inline bool
task_request_cancel(Task *task)
{
    bool pending;
    FUTURE_GUARD(task);
    SHARED_STORE(task->future.log_traceback, false);
    pending = task->future.future_state == FUTURE_PENDING;
    if (pending) {
        SHARED_STORE(task->future.cancel_requests, task->future.cancel_requests + 1);
    }
    return pending;
}

/* What it awaits: new reference, or NULL. */
static inline PyObject *
task_waiter_ref(Task *task)
{
    FUTURE_GUARD(task);
    return Py_XNewRef(task->waiter);
}

/* It does not wait for `cancelled` any more, which may be NULL: the next step throws. False: it
 * waits for something else by now, which only happens if another thread runs it. */
static inline bool
task_cancel_next_step(Task *task, PyObject *cancelled UNUSED, PyObject *message)
{
    bool set = true;
    FUTURE_GUARD(task);
#ifdef Py_GIL_DISABLED
    Loop *loop = task->future.own_loop;
    set = task->waiter == NULL || task->waiter == cancelled || (loop != NULL && loop_is_mine(loop));
#endif
    if (set) {
        SHARED_STORE(task->must_cancel, true);
        Py_XSETREF(task->future.cancel_message, Py_XNewRef(message));
    }
    return set;
}

/* The end of a chain: the Task that awaits no Task. 1, or -1 with an exception. */
static int
task_cancel_last(Task *task, PyObject *waiter, PyObject *message)
{
    int result = 0;
    bool again = false;
    Py_XINCREF(waiter);
    do {
        if (again) {
            Py_XSETREF(waiter, task_waiter_ref(task));
        }
        if (waiter != NULL) {
            result = task_cancel_waiter(task->future.state_ptr, waiter, message);
        }
        again = result == 0 && !task_cancel_next_step(task, waiter, message);
    } while (again);
    Py_XDECREF(waiter);
    return result < 0 ? -1 : 1;
}

/* One step of the slower walker: steals a reference, and gives one back. */
static Task *
task_follow_steal(Task *slow)
{
    PyObject *next = task_waiter_ref(slow);
    if (next != NULL && Py_IS_TYPE(next, tasks_state(slow->future.state_ptr)->types.Task)) {
        Py_SETREF(slow, (Task *)next);
    }
    else {
        Py_XDECREF(next);
    }
    return slow;
}

/* Tasks that await each other form a chain of any length, so it is walked in a loop; one
 * that leads back to itself is found with a second, slower walker. */
int
task_cancel(Task *self, PyObject *message)
{
    struct state *state = self->future.state_ptr;
    Task *task = (Task *)Py_NewRef(self);
    Task *slow = (Task *)Py_NewRef(self);
    size_t steps = 0;
    int result = 0;
    bool pending = task_request_cancel(task);
    while (pending && result == 0) {
        PyObject *waiter = task_waiter_ref(task);
        if (waiter == NULL || !Py_IS_TYPE(waiter, tasks_state(state)->types.Task)
            || has_own_cancel(state, waiter) || !future_is_pending((Future *)waiter)) {
            result = task_cancel_last(task, waiter, message);
            Py_XDECREF(waiter);
            break;
        }
        if (++steps % 2 == 0) {
            slow = task_follow_steal(slow);
        }
        if (waiter == (PyObject *)slow) {
            PyErr_SetString(PyExc_RecursionError, "tasks that await each other in a circle");
            result = -1;
        }
        else if (UNLIKELY(!task_request_cancel((Task *)waiter))) {
            result = task_cancel_last(task, waiter, message);    /* another thread was faster */
        }
        else {
            Py_SETREF(task, (Task *)Py_NewRef(waiter));
        }
        Py_DECREF(waiter);
    }
    Py_DECREF(slow);
    Py_DECREF(task);
    return result;
}

#ifdef ASYNCLOOP_DEBUG
void
task_verify(Task *self, uint64_t turn)
{
    future_verify(&self->future, turn);
    FUTURE_GUARD(self);
    VERIFY(verify_node(&self->node));
    VERIFY(self->coro == NULL || verify_lives(self->coro));
    VERIFY(self->waiter == NULL || verify_lives(self->waiter));
    VERIFY(!self->parked || self->waiter == NULL || future_check_native(self->future.state_ptr, self->waiter));
    VERIFY(!self->named || verify_lives(self->name));
    VERIFY(self->pending_exception == NULL || PyExceptionInstance_Check(self->pending_exception));
    if (self->waiter != NULL && self->parked) {
        future_verify((Future *)self->waiter, turn);
    }
}
#endif

Handle *
task_step_handle(Loop *loop, Task *task)
{
    PyObject *future = NULL, *context;
    {
        FUTURE_GUARD(task);
        context = Py_XNewRef(task->context);
        if (task->parked && task->waiter != NULL && task->pending_exception == NULL
            && !future_is_pending((Future *)task->waiter)) {
            future = Py_NewRef(task->waiter);
        }
    }
    PyObject *function = task_step_function((PyObject *)task, future != NULL);
    Handle *handle = function == NULL
                         ? NULL
                         : handle_new(loop, function, &future, future != NULL, context);
    Py_XDECREF(function);
    Py_XDECREF(future);
    Py_XDECREF(context);
    return handle;
}
