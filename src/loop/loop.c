/* loop.c - the iteration: poll, calls from other threads, due timers, ready items.
 *
 * Invariants:
 *   - a phase runs exactly the items that were ready when it began; what they schedule
 *     runs in the next iteration;
 *   - after an exception that leaves the loop, what was not run stays for the next run;
 *   - asyncio's books name no current task while anything but a Task of ours runs. */
#include "loop/loop.h"

#include <sched.h>
#include <time.h>

#include "loop/activity.h"
#include "loop/current.h"
#include "loop/handle_inside.h"
#include "loop/inbox.h"
#include "insides.h"
#include "ops/look_up.h"
#include "loop/overrides.h"
#include "loop/owed.h"
#include "loop/owner.h"
#include "loop/poll.h"
#include "loop/scratch.h"
#include "loop/timer.h"
#include "loop/watch.h"

/* A busy loop looks at the kernel once per this time: I/O waits no longer than this and
 * one iteration. It looks in any case after a descriptor was added: data that is there already
 * is told in the next iteration. (Benchmark row: sleep(0), 100 tasks.) */
#define POLL_INTERVAL_NS 20000

int
loops_init(PyObject *module UNUSED, struct state *state)
{
    struct loop_state *own = loop_state(state);
    list_init(&own->loops.all);
#ifdef Py_GIL_DISABLED
    pthread_mutex_init(&own->loops.lock, NULL);
#endif
    STATE_OWN_UNTIL(state, &own->loops, all);
    own->loops.activities = activities_new();
    if (own->loops.activities == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    const struct state_import wanted[] = {
        {&own->loops.base_events, "asyncio", "base_events", false},
        {&own->loops.format_handle, "asyncio.base_events", "_format_handle", false},
    };
    return STATE_IMPORT(wanted);
}

/* -- clocks ------------------------------------------------------------------------- */

int64_t
monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double
loop_time(Loop *loop UNUSED)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* What time() says, where it is somebody else's: 0 / -1 */
static int
loop_ask_clock(Loop *loop, double *now)
{
    PyObject *value = PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.time);
    if (value == NULL) {
        return -1;
    }
    *now = PyFloat_AsDouble(value);
    Py_DECREF(value);
    return *now == -1. && PyErr_Occurred() ? -1 : 0;
}

int
loop_now_ns(Loop *loop, int64_t *now)
{
    if (LIKELY(!loop_has_custom_clock(loop))) {
        *now = monotonic_ns();
        return 0;
    }
    double seconds;
    if (loop_ask_clock(loop, &seconds) < 0) {
        return -1;
    }
    *now = timer_deadline(seconds);
    return 0;
}

/* Now in seconds, whoever defines it: 0 / -1 */
int
loop_now_seconds(Loop *loop, double *now)
{
    if (LIKELY(!loop_has_custom_clock(loop))) {
        *now = loop_time(loop);
        return 0;
    }
    return loop_ask_clock(loop, now);
}

/* -- checks ------------------------------------------------------------------------------ */

int
loop_closed_error(Loop *loop UNUSED)
{
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

int
loop_check_thread(Loop *loop)
{
    unsigned long thread_id = SHARED_LOAD(loop->thread_id);
    if (thread_id == 0 || thread_id == PyThread_get_thread_ident()) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "Non-thread-safe operation invoked on an event loop other than the current one");
    return -1;
}

