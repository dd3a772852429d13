/* brief.c - see brief.h: what other threads than the loop's do. */
#include "loop/brief.h"

#ifdef Py_GIL_DISABLED

#include <sched.h>

#include "base/checked.h"

#ifdef __linux__
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#endif

__thread Loop *brief_loop THREAD_STORAGE;

bool
brief_prepare(void)
{
#if defined(__linux__) && defined(SYS_membarrier)
    return SHORT_WAY(brief) && syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
#else
    return false;
#endif
}

/* Whatever a thread has stored before this is seen by all threads that load after it, and this
 * one sees what they have stored. */
static void
brief_barrier(void)
{
#if defined(__linux__) && defined(SYS_membarrier)
    for (int tries = 0; syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0; tries++) {
        /* A filter of system calls came later than the loop: no store takes a hundredth of a second. */
        if (tries > 0 || !brief_prepare()) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
            return;
        }
    }
#endif
}

#ifdef ASYNCLOOP_SMALL
void
loop_guard_begin(struct loop_guard *guard, PyObject *op, Loop *const *place)
{
    loop_guard_begin_here(guard, op, place);
}

void
loop_guard_end(struct loop_guard *guard)
{
    loop_guard_end_here(guard);
}

void
section_begin(struct section *section, PyObject *op, Loop *const *place)
{
    section->is_brief = brief_begin(&section->brief, place);
    if (!section->is_brief) {
        loop_guard_begin_here(&section->guard, op, place);
    }
}

void
section_end(struct section *section)
{
    if (section->is_brief) {
        brief_end(&section->brief);
    }
    else {
        loop_guard_end_here(&section->guard);
    }
}
#endif

static void
brief_wait(Loop *loop)
{
    __atomic_add_fetch(&loop->brief.others, 1, __ATOMIC_SEQ_CST);
    /* Whoever claims it after this looks at `others` after that. */
    if (__atomic_load_n(&loop->owner, __ATOMIC_SEQ_CST) == 0) {
        return;
    }
    brief_barrier();
    while (__atomic_load_n(&loop->brief.inside, __ATOMIC_ACQUIRE)) {
        /* Gives up this thread's critical sections for the moment, which the loop's may want now. */
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
}

Loop *
brief_tell(Loop *const *place)
{
    for (;;) {
        Loop *loop = *place;
        if (loop == NULL || loop_is_mine(loop)) {
            return NULL;
        }
        Py_INCREF(loop);
        brief_wait(loop);
        if (LIKELY(*place == loop)) {    /* else the object got another one meanwhile */
            return loop;
        }
        brief_leave(loop);
    }
}

void
brief_leave(Loop *loop)
{
    __atomic_sub_fetch(&loop->brief.others, 1, __ATOMIC_RELEASE);
    Py_DECREF(loop);
}

#endif
