/* task_inside.h - what the files of Task share: making, the type, going on, foreign futures. */
#ifndef ASYNCLOOP_TASK_INSIDE_H
#define ASYNCLOOP_TASK_INSIDE_H

#include "base/checked.h"
#include "tasks/all_tasks.h"
#include "tasks/task.h"

/* -- task.c: making ------------------------------------------------------------------------ */

/* Takes it off the list of all tasks, of which it may be the last trace. From 3.14 on that is
 * the business of the base's dealloc. */
static inline void
task_unlink(Task *self)
{
    if (TASKS_ARE_LISTED) {
        VERIFY(verify_node(&self->node));
        list_remove(&self->node);
    }
    task_set_unregistered(self);
}

Task *task_alloc(struct state *state, PyTypeObject *type);
/* The future is bound to its loop already. */
int task_init(Task *self, PyObject *coro, PyObject *name, PyObject *context, bool eager_start);
int task_set_name(Task *self, PyObject *name);
/* what is specific to a Task: may run Python */
void task_clear(Task *self);
/* A cancel() that came while the coroutine ran goes to what it awaits now. 0 / -1 */
int task_forward_cancel(Task *self);

/* Was it to be cancelled? Not any more. */
static inline bool
task_take_must_cancel(Task *self)
{
    bool must_cancel = SHARED_LOAD(self->must_cancel);    /* hardly ever, so no lock before */
    if (UNLIKELY(must_cancel)) {
        FUTURE_GUARD(self);
        must_cancel = self->must_cancel;
        SHARED_STORE(self->must_cancel, false);
    }
    return must_cancel;
}

/* -- task_step.c: going on ----------------------------------------------------------------- */

/* Resumes the coroutine with None, or throws `exc` (borrowed; may be NULL), and acts on
 * what comes. In the Task's context, with the Task current. 0 / -1. */
int task_resume(Task *self, PyObject *exc);
void task_done(Task *self);

/* -- task_foreign.c: futures of other kinds --------------------------------------------------- */

/* The coroutine yielded something that is not exactly ours, and not None. 1: the Task is woken by its
 * callback. 0: its next step, which is to be scheduled, will throw what is wrong. -1: a method of what it
 * yielded has raised, and as on asyncio nothing wakes the Task. */
int task_await_foreign(Task *self, PyObject *yielded);
/* What a coroutine yielded is wrong: the Task's next step, which is to be scheduled, throws RuntimeError with two
 * %R, the Task and what it yielded (or %R once). 0, or -1 where a repr() has raised. */
int task_bad_yield(Task *self, const char *format, PyObject *first, PyObject *second);
/* Its next step throws it. */
void task_set_pending_exception_steal(Task *self, PyObject *exc);

#endif
