/* context.h - the context that goes with a callback which a program's own method of the loop gets.
 *
 * From Python 3.15 on asyncio's transports over sockets pass theirs on: call_soon(..., context=...),
 * _add_reader(..., context=...). Whoever calls back has entered it then, and so may a transport's calls not. */
#ifndef ASYNCLOOP_CONTEXT_H
#define ASYNCLOOP_CONTEXT_H

#include "base/state.h"

/* object.name(*args, context=owner._context), without the keyword where the owner has no such attribute. New
 * reference, or NULL. args: a tuple, which is stolen; NULL: an exception is set already. */
PyObject *context_call_method_steal(PyObject *object, const char *name, PyObject *args, PyObject *owner);

/* Where the owner's context is the current one, it is left until context_step_in(): new reference, NULL if it is
 * not (and where it has none). No exception. */
PyObject *context_step_out(PyObject *owner);
/* An exception that is there stays. */
void context_step_in(PyObject *context_steal);

#endif
