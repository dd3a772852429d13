/* owner.c - see owner.h. */
#include "loop/owner.h"

#ifdef Py_GIL_DISABLED

#include <sched.h>

#include "loop/inbox.h"

/* How often a thread gives way to another one that is inside a short method. */
#define CLAIM_TRIES 1000

/* Whether the loop was free, or is taken by another thread only for a moment. */
static bool
loop_wait_for_owner(Loop *loop, unsigned long me)
{
    for (int i = 0; i < CLAIM_TRIES; i++) {
        unsigned long nobody = 0;
        if (__atomic_compare_exchange_n(&loop->owner, &nobody, me, false, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            return true;
        }
        if (SHARED_LOAD(loop->run) != NULL) {
            break;
        }
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
    return false;
}

int
loop_claim_steal(struct claim *claim, Loop *loop_steal)
{
    claim->loop = loop_steal;
    claim->taken = false;
    if (loop_steal == NULL || LIKELY(loop_is_mine(loop_steal))) {
        return 0;
    }
    if (!loop_wait_for_owner(loop_steal, loop_owner_here())) {
        PyErr_SetString(PyExc_RuntimeError, "Non-thread-safe operation invoked on an event loop "
                                            "other than the current one");
        claim->loop = NULL;
        Py_DECREF(loop_steal);
        return -1;
    }
    claim->taken = true;
    /* What came before goes first. */
    if (__atomic_load_n(&loop_steal->inbox.count, __ATOMIC_ACQUIRE) > 0) {
        inbox_drain_all(loop_steal);
    }
    return 0;
}

void
loop_unclaim(struct claim *claim)
{
    if (claim->taken) {
        __atomic_store_n(&claim->loop->owner, 0, __ATOMIC_RELEASE);
    }
    Py_XDECREF(claim->loop);
}

#endif
