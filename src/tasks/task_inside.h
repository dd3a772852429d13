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

/* -- task_step.c: going on ----------------------------------------------------------------- */

/* Resumes the coroutine with None, or throws `exc` (borrowed; may be NULL), and acts on
 * what comes. In the Task's context, with the Task current. 0 / -1. */
int task_resume(Task *self, PyObject *exc);
void task_done(Task *self);

/* -- task_foreign.c: futures of other kinds --------------------------------------------------- */

/* The coroutine yielded something that is not exactly ours, and not None: the Task is woken by its callback. 0,
 * or -1 with what is wrong. */
int task_await_foreign(Task *self, PyObject *yielded);
/* What a coroutine yielded is wrong: RuntimeError with two %R, the Task and what it yielded (or
 * %R once). Without a context: an eager Task steps inside somebody's `except`, which is not where
 * the error comes from. */
void task_bad_yield(const char *format, PyObject *first, PyObject *second);

#endif
