/* inbox.h - calls from other threads: a locked queue, and one wake-up per burst.
 *
 * Promises: what one thread sends keeps its order; an iteration takes over a bounded part, so
 *           that no flood keeps descriptors and timers waiting. */
#ifndef ASYNCLOOP_INBOX_H
#define ASYNCLOOP_INBOX_H

#include "loop/loop.h"

void inbox_init(Loop *loop);
int inbox_open(Loop *loop);             /* the libev loop is there: 0, or -1 with OSError */
void inbox_close(Loop *loop);           /* drops what is left; before the libev loop goes */
void inbox_forked(Loop *loop);          /* in the child, before anything else */
int inbox_after_fork(Loop *loop);       /* 0, or -1 with OSError */

/* Around a poll that may sleep. False: there is something to drain, do not sleep. */
bool inbox_may_sleep(Loop *loop);
void inbox_awake(Loop *loop);
void inbox_empty(Loop *loop);           /* the descriptor: somebody else has polled */
/* To the ready ring, not more than one iteration is to run, nor than there is memory for */
void inbox_drain_some(Loop *loop);
void inbox_drain_all(Loop *loop);       /* the same without the first bound, for a loop that stands */
int inbox_traverse(Loop *loop, visitproc visit, void *arg);
void inbox_free(Loop *loop);

/* Another thread waits, without the GIL, until the loop has set *runner to 0; the loop
 * calls inbox_tell_waiters() after that. */
void inbox_wait_while(Loop *loop, const uint32_t *runner);
void inbox_tell_some_waiters(Loop *loop);

static inline void
inbox_tell_waiters(Loop *loop)
{
    if (UNLIKELY(__atomic_load_n(&loop->inbox.waiters, __ATOMIC_SEQ_CST) > 0)) {
        inbox_tell_some_waiters(loop);
    }
}

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

#endif
