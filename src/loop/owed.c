/* owed.c - calls that wait for memory. */
#include "loop/owed.h"

#include "base/checked.h"
#include "loop/loop.h"

void
owed_init(struct owed *owed)
{
    list_init(&owed->calls);
    list_init(&owed->due);
}

static inline PyObject *
owed_owner(const struct owed_call *call)
{
    return (PyObject *)(void *)((char *)call - call->kind->offset);
}

void
owed_add_call(Loop *loop, struct owed_call *call, const struct owed_kind *kind)
{
    VERIFY(call->kind == NULL && call->arg == NULL && list_empty(&call->node));
    call->kind = kind;
    Py_INCREF(owed_owner(call));
    list_append(&loop->owed.calls, &call->node);
    SET_FLAG(loop->owed.any, true);
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

void
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

void
owed_clear(Loop *loop)
{
    owed_clear_calls(&loop->owed.due);
    owed_clear_calls(&loop->owed.calls);
}

int
owed_traverse(struct owed *owed, visitproc visit, void *arg)
{
    int result = owed_traverse_calls(&owed->due, visit, arg);
    return result != 0 ? result : owed_traverse_calls(&owed->calls, visit, arg);
}

#ifdef ASYNCLOOP_DEBUG
static void
owed_verify_calls(const struct list_node *calls, uint64_t turn)
{
    size_t most = verify_most(turn);
    VERIFY(verify_node(calls));
    for (const struct list_node *node = calls->next; node != calls && most-- > 0; node = node->next) {
        const struct owed_call *call = container_of(node, struct owed_call, node);
        VERIFY(verify_node(node));
        VERIFY(call->kind != NULL && verify_lives(owed_owner(call)));
        VERIFY(call->arg == NULL || verify_lives(call->arg));
    }
}

void
owed_verify(Loop *loop, uint64_t turn)
{
    const struct owed *owed = &loop->owed;
    owed_verify_calls(&owed->calls, turn);
    owed_verify_calls(&owed->due, turn);
    VERIFY(FLAG(owed->any) || (list_empty(&owed->due) && list_empty(&owed->calls) && !FLAG(owed->tasks)));
}
#endif
