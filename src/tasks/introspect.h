/* introspect.h - what tools read of our tasks from outside the process (3.14 and later).
 *
 * `python -m asyncio ps` and `pstree` read another process's memory: they follow the list of
 * all tasks and, of each, four fields of _asyncio.Task's own struct, which is empty in a Task
 * of ours: name, coroutine, who awaits it, and the byte that tells a Task from a Future. So
 * those are filled as well. asyncio's functions never look at ours there; the base's traverse,
 * clear and dealloc own what is in the fields, as in a Task of their own.
 *
 * Where the fields are is no part of any interface, so introspect_init() finds out. When it
 * does not, they stay empty: the tools fail, and nothing else does.
 * Benchmark rows: create_task, gather. */
#ifndef ASYNCLOOP_INTROSPECT_H
#define ASYNCLOOP_INTROSPECT_H

#include "tasks/task.h"

#if PY_VERSION_HEX >= 0x030E0000

static inline PyObject **
introspect_slot(PyObject *op, size_t offset)
{
    return (PyObject **)(void *)((char *)op + offset);
}

/* After its name has changed. 0 / -1. */
static inline int
introspect_rename(Task *task)
{
    const struct introspect_offsets *at = &tasks_state(task->future.state_ptr)->introspect;
    if (UNLIKELY(at->name == 0)) {
        return 0;
    }
    /* The number alone means "Task-N", for asyncio too: no text need be made. */
    PyObject *name = task->named ? Py_NewRef(task->name)
                                 : PyLong_FromUnsignedLongLong(task->number);
    if (name == NULL) {
        return -1;
    }
    Py_XSETREF(*introspect_slot((PyObject *)task, at->name), name);
    return 0;
}

/* When it has its name and its coroutine; before it is among all tasks. 0 / -1. */
static inline int
introspect_fill(Task *task)
{
    const struct introspect_offsets *at = &tasks_state(task->future.state_ptr)->introspect;
    if (UNLIKELY(at->name == 0)) {
        return 0;
    }
    if (introspect_rename(task) < 0) {
        return -1;
    }
    Py_XSETREF(*introspect_slot((PyObject *)task, at->coro), Py_NewRef(task->coro));
    ((char *)task)[at->is_task] = 1;
    return 0;
}

static inline void
introspect_drop_coro(Task *task)
{
    const struct introspect_offsets *at = &tasks_state(task->future.state_ptr)->introspect;
    if (LIKELY(at->name != 0)) {
        Py_CLEAR(*introspect_slot((PyObject *)task, at->coro));
    }
}

/* The memory may go to a free list, which wants the base's fields empty. */
static inline void
introspect_clear(Task *task)
{
    const struct introspect_offsets *at = &tasks_state(task->future.state_ptr)->introspect;
    if (LIKELY(at->name != 0)) {
        Py_CLEAR(*introspect_slot((PyObject *)task, at->name));
        Py_CLEAR(*introspect_slot((PyObject *)task, at->coro));
        ((char *)task)[at->is_task] = 0;
    }
}

#ifdef Py_GIL_DISABLED
/* Each thread has a list of the tasks that it made, and a Task says whose list it is in. asyncio
 * takes it out of its own thread's list at once, and stops all threads to take it out of any
 * other's: also out of none's, which is what an empty field would mean. */
static inline void
introspect_set_thread(PyObject *task, const struct introspect_offsets *at)
{
    if (LIKELY(at->thread != 0)) {
        *(uintptr_t *)(void *)((char *)task + at->thread) = _Py_ThreadId();
    }
}

/* So that the memory may go back without the base's dealloc, if the Task is in no list. If it
 * still is (it was never done), the base's dealloc stops the threads. */
static inline void
introspect_clear_thread(PyObject *task, const struct introspect_offsets *at)
{
    if (LIKELY(at->thread != 0)) {
        *(uintptr_t *)(void *)((char *)task + at->thread) = 0;
    }
}
#else
#define introspect_clear_thread(task, at) ((void)(task), (void)(at))
#endif

/* Writes down that `task` awaits `waiter`, an exact Task of ours: true if that is done, or is
 * there already (*added tells which); false: asyncio's own function has to. */
static inline bool
introspect_add_awaiter(Task *task, PyObject *waiter, bool *added)
{
    PyObject **slot = introspect_slot(waiter, tasks_state(task->future.state_ptr)->introspect.awaited_by);
    if (LIKELY(*slot == NULL)) {
        *slot = Py_NewRef((PyObject *)task);
        *added = true;
        return true;
    }
    *added = false;
    return *slot == (PyObject *)task;
}

/* Takes that back: false as above. The reference to `task` that was there is the caller's. */
static inline bool
introspect_remove_awaiter(Task *task, PyObject *waiter)
{
    PyObject **slot = introspect_slot(waiter, tasks_state(task->future.state_ptr)->introspect.awaited_by);
    if (*slot != (PyObject *)task) {
        return false;
    }
    *slot = NULL;
    return true;
}

#else

#define introspect_rename(task) ((void)(task), 0)
#define introspect_fill(task) ((void)(task), 0)
#define introspect_drop_coro(task) ((void)(task))
#define introspect_clear(task) ((void)(task))
#define introspect_clear_thread(task, at) ((void)(task), (void)(at))

#endif

#endif
