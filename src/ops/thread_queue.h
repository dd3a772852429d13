/* thread_queue.h - the inside of asyncloop.ThreadQueue: what has to happen at one stroke,
 * whichever threads call. */
#ifndef ASYNCLOOP_THREAD_QUEUE_H
#define ASYNCLOOP_THREAD_QUEUE_H

#include "base/state.h"

/* Adds the type _core._ThreadQueue to the module. 0 / -1 */
int thread_queue_init(PyObject *module, struct state *state);

#endif
