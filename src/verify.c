/* verify.c - see verify.h. */
#include "verify.h"

#include "base/checked.h"

#ifdef ASYNCLOOP_DEBUG

#include "loop/inbox.h"
#include "loop/overrides.h"
#include "loop/scratch.h"
#include "loop/timer.h"
#include "loop/watch_inside.h"
#include "net/hold.h"
#include "net/stream.h"
#include "net/transport_verify.h"
#include "tasks/all_tasks.h"
#include "tasks/future_waiters.h"
#include "tasks/task.h"
#include "tls/tls.h"

/* What the ring holds of tasks/, which ready.c knows nothing of. */
static void
ring_verify(Loop *loop, const struct ready *ready, uint64_t turn)
{
    ready_verify(ready, turn);
    struct verify_part part = verify_part(ready_length(ready), turn);
    for (size_t i = part.from; i < part.to; i++) {
        uintptr_t item = ready->items[(ready->head + i) & ready->mask];
        PyObject *op = ready_object(item);
        switch (item & READY_KIND_MASK) {
        case READY_TASK:
            VERIFY(PyObject_TypeCheck(op, tasks_state(loop->state)->types.Task));
            task_verify((Task *)op, turn);
            break;
        case READY_DONE:
            VERIFY(future_is_ours(loop->state, op));
            VERIFY(!future_is_pending((Future *)op));
            future_verify((Future *)op, turn);
            break;
        default:
            break;
        }
    }
}

static void
runs_verify(Loop *loop)
{
    VERIFY(loop->run != NULL && loop->run->thread == PyThread_get_thread_ident());
    VERIFY(loop->released == NULL);
    for (const struct run *run = loop->run; run != NULL; run = run->outer) {
        VERIFY(run->exception == NULL || verify_lives(run->exception));
    }
    VERIFY(loop->current_task == NULL || verify_lives(loop->current_task));
}

void
loop_verify(Loop *loop)
{
    VERIFY(!PyErr_Occurred());
    if (!verifies_turns) {
        return;
    }
    if (FLAG(loop->closed) || loop->forked) {
        return;    /* a callback has forked, or closed it in a child of fork() */
    }
    uint64_t turn = COUNTER_GET(loop->counters->turns);
    runs_verify(loop);
    ring_verify(loop, &loop->ready, turn);
    ring_verify(loop, &loop->deferred, turn);
    timer_verify(loop, turn);
    inbox_verify(loop, turn);
    watch_verify(loop, turn);
    owed_verify(loop, turn);
    scratch_verify(&loop->scratch);
    VERIFY(loop->run->outer != NULL || loop->scratch.taken == 0);
    all_tasks_verify(loop, turn, task_verify);
    unpushed_verify(loop);
    VERIFY(net_loop(loop)->unpushed.length == 0);
    transports_verify(loop, turn);
    tls_verify_all(loop, turn);
}

/* -- for tests ----------------------------------------------------------------------------- */

static void
break_ring(Loop *loop, PyObject *op UNUSED)
{
    (void)ready_has_room(&loop->ready);
    loop->ready.items[loop->ready.tail++ & loop->ready.mask] = 0;
}

static void
break_heap(Loop *loop, PyObject *op UNUSED)
{
    loop->timers.heap[0].key = INT64_MAX;
}

static void
break_inbox(Loop *loop, PyObject *op UNUSED)
{
    loop->inbox.posted_end = NULL;
}

static void
break_table(Loop *loop, PyObject *op)
{
    fds_find(loop, transport_cast(op)->fd)->watched++;
}

static void
break_watch(Loop *loop UNUSED, PyObject *op)
{
    transport_cast(op)->read_watch.noted = true;
}

static void
break_queue(Loop *loop UNUSED, PyObject *op)
{
    stream_cast(op)->output.bytes++;
}

static void
break_transport(Loop *loop UNUSED, PyObject *op)
{
    transport_cast(op)->head.conn_lost = 1;
}

static void
break_scratch(Loop *loop, PyObject *op UNUSED)
{
    loop->scratch.taken++;
}

static void
break_owed(Loop *loop, PyObject *op UNUSED)
{
    SET_FLAG(loop->owed.tasks, true);
}

static void
break_future(Loop *loop UNUSED, PyObject *op)
{
    ((Future *)op)->future_state = FUTURE_FINISHED;
}

static void
break_waiters(Loop *loop UNUSED, PyObject *op)
{
    ((Future *)op)->parked0 = !((Future *)op)->parked0;
}

static void
break_tasks(Loop *loop UNUSED, PyObject *op)
{
    ((Task *)op)->node.next = ((Task *)op)->node.next->next;
}

static const struct {
    const char *name;
    void (*breaks)(Loop *loop, PyObject *op);
} breakers[] = {
    {"ring", break_ring},
    {"heap", break_heap},
    {"inbox", break_inbox},
    {"table", break_table},
    {"watch", break_watch},
    {"queue", break_queue},
    {"transport", break_transport},
    {"scratch", break_scratch},
    {"owed", break_owed},
    {"future", break_future},
    {"waiters", break_waiters},
    {"tasks", break_tasks},
};

PyObject *
module_break(PyObject *module, PyObject *args)
{
    const char *what;
    PyObject *op, *object;
    if (!PyArg_ParseTuple(args, "sOO:_break", &what, &op, &object)) {
        return NULL;
    }
    Loop *loop = loop_from_argument(module, op);
    for (size_t i = 0; loop != NULL && i < ARRAY_LEN(breakers); i++) {
        if (strcmp(what, breakers[i].name) == 0) {
            breakers[i].breaks(loop, object);
            Py_RETURN_NONE;
        }
    }
    if (loop != NULL) {
        PyErr_SetString(PyExc_ValueError, what);
    }
    return NULL;
}

#endif
