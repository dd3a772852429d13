/* watchdog.h - a thread in C that sees a loop that does not go on, while it does not.
 *
 * Owns:     the thread, which has no thread state and takes no GIL; what it has seen waits in a
 *           queue for a thread of Python's (asyncloop/_watchdog.py), which makes a report of it.
 * Promises: a stall is noted within a tick (a fifth of the threshold). If nobody takes it from the
 *           queue, because the code that blocks holds the GIL, the loop's thread gets a signal whose
 *           handler (faulthandler's) writes its Python stack, and that goes to standard error.
 * Ignores:  what the loop does: it looks at activity.h alone. */
#ifndef ASYNCLOOP_WATCHDOG_H
#define ASYNCLOOP_WATCHDOG_H

#include "loop/loop_state.h"

int watchdog_init(PyObject *module, struct state *state);

#endif
