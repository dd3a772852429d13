/* guard.c - see guard.h; with a GIL, and without ASYNCLOOP_SMALL, there is nothing in here. */
#include "base/guard.h"

#if defined(Py_GIL_DISABLED) && defined(ASYNCLOOP_SMALL)

void
guard_begin(struct guard *guard, PyObject *op)
{
    guard_begin_here(guard, op);
}

void
guard_end(struct guard *guard)
{
    guard_end_here(guard);
}

#endif
