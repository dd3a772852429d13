/* guard.h - what holds where there is no GIL, and is nothing under it.
 *
 * GUARD(op) holds the critical section of an object from its line to the end of the block that it is in.
 * Critical sections are given up whenever the thread would block, so what holds across a call into
 * Python under the GIL holds here, and no more. For whole loops: owner.h. */
#ifndef ASYNCLOOP_GUARD_H
#define ASYNCLOOP_GUARD_H

#include "base/compat.h"

#ifdef Py_GIL_DISABLED
static inline void
guard_end(PyCriticalSection *section)
{
    PyCriticalSection_End(section);
}
#define GUARD_NAMED(name, op)                                       \
    PyCriticalSection name __attribute__((cleanup(guard_end)));     \
    PyCriticalSection_Begin(&name, (PyObject *)(op))
#define GUARD_AT_LINE(line, op) GUARD_NAMED(guard_##line, op)
#define GUARD_EXPANDED(line, op) GUARD_AT_LINE(line, op)
#define GUARD(op) GUARD_EXPANDED(__LINE__, op)
#else
#define GUARD(op) ((void)(op))
#endif

/* Numbers and pointers that other threads look at without a lock: see owner.h. */
#ifdef Py_GIL_DISABLED
#define SHARED_LOAD(place) __atomic_load_n(&(place), __ATOMIC_ACQUIRE)
#define SHARED_STORE(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELEASE)
#else
#define SHARED_LOAD(place) (place)
#define SHARED_STORE(place, value) ((void)((place) = (value)))
#endif

/* A flag that other threads look at without a lock. A type of its own, so that nothing but these two
 * reads it or writes it. */
struct flag {
    bool is_set;
};
#define FLAG(flag) SHARED_LOAD((flag).is_set)
#define SET_FLAG(flag, value) SHARED_STORE((flag).is_set, value)

#endif
