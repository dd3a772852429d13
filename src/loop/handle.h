/* handle.h - Handle and TimerHandle: one scheduled call.
 *
 * Owns:     callback, arguments and context, until it has run, is cancelled or freed.
 * To isinstance() they are asyncio.Handle and asyncio.TimerHandle, by their __class__:
 * deriving from those (Python) classes would double the size of each.
 *
 * Not tracked by the garbage collector, because a burst of timers would be a burst of
 * collections (benchmark row: 100,000 timers due). In exchange
 *   - a call that has run, was cancelled, or was left when its loop closed, drops all it
 *     holds, so that `self.timer = loop.call_later(1, self.method)` is no cycle for good; the
 *     loop as well, because `loop` may lead to `self` in turn;
 *   - the loop's traverse function visits what its pending handles hold, each once: see
 *     handle_traverse().
 *
 * Threads:  any may look at one and cancel it; without a GIL its critical section guards the
 *           callback and what belongs to it. */
#ifndef ASYNCLOOP_HANDLE_H
#define ASYNCLOOP_HANDLE_H

#include "base/state.h"
#include "base/tuning.h"

/* Of a call that has more they are in a tuple (guarded path call-soon-arguments, of two, which takes 12 %
 * more with one). */
#define HANDLE_INLINE_ARGS TUNED(HANDLE_INLINE_ARGS, 2)
#define HANDLE_ARGS_TUPLE (HANDLE_INLINE_ARGS + 1)
#define HANDLE_LOOKERS_MAX 31

/* A callback in C: 0, or -1 with an exception. */
typedef int (*native_callback)(PyObject *owner, PyObject *arg);

/* Where the handle is, so that the collector is told once of what it holds. */
enum handle_place {
    HANDLE_ONCE,          /* in one ready ring or timer heap, or about to be, or done */
    HANDLE_TAKEN,         /* somebody has taken it out of these, to run it by hand, perhaps */
    HANDLE_BY_HAND,       /* still in one, and run by hand meanwhile: it runs again when its turn comes */
    HANDLE_WATCHING,      /* in the table of descriptors, maybe in the ready ring too */
    HANDLE_SHARED,        /* somebody else pushed it, maybe twice: not visited */
};

/* What few calls have, most of it in debug mode only. */
struct handle_extra {
    PyObject *source_traceback;   /* a traceback.StackSummary, or NULL */
    PyObject *repr;               /* from when it was cancelled, or NULL */
    PyObject *when;               /* a timer's moment as the user gave it, if that is no float; or NULL */
};

/* Programs hold a timer for each connection and request, so that its size is theirs (benchmark
 * row: pending timer). */
struct Handle {
    PyObject_HEAD
    Loop *loop;                   /* strong; NULL once the handle is done: handle_let_loop_go() */
    PyObject *callback;           /* NULL once it has run or is cancelled; native: its owner */
    union {
        PyObject *context;        /* anything with run(); NULL once there is no callback */
        native_callback native;   /* is_native */
    } how;
    PyObject *args[HANDLE_INLINE_ARGS];    /* nargs == HANDLE_ARGS_TUPLE: args[0] is a tuple of all */
    struct handle_extra *extra;   /* owned, or NULL */
    PyObject *weakrefs;
    uint32_t runner;              /* of a threadsafe one: the thread that runs the callback, or 0 */
    uint8_t nargs;
    bool cancelled;
    uint8_t place : 3;            /* enum handle_place; once others see it only in its critical section, */
    uint8_t lookers : 5;          /* as this: who makes a text of it just now, it keeps its loop for them */
    uint8_t : 0;                  /* or writing those two would write these as well, in C's memory model */
    bool is_native : 1;           /* these two from when it is made */
    bool threadsafe : 1;          /* other threads may cancel it: see handle_wait() */
};

#define TIMER_NOT_WAITING UINT32_MAX

struct TimerHandle {
    Handle handle;
    double when;                  /* seconds of loop.time() */
    uint32_t sequence;            /* orders equal deadlines; wraps round, as asyncio orders them not at all */
    uint32_t heap_index;          /* or TIMER_NOT_WAITING */
};

int handle_types_init(PyObject *module, struct state *state);

/* New Handle. `context` NULL: a copy of the current one. All arguments borrowed. */
Handle *handle_new(Loop *loop, PyObject *callback, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *context);
Handle *handle_new_native(Loop *loop, native_callback run,
                          PyObject *owner, PyObject *arg);
TimerHandle *timer_handle_new(Loop *loop, PyObject *callback, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *context);
TimerHandle *timer_handle_new_native(Loop *loop, native_callback run,
                                     PyObject *owner, PyObject *arg);

/* 0, or -1 with MemoryError. */
int timer_handle_keep_when(TimerHandle *timer, PyObject *when);

/* The loop for a moment, or NULL. Another thread may let it go meanwhile, so without a GIL it
 * is held. */
static inline Loop *
handle_hold_loop(Handle *handle)
{
    Loop *loop;
    GUARD(handle);
    loop = handle->loop;
#ifdef Py_GIL_DISABLED
    Py_XINCREF(loop);
#endif
    return loop;
}

static inline void
handle_release_loop(Loop *loop UNUSED)
{
#ifdef Py_GIL_DISABLED
    Py_XDECREF(loop);
#endif
}

/* Drops callback and arguments at once; does not touch the timer heap. */
void handle_cancel(Handle *handle);

/* The loop closes: drops them without calling the handle cancelled. */
void handle_discard(Handle *handle);

/* Of what was taken out of its ring or heap; no effect while it has something to call or a
 * thread runs it. */
void handle_let_loop_go(Handle *handle);

/* Both. */
void handle_drop(Handle *handle);

/* After the call, and after debug mode has told of it: what runs once holds nothing more. */
void handle_finished(Handle *handle);

/* It was not cancelled, and has nothing to call any more. */
static inline bool
handle_has_run(Handle *handle)
{
    bool has_run;
    GUARD(handle);
    has_run = handle->callback == NULL && !handle->cancelled;
    return has_run;
}

/* The critical section is that of `lookers`, which lies beside it. */
static inline void
handle_set_place(Handle *handle, enum handle_place place)
{
    GUARD(handle);
    handle->place = place;
}

static inline enum handle_place
handle_place(Handle *handle)
{
    enum handle_place place;
    GUARD(handle);
    place = handle->place;
    return place;
}

/* Taken out of its ring or heap by somebody who may still run it, once. */
static inline void
handle_set_taken(Handle *handle)
{
    GUARD(handle);
    if (handle->place == HANDLE_ONCE || handle->place == HANDLE_BY_HAND) {
        handle->place = HANDLE_TAKEN;
    }
}

/* For a container of the loop's that is the `place` of the handle. */
int handle_traverse(Handle *handle, enum handle_place place, visitproc visit, void *arg);

/* The current exception, none that leaves the loop, came out of callback(arg), which a handle of
 * asyncio's would have called: tells the exception handler as that would. What that raises leaves the run. */
void handle_call_failed(Loop *loop, PyObject *callback, PyObject *arg);

/* Runs the callback in its context. 0, or -1 with the exception that must leave the
 * loop (KeyboardInterrupt, SystemExit, what the exception handler raises); any other goes to the exception
 * handler. */
int handle_run(Handle *handle);
/* The same, out of turn: what waits for its turn keeps what it calls until that has come. */
int handle_run_by_hand(Handle *handle);

#ifdef ASYNCLOOP_DEBUG
void handle_verify(Handle *handle);    /* checked.h */
#endif

#endif
