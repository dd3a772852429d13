/* task.h - Task: a coroutine that is driven by the loop.
 *
 * task.c makes and cancels one, task_step.c makes it go on, task_foreign.c awaits futures of other kinds,
 * task_type.c has its methods. */
#ifndef ASYNCLOOP_TASK_H
#define ASYNCLOOP_TASK_H

#include "tasks/future.h"

struct Task {
    Future future;                /* must be first */
    PyObject *coro;               /* kept after the end, for get_coro() */
    PyObject *context;
    PyObject *waiter;             /* _fut_waiter: what it awaits, until the next step; strong */
    PyObject *pending_exception;  /* to be thrown in at the next step, or NULL */
    union {
        PyObject *name;           /* str, if named */
        uint64_t number;          /* else: "Task-" and this; 0: not initialised */
    };
    struct list_node node;        /* in tasks_state(state)->all.list before 3.14, while it is not done, or owed */
    bool must_cancel;             /* CancelledError is to be thrown in at the next step */
    bool parked;                  /* waiter is exactly ours and wakes this Task by the ring */
    bool log_destroy_pending;
    bool registered;              /* all_tasks() knows it */
    bool awaited_by_added;        /* 3.14: the waiter's base was told who awaits it */
    bool named;
    bool owed;                    /* its next step waits for memory, and it has a reference to itself: owed_tasks.h */
    bool recorded;                /* it is in the loop's records: record.h */
};

/* A loop of ours counts its tasks. */
static inline void
task_count(Task *self, uint64_t more)
{
    Loop *loop = self->future.own_loop;
    if (UNLIKELY(loop == NULL)) {
        return;
    }
#ifdef Py_GIL_DISABLED
    /* The loop's thread needs no locked instruction, unless another one is about to count (guarded path
     * await-task: two for each). */
    struct brief brief;
    if (LIKELY(brief_begin(&brief, &self->future.own_loop))) {
        COUNT(loop->counters->tasks, more);
        brief_end(&brief);
        return;
    }
    if (!loop_is_mine(loop)) {
        FUTURE_GUARD(self);
        COUNT_SHARED(loop->counters->tasks, more);
        return;
    }
#endif
    COUNT_SHARED(loop->counters->tasks, more);
}

static inline void
task_set_registered(Task *self)
{
    self->registered = true;
    task_count(self, 1);
}

static inline void
task_set_unregistered(Task *self)
{
    if (self->registered) {
        self->registered = false;
        task_count(self, (uint64_t)-1);
    }
}

/* The next step as asyncio's loop has it: a Handle that makes a step, or tells of the future that has woken
 * the Task. New reference or NULL. */
Handle *task_step_handle(Loop *loop, Task *task);

/* New Task, scheduled (or started, if eager_start) on any loop object. `name` and `context`
 * may be NULL or None. Arguments are borrowed. With NULL the coroutine is the caller's still. */
PyObject *task_new(struct state *state, PyObject *loop, PyObject *coro, PyObject *name,
                   PyObject *context, int eager_start);

/* Would somebody see a Task that asyncio makes, and we do without: as it is made, or by call_soon()? */
static inline bool
tasks_are_seen(Loop *loop)
{
    unsigned int bits = LOOP_BIT(create_task) | (SHORT_WAY(push) ? LOOP_SOON : 0);
    return (loop_replaced(loop) & bits) != 0 || GLOBAL_REPLACED(loop->state, TASKS_TASK)
           || SHARED_LOAD(loop->task_factory) != NULL;
}

/* Of a Task without a name, and for what asyncio has a Task and we have none: the names of all others are asyncio's
 * then. */
uint64_t task_next_number(struct state *state);

/* As the method: 1 if it was not done yet, 0, -1. `message` may be NULL. */
int task_cancel(Task *task, PyObject *message);

/* -- task_step.c ------------------------------------------------------------------ */

void task_step_init(struct state *state);
int task_schedule(Task *task);           /* the next step soon: 0 / -1 */
/* What makes the next step, of a Task that is woken with the future as its argument. New reference or NULL. */
PyObject *task_step_function(PyObject *task, bool woken);
PyObject *task_of_step_function(PyObject *callback);    /* borrowed from such a one, or NULL: it is none */
/* Cancels any future-like object: 1, 0, -1. */
int task_cancel_waiter(struct state *state, PyObject *waiter, PyObject *message);

/* READY_TASK: one step. 0, or -1 with an exit exception. */
int task_run(Loop *loop, PyObject *task);
PyObject *task_context_ref(PyObject *task);    /* the context of its steps: new, or NULL */

#ifdef ASYNCLOOP_DEBUG
void task_verify(Task *task, uint64_t turn);    /* checked.h */
#endif

#endif
