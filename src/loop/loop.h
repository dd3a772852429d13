/* loop.h - the Loop object: what is known of it, and asked.
 *
 * Owns:     the libev loop, the ready ring, the timer heap, the inbox of other
 *           threads, the table of descriptors.
 * Promises: no callback of libev lets an exception out; one that has to leave
 *           run_forever() (KeyboardInterrupt, SystemExit) goes through
 *           loop_propagate() and ends the run.
 * Threads:  everything belongs to the thread that runs the loop, under the GIL;
 *           only loop_call_soon_threadsafe() and loop_wake() may come from others.
 *           Without a GIL: owner.h. */
#ifndef ASYNCLOOP_LOOP_H
#define ASYNCLOOP_LOOP_H

#include "base/args.h"

#include <math.h>
#include <ev.h>

#include "base/monotonic.h"
#include "base/tuning.h"
#include "loop/counters.h"
#include "loop/handle.h"
#include "loop/inbox.h"
#include "loop/loop_state.h"
#include "loop/overridden.h"
#include "loop/owed.h"
#include "loop/ready.h"
#include "loop/reserve.h"
#include "loop/scratch.h"
#include "loop/timer.h"
#include "loop/watch.h"

/* The state of one run_forever(), or of a part of one by hand; a run inside a run has its own. Not on that
 * call's C stack, as others look at it: greenlets put another call's stack in its place meanwhile. */
struct run {
    struct run *outer;
    PyObject *exception;          /* what run_forever() has to raise; owned */
    unsigned long thread;         /* that makes iterations or polls; 0: only a handle that is run by hand */
    bool once;                    /* one iteration by hand */
};

/* For what is done apart from a run, or in the middle of one: an iteration or a poll by hand. */
struct hand {
    struct run *run;
    PyObject *task;               /* what asyncio's books said before: owned, or NULL */
    PyObject *entered;            /* loop->current_task: what we had written there, likewise */
};

struct signals;                   /* poll.c */

/* The part of loop/ and tasks/. Each folder above adds its own part behind the one below it, and reaches
 * it by a cast: net_loop(loop), tls_loop(loop), ops_loop(loop). Together they are one object. */
struct Loop {
    PyObject_HEAD
    struct state *state;          /* borrowed: the type keeps the module alive */
    struct ev_loop *ev;           /* NULL once closed */
    struct reserve reserve;       /* memory for it */
    struct list_node all_loops;   /* in loop_state(state)->loops.all */
    struct activity *activity;    /* owned: what others see of the loop */
    struct counters *counters;    /* the activity's */

    struct ready ready;
    struct ready deferred;        /* what a nested run cannot run: its context is entered further up */
    unsigned int nested;          /* runs inside of the outermost one, by allow_nested() */

    struct timers timers;         /* timer.h */
    struct fds fds;               /* watch.h */
    struct inbox inbox;           /* inbox.h: of call_soon_threadsafe() */
    struct scratch scratch;       /* scratch.h */

#ifdef Py_GIL_DISABLED
    unsigned long owner;          /* the thread that has the loop, 0 for none: owner.h */
    struct {
        bool inside;              /* the owner is in a brief section */
        int others;               /* threads that are in one which is not brief, and are not the owner */
    } brief;                      /* brief.h */
    struct kept kept;             /* freelist.h */
#endif
    struct run *run;              /* innermost run, NULL when not running */
    struct run *spare_run;        /* memory for the next one, or NULL */
    PyThreadState *released;      /* while the poll sleeps without the GIL */
    struct libev_call *libev;     /* reserve.h: of the thread that polls; set as it begins a run */
    unsigned long thread_id;      /* of the running thread; 0 when not running */
    int64_t now_ns;               /* clock at the start of the iteration */
    int64_t last_poll_ns;
    int64_t slept_ns;             /* clock before the poll that is under way, if it may sleep; 0: not read yet */
    int64_t woke_ns;              /* clock when the last poll ended, before the GIL; 0: it did not sleep */
    uint32_t polls;               /* so far; wraps */
    unsigned int polled_events;   /* events of the last poll, once they were told; 0 while they are */
    bool slow_answers;            /* many events have last taken long for each: see loop_gathers() */
    bool had_events;              /* the last iteration had events: see loop_poll() */

