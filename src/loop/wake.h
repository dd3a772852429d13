/* wake.h - the end of a loop's sleep, by another thread; and threads that wait for the loop.
 *
 * Where the descriptor comes from: poll.c. The lock is the inbox's: held for a few instructions, never
 * across a call that may run Python or wait for the GIL. Only the first call that finds the loop asleep
 * writes to the descriptor (benchmark row: call_soon_threadsafe). */
#ifndef ASYNCLOOP_WAKE_H
#define ASYNCLOOP_WAKE_H

#include "loop/loop.h"

void loop_wake(Loop *loop);             /* from any thread: ends the poll */

void wake_empty(Loop *loop);           /* the descriptor, which has woken a poll */

/* A pipe for wake-ups, which blocks nobody and which no child inherits: 0, or -1 with OSError. */
int wake_open_pipe(int fds[2]);

/* Another thread waits, without the GIL, until the loop has set *runner to 0; the loop
 * calls wake_tell_waiters() after that. */
void wake_wait_while(Loop *loop, const uint32_t *runner);
void wake_tell_all_waiters(Loop *loop);

static inline void
wake_tell_waiters(Loop *loop)
{
    if (UNLIKELY(__atomic_load_n(&loop->inbox.waiters, __ATOMIC_SEQ_CST) > 0)) {
        wake_tell_all_waiters(loop);
    }
}

/* -- for inbox.c --------------------------------------------------------------------- */

static inline bool
wake_is_asleep(struct inbox *inbox)
{
    return __atomic_load_n(&inbox->asleep, __ATOMIC_SEQ_CST);
}

static inline void
wake_set_asleep(struct inbox *inbox, bool asleep)
{
    __atomic_store_n(&inbox->asleep, asleep, __ATOMIC_RELAXED);
}

/* -- around a poll that may sleep (guarded path: protocol) ----------------------------- */

static inline void
loop_awake(Loop *loop)
{
    wake_set_asleep(&loop->inbox, false);    /* who saw it asleep wakes the next poll: no matter */
    if (UNLIKELY(__atomic_load_n(&loop->inbox.poked, __ATOMIC_SEQ_CST))) {
        __atomic_store_n(&loop->inbox.poked, false, __ATOMIC_RELAXED);
    }
}

/* False: there is something to drain, do not sleep. */
static inline bool
loop_may_sleep(Loop *loop)
{
    /* Without the lock: who has work first says so, then looks whether the loop sleeps; the loop first
     * says that it sleeps, then looks for work. One sees the other. */
    struct inbox *inbox = &loop->inbox;
    __atomic_store_n(&inbox->asleep, true, __ATOMIC_SEQ_CST);
    if (LIKELY(!__atomic_load_n(&inbox->any, __ATOMIC_SEQ_CST)
               && !__atomic_load_n(&inbox->poked, __ATOMIC_SEQ_CST))) {
        return true;
    }
    loop_awake(loop);
    return false;
}

void wake_write(struct inbox *inbox);    /* to the descriptor, whatever the loop does */

/* With the lock held: the loop wakes if it sleeps. */
static inline void
wake_locked(struct inbox *inbox)
{
    if (wake_is_asleep(inbox) && inbox->wake_write_fd >= 0) {
        wake_set_asleep(inbox, false);
        wake_write(inbox);
    }
}

#endif
