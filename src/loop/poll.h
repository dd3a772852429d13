/* poll.h - one look at the kernel: how long to sleep, with or without the GIL. */
#ifndef ASYNCLOOP_POLL_H
#define ASYNCLOOP_POLL_H

#include "loop/loop.h"

int poll_open(Loop *loop);            /* the libev loop and its descriptors: 0, or -1 with an exception */
void poll_close(Loop *loop);
int poll_after_fork(Loop *loop);      /* 0, or -1 with OSError */

/* Polls libev once, for `wait_ns` at most (0: does not sleep; TIMER_NEVER: no bound), and
 * only notes what has happened, in the kernel's order. 0, or -1 with OSError when the kernel refuses (somebody
 * has closed libev's descriptor), with RuntimeError when a callback has closed the loop before; without
 * one if loop->left_to_poll is set: it was closed meanwhile, and the caller closes the rest. */
int poll_sleep(Loop *loop, int64_t wait_ns);
int poll_now(Loop *loop);

static inline int
poll_once(Loop *loop, int64_t wait_ns)
{
    return wait_ns > 0 ? poll_sleep(loop, wait_ns) : poll_now(loop);
}

#endif
