/* inbox.h - calls from other threads: a locked queue, and one wake-up per burst.
 *
 * Promises: what one thread sends keeps its order; an iteration takes over a bounded part, so
 *           that no flood keeps descriptors and timers waiting. */
#ifndef ASYNCLOOP_INBOX_H
#define ASYNCLOOP_INBOX_H

#include "base/tuning.h"
#include "loop/loop.h"

/* What other threads may make one iteration run, in items: with a microsecond or two for
 * each, descriptors and timers wait some milliseconds behind a flood that has no end. */
#define DIRECT_MAX TUNED(DIRECT_MAX, 1024)
#define DRAIN_MAX TUNED(DRAIN_MAX, 1024)

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

static inline void
inbox_drain(Loop *loop)
{
    /* A hint is enough: who comes later has woken the poll. */
    if (UNLIKELY(__atomic_load_n(&loop->inbox.any, __ATOMIC_RELAXED))) {
        inbox_drain_some(loop);
    }
}

#ifdef ASYNCLOOP_DEBUG
void inbox_verify(Loop *loop, uint64_t turn);    /* checked.h */
#endif

#endif
