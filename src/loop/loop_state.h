/* loop_state.h - the part of the module's state that is loop/'s: see base/state.h. */
#ifndef ASYNCLOOP_LOOP_STATE_H
#define ASYNCLOOP_LOOP_STATE_H

#include "base/state.h"

#include <pthread.h>

/* overrides.h: methods of ours that asyncio's own code calls. */
#define LOOP_METHODS(X) \
    X(call_soon) X(call_soon_threadsafe) X(call_at) X(call_later) X(time) X(create_future) \
    X(create_task) X(run_in_executor) X(getaddrinfo) X(create_connection) X(_connect_sock) \
    X(_ensure_resolved) X(_check_closed) X(_check_thread) X(_check_callback) X(_call_soon) X(get_debug) \
    X(_timer_handle_cancelled) X(_add_reader) X(_add_writer) X(_remove_reader) X(_remove_writer) \
    X(remove_reader) X(remove_writer) X(_write_to_self) X(_ensure_fd_no_transport)

/* clang-format off */
enum loop_method {
#define X(name) LOOP_##name,
    LOOP_METHODS(X)
#undef X
    LOOP_METHOD_COUNT,
};
/* clang-format on */

struct run;

struct loop_state {
    struct state below;
    struct {
        PyTypeObject *Type;               /* asyncloop._core.Loop */
        PyTypeObject *usual;              /* asyncloop.Loop, once a loop was made: see loop_check() */
        PyObject *base_events;            /* the module asyncio.base_events */
        PyObject *format_handle;          /* asyncio.base_events._format_handle */
        struct list_node all;             /* every Loop that is not closed, for fork */
        struct activities *activities;    /* activity.h: the same for threads outside of Python */
#ifdef Py_GIL_DISABLED
        pthread_mutex_t lock;             /* loops are made and closed, Tasks owed in any thread */
        bool brief;                       /* they may have brief sections: brief.h */
#endif
    } loops;                              /* loop.c */
    struct {
        PyTypeObject *Type;
        PyTypeObject *TimerType;
        PyObject *asyncio_Handle;         /* asyncio.events.Handle */
        PyObject *asyncio_ThreadSafeHandle;    /* asyncio.events._ThreadSafeHandle, NULL before 3.14 */
        PyObject *asyncio_TimerHandle;    /* asyncio.events.TimerHandle */
        PyObject *constants;              /* asyncio.constants */
        PyObject *extract_stack;          /* asyncio.format_helpers.extract_stack */
        PyObject *format_callback_source; /* asyncio.format_helpers._format_callback_source */
        PyObject *sys_getframe;           /* sys._getframe */
        struct freelist free;
        struct freelist free_timers;
    } handles;                            /* handle_type.c */
    struct {
        PyObject *BaseEventLoop;          /* asyncio.base_events.BaseEventLoop */
        PyObject *own[LOOP_METHOD_COUNT]; /* what the loop's type was made with */
        PyObject *accepting;              /* what is called for each connection: names to ours, or NULL */
        unsigned int timer_handle_version;    /* of asyncio's TimerHandle, when it was asyncio's own */
    } overrides;                          /* overrides.c */
    struct {
        PyObject *tasks;                  /* asyncio.tasks._current_tasks, NULL from 3.14 on */
        PyObject *enter_task;             /* _asyncio._enter_task, for loops that are not ours */
        PyObject *leave_task;
        PyObject *swap_current_task;      /* _asyncio._swap_current_task, NULL before 3.12 */
    } current;                            /* current.c */
    struct {
        PyTypeObject *Type;
    } watchdog;                           /* watchdog.c */
    struct {
        PyTypeObject *Type;
    } liveness;                           /* liveness.c */
    struct {
        /* life.c: the first use in a child of fork(): 0, or -1 with OSError */
        int (*after_fork)(Loop *loop);
        /* iteration.c: the end of a turn, for a handle that is run by hand */
        void (*end_turn_by_hand)(Loop *loop, struct run *run);
    } run;                                /* called from below, filled by those who run */
};

static inline struct loop_state *
loop_state(struct state *state)
{
    return (struct loop_state *)state;
}

/* Around what changes or walks the lists of all loops and of owed Tasks; no Python inside. */
#ifdef Py_GIL_DISABLED
#define state_lock_lists(state) pthread_mutex_lock(&loop_state(state)->loops.lock)
#define state_unlock_lists(state) pthread_mutex_unlock(&loop_state(state)->loops.lock)
#else
#define state_lock_lists(state) ((void)0)
#define state_unlock_lists(state) ((void)0)
#endif

/* The list of all loops, and what is called of asyncio. 0 / -1 */
int loops_init(PyObject *module, struct state *state);

#endif
