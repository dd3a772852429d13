/* counters.h - what a loop counts: for its own statistics, for other threads, and for other processes.
 *
 * Owns:     the struct, which lies with the loop's activity, or in a page that others have mapped.
 * Promises: only the thread that runs the loop writes what COUNT() is for; what any thread may write
 *           goes through COUNT_SHARED(). Each field is whole at any moment, also for who has no GIL.
 *           Under a GIL a count is one instruction; without one, a relaxed load and store.
 * Ignores:  what is made of it. */
#ifndef ASYNCLOOP_COUNTERS_H
#define ASYNCLOOP_COUNTERS_H

#include "base/compat.h"

/* How late what is due runs, in nanoseconds: eight buckets to an octave, from DELAY_LEAST_NS on. What is
 * below is the rest of the time. The last bucket has no end. */
#define DELAY_FIRST_OCTAVE 16
#define DELAY_LEAST_NS (INT64_C(1) << DELAY_FIRST_OCTAVE)
#define DELAY_PER_OCTAVE 8
#define DELAY_OCTAVES 24
#define DELAY_BUCKETS (DELAY_OCTAVES * DELAY_PER_OCTAVE + 1)

/* Eight bytes each: this is what another process reads as well (page.h). */
struct counters {
    uint64_t number;          /* of the loop in its interpreter, from 1; 0: nobody's */
    uint64_t thread;          /* threading.get_ident() of who runs it; 0: nobody */
    uint64_t native_thread;   /* the kernel's number of who ran it last, in a page */
    uint64_t pulse;           /* changes when a turn begins and with each sleep; odd while it is awake */
    uint64_t turns;
    uint64_t steps;           /* callbacks, events, parts of tasks, and the ends of turns */
    uint64_t task_steps;      /* parts of tasks, of these */
    uint64_t eager_steps;     /* the first parts of tasks inside of their creation */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t from_threads;    /* calls that came from other threads */
    uint64_t tasks;           /* now, as the next two */
    uint64_t transports;
    uint64_t descriptors;
    uint64_t ready;           /* as it last looked at the kernel */
    uint64_t timers;          /* the same */
    /* Sums of nanoseconds, in a form that one store changes: see span_at(). */
    int64_t run;
    int64_t idle;
    int64_t looked;           /* CLOCK_MONOTONIC in ns, when it has last looked at the kernel */
    int64_t unlooked;         /* ns in which nothing was looked at before that, until it is in `delay`; or 0 */
    uint64_t delay_max;       /* ns */
    uint64_t stalls;          /* what watchdogs have seen: written by their threads, under the lock */
    uint64_t spins;           /* of the activities */
    uint64_t delay[DELAY_BUCKETS];    /* ns of time in which what came due was so late */
};

/* ASYNCLOOP_UNCOUNTED is for `python -m benchmarks.observe counters`, which tells what counting costs. */
#ifdef ASYNCLOOP_UNCOUNTED
#define COUNTS false
#else
#define COUNTS true
#endif

#ifdef ASYNCLOOP_UNCOUNTED
#define COUNTER_SET(place, value) ((void)(value))
#define COUNTER_GET(place) (place)
#define COUNT(place, n) ((void)(n))
#define COUNT_SHARED(place, n) ((void)(n))
#elif defined(Py_GIL_DISABLED)
#define COUNTER_SET(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
#define COUNTER_GET(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#define COUNT(place, n) COUNTER_SET(place, COUNTER_GET(place) + (n))
#define COUNT_SHARED(place, n) ((void)__atomic_fetch_add(&(place), (n), __ATOMIC_RELAXED))
#else
#define COUNTER_SET(place, value) ((void)((place) = (value)))
#define COUNTER_GET(place) (place)
#define COUNT(place, n) ((void)((place) += (n)))
#define COUNT_SHARED(place, n) COUNT(place, n)
#endif

/* A sum of time that goes on or stands still: the sum while it stands, and while it goes on the sum
 * minus the moment at which that began, which is below zero. Who reads it adds the time. */
static inline int64_t
span_at(int64_t span, int64_t now_ns)
{
    return span < 0 ? span + now_ns : span;
}

static inline void
span_begin(int64_t *span, int64_t now_ns)
{
    int64_t value;
    if (COUNTS && LIKELY((value = __atomic_load_n(span, __ATOMIC_RELAXED)) >= 0)) {
        __atomic_store_n(span, value - now_ns, __ATOMIC_RELAXED);
    }
}

static inline void
span_end(int64_t *span, int64_t now_ns)
{
    int64_t value;
    if (COUNTS && LIKELY((value = __atomic_load_n(span, __ATOMIC_RELAXED)) < 0)) {
        __atomic_store_n(span, value + now_ns, __ATOMIC_RELAXED);
    }
}

/* For `span_ns` nothing was looked at; what came due meanwhile ran `first_ns` after the look at the earliest.
 * Not for spans below DELAY_LEAST_NS. */
void counters_note_delay(struct counters *counters, int64_t first_ns, int64_t span_ns);

/* The lower end of a bucket in ns; of DELAY_BUCKETS too. */
int64_t delay_bound(unsigned int bucket);

/* A copy from any thread, with or without a GIL, and the moment for its spans. */
void counters_read(const struct counters *counters, struct counters *copy, int64_t *now_ns);

#endif
