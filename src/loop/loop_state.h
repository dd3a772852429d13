/* loop_state.h - the part of the module's state that is loop/'s: see base/state.h. */
#ifndef ASYNCLOOP_LOOP_STATE_H
#define ASYNCLOOP_LOOP_STATE_H

#include "base/state.h"

#include <pthread.h>

#include "loop/overridden.h"

struct run;

/* What loop/ puts into the module: see base/state.h. */
#define LOOP_TABLE(TYPE, INIT) \
    INIT(loops) TYPE(Loop) \
    INIT(handle_types) TYPE(Handle) TYPE(TimerHandle) \
    INIT(current) \
    INIT(watchdog) TYPE(Watchdog) \
    INIT(liveness) TYPE(Liveness)

struct loop_state {
    struct state below;
    struct {
        LOOP_TABLE(STATE_TYPE, STATE_NOTHING)
    } types;
    struct {
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
        /* enum loop_seen, with the code that asyncio has for them */
        struct {
            PyObject *function, *code;
        } seen[SEEN_COUNT];
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
        /* life.c: the first use in a child of fork(): 0, or -1 with OSError */
        int (*after_fork)(Loop *loop);
        /* iteration.c: the end of a turn, for a handle that is run by hand */
        void (*end_turn_by_hand)(Loop *loop, struct run *run);
    } run;                                /* called from below, filled by those who run */
};

LOOP_TABLE(STATE_NOTHING, STATE_INIT);

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

#endif