    ev_timer poll_timer;          /* bounds a sleeping poll, in milliseconds */
    int64_t poll_timer_deadline;
    int timer_fd;                 /* timerfd for deadlines nearer than that; -1: none */
    int64_t timer_fd_deadline;    /* what it is armed for; 0: nothing */
    ev_io timer_fd_watcher;
    struct signals *signals;      /* poll.c: the pipe for signal.set_wakeup_fd; made on first use */

    PyObject *current_task;       /* the Task last entered in asyncio's books; owned, only during a run: current.h */

    struct owed owed;             /* what could not be put into the ring for want of memory */
    struct trace *trace;          /* trace.c: what the watchdog has asked for, or NULL */
    PyObject *current_handle;     /* debug mode: what runs now, or NULL */
    PyObject *made_executor;      /* a weak reference to the default executor, if asyncio has made it; or NULL */
    PyObject *task_factory;       /* or NULL; set through the attribute _task_factory */
    PyObject *records;            /* record.c: what is written down about tasks, or NULL */
    PyObject *places;             /* the same in debug mode: where those that are ready were scheduled, or NULL */
    int64_t turn_budget_ns;       /* turn_budget: what is ready waits for a look at the kernel; 0: no bound */
    double slow_callback_duration;    /* seconds, or SLOW_COMPARES */
    double resolution;                /* _clock_resolution, in seconds */
    int64_t resolution_ns;        /* of _clock_resolution: timers are due so much early; 0 for asyncio's own */
    PyObject *slow_callback_number;   /* the same as it was given, if that was no float; or NULL */
    PyObject *debug_value;            /* of _debug, if that was no bool; or NULL */
    struct overrides overrides;       /* overridden.h */
    struct flag debug;
    bool strong_tasks;            /* each is held until it is done */
    bool task_accounting;
    bool visible_tasks;           /* profilers find them: visible.h */
    struct flag careful;          /* debug mode, accounting or a trace: items run by loop_run_item_carefully() */
    struct flag closed;
    struct flag stopping;
    struct flag looked_at;        /* somebody has a view of the insides: insides.h */
    struct flag turns_change;     /* _run_once or turn_budget may be another: the run looks how it makes turns */
    bool releases;                /* libev knows of poll_release(): poll.c */
    bool profiled_sleep;          /* a profiler is to be told that a sleep has ended */
    bool polling_blocked;         /* this poll may sleep, so it drops the GIL */
    bool left_to_poll;            /* closed by another thread during a poll, which closes the rest */
    bool collected;               /* the garbage collector closes it */
    bool forked;                  /* a child of fork() inherited this loop */
    bool forked_epoll;            /* libev makes a new epoll set in its next poll */
};

#ifdef Py_GIL_DISABLED
/* Of this thread, as long as it lives; never 0. Without the call that PyThread_get_thread_ident() is. */
static inline unsigned long
loop_owner_here(void)
{
    return (unsigned long)_Py_ThreadId();
}

/* Does this thread run the loop, or use it? */
static inline bool
loop_is_mine(const Loop *loop)
{
    return __atomic_load_n(&loop->owner, __ATOMIC_RELAXED) == loop_owner_here();
}
#else
#define loop_is_mine(loop) true
#endif

/* Bytes that leave one by one wake their reader for each, if it falls asleep in between; bytes that
 * leave together wake it once. So if answers take longer than a reader needs for that, what tasks write
 * that many events have woken at once leaves at the end of the turn. (Benchmark rows: bare ASGI
 * and aiohttp, where it saves a twentieth of the CPU; streams, where there is nothing to save.) */
#define MANY_EVENTS TUNED(MANY_EVENTS, 4)
#define SLOW_ANSWER_NS TUNED(SLOW_ANSWER_NS, 11000)

