/* coroutine_method.h - the loop's methods that give an Operation, as coroutine functions.
 *
 * A program that asks inspect.iscoroutinefunction(loop.sock_recv), as unittest.mock does for each
 * attribute of what it is a double of, is told what it is told of asyncio's: inspect takes a method for one
 * by its code object, and the signature comes from there. Which calls it makes is not changed by that. */
#ifndef ASYNCLOOP_COROUTINE_METHOD_H
#define ASYNCLOOP_COROUTINE_METHOD_H

#include "base/state.h"

/* Puts one in the place of each of these methods of the type Loop. */
int coroutine_methods_init(PyObject *module, struct state *state);

#endif
