/* tasks_state.h - the part of the module's state that is tasks/'s: see base/state.h. */
#ifndef ASYNCLOOP_TASKS_STATE_H
#define ASYNCLOOP_TASKS_STATE_H

#include "loop/loop_state.h"

/* What tasks/ puts into the module: see base/state.h. */
#define TASKS_TABLE(TYPE, INIT) \
    INIT(future_types) TYPE(Future) \
    INIT(future_iter_type) TYPE(FutureIter) \
    INIT(task_type) TYPE(Task) \
    INIT(unbound) \
    INIT(all_tasks) \
    INIT(introspect) \
    INIT(record_type) TYPE(TaskRecord) \
    INIT(executor) TYPE(Link)

struct tasks_state {
    struct loop_state below;
    struct {
        TASKS_TABLE(STATE_TYPE, STATE_NOTHING)
    } types;
    struct {
        PyTypeObject *asyncio_Future;     /* _asyncio.Future */
        PyObject *CancelledError;         /* asyncio.exceptions */
        PyObject *InvalidStateError;
        PyObject *get_event_loop;         /* asyncio.events.get_event_loop */
        PyObject *repr;                   /* asyncio.base_futures._future_repr */
        PyObject *extract_stack;          /* traceback.extract_stack: all of it, as asyncio's in C */
        PyObject *stop_iteration;         /* a spare one: see stop_iteration_bytes_steal() */
        struct base_slots base;           /* of _asyncio.Future */
        struct freelist free;
        struct freelist free_iters;
        void (*cancelled)(PyObject *watcher);    /* operation.c: a future with a watcher was cancelled */
    } futures;                            /* future_type.c */
    struct {
        PyTypeObject *asyncio_Task;       /* _asyncio.Task */
        PyObject *repr;                   /* asyncio.base_tasks._task_repr */
        PyObject *get_stack;              /* asyncio.base_tasks._task_get_stack */
        PyObject *print_stack;            /* asyncio.base_tasks._task_print_stack */
        PyObject *iscoroutine;            /* asyncio.coroutines.iscoroutine */
        PyObject *eager_task_factory;     /* asyncio.eager_task_factory, NULL before 3.12 */
        struct base_slots base;           /* of _asyncio.Task */
        struct freelist free;
        /* task_step.c: what a parked Task would have been as a callback; both new. 0 / -1 */
        int (*as_callback)(PyObject *task, PyObject **callback, PyObject **context);
    } tasks;                              /* task.c */
    struct {
#ifdef Py_GIL_DISABLED
        char before[64];                  /* so that nothing that all threads read is in one line with it */
#endif
        uint64_t next;                    /* of the names Task-N */
#ifdef Py_GIL_DISABLED
        char behind[64];
#endif
    } numbers;                            /* task.c */
    struct {
        PyObject *register_task;          /* _asyncio._register_task */
        PyObject *unregister_task;
        PyObject *task_set_base;          /* before 3.14: the class that asyncio's WeakSet of tasks had */
        struct list_node list;            /* every pending Task before 3.14, those that are owed */
    } all;                                /* all_tasks.c */
    struct {
        PyObject *add;                    /* _asyncio.future_add_to_awaited_by, NULL before 3.14 */
        PyObject *discard;
    } awaited_by;                         /* introspect.c */
    struct introspect_offsets {           /* of fields of _asyncio.Task; all 0 before 3.14, and where unknown */
        size_t name;
        size_t coro;
        size_t awaited_by;
        size_t is_task;
        size_t thread;                    /* free-threaded: whose list of tasks it is in */
    } introspect;                         /* introspect.c */
    struct {
        size_t loop;                      /* offsets in _asyncio.Task; all 0 until somebody wants them */
        size_t coro;
        size_t name;
    } visible;                            /* visible.c */
    struct {
        PyObject *asyncio_folder;         /* where asyncio's own files are */
    } records;                            /* record.c */
    struct {
        PyObject *concurrent_Future;      /* concurrent.futures.Future */
        PyObject *chain_future;           /* asyncio.futures._chain_future */
        PyObject *futures;                /* the module asyncio.futures */
        PyObject *callbacks;              /* a tuple, or NULL: enum standard_callback */
    } executor;                           /* executor.c */
};

TASKS_TABLE(STATE_NOTHING, STATE_INIT);

static inline struct tasks_state *
tasks_state(struct state *state)
{
    return (struct tasks_state *)state;
}

#endif
