/* owner.h - which thread may touch a loop, on free-threaded builds.
 *
 * Under the GIL all this is nothing. Without it:
 *
 *   - A loop, its descriptors, timers' callbacks and transports belong to one thread at a
 *     time: the one that runs the loop, or that is inside one of their methods while nobody
 *     runs it. A method that is called from another thread meanwhile raises RuntimeError
 *     instead of racing. OWNED() methods begin with loop_claim().
 *   - Futures, tasks, handles, timers and call_soon() may be used from any thread. Their
 *     fields are guarded by the object's own critical section (the macros of CPython, which
 *     vanish under the GIL), the timer heap by the loop's. What another thread schedules goes
 *     through the inbox.
 *   - Flags that are only looked at are read and written with SHARED_LOAD() and SHARED_STORE().
 *
 * Critical sections are given up whenever the thread would block, so what holds across a call
 * into Python under the GIL holds here, and no more. */
#ifndef ASYNCLOOP_OWNER_H
#define ASYNCLOOP_OWNER_H

#include "loop/loop.h"

#ifdef Py_GIL_DISABLED
/* A loop field of an object that other threads know: new reference, or NULL. */
static inline Loop *
shared_loop_ref(PyObject *op, Loop *const *field)
{
    Loop *loop;
    Py_BEGIN_CRITICAL_SECTION(op);
    loop = (Loop *)Py_XNewRef(*field);
    Py_END_CRITICAL_SECTION();
    return loop;
}

struct claim {
    Loop *loop;    /* strong, or NULL */
    bool taken;    /* nobody had it before */
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
    return first != NULL && PyObject_TypeCheck(first, loop_state(state)->loops.Type) ? (Loop *)Py_NewRef(first)
                                                                      : NULL;
}

/* Defines name_owned(), the method with a claim around it. `field` is where an object of `type`
 * keeps its loop. An object without a loop is guarded by itself. */
#define OWNED_BODY(loop_ref, call)                                                       \
    {                                                                                    \
        struct claim claim;                                                              \
        PyObject *owned_result = NULL;                                                   \
        if (loop_claim_steal(&claim, loop_ref) < 0) {                                    \
            return NULL;                                                                 \
        }                                                                                \
        if (claim.loop != NULL) {                                                        \
            owned_result = call;                                                         \
        }                                                                                \
        else {                                                                           \
            Py_BEGIN_CRITICAL_SECTION(op);                                               \
            owned_result = call;                                                         \
            Py_END_CRITICAL_SECTION();                                                   \
        }                                                                                \
        loop_unclaim(&claim);                                                            \
        return owned_result;                                                             \
    }
#define OWNED_FAST_ARGS PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames
#define DEFINE_OWNED_BY(type, field, name)                                               \
    static PyObject *name##_owned(PyObject *op, PyObject *arg)                           \
    OWNED_BODY(shared_loop_ref(op, &((type *)op)->field), name(op, arg))
#define DEFINE_OWNED(type, name) DEFINE_OWNED_BY(type, loop, name)
#define DEFINE_OWNED_FAST(type, name)                                                    \
    static PyObject *name##_owned(OWNED_FAST_ARGS)                                       \
    OWNED_BODY(shared_loop_ref(op, &((type *)op)->loop), name(op, args, nargs, kwnames))
#define DEFINE_OWNED_GETTER(type, name)                                                  \
    static PyObject *name##_owned(PyObject *op, void *closure)                           \
    OWNED_BODY(shared_loop_ref(op, &((type *)op)->loop), name(op, closure))
/* Methods of the loop itself. */
#define DEFINE_OWNED_LOOP(name)                                                          \
    static PyObject *name##_owned(PyObject *op, PyObject *arg)                           \
    OWNED_BODY((Loop *)Py_NewRef(op), name(op, arg))
#define DEFINE_OWNED_LOOP_FAST(name)                                                     \
    static PyObject *name##_owned(OWNED_FAST_ARGS)                                       \
    OWNED_BODY((Loop *)Py_NewRef(op), name(op, args, nargs, kwnames))
/* The same for a function of the module whose first argument is a loop. */
#define DEFINE_OWNED_FUNCTION(name)                                                      \
    static PyObject *name##_owned(PyObject *module, PyObject *args)                      \
    {                                                                                    \
        struct claim claim;                                                              \
        if (loop_claim_steal(&claim, first_loop_ref(module, args)) < 0) {                \
            return NULL;                                                                 \
        }                                                                                \
        PyObject *owned_result = name(module, args);                                     \
        loop_unclaim(&claim);                                                            \
        return owned_result;                                                             \
    }
#define OWNED(name) name##_owned

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

#define DEFINE_OWNED_BY(type, field, name)
#define DEFINE_OWNED(type, name)
#define DEFINE_OWNED_FAST(type, name)
#define DEFINE_OWNED_GETTER(type, name)
#define DEFINE_OWNED_LOOP(name)
#define DEFINE_OWNED_LOOP_FAST(name)
#define DEFINE_OWNED_FUNCTION(name)
#define OWNED(name) name

#endif

/* Forgets the loop of an object that other threads know. */
static inline void
shared_loop_drop(PyObject *op UNUSED, Loop **field)
{
    Loop *loop;
    Py_BEGIN_CRITICAL_SECTION(op);
    loop = *field;
    *field = NULL;
    Py_END_CRITICAL_SECTION();
    Py_XDECREF(loop);
}

#endif
