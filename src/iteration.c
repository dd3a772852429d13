/* iteration.c - the iteration: poll, calls from other threads, due timers, ready items.
 *
 * Invariants:
 *   - a phase runs exactly the items that were ready when it began; what they schedule
 *     runs in the next iteration;
 *   - after an exception that leaves the loop, what was not run stays for the next run;
 *   - asyncio's books name no current task while anything but a Task of ours runs. */
#include "iteration.h"

#include "base/checked.h"
#include "base/freelist.h"
#include "base/tuning.h"
#include "loop/activity.h"
#include "loop/brief.h"
#include "loop/clock.h"
#include "loop/current.h"
#include "loop/handle_inside.h"
#include "loop/inbox.h"
#include "loop/overrides.h"
#include "loop/owed.h"
#include "loop/owner.h"
#include "loop/timer.h"
#include "loop/wake.h"
#include "tasks/owed_tasks.h"
#include "net/hold.h"
#include "ops/operation.h"
#include "ops/ops_loop.h"
#include "item.h"
#include "life.h"
#include "nested.h"
#include "readers.h"
#include "selector.h"
#include "verify.h"

/* A busy loop looks at the kernel once per this time: I/O waits no longer than this and
 * one iteration. It looks in any case after a descriptor was added: data that is there already
 * is told in the next iteration. (Benchmark row: Queue(1) between two tasks, which takes 1.4 times as long
 * with a look in each iteration.) */
#define POLL_INTERVAL_NS TUNED(POLL_INTERVAL_NS, 20000)

/* While a handle runs, memory fetches the ones after it: timers fire in another order than that in
 * which they were made and lie (benchmark row: 100,000 timers, where it saves a seventh). Tasks are made
 * and woken in the same order, so that the processor does it by itself. Inlined, or GCC drops it as
 * without effect. */
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

/* Runs the oldest `count` items. Inlined into the usual turn (guarded path: sleep-one). */
static inline __attribute__((always_inline)) int
loop_run_ready(Loop *loop, struct run *run, size_t count)
{
    /* A callback may empty the ring (a forked child that closes the loop). */
    while (count-- > 0 && ready_length(&loop->ready) > 0) {
        uintptr_t item = ready_pop(&loop->ready);
        int result;
        if (UNLIKELY(FLAG(loop->careful))) {
            result = loop_run_item_carefully(loop, item, false);
        }
        else {
            if ((item & READY_KIND_MASK) == READY_HANDLE) {
                fetch_next_handles(&loop->ready);
            }
            result = loop_run_item(loop, item);
        }
        VERIFY(result < 0 || !PyErr_Occurred());
        Py_DECREF(ready_object(item));
        if (UNLIKELY(result < 0)) {
            loop_propagate_from(loop, run);
        }
        VERIFY(!PyErr_Occurred());
        loop_step_done(loop);
        if (UNLIKELY(run->exception != NULL)) {
            return -1;
        }
    }
    return 0;
}

static inline bool
loop_is_idle(Loop *loop)
{
    return ready_length(&loop->ready) == 0 && !FLAG(loop->stopping)
           && LIKELY(!FLAG(loop->owed.any));
}

