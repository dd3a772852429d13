/* liveness.h - tells systemd, a health file and whoever asks over HTTP whether the loops turn.
 *
 * Owns:     a thread without thread state, which takes no GIL, so that it answers while a call holds it;
 *           the listening socket and the one to systemd.
 * Promises: nobody is told that all is well while a loop is in one turn for longer than the threshold,
 *           or while none runs. An answer takes the time of a look at the loops, or of a signal: the
 *           handler of faulthandler writes down where the thread of a blocked loop is.
 * Ignores:  what the loops do: it looks at activity.h alone. */
#ifndef ASYNCLOOP_LIVENESS_H
#define ASYNCLOOP_LIVENESS_H

#include "loop/loop_state.h"

int liveness_init(PyObject *module, struct state *state);

#endif
