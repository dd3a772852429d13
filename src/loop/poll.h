/* poll.h - one look at the kernel: how long to sleep, with or without the GIL. */
#ifndef ASYNCLOOP_POLL_H
#define ASYNCLOOP_POLL_H

#include "loop/loop.h"

int poll_open(Loop *loop);
void poll_close(Loop *loop);
int poll_after_fork(Loop *loop);      /* 0, or -1 with OSError */

/* Polls libev once, for `wait_ns` at most (0: does not sleep; TIMER_NEVER: no bound), and
 * only notes what has happened, in the kernel's order. 0, or -1 with OSError when the kernel refuses (somebody
 * has closed libev's descriptor), with RuntimeError when the loop was closed meanwhile. */
int poll_once(Loop *loop, int64_t wait_ns);

/* Calls the watchers that poll_once() has noted, and with them the protocols. */
void poll_dispatch(Loop *loop);

/* A pipe that the loop's own wake-ups come through: 0, or -1 with OSError. */
int poll_open_pipe(int fds[2]);

/* The descriptor for signal.set_wakeup_fd(): made on first use. -1 with OSError. */
int poll_signal_fd(Loop *loop);

#endif
