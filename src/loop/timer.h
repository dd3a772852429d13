/* timer.h - the heap of deadlines. Deadlines are exact nanoseconds; what is
 * cancelled leaves the heap at once. How a deadline bounds the poll: poll.c. */
#ifndef ASYNCLOOP_TIMER_H
#define ASYNCLOOP_TIMER_H

#include "loop/loop.h"

#define TIMER_NEVER INT64_MAX

int timer_schedule(Loop *loop, TimerHandle *timer);      /* takes a new reference; 0 / -1 MemoryError */
void timer_unschedule(Loop *loop, TimerHandle *timer);   /* drops the heap's reference, if it is there */
void timer_cancel(TimerHandle *timer);                   /* unschedule, and drop callback and arguments; the caller has a reference */
/* The timer is due at another time, whether it waits or not; `loop` may be NULL. 0 / -1 MemoryError */
int timer_move(Loop *loop, TimerHandle *timer, double when);
/* Due ones to the ready ring, which takes as many as there is memory for: the rest stays due. */
void timer_collect(Loop *loop, int64_t now_ns);
void timer_clear(Loop *loop);
int timer_traverse(Loop *loop, visitproc visit, void *arg);

static inline size_t
timer_count(const Loop *loop)
{
    return SHARED_LOAD(loop->timers.length);
}

/* Without a lock: each turn of the loop asks. Another thread that changes the heap meanwhile wakes the loop,
 * which asks again. */
static inline int64_t
timer_next(const Loop *loop)
{
    if (timer_count(loop) == 0) {
        return TIMER_NEVER;
    }
#ifdef Py_GIL_DISABLED
    return SHARED_LOAD(loop->timers.next_ns);
#else
    return loop->timers.heap[0].deadline_ns;
#endif
}

/* The one that is due next, a new reference, or NULL. */
static inline PyObject *
timer_first(Loop *loop)
{
    PyObject *first;
    GUARD(loop);
    first = loop->timers.length == 0 ? NULL : Py_NewRef(loop->timers.heap[0].timer);
    return first;
}

int64_t timer_deadline(double when);    /* seconds to nanoseconds, rounded up, clamped; NaN is now */

#ifdef ASYNCLOOP_DEBUG
void timer_verify(Loop *loop, uint64_t turn);    /* checked.h */
#endif

#endif
