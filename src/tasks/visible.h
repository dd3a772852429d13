/* visible.h - what a profiler reads of our tasks out of the memory of its own process.
 *
 * ddtrace's profiler looks at asyncio's set of tasks, and at three fields of the struct of
 * _asyncio.Task: the loop, the coroutine and the name. They are empty in a Task of ours, up to 3.13
 * all of them (introspect.h). On a loop that is asked for it they are filled while the Task is not
 * done, and the Task is in that set.
 *
 * Owns:     nothing: the base's traverse and clear own what is in the fields.
 * Promises: no cost for a loop that nobody has asked. */
#ifndef ASYNCLOOP_VISIBLE_H
#define ASYNCLOOP_VISIBLE_H

#include "tasks/task.h"

/* Looks for the fields in a Task of asyncio's own: (task, loop, coroutine, name) -> whether they were
 * found. */
PyObject *visible_find(PyObject *module, PyObject *args);

/* 0 / -1 */
int visible_show(Task *task);
/* After its name has changed. 0 / -1 */
int visible_rename(Task *task);
/* Keeps the error indicator. */
void visible_hide(Task *task);

#endif
