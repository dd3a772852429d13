/* activity.h - what a loop shows to those who look at it from outside: from another thread, without
 * the GIL, while it is blocked.
 *
 * Owns:     the list of the loops of an interpreter, for threads that know no Python, and what a loop
 *           counts.
 * Promises: a loop's part is a relaxed store when a turn begins and one when it falls asleep; who
 *           looks holds the lock, so that no loop dies, and no thread leaves a run, meanwhile.
 * Ignores:  what is made of it: watchdog.c. */
#ifndef ASYNCLOOP_ACTIVITY_H
#define ASYNCLOOP_ACTIVITY_H

#include "loop/counters.h"
#include "loop/page.h"

#include <pthread.h>

/* All loops of an interpreter. Lives as long as one of its holders: the module, the loops, the
 * watchdogs. */
struct activities {
    pthread_mutex_t lock;     /* for all that follows; held across no Python */
    struct list_node list;
    unsigned int holders;
    uint64_t last_number;
    struct page *page;        /* the open one, or NULL */
};

struct activity {
    struct list_node node;
    struct activities *all;
    struct counters *counters;    /* never NULL */
    uint64_t number;          /* of the loop in its interpreter, from 1; never used again */
    unsigned long thread;     /* threading.get_ident() of who runs the loop; 0: nobody. Under the lock */
    pthread_t pthread;        /* the same thread, for pthread_kill(); likewise */
    struct page *page;        /* the page that the counters are in, open or closed; NULL: they are in `own` */
    struct counters own;
    /* What activity_read() has given last, in ns, so that it never gives less. Under the lock. */
    int64_t shown_idle;
    int64_t shown_busy;
};

struct activities *activities_new(void);               /* NULL without memory; sets no exception */
void activities_hold(struct activities *all);
void activities_drop(struct activities *all);          /* the last holder frees it; may be NULL */
void activities_forked(struct activities *all);        /* in the child: only this thread is left */

/* For a new loop. NULL without memory; sets no exception. */
struct activity *activity_new(struct activities *all);
void activity_free(struct activity *activity);         /* may be NULL */
/* Opens a page that other processes may map, in place of an open one: loops that are made from then on
 * count in it. 0, or -1 with errno. */
int activities_open_page(struct activities *all, const char *asyncloop, const char *python,
                         const char *socket);
void activities_close_page(struct activities *all);
/* Writes a stall of loop number `loop` into the open page, if there is one. */
void activities_note_stall(struct activities *all, uint64_t loop, int64_t lasted_ns, bool goes_on,
                           const char *text, size_t length);
/* A watchdog has seen the loop of that number spin: counted, if it is there. */
void activities_count_spin(struct activities *all, uint64_t loop);
/* In the thread that runs the loop: it counts in the open page from then on, if that has a slot left. Returns
 * where its counters are now. */
struct counters *activity_move(struct activity *activity);

/* Around a run, in its thread; 0 as the thread ends it. */
void activity_set_thread(struct activity *activity, unsigned long thread);

/* In the child: the thread that ran it is not there. */
void activity_forked(struct activity *activity);

/* A copy of what it counts, from any thread, and the moment for its spans. The time idle and the time busy
 * never become less from one reading to the next, also where the loop's thread lost the processor between
 * its look at the clock and its note of it. */
void activity_read(struct activity *activity, struct counters *copy, int64_t *now_ns);

unsigned long activity_thread(struct activity *activity);    /* who runs it; 0: nobody */

/* A pulse is two more with each turn and with each end of a sleep, and odd until the next sleep. */
static inline void
counters_begin_turn(struct counters *counters)
{
    if (COUNTS) {
        uint64_t pulse = __atomic_load_n(&counters->pulse, __ATOMIC_RELAXED);
        __atomic_store_n(&counters->pulse, (pulse | 1) + 2, __ATOMIC_RELAXED);
    }
}

/* Until the next turn begins. */
static inline void
counters_sleep(struct counters *counters)
{
    if (COUNTS) {
        uint64_t pulse = __atomic_load_n(&counters->pulse, __ATOMIC_RELAXED);
        __atomic_store_n(&counters->pulse, pulse & ~UINT64_C(1), __ATOMIC_RELAXED);
    }
}

/* Nothing is ready. The turn before is a delay from now on, for who reads it during the sleep: what came due in
 * it is told of by the look at the kernel that begins now. */
static inline void
counters_fall_asleep(struct counters *counters, int64_t now_ns)
{
    int64_t unlooked = now_ns - COUNTER_GET(counters->looked);
    if (UNLIKELY(unlooked >= DELAY_LEAST_NS)) {
        counters_note_delay(counters, 0, unlooked);
        COUNTER_SET(counters->looked, now_ns);
    }
    counters_sleep(counters);
    span_begin(&counters->idle, now_ns);
}

#endif
