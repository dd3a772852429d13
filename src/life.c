/* life.c - see life.h. */
#include "life.h"

#include "base/freelist.h"
#include "loop/activity.h"
#include "loop/inbox.h"
#include "loop/owed.h"
#include "loop/scratch.h"
#include "loop/timer.h"
#include "loop/wake.h"
#include "loop/watch.h"
#include "tasks/owed_tasks.h"
#include "tasks/trace.h"
#include "net/hold.h"
#include "ops/look_up.h"
#include "ops/ops_loop.h"
#include "readers.h"

int
loop_open(Loop *loop)
{
    if (loop->ev != NULL) {
        return 0;    /* __init__ once more: it is open */
    }
    if (poll_open(loop) < 0) {
        return -1;
    }
    inbox_open(loop);
    state_lock_lists(loop->state);
    list_append(&loop_state(loop->state)->loops.all, &loop->all_loops);
    state_unlock_lists(loop->state);
    return 0;
}

void
loop_free_buffers(Loop *loop)
{
    scratch_close(&loop->scratch);
#ifdef Py_GIL_DISABLED
    kept_free(&loop->kept);
#endif
    free(net_loop(loop)->behind_room);
    net_loop(loop)->behind_room = NULL;
    hold_release(loop);
    PyMem_Free(net_loop(loop)->unpushed.streams);
    net_loop(loop)->unpushed = (struct unpushed){0};
}

void
loop_close(Loop *loop)
{
    SET_FLAG(loop->closed, true);
    state_lock_lists(loop->state);
    list_remove(&loop->all_loops);
    state_unlock_lists(loop->state);
    look_ups_close(loop);
    if (loop->ev == NULL) {
        return;
    }
    watch_clear(loop);
    readers_clear(loop);
    trace_drop(loop);
    ready_clear(&loop->ready);
    ready_clear(&loop->deferred);
    owed_clear(loop);
    owed_clear_tasks(loop);
    SET_FLAG(loop->owed.any, false);
    timer_clear(loop);
    if (UNLIKELY(loop->polling_blocked) && !loop->forked) {
        loop->left_to_poll = true;    /* of another thread, in a turn by hand */
        loop_wake(loop);
        return;
    }
    loop_close_kernel_side(loop);
}

void
loop_close_kernel_side(Loop *loop)
{
    loop->left_to_poll = false;
    inbox_close(loop);
    poll_close(loop);
    struct ev_loop *ev = loop->ev;
    SHARED_STORE(loop->ev, NULL);
    if (ev != NULL) {
        ev_loop_destroy(ev);
    }
    reserve_close(&loop->reserve);
    loop_free_buffers(loop);
}

static int
loop_after_fork(Loop *loop)
{
    if (loop->ev != NULL && poll_after_fork(loop) < 0) {
        return -1;
    }
    look_ups_after_fork(loop);
    loop->forked = false;
    return 0;
}

int
life_init(PyObject *module UNUSED, struct state *state)
{
    loop_state(state)->run.after_fork = loop_after_fork;
    return 0;
}