int
loop_check_callback(Loop *loop, PyObject *callback, const char *function)
{
    PyObject *result = PyObject_CallMethod((PyObject *)loop, "_check_callback", "Os", callback,
                                           function);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

Loop *
loop_from_argument(PyObject *module, PyObject *object)
{
    struct state *state = PyModule_GetState(module);
    if (!PyObject_TypeCheck(object, loop_state(state)->loops.Type)) {
        PyErr_Format(PyExc_TypeError, "a loop of asyncloop is needed, not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (Loop *)object;
}

/* -- scheduling ----------------------------------------------------------------------------- */

/* asyncio's own Handle, or what is in its place, made as asyncio makes it. */
static PyObject *
make_foreign_handle(Loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *context)
{
    PyObject *handle = NULL;
    PyObject *events = PyObject_GetAttrString(loop_state(loop->state)->loops.base_events, "events");
    PyObject *class = events == NULL ? NULL : PyObject_GetAttrString(events, "Handle");
    PyObject *tuple = class == NULL ? NULL : PyTuple_New(nargs);
    if (tuple != NULL) {
        for (Py_ssize_t i = 0; i < nargs; i++) {
            PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
        }
        handle = PyObject_CallFunctionObjArgs(class, callback, tuple, (PyObject *)loop,
                                              context != NULL ? context : Py_None, NULL);
    }
    Py_XDECREF(tuple);
    Py_XDECREF(class);
    Py_XDECREF(events);
    return handle;
}

/* What asyncio's Handle shows of who made it begins with the caller of call_soon(). */
static PyObject *
call_soon_by_foreign_handle(Loop *loop, PyObject *callback, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *context)
{
    PyObject *handle = make_foreign_handle(loop, callback, args, nargs, context);
    if (handle != NULL && loop_push_steal(loop, Py_NewRef(handle), READY_FOREIGN) < 0) {
        Py_CLEAR(handle);
    }
    return handle;
}

PyObject *
loop_call_soon(Loop *loop, PyObject *callback, PyObject *const *args, Py_ssize_t nargs,
               PyObject *context)
{
    return loop_call_soon_knowing(loop, loop_replaced(loop), callback, args, nargs, context);
}

PyObject *
loop_call_soon_knowing(Loop *loop, unsigned int replaced, PyObject *callback,
                       PyObject *const *args, Py_ssize_t nargs, PyObject *context)
{
    if (UNLIKELY(loop_check_closed(loop) < 0)) {
        return NULL;
    }
    if (UNLIKELY(replaced & (LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN))) {
        return call_soon_by_foreign_handle(loop, callback, args, nargs, context);
    }
    Handle *handle = handle_new(loop, callback, args, nargs, context);
    if (handle == NULL
        || loop_push_steal(loop, Py_NewRef(handle), READY_HANDLE) < 0) {
        Py_XDECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

/* A call of our own for which the program wants to be asked: `self` is its handle, which has no
 * other way to run. */
static PyObject *
run_native_handle(PyObject *self, PyObject *ignored UNUSED)
{
    return handle_run((Handle *)self) < 0 && PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef native_call_def = {"asyncloop_callback", run_native_handle, METH_NOARGS, NULL};

static int
call_soon_by_method_steal(Loop *loop, Handle *handle)
{
    PyObject *callback = PyCFunction_New(&native_call_def, (PyObject *)handle);
    Py_DECREF(handle);
    if (callback == NULL) {
        return -1;
    }
    PyObject *result = PyObject_CallMethodOneArg((PyObject *)loop, loop->state->names.call_soon,
                                                 callback);
    Py_DECREF(callback);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
loop_call_soon_native(Loop *loop, native_callback run, PyObject *owner, PyObject *arg)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    Handle *handle = handle_new_native(loop, run, owner, arg);
    if (handle == NULL) {
        return -1;
    }
    if (UNLIKELY(loop_replaced(loop) & LOOP_SOON)) {
        return call_soon_by_method_steal(loop, handle);
    }
    return loop_push_steal(loop, (PyObject *)handle, READY_HANDLE);
}

int
loop_call_soon_surely(Loop *loop, struct owed_call *call, const struct owed_kind *kind,
                      PyObject *arg)
{
    PyObject *owner = (PyObject *)(void *)((char *)call - kind->offset);
    if (LIKELY(call->kind == NULL)) {
        if (LIKELY(loop_call_soon_native(loop, kind->run, owner, arg) == 0)) {
            return 0;
        }
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            return -1;
        }
        PyErr_Clear();
        owed_add_call(loop, call, kind);
    }
    call->kind = kind;
    Py_XSETREF(call->arg, Py_XNewRef(arg));
    return 0;
}

int
loop_push_task_slowly_steal(Loop *loop, PyObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (loop_push_steal(loop, Py_NewRef(task), READY_TASK) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            Py_DECREF(task);
            Py_XDECREF(exc);
            return -1;
        }
        PyErr_Clear();
        owed_add_task(loop, task);
    }
    Py_DECREF(task);
    PyErr_SetRaisedException(exc);
    return 0;
}

/* steals nothing; the caller keeps its reference to the timer */
static int
loop_schedule(Loop *loop, TimerHandle *timer, double when)
{
    timer->when = when;
    return timer_schedule(loop, timer);
}

TimerHandle *
loop_call_at(Loop *loop, double when, PyObject *callback, PyObject *const *args,
             Py_ssize_t nargs, PyObject *context)
{
    if (loop_check_closed(loop) < 0) {
        return NULL;
    }
    TimerHandle *timer = timer_handle_new(loop, callback, args, nargs, context);
    if (timer != NULL && loop_schedule(loop, timer, when) < 0) {
        Py_CLEAR(timer);
    }
    return timer;
}

TimerHandle *
loop_call_later(Loop *loop, double delay, PyObject *callback, PyObject *const *args,
                Py_ssize_t nargs, PyObject *context)
{
    double now = loop_time(loop);
    return loop_call_at(loop, now + delay, callback, args, nargs, context);
}

TimerHandle *
loop_call_later_native(Loop *loop, double delay, native_callback run, PyObject *owner,
                       PyObject *arg)
{
    double now;
    if (loop_check_closed(loop) < 0 || loop_now_seconds(loop, &now) < 0) {
        return NULL;
    }
    TimerHandle *timer = timer_handle_new_native(loop, run, owner, arg);
    if (timer != NULL && loop_schedule(loop, timer, now + delay) < 0) {
        Py_CLEAR(timer);
    }
    return timer;
}

/* -- one iteration ------------------------------------------------------------------------------ */

/* The outcome of the call itself stays as it is. */
void
loop_warn_slow(Loop *loop, PyObject *item, double started)
{
    double duration = loop_time(loop) - started;
    if (duration < loop->slow_callback_duration) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    bool is_handle = Py_IS_TYPE(item, loop_state(loop->state)->handles.Type)
                     || Py_IS_TYPE(item, loop_state(loop->state)->handles.TimerType);
    PyObject *text = is_handle ? PyObject_CallOneArg(loop_state(loop->state)->loops.format_handle, item)
                               : PyObject_Repr(item);
    PyObject *seconds = PyFloat_FromDouble(duration);
    PyObject *logger = PyObject_GetAttrString(loop_state(loop->state)->loops.base_events, "logger");
    PyObject *result = text == NULL || seconds == NULL || logger == NULL
                           ? NULL
                           : PyObject_CallMethod(logger, "warning", "sOO",
                                                 "Executing %s took %.3f seconds", text, seconds);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)loop);
    }
    Py_XDECREF(result);
    Py_XDECREF(logger);
    Py_XDECREF(text);
    Py_XDECREF(seconds);
    PyErr_SetRaisedException(exc);
}

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
static int
loop_run_replaced(Loop *loop, PyObject *op)
{
    handle_set_place((Handle *)op, HANDLE_SHARED);
    return loop_foreign_ran(PyObject_CallMethodOneArg(loop_state(loop->state)->handles.asyncio_Handle,
                                                      loop->state->names._run, op));
}

/* Before 3.12, what was replaced since the iteration began, or since the last push. */
#if PY_VERSION_HEX >= 0x030C0000
#define LOOP_REPLACED_MEANWHILE(loop) loop_replaced(loop)
#else
#define LOOP_REPLACED_MEANWHILE(loop) ((loop)->overrides.replaced)
#endif

static inline int
loop_run_item(Loop *loop, uintptr_t item)
{
    PyObject *op = ready_object(item);
    int result;
    switch (item & READY_KIND_MASK) {
    case READY_TASK:
        result = loop_state(loop->state)->run.task(loop, op);
        COUNT(loop->counters->task_steps, 1);
        return result;
    case READY_HANDLE:
        current_leave(loop);
        if (UNLIKELY(LOOP_REPLACED_MEANWHILE(loop) & LOOP_HANDLE_RUN)
            && !((Handle *)op)->is_native) {
            return loop_run_replaced(loop, op);
        }
        return handle_run((Handle *)op);
    case READY_DONE:
        current_leave(loop);
        return owed_run_callbacks(loop, (Future *)op);
    default:
        current_leave(loop);
        return loop_run_foreign(loop, op);
    }
}

void
loop_set_current_handle_steal(Loop *loop, PyObject *handle)
{
    PyObject *old;
    Py_BEGIN_CRITICAL_SECTION(loop);
    old = loop->current_handle;
    loop->current_handle = handle;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(old);
}

static int
loop_run_item_debug(Loop *loop, uintptr_t item)
{
    double started = loop_time(loop);
    PyObject *op = ready_object(item);
    PyObject *outer = Py_XNewRef(loop->current_handle);    /* of a run around this one */
    loop_set_current_handle_steal(loop, (item & READY_KIND_MASK) == READY_TASK ? NULL
                                                                               : Py_NewRef(op));
    int result = loop_run_item(loop, item);
    loop_set_current_handle_steal(loop, outer);
    loop_warn_slow(loop, op, started);
    if ((item & READY_KIND_MASK) == READY_HANDLE) {
        PyObject *exc = PyErr_GetRaisedException();
        handle_finished((Handle *)op);
        PyErr_SetRaisedException(exc);
    }
    return result;
}

static int
loop_run_item_somehow(Loop *loop, uintptr_t item)
{
    return loop->debug ? loop_run_item_debug(loop, item) : loop_run_item(loop, item);
}

/* In debug mode, or in a trace. `event`: of a descriptor. */
static __attribute__((noinline)) int
loop_run_item_carefully(Loop *loop, uintptr_t item, bool event)
{
    return loop->trace == NULL ? loop_run_item_debug(loop, item)
                               : loop_state(loop->state)->run.traced(loop, item, event,
                                                                     loop_run_item_somehow);
}

/* While a handle runs, memory fetches the ones after it: timers fire in another order than that in
 * which they were made and lie (benchmark row: 100,000 timers). Tasks are made and woken in the same
 * order, so that the processor does it by itself. Inlined, or GCC drops it as without effect. */
static inline __attribute__((always_inline)) void
fetch_next_handles(const struct ready *ready)
{
#ifndef Py_GIL_DISABLED    /* there another thread may cancel the handle that is looked into */
    if (ready_length(ready) < 2) {
        return;
    }
    const char *later = (const char *)ready->items[(ready->head + 3) & ready->mask];
    __builtin_prefetch(later);    /* may be of a slot that is empty: no matter */
    __builtin_prefetch(later + sizeof(Handle));
    uintptr_t next = ready->items[(ready->head + 1) & ready->mask];
    if ((next & READY_KIND_MASK) == READY_HANDLE) {
        __builtin_prefetch(((Handle *)ready_object(next))->how.context);
    }
#else
    (void)ready;
#endif
}

/* Runs the oldest `count` items. */
static int
loop_run_ready(Loop *loop, struct run *run, size_t count)
{
    /* A callback may empty the ring (a forked child that closes the loop). */
    while (count-- > 0 && ready_length(&loop->ready) > 0) {
        uintptr_t item = ready_pop(&loop->ready);
        if ((item & READY_KIND_MASK) == READY_HANDLE) {
            fetch_next_handles(&loop->ready);
        }
        int result = LIKELY(!loop->careful) ? loop_run_item(loop, item)
                                            : loop_run_item_carefully(loop, item, false);
        Py_DECREF(ready_object(item));
        if (UNLIKELY(result < 0)) {
            loop_propagate(loop);
        }
        loop_step_done(loop);
        if (UNLIKELY(run->exception != NULL)) {
            return -1;
        }
    }
    return 0;
}

void
loop_run_handle(Loop *loop, Handle *handle)
{
    uintptr_t item = (uintptr_t)Py_NewRef(handle) | READY_HANDLE;
    int result = LIKELY(!loop->careful) ? loop_run_item(loop, item)
                                        : loop_run_item_carefully(loop, item, true);
    Py_DECREF(handle);
    if (UNLIKELY(result < 0)) {
        loop_propagate(loop);
    }
}

static inline bool
loop_is_idle(Loop *loop)
{
    return ready_length(&loop->ready) == 0 && !SHARED_LOAD(loop->stopping)
           && LIKELY(!SHARED_LOAD(loop->owed.any));
}

/* Of the last poll: did its events take their tasks long? */
static inline void
loop_judge_crowd(Loop *loop, int64_t now)
{
    if (UNLIKELY(loop->crowd >= CROWD_EVENTS)) {
        loop->slow_answers = now - loop->last_poll_ns >= (int64_t)loop->crowd * SLOW_ANSWER_NS;
    }
}

/* The kernel was looked at, from `before` to `after`. What came due since the last time has waited. */
static inline void
loop_note_look(Loop *loop, int64_t before, int64_t after)
{
    struct counters *counters = loop->counters;
    int64_t unlooked = before - COUNTER_GET(counters->looked);
    if (UNLIKELY(unlooked >= DELAY_LEAST_NS)) {
        COUNTER_SET(counters->unlooked, unlooked);
    }
    COUNTER_SET(counters->looked, after);
    COUNTER_SET(counters->ready, ready_length(&loop->ready));
    COUNTER_SET(counters->timers, loop->timers.length);
}

/* What the look has brought is told now. */
static inline void
loop_note_delay(Loop *loop, size_t before)
{
    struct counters *counters = loop->counters;
    if (UNLIKELY(COUNTER_GET(counters->unlooked) > 0)) {
        int64_t first = before == 0 ? 0 : monotonic_ns() - counters->looked;
        counters_note_delay(counters, first, counters->unlooked);
        COUNTER_SET(counters->unlooked, 0);
    }
}

/* A look at the kernel only because a descriptor was added, in the middle of work: no more than it
 * takes for that to be told in this iteration (guarded path: reader). It runs no user code, so the
 * current task stays in asyncio's books; signals have their turn in the polls between. */
static int
loop_glance(Loop *loop, struct run *run, int64_t now)
{
    loop->now_ns = now;
    loop_judge_crowd(loop, now);
    if (UNLIKELY(poll_once(loop, 0) < 0)) {
        loop_propagate(loop);
    }
    if (loop->fds.events > 0) {
        loop->last_poll_ns = now;
        loop_note_look(loop, now, now);
    }
    return run->exception == NULL ? 1 : -1;
}

/* How long the poll may sleep. -1 with an exception. */
static int
loop_idle_time(Loop *loop, int64_t *wait_ns)
{
    int64_t next = timer_next(loop);
    loop->slept_ns = 0;
    if (next == TIMER_NEVER) {
        *wait_ns = TIMER_NEVER;
        return 0;
    }
    int64_t now;
    if (loop_now_ns(loop, &now) < 0) {
        return -1;
    }
    if (LIKELY(!loop_has_custom_clock(loop))) {
        loop->slept_ns = now;
    }
    *wait_ns = next > now ? next - now : 0;
    return 0;
}

/* What others see of a poll that may sleep. */
static int
loop_poll_selector(Loop *loop, int64_t wait_ns)
{
    if (wait_ns <= 0) {
        return insides_poll(loop, wait_ns);
    }
    loop->slept_ns = monotonic_ns();
    counters_sleep(loop->counters);
    span_begin(&loop->counters->idle, loop->slept_ns);
    int result = insides_poll(loop, wait_ns);
    loop->woke_ns = monotonic_ns();
    span_end(&loop->counters->idle, loop->woke_ns);
    counters_begin_turn(loop->counters);
    return result;
}

/* loop_poll(), with a poll by whatever is the loop's _selector, or, nearly always, by our own: inlined,
 * so that what is about the other costs that nothing (guarded path: call-soon). */
static inline __attribute__((always_inline)) int
loop_poll_by(Loop *loop, struct run *run, size_t *before, const int by_selector)
{
    bool idle = loop_is_idle(loop);
    if (idle) {
        /* One that comes from here on ends the sleep, unless it comes just before that begins: asyncio
         * has that gap as well, and the same remedy, add_signal_handler(). */
        current_leave(loop);
        if (UNLIKELY(PyErr_CheckSignals() < 0)) {
            loop_propagate(loop);
            return -1;
        }
        idle = loop_is_idle(loop);
    }
    *before = ready_length(&loop->ready);
    int64_t wait_ns = 0;
    int64_t now;
    if (!idle) {
        now = monotonic_ns();
        if (LIKELY(by_selector == 0)
            && (loop->answering || now - loop->last_poll_ns < POLL_INTERVAL_NS)) {
            if (UNLIKELY(loop->fds.fresh)) {
                return loop_glance(loop, run, now);
            }
            loop->answering = false;
            loop->now_ns = now;
            return 0;
        }
        loop->slept_ns = now;
        loop_judge_crowd(loop, now);
    }
    else {
        if (UNLIKELY(loop->crowd >= CROWD_EVENTS)) {
            loop_judge_crowd(loop, monotonic_ns());
        }
        if (UNLIKELY(loop_idle_time(loop, &wait_ns) < 0)) {
            loop_propagate(loop);
            return -1;
        }
    }
    if (UNLIKELY(!list_empty(&loop->waiting_operations))) {
        wait_ns = loop_state(loop->state)->run.check_operations(loop, monotonic_ns(), wait_ns);
    }
    current_leave(loop);
    loop->woke_ns = 0;
    int result = LIKELY(by_selector == 0) ? poll_once(loop, wait_ns)
                                          : loop_poll_selector(loop, wait_ns);
    /* A signal ends a sleep without an event. With one, whatever Python runs now handles it first. */
    if (UNLIKELY(result < 0 || (loop->fds.events == 0 && PyErr_CheckSignals() < 0))) {
        loop_propagate(loop);
    }
    /* Without timers the moment of waking is as good, and need not be asked for. */
    now = loop->woke_ns != 0 && timer_next(loop) == TIMER_NEVER ? loop->woke_ns : monotonic_ns();
    loop_note_look(loop, loop->slept_ns != 0 ? loop->slept_ns : now,
                   loop->woke_ns != 0 ? loop->woke_ns : now);
    loop->now_ns = loop->last_poll_ns = now;
    return run->exception == NULL ? 1 : -1;
}

/* Somebody has a view of the insides. */
static __attribute__((noinline)) int
loop_poll_looked_at(Loop *loop, struct run *run, size_t *before)
{
    int by_selector = insides_look(loop);
    if (by_selector < 0 || loop_check_closed(loop) < 0) {
        loop_propagate(loop);
        return -1;
    }
    return loop_poll_by(loop, run, before, by_selector);
}

/* Sleeps if there is nothing to do; looks at the kernel if it has not for a while. What events
 * have made ready (the tasks that wait for their bytes) runs before the next look, so that
 * requests that came together are answered together.
 * 1 if it has looked, 0 if not, -1 if the run has to end. */
static inline int
loop_poll(Loop *loop, struct run *run, size_t *before)
{
    return LIKELY(!loop->looked_at) ? loop_poll_by(loop, run, before, 0)
                                    : loop_poll_looked_at(loop, run, before);
}

static int
loop_collect_timers(Loop *loop)
{
    if (timer_next(loop) == TIMER_NEVER) {
        return 0;
    }
    int64_t now = loop->now_ns;
    if (loop_has_custom_clock(loop) && loop_now_ns(loop, &now) < 0) {
        return -1;
    }
    timer_collect(loop, now);
    return 0;
}

/* The order is asyncio's: what was ready before, what the poll has brought, due timers. */
static int
loop_iterate(Loop *loop, struct run *run)
{
    overrides_look_at_modules(loop);
    loop->inbox.direct = 0;
    inbox_drain(loop);
    size_t before = 0;
    int polled = loop_poll(loop, run, &before);
    if (polled < 0) {
        return -1;
    }
    if (polled) {
        inbox_drain(loop);
    }
    if (loop_collect_timers(loop) < 0) {
        loop_propagate(loop);
        return -1;
    }
    size_t total = ready_length(&loop->ready);
    if (!polled) {
        return loop_run_ready(loop, run, total);
    }
    if (loop_run_ready(loop, run, before) < 0) {
        return -1;
    }
    loop_note_delay(loop, before);
    poll_dispatch(loop);
    return run->exception != NULL ? -1 : loop_run_ready(loop, run, total - before);
}

/* -- turns with a bound (turn_budget), and in a nested run -------------------------------------------------- */

/* A look at the kernel in the middle of a turn: events are told, due timers made ready. 0, or -1 if
 * the run has to end. */
static int
loop_look_between(Loop *loop, struct run *run)
{
    current_leave(loop);
    int by_selector = LIKELY(!loop->looked_at) ? 0 : insides_look(loop);
    int result = by_selector < 0 || loop_check_closed(loop) < 0 ? -1
                 : by_selector > 0                              ? insides_poll(loop, 0)
                                                                : poll_once(loop, 0);
    if (result < 0 || PyErr_CheckSignals() < 0) {
        loop_propagate(loop);
        return -1;
    }
    int64_t now = monotonic_ns();
    loop_note_look(loop, now, now);
    counters_begin_turn(loop->counters);    /* what looks at the kernel is not blocked */
    loop->now_ns = loop->last_poll_ns = now;
    loop_note_delay(loop, 0);
    poll_dispatch(loop);
    if (run->exception != NULL) {
        return -1;
    }
    if (loop_collect_timers(loop) < 0) {
        loop_propagate(loop);
        return -1;
    }
    return 0;
}

/* Of what is in the ring: a new reference, or NULL. */
static PyObject *
item_context(Loop *loop, uintptr_t item)
{
    PyObject *op = ready_object(item), *context = NULL;
    if ((item & READY_KIND_MASK) == READY_TASK) {
        context = loop_state(loop->state)->run.task_context(op);
    }
    else if ((item & READY_KIND_MASK) == READY_HANDLE) {
        Py_BEGIN_CRITICAL_SECTION(op);
        context = Py_XNewRef(handle_context((Handle *)op));
        Py_END_CRITICAL_SECTION();
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

/* In a nested run: the oldest item waits for its end if it has to run in a context that is entered
 * further up the stack, as in a program whose callbacks share one context. */
static bool
loop_defer(Loop *loop)
{
    uintptr_t item = loop->ready.items[loop->ready.head & loop->ready.mask];
    PyObject *context = item_context(loop, item);
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

/* What is ready beyond the oldest `length` items becomes the oldest: how many that are. */
static size_t
ready_put_rest_first(struct ready *ready, size_t length)
{
    size_t now = ready_length(ready);
    size_t count = now > length ? now - length : 0;    /* a callback may have emptied it */
    ready_put_first(ready, count);
    return count;
}

/* Runs the oldest `count` items. After each time of turn_budget_ns what the kernel and the timers have
 * goes before the rest, and then what that has made ready: a timer's callback wakes a task. What comes
 * meanwhile waits its turn, and the rest has its time, of one item at least: neither waits for ever. */
static int
loop_run_ready_bounded(Loop *loop, struct run *run, size_t count)
{
    size_t first = 0;          /* of the `count`: those that go before the rest */
    size_t rest = 0;           /* how many are behind these */
    bool woken = false;        /* these are what the first ones have made ready */
    int64_t since = loop->last_poll_ns;
    while (count > 0 && ready_length(&loop->ready) > 0) {
        bool deferred = loop->nested > 0 && loop_defer(loop);
        if (!deferred && loop_run_ready(loop, run, 1) < 0) {
            return -1;
        }
        count--;
        if (first > 0 && --first == 0) {
            if (!woken) {
                woken = true;
                first = ready_put_rest_first(&loop->ready, rest);
                count += first;
            }
            since = first > 0 ? since : monotonic_ns();
            continue;
        }
        if (loop->turn_budget_ns > 0 && monotonic_ns() - since >= loop->turn_budget_ns) {
            size_t length = ready_length(&loop->ready);
            if (loop_look_between(loop, run) < 0) {
                return -1;
            }
            if (first == 0) {
                first = ready_put_rest_first(&loop->ready, length);
                count += first;
                rest = ready_length(&loop->ready) - first;
                woken = false;
            }
            since = monotonic_ns();
        }
    }
    return 0;
}

/* The order is the same as in loop_iterate(), as long as the time is not over. */
static __attribute__((noinline)) int
loop_iterate_bounded(Loop *loop, struct run *run)
{
    overrides_look_at_modules(loop);
    loop->inbox.direct = 0;
    inbox_drain(loop);
    size_t before = 0;
    int polled = loop_poll(loop, run, &before);
    if (polled < 0) {
        return -1;
    }
    if (polled) {
        inbox_drain(loop);
        size_t rest = ready_length(&loop->ready) - before;    /* of other threads */
        if (loop_run_ready_bounded(loop, run, before) < 0) {
            return -1;
        }
        loop_note_delay(loop, before);
        poll_dispatch(loop);
        if (run->exception != NULL || loop_run_ready_bounded(loop, run, rest) < 0) {
            return -1;
        }
    }
    /* Not before the others ran: in the middle of them, due timers go first. */
    size_t others = ready_length(&loop->ready);
    if (loop_collect_timers(loop) < 0) {
        loop_propagate(loop);
        return -1;
    }
    size_t due = ready_length(&loop->ready) - others;
    if (polled) {
        ready_put_first(&loop->ready, due);
        return loop_run_ready_bounded(loop, run, due);
    }
    return loop_run_ready_bounded(loop, run, others + due);
}

/* What comes at the end of each iteration, also of one that ends with an exception. */
static void
loop_end_turn(Loop *loop)
{
    COUNT(loop->counters->steps, 1);
    COUNT(loop->counters->turns, 1);
    if (UNLIKELY(loop->unpushed.length > 0)) {
        loop_push(loop);
    }
}

void
loop_end_turn_by_hand(Loop *loop, struct run *run)
{
    if (run->outer == NULL && LIKELY(!loop->closed)) {
        loop_end_turn(loop);
        if (UNLIKELY(SHARED_LOAD(loop->owed.any)) && run->exception == NULL) {
            owed_pay(loop, run);
        }
    }
}

static void
loop_begin_counting(Loop *loop)
{
    int64_t now = monotonic_ns();
    COUNTER_SET(loop->counters->unlooked, 0);
    COUNTER_SET(loop->counters->looked, now);
    span_begin(&loop->counters->run, now);
}

static void
loop_end_counting(Loop *loop)
{
    int64_t now = monotonic_ns();
    int64_t unlooked = now - loop->counters->looked;
    if (unlooked >= DELAY_LEAST_NS) {
        counters_note_delay(loop->counters, 0, unlooked);
    }
    span_end(&loop->counters->run, now);
}

void
loop_begin_run(Loop *loop, struct run *run)
{
    *run = (struct run){.outer = loop->run};
    SHARED_STORE(loop->run, run);
}

void
loop_end_run(Loop *loop, struct run *run)
{
    if (LIKELY(loop->run == run)) {
        SHARED_STORE(loop->run, run->outer);
        return;
    }
    struct run *inner = loop->run;
    while (inner->outer != run) {
        inner = inner->outer;
    }
    inner->outer = run->outer;
}

int
loop_begin_by_hand(Loop *loop, struct hand *hand)
{
    unsigned long me = PyThread_get_thread_ident();
    for (struct run *run = loop->run; run != NULL; run = run->outer) {
        if (run->thread != 0 && run->thread != me) {
            PyErr_SetString(PyExc_RuntimeError, "Another thread runs this event loop");
            return -1;
        }
    }
    loop->libev = libev_call();
    hand->task = Py_XNewRef(loop->current_task);
    current_leave(loop);
    loop_begin_run(loop, &hand->run);
    hand->run.thread = me;
    Py_INCREF(loop);
    if (hand->run.outer == NULL) {
        activity_set_thread(loop->activity, me);
        loop_begin_counting(loop);
    }
    return 0;
}

int
loop_end_by_hand(Loop *loop, struct hand *hand)
{
    PyObject *exception = hand->run.exception;
    current_leave(loop);
    if (hand->run.outer == NULL) {
        loop_end_counting(loop);
        activity_set_thread(loop->activity, 0);
    }
    loop_end_run(loop, &hand->run);
    if (UNLIKELY(hand->task != NULL)) {
        /* inside a step of it, which goes on */
        if (current_enter(loop, hand->task) < 0) {
            PyErr_Clear();
        }
        Py_DECREF(hand->task);
    }
    Py_DECREF(loop);
    if (exception != NULL) {
        PyErr_SetRaisedException(exception);
        return -1;
    }
    return 0;
}

/* Iterations until the run has to end, or to look how they are made. Inlined, so that a bound costs
 * those nothing that have none. */
static inline __attribute__((always_inline)) void
loop_make_turns(Loop *loop, struct run *run, bool once, const bool bounded)
{
    do {
        counters_begin_turn(loop->counters);
        int result = bounded ? loop_iterate_bounded(loop, run) : loop_iterate(loop, run);
        loop_end_turn(loop);
        if (UNLIKELY(SHARED_LOAD(loop->owed.any)) && result == 0 && run->exception == NULL) {
            owed_pay(loop, run);
        }
        if (result < 0 || run->exception != NULL) {
            break;
        }
    } while (!once && !SHARED_LOAD(loop->stopping) && LIKELY(!SHARED_LOAD(loop->turns_change)));
}

static int
loop_run_owned(Loop *loop, bool once)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    struct hand hand;
    struct run *run = &hand.run;
    if (UNLIKELY(loop_begin_by_hand(loop, &hand) < 0)) {
        return -1;
    }
    run->once = once;
    loop->answering = false;
    loop->last_poll_ns = 0;    /* the first iteration of a run always polls, as asyncio's */
    SHARED_STORE(loop->turns_change, false);
    if (UNLIKELY(loop->turn_budget_ns > 0 || loop->nested > 0)) {
        loop_make_turns(loop, run, once, true);
    }
    else {
        loop_make_turns(loop, run, once, false);
    }
    return loop_end_by_hand(loop, &hand);
}

#ifdef Py_GIL_DISABLED
static int
loop_claim_and_run(Loop *loop, bool once)
{
    struct claim claim;
    if (loop_claim_steal(&claim, (Loop *)Py_NewRef(loop)) < 0) {
        return -1;
    }
    int result = loop_run_owned(loop, once);
    loop_unclaim(&claim);
    return result;
}
#else
#define loop_claim_and_run(loop, once) loop_run_owned(loop, once)
#endif

int
loop_run(Loop *loop)
{
    return loop_claim_and_run(loop, false);
}

int
loop_turn(Loop *loop)
{
    return loop_claim_and_run(loop, true);
}

/* -- life ------------------------------------------------------------------------------------------ */

#ifdef Py_GIL_DISABLED
/* How often a thread gives way to another one that is inside a short method. */
#define CLAIM_TRIES 1000

/* Whether the loop was free, or is taken by another thread only for a moment. */
static bool
loop_wait_for_owner(Loop *loop, unsigned long me)
{
    for (int i = 0; i < CLAIM_TRIES; i++) {
        unsigned long nobody = 0;
        if (__atomic_compare_exchange_n(&loop->owner, &nobody, me, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            return true;
        }
        if (SHARED_LOAD(loop->run) != NULL) {
            break;
        }
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
    return false;
}

int
loop_claim_steal(struct claim *claim, Loop *loop_steal)
{
    claim->loop = loop_steal;
    claim->taken = false;
    if (loop_steal == NULL || LIKELY(loop_is_mine(loop_steal))) {
        return 0;
    }
    if (!loop_wait_for_owner(loop_steal, PyThread_get_thread_ident())) {
        PyErr_SetString(PyExc_RuntimeError, "Non-thread-safe operation invoked on an event loop "
                                            "other than the current one");
        Py_DECREF(loop_steal);
        return -1;
    }
    claim->taken = true;
    /* What came before goes first. */
    if (__atomic_load_n(&loop_steal->inbox.count, __ATOMIC_ACQUIRE) > 0) {
        inbox_drain_all(loop_steal);
    }
    return 0;
}

void
loop_unclaim(struct claim *claim)
{
    if (claim->taken) {
        __atomic_store_n(&claim->loop->owner, 0, __ATOMIC_RELEASE);
    }
    Py_XDECREF(claim->loop);
}

#endif

int
loop_open(Loop *loop)
{
    if (loop->ev != NULL) {
        return 0;    /* __init__ once more: it is open */
    }
    if (poll_open(loop) < 0) {
        return -1;
    }
    if (inbox_open(loop) < 0) {
        ev_loop_destroy(loop->ev);
        loop->ev = NULL;
        reserve_close(&loop->reserve);
        return -1;
    }
    state_lock_lists(loop->state);
    list_append(&loop_state(loop->state)->loops.all, &loop->all_loops);
    state_unlock_lists(loop->state);
    return 0;
}

void
loop_free_buffers(Loop *loop)
{
    scratch_clear(&loop->scratch);
    free(loop->behind_room);
    loop->behind_room = NULL;
    loop_push(loop);
    PyMem_Free(loop->unpushed.streams);
    loop->unpushed = (struct unpushed){0};
}

void
loop_close(Loop *loop)
{
    SHARED_STORE(loop->closed, true);
    state_lock_lists(loop->state);
    list_remove(&loop->all_loops);
    state_unlock_lists(loop->state);
    look_ups_close(loop);
    if (loop->ev == NULL) {
        return;
    }
    watch_clear(loop);
    loop_state(loop->state)->run.drop_trace(loop);
    ready_clear(&loop->ready);
    ready_clear(&loop->deferred);
    owed_clear(loop);
    timer_clear(loop);
    if (UNLIKELY(loop->polling_blocked) && !loop->forked) {
        loop->left_to_poll = true;    /* of another thread, in a turn by hand */
        loop_wake(loop);
        return;
    }
    loop_close_kernel_side(loop);
}

void
loop_close_kernel_side(Loop *loop)
{
    loop->left_to_poll = false;
    inbox_close(loop);
    poll_close(loop);
    struct ev_loop *ev = loop->ev;
    SHARED_STORE(loop->ev, NULL);
    if (ev != NULL) {
        ev_loop_destroy(ev);
    }
    reserve_close(&loop->reserve);
    loop_free_buffers(loop);
}

int
loop_after_fork(Loop *loop)
{
    if (loop->ev != NULL && (inbox_after_fork(loop) < 0 || poll_after_fork(loop) < 0)) {
        return -1;
    }
    look_ups_after_fork(loop);
    loop->forked = false;
    return 0;
}
