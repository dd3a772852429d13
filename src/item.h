/* item.h - one item of the ring runs. */
#ifndef ASYNCLOOP_ITEM_H
#define ASYNCLOOP_ITEM_H

#include "loop/current.h"
#include "loop/overrides.h"
#include "loop/ready.h"
#include "tasks/future_waiters.h"
#include "tasks/task.h"

int loop_run_foreign(Loop *loop, PyObject *item);    /* 0, or -1 with whatever it raised */
int loop_run_replaced(Loop *loop, PyObject *handle);    /* by Handle._run(): the same */

/* Before 3.12, what was replaced since the iteration began, or since the last push. */
#if PY_VERSION_HEX >= 0x030C0000
#define LOOP_REPLACED_MEANWHILE(loop) loop_replaced(loop)
#else
#define LOOP_REPLACED_MEANWHILE(loop) ((loop)->overrides.replaced)
#endif

static inline int
loop_run_item(Loop *loop, uintptr_t item)
{
    PyObject *op = ready_object(item);
    int result;
    switch (item & READY_KIND_MASK) {
    case READY_TASK:
        result = task_run(loop, op);
        COUNT(loop->counters->task_steps, 1);
        return result;
    case READY_HANDLE:
        current_leave(loop);
        if (UNLIKELY(LOOP_REPLACED_MEANWHILE(loop) & LOOP_HANDLE_RUN)
            && !((Handle *)op)->is_native) {
            return loop_run_replaced(loop, op);
        }
        return handle_run((Handle *)op);
    case READY_DONE:
        current_leave(loop);
        return future_run_left_callbacks(loop, (Future *)op);
    default:
        current_leave(loop);
        return loop_run_foreign(loop, op);
    }
}

/* The same in debug mode, with accounting, or in a trace. `event`: of a descriptor. */
int loop_run_item_carefully(Loop *loop, uintptr_t item, bool event);

/* Runs a callback of add_reader() or add_writer(), out of the poll. */
void loop_run_handle(Loop *loop, Handle *handle);

#endif