static inline bool
loop_gathers(const Loop *loop)
{
    return loop->polled_events >= MANY_EVENTS && loop->slow_answers;
}

static inline void
loop_update_careful(Loop *loop)
{
    SET_FLAG(loop->careful, FLAG(loop->debug) || SHARED_LOAD(loop->task_accounting)
                                || loop->trace != NULL);
}

/* In debug mode: what runs now, or NULL. Steals the handle. */
void loop_set_current_handle_steal(Loop *loop, PyObject *handle);

#define SLOW_COMPARES (-HUGE_VAL)    /* slow_callback_duration is no number: to be compared as an object */

/* In debug mode: a warning if `item` (a handle, task or transport) has held the loop since
 * `started`, in seconds of loop_time(), for slow_callback_duration or longer. What the logger raises leaves
 * the run. */
void loop_warn_slow(Loop *loop, PyObject *item, double started);

/* -- checks: 0, or -1 with RuntimeError ------------------------------------- */
int loop_closed_error(Loop *loop);    /* always -1 */
static inline int
loop_check_closed(Loop *loop)
{
    return LIKELY(!FLAG(loop->closed) && SHARED_LOAD(loop->ev) != NULL)
               ? 0
               : loop_closed_error(loop);
}
int loop_check_thread(Loop *loop);    /* call only in debug mode */
/* In debug mode, as asyncio: a coroutine is no callback, and a callback is callable. TypeError. */
int loop_check_callback(Loop *loop, PyObject *callback, const char *function);

/* libev's own follow-up of a fork, before the first use in the child. 0, or -1 with OSError: there
 * is no descriptor for it now, the next use tries again. */
static inline int
loop_prepare_ev(Loop *loop)
{
    return LIKELY(!loop->forked) ? 0 : loop_state(loop->state)->run.after_fork(loop);
}

/* -- clock and runs (loop.c) ------------------------------------------------ */

double loop_time(Loop *loop);         /* of our own clock */

/* A run begins: NULL with MemoryError. It ends: gives what run_forever() has to raise, owned, or NULL. Not
 * always the last that began: a thread may run a handle by hand meanwhile. */
struct run *loop_begin_run(Loop *loop);
PyObject *loop_end_run(Loop *loop, struct run *run);

/* -- errors (err.c) --------------------------------------------------------- */

/* The current exception must leave run_forever(): ends the run. To be called from
 * callbacks of libev that have called into Python, for is_exit_exception() ones and what the exception
 * handler or a logger has raised. Outside a run it is written to sys.unraisablehook. */
void loop_propagate(Loop *loop);
/* The same of a run that need not be the innermost: another one waits in a greenlet. */
void loop_propagate_from(Loop *loop, struct run *run);

/* What is called in between is called as in an `except`, for an exception (borrowed, or None): sys.exc_info()
 * tells it, and what is raised there has it as its context. On a level of its own, as a generator's. */
void handling_begin(_PyErr_StackItem *level, PyObject *exc);
void handling_end(_PyErr_StackItem *level);

/* Calls loop.call_exception_handler(context), while the exception in `context` is handled. 0, or -1 with
 * what that has raised, which is for whoever has called asyncio's function that calls it. */
int loop_call_exception_handler(Loop *loop, PyObject *context);

/* Gives the current exception to loop.call_exception_handler({'message': ..., 'exception': ...,
 * key: value}); KeyboardInterrupt, SystemExit and what the handler raises go to loop_propagate(). Clears the error
 * indicator; never fails. `key` may be NULL. */
void loop_report(Loop *loop, const char *message, const char *key, PyObject *value);

/* Is it a Loop of ours? Nearly all are of one class, asyncloop.Loop. */
static inline bool
loop_check(struct state *state, PyObject *op)
{
    return LIKELY(Py_TYPE(op) == loop_state(state)->loops.usual)
           || PyObject_TypeCheck(op, loop_state(state)->types.Loop);
}

/* A loop of ours (borrowed) for a function of the module, or NULL with TypeError. */
Loop *loop_from_argument(PyObject *module, PyObject *object);

#endif
