/* owed.c - calls, Tasks and callbacks that wait for memory, and how they come in the end. */
#include "loop/owed.h"

#include "loop/current.h"
#include "tasks/task.h"

void
owed_init(struct owed *owed)
{
    list_init(&owed->calls);
    list_init(&owed->due);
}

/* -- calls ------------------------------------------------------------------------ */

static inline PyObject *
owed_owner(const struct owed_call *call)
{
    return (PyObject *)(void *)((char *)call - call->kind->offset);
}

void
owed_add_call(Loop *loop, struct owed_call *call, const struct owed_kind *kind)
{
    call->kind = kind;
    Py_INCREF(owed_owner(call));
    list_append(&loop->owed.calls, &call->node);
    SHARED_STORE(loop->owed.any, true);
}

/* Takes the oldest off the list: its owner and argument are the caller's. */
static native_callback
owed_take_call(struct list_node *calls, PyObject **owner, PyObject **arg)
{
    struct owed_call *call = container_of(calls->next, struct owed_call, node);
    native_callback run = call->kind->run;
    *owner = owed_owner(call);
    *arg = call->arg;
    list_remove(&call->node);
    call->kind = NULL;
    call->arg = NULL;
    return run;
}

static void
owed_pay_calls(Loop *loop, struct run *run)
{
    struct owed *owed = &loop->owed;
    while (run->exception == NULL && !list_empty(&owed->due)) {
        PyObject *owner, *arg;
        native_callback callback = owed_take_call(&owed->due, &owner, &arg);
        if (callback(owner, arg) < 0 && PyErr_Occurred()) {
            loop_report(loop, "Exception in a callback of the event loop", NULL, NULL);
        }
        Py_DECREF(owner);
        Py_XDECREF(arg);
    }
    while (!list_empty(&owed->calls)) {
        struct list_node *node = owed->calls.next;
        list_remove(node);
        list_append(&owed->due, node);
    }
}

static void
owed_clear_calls(struct list_node *calls)
{
    while (!list_empty(calls)) {
        PyObject *owner, *arg;
        (void)owed_take_call(calls, &owner, &arg);
        Py_DECREF(owner);
        Py_XDECREF(arg);
    }
}

static int
owed_traverse_calls(struct list_node *calls, visitproc visit, void *arg)
{
    for (struct list_node *node = calls->next; node != NULL && node != calls; node = node->next) {
        struct owed_call *call = container_of(node, struct owed_call, node);
        Py_VISIT(owed_owner(call));
        Py_VISIT(call->arg);
    }
    return 0;
}

/* -- Tasks ------------------------------------------------------------------------- */

void
owed_add_task(Loop *loop, PyObject *op)
{
    Task *task = (Task *)op;
    struct state *state = loop->state;
    state_lock_lists(state);
    if (!task->owed) {
        task->owed = true;
        Py_INCREF(task);
        if (list_empty(&task->node)) {
            list_append(&loop_state(state)->current.list, &task->node);
        }
    }
    SHARED_STORE(loop->owed.tasks, true);
    SHARED_STORE(loop->owed.any, true);
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
    if (!CURRENT_HAS_TASK_LIST || !task->registered) {
        list_remove(&task->node);
    }
}

/* The first one from `node` on; NULL: there is none. */
static Task *
owed_next_task(Loop *loop, struct list_node *node)
{
    for (; node != &loop_state(loop->state)->current.list; node = node->next) {
        Task *task = container_of(node, Task, node);
        if (task->owed && task->future.own_loop == loop) {
            return task;
        }
    }
    return NULL;
}

static void
owed_pay_tasks(Loop *loop)
{
    state_lock_lists(loop->state);
    Task *task = owed_next_task(loop, loop_state(loop->state)->current.list.next);
    while (task != NULL && ready_has_room(&loop->ready)) {
        struct list_node *next = task->node.next;
        owed_unmark_task(task);
        ready_push_steal(&loop->ready, (PyObject *)task,
                         future_is_pending(&task->future) ? READY_TASK : READY_DONE);
        task = owed_next_task(loop, next);
    }
    SHARED_STORE(loop->owed.tasks, task != NULL);
    state_unlock_lists(loop->state);
}