/* Of the last poll: did its events take their tasks long? */
static inline void
loop_judge_answers(Loop *loop, int64_t now)
{
    if (UNLIKELY(loop->polled_events >= MANY_EVENTS)) {
        loop->slow_answers = now - loop->last_poll_ns >= (int64_t)loop->polled_events * SLOW_ANSWER_NS;
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
    COUNTER_SET(counters->timers, timer_count(&loop->timers));
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
static inline __attribute__((always_inline)) int
loop_glance(Loop *loop, struct run *run, int64_t now)
{
    loop->now_ns = now;
    loop_judge_answers(loop, now);
    if (UNLIKELY(loop_look(loop, 0) < 0)) {
        loop_propagate(loop);
    }
    if (loop->fds.events > 0) {
        loop->last_poll_ns = now;
        loop_note_look(loop, now, now);
    }
    return run->exception == NULL ? 1 : -1;
}

static int
loop_time_until(Loop *loop, int64_t next, int64_t *wait_ns)
{
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

/* How long the poll may sleep. -1 with an exception. */
static inline int
loop_idle_time(Loop *loop, int64_t *wait_ns)
{
    int64_t next = timer_next(&loop->timers);
    loop->slept_ns = 0;
    *wait_ns = TIMER_NEVER;
    return LIKELY(next == TIMER_NEVER) ? 0 : loop_time_until(loop, next, wait_ns);
}

/* A profiler that is told of calls learns of time when the next one comes, and counts it for the code
 * and in the context of that. asyncio's loop calls select(); here one comes after a sleep. */
static __attribute__((noinline)) void
loop_tell_profiler(Loop *loop)
{
    loop->profiled_sleep = false;
    PyObject *result = PyObject_CallMethod((PyObject *)loop, "_woken", NULL);
    if (result == NULL) {
        loop_propagate(loop);
    }
    Py_XDECREF(result);
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
            && (loop->had_events || now - loop->last_poll_ns < POLL_INTERVAL_NS)) {
            if (UNLIKELY(loop->fds.fresh)) {
                return loop_glance(loop, run, now);
            }
            loop->had_events = false;
            loop->now_ns = now;
            return 0;
        }
        loop->slept_ns = now;
        loop_judge_answers(loop, now);
    }
    else {
        if (UNLIKELY(loop->polled_events >= MANY_EVENTS)) {
            loop_judge_answers(loop, monotonic_ns());
        }
        if (UNLIKELY(loop_idle_time(loop, &wait_ns) < 0)) {
            loop_propagate(loop);
            return -1;
        }
    }
    if (UNLIKELY(!list_empty(&ops_loop(loop)->waiting_operations))) {
        wait_ns = operation_check_waiting(loop, monotonic_ns(), wait_ns);
    }
    current_leave(loop);
    loop->woke_ns = 0;
    loop->profiled_sleep = false;
    int result = LIKELY(by_selector == 0) ? loop_look(loop, wait_ns)
                                          : selector_poll(loop, wait_ns);
    /* A signal ends a sleep without an event. With one, whatever Python runs now handles it first. */
    if (UNLIKELY(result < 0 || (loop->fds.events == 0 && PyErr_CheckSignals() < 0))) {
        loop_propagate(loop);
    }
    if (UNLIKELY(loop->profiled_sleep)) {
        loop_tell_profiler(loop);
    }
    /* Without timers the moment of waking is as good, and need not be asked for. */
    now = loop->woke_ns != 0 && timer_next(&loop->timers) == TIMER_NEVER ? loop->woke_ns : monotonic_ns();
    loop_note_look(loop, loop->slept_ns != 0 ? loop->slept_ns : now,
                   loop->woke_ns != 0 ? loop->woke_ns : now);
    loop->now_ns = loop->last_poll_ns = now;
    return run->exception == NULL ? 1 : -1;
}

/* Somebody has a view of the insides. */
static __attribute__((noinline)) int
loop_poll_looked_at(Loop *loop, struct run *run, size_t *before)
{
    int by_selector = selector_look(loop);
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
static inline __attribute__((always_inline)) int
loop_poll(Loop *loop, struct run *run, size_t *before)
{
    return LIKELY(!FLAG(loop->looked_at)) ? loop_poll_by(loop, run, before, 0)
                                          : loop_poll_looked_at(loop, run, before);
}

/* Apart from the poll, because asyncio's order is: what was ready before the poll, then
 * what the poll has brought, then due timers. */
static void
loop_dispatch(Loop *loop)
{
    loop->polls++;
    loop->polled_events = 0;
    if (!list_empty(&loop->fds.noted)) {
        current_leave(loop);
        readers_tell(loop);
    }
    loop->had_events = loop->fds.events > 0;
    loop->polled_events = loop->fds.events;
}

static inline int
loop_collect_timers(Loop *loop)
{
    int64_t next = timer_next(&loop->timers);
    int64_t now = loop->now_ns;
    if (LIKELY(next == TIMER_NEVER)) {
        /* As asyncio, which asks in each iteration. What was replaced is known from whatever was scheduled. */
        bool asks = SHARED_LOAD(loop->overrides.replaced) & LOOP_BIT(time);
        return UNLIKELY(asks) ? loop_now_ns(loop, &now) : 0;
    }
    if (loop_has_custom_clock(loop) && loop_now_ns(loop, &now) < 0) {
        return -1;
    }
    if (next <= now + loop->resolution_ns) {
        timer_collect(loop, now + loop->resolution_ns);
    }
    return 0;
}

static inline void
loop_drain_inbox(Loop *loop)
{
    if (inbox_has_any(&loop->inbox)) {
        inbox_drain_some(loop);
    }
}

/* What other threads have sent, and the poll: 1 if there was one, 0, or -1. `*before` is how many calls were
 * ready then. */
static inline __attribute__((always_inline)) int
loop_gather(Loop *loop, struct run *run, size_t *before)
{
    overrides_look_at_modules(loop);
    loop->inbox.direct = 0;
    loop_drain_inbox(loop);
    *before = 0;
    int polled = loop_poll(loop, run, before);
    if (polled > 0) {
        loop_drain_inbox(loop);
    }
    return polled;
}

/* The order is asyncio's: what was ready before, what the poll has brought, due timers. */
static int
loop_iterate(Loop *loop, struct run *run)
{
    size_t before;
    int polled = loop_gather(loop, run, &before);
    if (polled < 0) {
        return -1;
    }
    if (loop_collect_timers(loop) < 0) {
        loop_propagate(loop);
        return -1;
    }
    size_t total = ready_length(&loop->ready);
    for (size_t count = polled ? before : total;; count = total - before) {
        if (loop_run_ready(loop, run, count) < 0) {
            return -1;
        }
        if (!polled) {
            return 0;
        }
        polled = 0;
        loop_note_delay(loop, before);
        loop_dispatch(loop);
        if (run->exception != NULL) {
            return -1;
        }
    }
}

/* -- turns with a bound (turn_budget) ---------------------------------------------------------------------- */

/* A look at the kernel in the middle of a turn: events are told, due timers made ready. 0, or -1 if
 * the run has to end. */
static int
loop_look_between(Loop *loop, struct run *run)
{
    current_leave(loop);
    int by_selector = LIKELY(!FLAG(loop->looked_at)) ? 0 : selector_look(loop);
    int result = by_selector < 0 || loop_check_closed(loop) < 0 ? -1
                 : by_selector > 0                              ? selector_poll(loop, 0)
                                                                : loop_look(loop, 0);
    if (result < 0 || PyErr_CheckSignals() < 0) {
        loop_propagate(loop);
        return -1;
    }
    int64_t now = monotonic_ns();
    loop_note_look(loop, now, now);
    counters_begin_turn(loop->counters);    /* what looks at the kernel is not blocked */
    loop->now_ns = loop->last_poll_ns = now;
    loop_note_delay(loop, 0);
    loop_dispatch(loop);
    if (run->exception != NULL) {
        return -1;
    }
    if (loop_collect_timers(loop) < 0) {
        loop_propagate(loop);
        return -1;
    }
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

static __attribute__((noinline)) int
loop_run_oldest(Loop *loop, struct run *run)
{
    return loop_run_ready(loop, run, 1);
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
        if (!deferred && loop_run_oldest(loop, run) < 0) {
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
    size_t before;
    int polled = loop_gather(loop, run, &before);
    if (polled < 0) {
        return -1;
    }
    if (polled) {
        size_t rest = ready_length(&loop->ready) - before;    /* of other threads */
        if (loop_run_ready_bounded(loop, run, before) < 0) {
            return -1;
        }
        loop_note_delay(loop, before);
        loop_dispatch(loop);
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
    if (UNLIKELY(net_loop(loop)->unpushed.length > 0)) {
        hold_release(loop);
    }
}

/* What waits for memory: calls that are due run, Tasks get a place in the ring. */
static void
loop_pay(Loop *loop, struct run *run)
{
    struct owed *owed = &loop->owed;
    SET_FLAG(owed->any, false);
    if (FLAG(owed->tasks)) {
        owed_pay_tasks(loop);
    }
    current_leave(loop);
    owed_pay_calls(loop, run);
    if (!list_empty(&owed->due) || FLAG(owed->tasks)) {
        SET_FLAG(owed->any, true);
    }
}

void
loop_end_turn_by_hand(Loop *loop, struct run *run)
{
    if (run->outer == NULL && LIKELY(!FLAG(loop->closed))) {
        loop_end_turn(loop);
        if (UNLIKELY(FLAG(loop->owed.any)) && run->exception == NULL) {
            loop_pay(loop, run);
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
    hand->run = loop_begin_run(loop);
    if (UNLIKELY(hand->run == NULL)) {
        return -1;
    }
    loop->libev = libev_call();
    current_take(loop, &hand->task, &hand->entered);
    hand->run->thread = me;
    Py_INCREF(loop);
    if (hand->run->outer == NULL) {
        activity_set_thread(loop->activity, me);
        loop_begin_counting(loop);
    }
    return 0;
}

int
loop_end_by_hand(Loop *loop, struct hand *hand)
{
    current_leave(loop);
    if (hand->run->outer == NULL) {
        loop_end_counting(loop);
        activity_set_thread(loop->activity, 0);
    }
    PyObject *exception = loop_end_run(loop, hand->run);
    current_put_back_steal(loop, hand->task, hand->entered);    /* inside a step of it, which goes on */
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
        brief_begin_turn(loop);
        counters_begin_turn(loop->counters);
        int result = bounded ? loop_iterate_bounded(loop, run) : loop_iterate(loop, run);
        loop_end_turn(loop);
        if (UNLIKELY(FLAG(loop->owed.any)) && result == 0 && run->exception == NULL) {
            loop_pay(loop, run);
        }
        loop_verify(loop);
        if (result < 0 || run->exception != NULL) {
            break;
        }
    } while (!once && !FLAG(loop->stopping) && LIKELY(!FLAG(loop->turns_change)));
}

/* From now on, where tracemalloc is on, no memory of dead objects is kept. */
static void
keep_nothing_if_traced(Loop *loop)
{
    if (UNLIKELY(freelist_is_traced())) {
#ifdef Py_GIL_DISABLED
        kept_end(&loop->kept);
#else
        freelist_drain_all(loop->state);
#endif
    }
}

static int
loop_run_owned(Loop *loop, bool once)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    struct hand hand;
    if (UNLIKELY(loop_begin_by_hand(loop, &hand) < 0)) {
        return -1;
    }
    struct run *run = hand.run;
    run->once = once;
    if (!once) {
        overrides_look_at_codes(loop);
        keep_nothing_if_traced(loop);
    }
    loop->had_events = false;
    loop->last_poll_ns = 0;    /* the first iteration of a run always polls, as asyncio's */
    SET_FLAG(loop->turns_change, false);
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
    brief_begin_run();
    int result = loop_run_owned(loop, once);
    brief_end_run();
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

int
iteration_init(PyObject *module UNUSED, struct state *state)
{
    loop_state(state)->run.end_turn_by_hand = loop_end_turn_by_hand;
#ifdef Py_GIL_DISABLED
    loop_state(state)->loops.brief = brief_prepare();
#endif
    return 0;
}
