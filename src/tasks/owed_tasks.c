/* owed_tasks.c - see owed_tasks.h. */
#include "tasks/owed_tasks.h"

#include "loop/wake.h"
#include "tasks/all_tasks.h"
#include "tasks/task.h"

/* Its next step waits for memory, or the callbacks of one that has ended. From any thread. */
static void
owed_add_task(Loop *loop, PyObject *op)
{
    Task *task = (Task *)op;
    struct state *state = loop->state;
    state_lock_lists(state);
    if (!task->owed) {
        task->owed = true;
        Py_INCREF(task);
        if (list_empty(&task->node)) {
            list_append(&tasks_state(state)->all.list, &task->node);
        }
    }
    SET_FLAG(loop->owed.tasks, true);
    SET_FLAG(loop->owed.any, true);
    state_unlock_lists(state);
    if (!loop_is_mine(loop)) {
        loop_wake(loop);
    }
}

/* Its reference is the caller's now. */
static void
owed_unmark_task(Task *task)
{
    task->owed = false;
    if (!TASKS_ARE_LISTED || !task->registered) {
        list_remove(&task->node);
    }
}

/* The first one from `node` on; NULL: there is none. */
static Task *
owed_next_task(Loop *loop, struct list_node *node)
{
    for (; node != &tasks_state(loop->state)->all.list; node = node->next) {
        Task *task = container_of(node, Task, node);
        if (task->owed && task->future.own_loop == loop) {
            return task;
        }
    }
    return NULL;
}

void
owed_pay_tasks(Loop *loop)
{
    state_lock_lists(loop->state);
    Task *task = owed_next_task(loop, tasks_state(loop->state)->all.list.next);
    while (task != NULL && ready_has_room(&loop->ready)) {
        struct list_node *next = task->node.next;
        owed_unmark_task(task);
        ready_push_steal(&loop->ready, (PyObject *)task,
                         SHARED_LOAD(task->future.future_state) == FUTURE_PENDING ? READY_TASK : READY_DONE);
        task = owed_next_task(loop, next);
    }
    SET_FLAG(loop->owed.tasks, task != NULL);
    state_unlock_lists(loop->state);
}

void
owed_clear_tasks(Loop *loop)
{
    Task *task;
    if (!FLAG(loop->owed.tasks)) {
        return;
    }
    do {
        state_lock_lists(loop->state);
        task = owed_next_task(loop, tasks_state(loop->state)->all.list.next);
        if (task != NULL) {
            owed_unmark_task(task);
        }
        state_unlock_lists(loop->state);
        Py_XDECREF(task);    /* may run Python: from the beginning */
    } while (task != NULL);
    SET_FLAG(loop->owed.tasks, false);
}

int
task_push_slowly_steal(Loop *loop, PyObject *task)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (loop_push_steal(loop, Py_NewRef(task), READY_TASK) < 0) {
        if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
            Py_DECREF(task);
            Py_XDECREF(exc);
            return -1;
        }
        PyErr_Clear();
        owed_add_task(loop, task);
    }
    Py_DECREF(task);
    PyErr_SetRaisedException(exc);
    return 0;
}

bool
owed_add_callbacks(Loop *loop, Future *future)
{
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return false;
    }
    PyObject *exc = PyErr_GetRaisedException();
    bool comes = loop_push_steal(loop, Py_NewRef(future), READY_DONE) == 0;
    if (!comes && PyErr_ExceptionMatches(PyExc_MemoryError)
        && PyObject_TypeCheck((PyObject *)future, tasks_state(loop->state)->types.Task)) {
        owed_add_task(loop, (PyObject *)future);
        comes = true;
    }
    PyErr_Clear();
    if (comes) {
        Py_XDECREF(exc);
    }
    else {
        PyErr_SetRaisedException(exc);
    }
    return comes;
}
