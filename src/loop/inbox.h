/* inbox.h - calls from other threads: a locked queue, and one wake-up per burst.
 *
 * Promises: what one thread sends keeps its order; an iteration takes over a bounded part, so
 *           that no flood keeps descriptors and timers waiting. */
#ifndef ASYNCLOOP_INBOX_H
#define ASYNCLOOP_INBOX_H

#include "base/tuning.h"
#include "loop/ready.h"

#include <pthread.h>
#include <ev.h>

/* What other threads may make one iteration run, in items: with a microsecond or two for
 * each, descriptors and timers wait some milliseconds behind a flood that has no end. */
#define DIRECT_MAX TUNED(DIRECT_MAX, 1024)
#define DRAIN_MAX TUNED(DRAIN_MAX, 1024)

/* What a thread that Python knows nothing of hands to the loop's: embedded in its owner. */
struct posted {
    struct posted *next;
    void (*run)(struct posted *posted, Loop *loop);    /* lets no exception out */
};

struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t released;          /* for the threads in wake_wait_while() */
    int waiters;                      /* how many */
    uintptr_t *items;                 /* as in struct ready: strong, with their kind; from head on */
    size_t head;
    size_t count;
    struct posted *posted;            /* the first of those that wait to be run */
    struct posted **posted_end;       /* where the next one is to be put */
    bool any;                         /* there is an item or a posted one: read without the lock, as a hint */
    size_t capacity;
    unsigned int direct;              /* pushed to the ring itself, since the iteration began */
    bool asleep;                      /* the loop sleeps in its poll, or is about to: wake it */
    bool poked;                       /* loop_wake() while it did not: the next poll is not to sleep */
    bool open;                        /* takes calls: from the loop's first moment to its close() */
    int wake_fd;                      /* eventfd; -1: closed, or a child of fork() has none yet */
    int wake_write_fd;                /* the same, or a pipe's other end where there is no eventfd */
    ev_io wake_watcher;
};

void inbox_init(Loop *loop);
void inbox_open(Loop *loop);            /* takes calls from now on */
void inbox_close(Loop *loop);           /* drops what is left */
void inbox_forked(Loop *loop);          /* in the child, before anything else */

/* To the ready ring, not more than one iteration is to run, nor than there is memory for */
void inbox_drain_some(Loop *loop);
void inbox_drain_all(Loop *loop);       /* the same without the first bound, for a loop that stands */
int inbox_traverse(Loop *loop, visitproc visit, void *arg);
void inbox_free(Loop *loop);

/* Steals op: loop_push_steal() of another thread. 0, or -1 with MemoryError, or RuntimeError. */
int inbox_push_steal(Loop *loop, PyObject *op, enum ready_kind kind);

/* From a thread without the GIL, and without a thread state: the loop's thread runs `posted` in
 * its next iteration, outside of what is ready. The caller sees to it that the loop is alive. */
void inbox_post(Loop *loop, struct posted *posted);
void inbox_run_posted(Loop *loop);      /* now, in the loop's thread */

/* Is there anything? A hint is enough before a poll: who comes later has woken it. */
static inline bool
inbox_has_any(const struct inbox *inbox)
{
    return UNLIKELY(__atomic_load_n(&inbox->any, __ATOMIC_RELAXED));
}

#ifdef ASYNCLOOP_DEBUG
void inbox_verify(Loop *loop, uint64_t turn);    /* checked.h */
#endif

#endif
