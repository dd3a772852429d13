/* loop_type.h - Python's face of the loop. */
#ifndef ASYNCLOOP_LOOP_TYPE_H
#define ASYNCLOOP_LOOP_TYPE_H

#include "base/state.h"

int loop_type_init(PyObject *module, struct state *state);

/* The running loop of that number (activity.h), or None. New reference, or NULL. */
PyObject *loop_by_number(PyObject *module, PyObject *number);

/* The running loops: a list of (number, the thread's number, loop). New reference, or NULL. */
PyObject *running_loops(PyObject *module, PyObject *ignored);

/* A class that is derived from ours gets our methods as its own, but for those that something in between
 * has as well: the call of a method whose class is exactly the object's does not look for it among what that
 * inherits from, and is the interpreter's quickest (guarded paths: call-soon, future). None or NULL. */
PyObject *loop_give_methods(PyObject *module, PyObject *class);

#endif
