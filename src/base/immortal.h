/* immortal.h - what is not counted: without a GIL each reference that several threads take to one object
 * is a write to the same line of memory, by turns.
 *
 * Promises: with a GIL nothing happens here. What is immortal lives as long as the process. */
#ifndef ASYNCLOOP_IMMORTAL_H
#define ASYNCLOOP_IMMORTAL_H

#include "base/state.h"

/* Our types: every object of a type counts as a reference to it. */
void immortal_type(PyObject *type);

/* What asyncio's modules and classes hold, of the main interpreter: functions, methods, members of enumerations.
 * -1 with an exception set. An initialiser of the module. */
int immortal_init(PyObject *module, struct state *state);

#endif
