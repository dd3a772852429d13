/* handle.h - Handle and TimerHandle: one scheduled call.
 *
 * Owns:     callback and arguments, until it is cancelled or freed; loop and context, until it is freed.
 * To isinstance() they are asyncio.Handle and asyncio.TimerHandle, by their __class__:
 * deriving from those (Python) classes would double the size of each.
 *
 * Not tracked by the garbage collector while it waits in one place, because a burst of timers would be a
 * burst of collections (benchmark row: 100,000 timers due): the loop's traverse function visits what it
 * holds, by handle_traverse(). One that leaves its place, or gets a second one, while somebody else has it is
 * tracked from then on (handle_track()), so that `self.timer = loop.call_later(1, self.method)` is found.
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
_Static_assert(HANDLE_INLINE_ARGS <= 2, "a handle has two places");

/* A callback in C: 0, or -1 with an exception. */
typedef int (*native_callback)(PyObject *owner, PyObject *arg);

/* What few calls have, most of it in debug mode only. */
struct handle_extra {
    PyObject *source_traceback;   /* a traceback.StackSummary, or NULL */
    PyObject *repr;               /* from when it was cancelled, or NULL */
    PyObject *when;               /* a timer's moment as the user gave it, if that is no float; or NULL */
    PyObject *public;             /* what the program's own call_later() gave for a timer of ours, or NULL */
};

/* Programs hold a timer for each connection and request, so that its size is theirs (benchmark
 * row: pending timer). */
struct Handle {
    PyObject_HEAD
    Loop *loop;                   /* strong */
    PyObject *callback;           /* NULL once it is cancelled; native: its owner */
    union {
        PyObject *context;        /* anything with run() */
        native_callback native;   /* is_native */
    } how;
    PyObject *args[2];            /* nargs == HANDLE_ARGS_TUPLE: the first is a tuple of all;
                                   * has_extra: the second is the struct handle_extra, see handle_extra() */
    PyObject *weakrefs;
    union {
        uint32_t runner;          /* of a threadsafe one: the thread that runs the callback, or 0 */
        uint32_t waits;           /* of a timer: it is in the heap */
    };
    uint8_t nargs;
    bool cancelled;
    bool watched : 1;             /* it is in the table of descriptors; in its critical section, */
    bool tracked : 1;             /* as this: by the collector, which need not ask the loop */
    bool has_extra : 1;           /* and this */
    uint8_t : 0;                  /* or writing those would write these as well, in C's memory model */
    bool is_native : 1;           /* these two from when it is made */
    bool threadsafe : 1;          /* other threads may cancel it: see handle_wait() */
};

/* While it waits, its time is in the heap: timer_seconds(). */
struct TimerHandle {
    Handle handle;
    union {
        double when;              /* seconds of loop.time() */
        struct {
            uint32_t index;       /* in the heap */
            uint32_t sequence;    /* orders equal times; wraps round, as asyncio orders them not at all */
        } place;
    };
};

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
/* In debug mode: of the frames that asyncio takes down `own` are its own, and taken out again. 0 / -1 */
int handle_trim_source_traceback(Handle *handle, long own);

/* What few calls have, or NULL. */
static inline struct handle_extra *
handle_extra(const Handle *handle)
{
    return UNLIKELY(handle->has_extra) ? (struct handle_extra *)(void *)handle->args[1] : NULL;
}

/* Of ours, or one of anybody's? */
bool handle_check(struct state *state, PyObject *op);

/* Drops callback and arguments at once; does not touch the timer heap. */
void handle_cancel(Handle *handle);

/* The garbage collector is going to clear the loop: drops all it calls, without calling it cancelled. */
void handle_discard(Handle *handle);

/* Somebody else may have it for as long as he likes, in whatever place it is: see above. */
void handle_track(Handle *handle);

/* It is out of its place, but for the caller's reference. */
static inline void
handle_left(Handle *handle)
{
    if (Py_REFCNT(handle) > 1 && !handle->watched) {
        handle_track(handle);
    }
}

/* The loop closes, and will not call it: its place lets go of it. */
void handle_drop_steal(Handle *handle);

/* In or out of the table of descriptors. */
static inline void
handle_set_watched(Handle *handle, bool watched)
{
    GUARD(handle);
    handle->watched = watched;
}

/* For a container of the loop's, which is the table of descriptors or is not. */
int handle_traverse(Handle *handle, bool watched, visitproc visit, void *arg);

/* The current exception, none that leaves the loop, came out of callback(arg), which a handle of
 * asyncio's would have called: tells the exception handler as that would. What that raises leaves the run. */
void handle_call_failed(Loop *loop, PyObject *callback, PyObject *arg);
/* The same, of what `handle`, which is stolen and was not run as itself, would have called. */
void handle_call_failed_steal(Loop *loop, Handle *handle);

/* Runs the callback in its context. 0, or -1 with the exception that must leave the
 * loop (KeyboardInterrupt, SystemExit, what the exception handler raises); any other goes to the exception
 * handler. */
int handle_run(Handle *handle);

#ifdef ASYNCLOOP_DEBUG
void handle_verify(Handle *handle);    /* checked.h */
#endif

#endif
