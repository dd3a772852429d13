/* all_tasks.h - which Tasks asyncio.all_tasks() sees.
 *
 * Before 3.14 our tasks are in a list of the module's state, and asyncio's WeakSet of tasks is given a
 * class of ours that yields them too, so that a Task need not be put there. From 3.14 on asyncio has a
 * cheap list of its own. */
#ifndef ASYNCLOOP_ALL_TASKS_H
#define ASYNCLOOP_ALL_TASKS_H

#include "tasks/tasks_state.h"

/* The list is not for free-threaded builds: it has no lock. */
#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)
#define TASKS_ARE_LISTED 1
#else
#define TASKS_ARE_LISTED 0
#endif

/* `node` is a field of the Task; the object must be alive. 0 / -1. Idempotent. */
int all_tasks_add(struct state *state, PyObject *task, struct list_node *node);
/* The Task is done, or going away. Never fails; keeps the error indicator. */
void all_tasks_remove(struct state *state, PyObject *task, struct list_node *node);

#ifdef ASYNCLOOP_DEBUG
void all_tasks_verify(Loop *loop, uint64_t turn, void (*verify)(Task *task, uint64_t turn));    /* checked.h */
#endif

#endif
