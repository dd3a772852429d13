/* guard.h - what holds where there is no GIL, and is nothing under it.
 *
 * GUARD(op) holds the critical section of an object from its line to the end of the block that it is in.
 * Critical sections are given up whenever the thread would block, so what holds across a call into
 * Python under the GIL holds here, and no more. For whole loops: owner.h. */
#ifndef ASYNCLOOP_GUARD_H
#define ASYNCLOOP_GUARD_H

#include "base/compat.h"

#ifdef Py_GIL_DISABLED
/* For words of each thread: glibc has room for a few of libraries that are loaded late, where they are found
 * without a call; musl has none. (Guarded path await-task: the calls are 2 % of the instructions.) */
#ifdef __GLIBC__
#define THREAD_STORAGE __attribute__((visibility("hidden"), tls_model("initial-exec")))
#else
#define THREAD_STORAGE __attribute__((visibility("hidden")))
#endif

struct guard {
    PyCriticalSection section;
    bool outer_holds;    /* the innermost section of the thread is that of the same object */
};

/* Before 3.14 a thread that enters the section of an object which it is in waits for itself: it spins,
 * and gives up all its sections for a moment (echo over streams 41 us instead of 11). */
static inline void
guard_begin_here(struct guard *guard, PyObject *op)
{
    guard->outer_holds = false;
#if PY_VERSION_HEX < 0x030E0000
    const PyCriticalSection *innermost =
        (PyCriticalSection *)(PyThreadState_GetUnchecked()->critical_section & ~(uintptr_t)3);
    if (innermost != NULL && innermost->_cs_mutex == &op->ob_mutex) {
        guard->outer_holds = true;
        return;
    }
#endif
    PyCriticalSection_Begin(&guard->section, op);
}

static inline void
guard_end_here(struct guard *guard)
{
    if (!guard->outer_holds) {
        PyCriticalSection_End(&guard->section);
    }
}

/* Where the code is to be small (references.h), by a call. */
#ifdef ASYNCLOOP_SMALL
void guard_begin(struct guard *guard, PyObject *op);
void guard_end(struct guard *guard);
#else
#define guard_begin guard_begin_here
#define guard_end guard_end_here
#endif

#define GUARD_NAMED(name, op)                                   \
    struct guard name __attribute__((cleanup(guard_end)));      \
    guard_begin(&name, (PyObject *)(op))
#define GUARD_AT_LINE(line, op) GUARD_NAMED(guard_##line, op)
#define GUARD_EXPANDED(line, op) GUARD_AT_LINE(line, op)
#define GUARD(op) GUARD_EXPANDED(__LINE__, op)
#else
#define GUARD(op) ((void)(op))
#endif

/* A critical section of a few instructions that run no Python, drop no reference and wait for nothing, without the
 * thread's list of those that it is in: no other section can begin inside. True: quick_guard_end() is due. False,
 * another one is in it, or this thread further out: GUARD(). (Guarded path await-task on 3.14t.) */
#ifdef Py_GIL_DISABLED
static inline bool
quick_guard_begin(PyObject *op)
{
    uint8_t bits = _Py_UNLOCKED;
    return LIKELY(__atomic_compare_exchange_n(&op->ob_mutex._bits, &bits, (uint8_t)_Py_LOCKED, false, __ATOMIC_ACQUIRE,
                                              __ATOMIC_RELAXED));
}

static inline void
quick_guard_end(PyObject *op)
{
    PyMutex_Unlock(&op->ob_mutex);
}

#define QUICKLY(op, ...)                             \
    do {                                             \
        if (quick_guard_begin((PyObject *)(op))) {   \
            __VA_ARGS__                              \
            quick_guard_end((PyObject *)(op));       \
        }                                            \
        else {                                       \
            GUARD(op);                               \
            __VA_ARGS__                              \
        }                                            \
    } while (0)
#else
#define QUICKLY(op, ...) \
    do {                 \
        __VA_ARGS__      \
    } while (0)
#endif

/* The count of an object that this thread has just made, nobody else knows yet, and another thread will let
 * go of, becomes one that all threads share. Else that other thread has this one add up two counts, by a
 * queue with a lock (benchmark row: call_soon_threadsafe). */
static inline void
share_count(PyObject *op UNUSED)
{
#ifdef Py_GIL_DISABLED
    if (LIKELY(op->ob_tid == _Py_ThreadId() && op->ob_ref_shared == 0)) {
        op->ob_ref_shared = ((Py_ssize_t)op->ob_ref_local << _Py_REF_SHARED_SHIFT) | _Py_REF_MERGED;
        op->ob_ref_local = 0;
        op->ob_tid = 0;
    }
#endif
}

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
