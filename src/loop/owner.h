/* owner.h - which thread may touch a loop, on free-threaded builds.
 *
 * Under the GIL all this is nothing. Without it:
 *
 *   - A loop, its descriptors, timers' callbacks and transports belong to one thread at a
 *     time: the one that runs the loop, or that is inside one of their methods while nobody
 *     runs it. A method that is called from another thread meanwhile raises RuntimeError
 *     instead of racing. Such methods begin with OWN_LOOP() or one of its kin.
 *   - Futures, tasks, handles, timers and call_soon() may be used from any thread. Their
 *     fields are guarded by the object's own critical section (GUARD() of guard.h), the timer
 *     heap by the loop's. What another thread schedules goes
 *     through the inbox.
 *   - Flags that are only looked at are of the type struct flag; numbers and pointers are read and written
 *     with SHARED_LOAD() and SHARED_STORE().
 */
#ifndef ASYNCLOOP_OWNER_H
#define ASYNCLOOP_OWNER_H

#include "loop/loop.h"

#ifdef Py_GIL_DISABLED
/* A loop field of an object that other threads know: new reference, or NULL. */
static inline Loop *
shared_loop_ref(PyObject *op, Loop *const *field)
{
    GUARD(op);
    return (Loop *)Py_XNewRef(*field);
}

struct claim {
    Loop *loop;    /* strong, or NULL */
    bool taken;    /* nobody had it before */
    bool guards;   /* the object itself, which has no loop: in `section` */
    PyCriticalSection section;
};

/* For the time of a method, or of a run. `loop_steal` may be NULL (an object whose loop is
 * gone). 0, or -1 with RuntimeError: another thread has the loop. */
int loop_claim_steal(struct claim *claim, Loop *loop_steal);
void loop_unclaim(struct claim *claim);

static inline int
loop_claim(struct claim *claim, Loop *loop)
{
    return loop_claim_steal(claim, (Loop *)Py_NewRef(loop));
}

/* The first of the arguments, if it is a loop of ours: new reference, or NULL. */
static inline Loop *
first_loop_ref(PyObject *module, PyObject *args)
{
    struct state *state = PyModule_GetState(module);
    PyObject *first = PyTuple_GET_SIZE(args) > 0 ? PyTuple_GET_ITEM(args, 0) : NULL;
    return first != NULL && PyObject_TypeCheck(first, loop_state(state)->types.Loop) ? (Loop *)Py_NewRef(first)
                                                                                     : NULL;
}

/* A method owns the loop of its object while it runs; an object without a loop is guarded by itself. */
static inline int
claim_begin(struct claim *claim, PyObject *op, Loop *loop_steal)
{
    claim->guards = loop_steal == NULL && op != NULL;
    if (claim->guards) {
        PyCriticalSection_Begin(&claim->section, op);
    }
    return loop_claim_steal(claim, loop_steal);
}

static inline void
claim_end(struct claim *claim)
{
    if (claim->guards) {
        PyCriticalSection_End(&claim->section);
    }
    loop_unclaim(claim);
}

#define OWN_LOOP_STEAL(op, loop_steal)                          \
    struct claim claim __attribute__((cleanup(claim_end)));     \
    if (claim_begin(&claim, op, loop_steal) < 0) {              \
        return NULL;                                            \
    }                                                           \
    (void)0

#else

struct claim {
    char unused;
};

static inline Loop *
shared_loop_ref(PyObject *op UNUSED, Loop *const *field UNUSED)
{
    return NULL;    /* nobody is to hold it */
}

static inline int
loop_claim_steal(struct claim *claim UNUSED, Loop *loop_steal UNUSED)
{
    return 0;
}

static inline int
loop_claim(struct claim *claim UNUSED, Loop *loop UNUSED)
{
    return 0;
}

static inline void
loop_unclaim(struct claim *claim UNUSED)
{
}

#define OWN_LOOP_STEAL(op, loop_steal) ((void)0)

#endif

/* First lines of methods, which hold to the end: NULL with RuntimeError where another thread has the
 * loop. Of the loop itself; of an object of `type`, by where it keeps its loop; of a function whose
 * first argument is a loop. */
#define OWN_LOOP(op) OWN_LOOP_STEAL(NULL, (Loop *)Py_NewRef(op))
#define OWN_LOOP_OF(op, type) OWN_LOOP_BY(op, type, loop)
#define OWN_LOOP_BY(op, type, field) OWN_LOOP_STEAL(op, shared_loop_ref(op, &((type *)(op))->field))
#define OWN_LOOP_ARGUMENT(module, args) OWN_LOOP_STEAL(NULL, first_loop_ref(module, args))

/* Forgets the loop of an object that other threads know. */
static inline void
shared_loop_drop(PyObject *op UNUSED, Loop **field)
{
    Loop *loop;
    {
        GUARD(op);
        loop = *field;
        *field = NULL;
    }
    Py_XDECREF(loop);
}

#endif
