/* handle.h - Handle and TimerHandle: one scheduled call.
 *
 * Owns:     callback, arguments and context, until cancelled or freed.
 * Both types derive from asyncio's own (Python) classes, whose fields stay empty:
 * our struct lies behind them. */
#ifndef ASYNCLOOP_HANDLE_H
#define ASYNCLOOP_HANDLE_H

#include "state.h"

#define HANDLE_INLINE_ARGS 3

/* A callback in C: 0, or -1 with an exception. */
typedef int (*native_callback)(PyObject *owner, PyObject *arg);

struct Handle {
    union {
        PyObject ob_base;
        char asyncio_fields[ASYNCIO_HANDLE_SIZE];
    };
    Loop *loop;                   /* strong */
    PyObject *callback;           /* NULL once cancelled */
    native_callback native;       /* or NULL; callback is then its owner */
    PyObject *context;            /* NULL for native ones */
    PyObject *args[HANDLE_INLINE_ARGS];    /* nargs > HANDLE_INLINE_ARGS: args[0] is a tuple of all */
    PyObject *source_traceback;   /* debug mode: a traceback.StackSummary, or NULL */
    PyObject *repr;               /* debug mode: kept when cancelled, or NULL */
    int32_t nargs;
    bool cancelled;
};

struct TimerHandle {
    Handle handle;
    double when;                  /* seconds of loop.time(), as the user gave it */
    int64_t deadline_ns;
    uint64_t sequence;            /* orders equal deadlines */
    Py_ssize_t heap_index;        /* -1: not in the heap */
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

/* Drops callback and arguments at once; does not touch the timer heap. */
void handle_cancel(Handle *handle);

/* Runs the callback in its context. 0, or -1 with the exception that must leave the
 * loop (KeyboardInterrupt, SystemExit); any other goes to the exception handler. */
int handle_run(Handle *handle);

#endif
