/* record.h - what is written down about a Task for those who ask for it: who made it and when, what it
 * costs, and, with strong tasks, the reference that keeps it alive until it is done.
 *
 * Owns:     a dict of each loop that has been asked, {address of the Task: TaskRecord}.
 * Promises: a Task is in there from its making to its end; nothing is done where nobody has asked.
 * Ignores:  tasks of other loops, and those that are not ours. */
#ifndef ASYNCLOOP_RECORD_H
#define ASYNCLOOP_RECORD_H

#include "tasks/task.h"

/* Before its first step is scheduled, on a loop with records. 0 / -1 */
int record_begin(Task *task, Loop *loop);
/* It is done, or goes away. Keeps the error indicator. */
void record_end(Task *task);

/* Around one step of it, which is counted. The first keeps no error indicator, the second does. */
struct record_step {
    PyObject *record;       /* owned, or NULL */
    int64_t began_ns;
};
void record_step_begin(struct record_step *step, Loop *loop, PyObject *task);
void record_step_end(struct record_step *step);
/* Such a step, by `run`. */
int record_step(Loop *loop, PyObject *task, int (*run)(Loop *loop, PyObject *task));
/* It waits for its turn from now on. */
void record_ready(PyObject *task, Loop *loop);

/* In debug mode: where it is scheduled, as asyncio's Handle of a step keeps it. Without memory nothing. */
void record_place(PyObject *task, Loop *loop);
/* That of its last scheduling: a new reference, or NULL without an exception. */
PyObject *record_take_place(PyObject *task, Loop *loop);

/* loop.strong_tasks and loop.task_accounting: 0 / -1. After the second: loop_update_careful(). */
int record_set_strong(Loop *loop, bool strong);
int record_set_accounting(Loop *loop, bool accounting);
int record_set_visible(Loop *loop, bool visible);
int record_rename(Task *task);        /* after its name has changed. 0 / -1 */
PyObject *record_list(Loop *loop);    /* new list of (address of the Task, TaskRecord) */

#endif
