/* signals.h - signals that have a handler of the loop's: the pipe that Python writes their numbers to.
 *
 * Owns: both ends of it, from its first use to the loop's end. */
#ifndef ASYNCLOOP_SIGNALS_H
#define ASYNCLOOP_SIGNALS_H

#include "loop/loop.h"

/* The descriptor for signal.set_wakeup_fd(): made on first use. -1 with OSError. */
int signals_fd(Loop *loop);
void signals_close(Loop *loop);
int signals_after_fork(Loop *loop);     /* in the child: 0, or -1 with OSError */

#endif