static void
owed_clear_tasks(Loop *loop)
{
    Task *task;
    do {
        state_lock_lists(loop->state);
        task = owed_next_task(loop, loop_state(loop->state)->current.list.next);
        if (task != NULL) {
            owed_unmark_task(task);
        }
        state_unlock_lists(loop->state);
        Py_XDECREF(task);    /* may run Python: from the beginning */
    } while (task != NULL);
}

/* -- callbacks of a future ------------------------------------------------------------ */

bool
owed_add_callbacks(Loop *loop, Future *future)
{
    if (!PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return false;
    }
    PyObject *exc = PyErr_GetRaisedException();
    bool comes = loop_push_steal(loop, Py_NewRef(future), READY_DONE) == 0;
    if (!comes && PyErr_ExceptionMatches(PyExc_MemoryError)
        && PyObject_TypeCheck((PyObject *)future, tasks_state(loop->state)->tasks.Type)) {
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

/* What a Handle would do, without one. 0 / -1 */
static int
owed_call_now(Future *future, PyObject *callback, PyObject *context)
{
    if (!PyContext_CheckExact(context)) {
        PyErr_NoMemory();    /* its run() wants a bound method and a tuple */
        return -1;
    }
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallOneArg(callback, (PyObject *)future);
    PyObject *exc = PyErr_GetRaisedException();
    (void)PyContext_Exit(context);
    PyErr_SetRaisedException(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 0, or -1 with an exit exception */
static int
owed_run_callback(Loop *loop, Future *future, PyObject *callback, PyObject *context)
{
    if (future_wake_one(future, callback, context) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        if (owed_call_now(future, callback, context) == 0) {
            return 0;
        }
    }
    if (is_exit_exception()) {
        return -1;
    }
    loop_report(loop, "Exception in a callback of a future", "future", (PyObject *)future);
    return 0;
}

int
owed_run_callbacks(Loop *loop, Future *future)
{
    PyObject *callback, *context, *later;
    Py_BEGIN_CRITICAL_SECTION(future);
    future_take_waiters(future, &callback, &context, &later);
    Py_END_CRITICAL_SECTION();
    int result = 0;
    PyObject *leaving = NULL;
    if (callback != NULL) {
        result = owed_run_callback(loop, future, callback, context);
        leaving = PyErr_GetRaisedException();
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    for (Py_ssize_t i = 0; later != NULL && i < PyList_GET_SIZE(later); i++) {
        PyObject *item = PyList_GET_ITEM(later, i);
        if (item == Py_None) {
            continue;    /* is awake already */
        }
        future_waiter_parts(item, &callback, &context);
        if (owed_run_callback(loop, future, callback, context) < 0) {
            result = -1;
            Py_XSETREF(leaving, PyErr_GetRaisedException());
        }
    }
    Py_XDECREF(later);
    PyErr_SetRaisedException(leaving);
    return result;
}

/* -- all of them ------------------------------------------------------------------------ */

void
owed_pay(Loop *loop, struct run *run)
{
    struct owed *owed = &loop->owed;
    SHARED_STORE(owed->any, false);
    if (SHARED_LOAD(owed->tasks)) {
        owed_pay_tasks(loop);
    }
    current_leave(loop);
    owed_pay_calls(loop, run);
    if (!list_empty(&owed->due) || SHARED_LOAD(owed->tasks)) {
        SHARED_STORE(owed->any, true);
    }
}

void
owed_clear(Loop *loop)
{
    owed_clear_calls(&loop->owed.due);
    owed_clear_calls(&loop->owed.calls);
    if (SHARED_LOAD(loop->owed.tasks)) {
        owed_clear_tasks(loop);
        SHARED_STORE(loop->owed.tasks, false);
    }
    SHARED_STORE(loop->owed.any, false);
}

int
owed_traverse(struct owed *owed, visitproc visit, void *arg)
{
    int result = owed_traverse_calls(&owed->due, visit, arg);
    return result != 0 ? result : owed_traverse_calls(&owed->calls, visit, arg);
}
