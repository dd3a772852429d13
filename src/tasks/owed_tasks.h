/* owed_tasks.h - Tasks go into the ring, although there may be no memory for that: see loop/owed.h.
 *
 * A Task that waits for memory is marked, and found among all tasks. */
#ifndef ASYNCLOOP_OWED_TASKS_H
#define ASYNCLOOP_OWED_TASKS_H

#include "loop/schedule.h"
#include "tasks/tasks_state.h"

int task_push_slowly_steal(Loop *loop, PyObject *task);    /* for the next one */

/* Steals a Task into the ready ring: its next step, which comes later where there is no memory
 * for that. 0, or -1 with RuntimeError: the loop is closed. */
static inline int
task_push_steal(Loop *loop, PyObject *task)
{
    if (LIKELY(loop_is_mine(loop)) && LIKELY(ready_has_room(&loop->ready))) {
        return ready_push_steal(&loop->ready, task, READY_TASK);
    }
    return task_push_slowly_steal(loop, task);
}

/* The callbacks that are left in a future of the loop that is done come without memory, or with what
 * there is: see future_run_left_callbacks(). False, with the exception that was set: there is not even a
 * place for the future, or the exception is about something else. */
bool owed_add_callbacks(Loop *loop, Future *future);

void owed_pay_tasks(Loop *loop);      /* a place in the ring for each, as long as it has one */
void owed_clear_tasks(Loop *loop);    /* none of them comes any more; may run Python */

#endif
