/* trace.h - what a loop does in some of its turns: for the watchdog, which asks for it when a loop seems to
 * spin.
 *
 * Owns:     references to the first few callbacks and tasks that run while it lasts.
 * Promises: nothing is paid while there is no trace; one ends by itself after some hundred items.
 * Threads:  the loop's own. */
#ifndef ASYNCLOOP_TRACE_H
#define ASYNCLOOP_TRACE_H

#include "loop/loop.h"

/* With a trace: runs an item of the ring by `run`, and notes it down. `event`: of a descriptor. */
int trace_run(Loop *loop, uintptr_t item, bool event, int (*run)(Loop *loop, uintptr_t item));
void trace_drop(Loop *loop);

/* Both end a trace that is there. */
PyObject *Loop__trace_begin(PyObject *op, PyObject *ignored);
PyObject *Loop__trace_end(PyObject *op, PyObject *ignored);

#endif
