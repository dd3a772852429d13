/* trace.h - what a loop does in some of its turns: for the watchdog, which asks for it when a loop seems to
 * spin.
 *
 * Owns:     references to the first few callbacks and tasks that run while it lasts.
 * Promises: nothing is paid while there is no trace; one ends by itself after some hundred items.
 * Threads:  the loop's own. */
#ifndef ASYNCLOOP_TRACE_H
#define ASYNCLOOP_TRACE_H

#include "loop/loop.h"

int trace_init(PyObject *module, struct state *state);

/* Both end a trace that is there. */
PyObject *Loop__trace_begin(PyObject *op, PyObject *ignored);
PyObject *Loop__trace_end(PyObject *op, PyObject *ignored);

#endif
