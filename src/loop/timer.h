/* timer.h - the heap of deadlines. Deadlines are exact nanoseconds; what is
 * cancelled leaves the heap at once. How a deadline bounds the poll: poll.c. */
#ifndef ASYNCLOOP_TIMER_H
#define ASYNCLOOP_TIMER_H

#include "base/state.h"

#define TIMER_NEVER INT64_MAX

struct timer_entry {
    int64_t key;                      /* the time, as key_of() makes it */
    TimerHandle *timer;               /* strong */
};

struct timers {
    struct timer_entry *heap;         /* ordered by key, then sequence */
    size_t length;
    size_t capacity;
    uint32_t sequence;
    int64_t next_ns;                  /* the deadline of the first, while there is one */
};

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
timer_count(const struct timers *timers)
{
    return SHARED_LOAD(timers->length);
}

/* Without a lock: each turn of the loop asks. Another thread that changes the heap meanwhile wakes the loop,
 * which asks again. */
static inline int64_t
timer_next(const struct timers *timers)
{
    return timer_count(timers) == 0 ? TIMER_NEVER : SHARED_LOAD(timers->next_ns);
}

PyObject *timer_first(Loop *loop);    /* that is due next: a new reference, or NULL */

double timer_seconds(TimerHandle *timer);    /* when it is due, or was */
int64_t timer_deadline(double when);    /* seconds to nanoseconds, rounded up, clamped; NaN is now */

#ifdef ASYNCLOOP_DEBUG
void timer_verify(Loop *loop, uint64_t turn);    /* checked.h */
#endif

#endif
