/* poll.c - libev's side of the loop: the sleeping poll, its timer, its GIL, what wakes it.
 *
 * Owns: the timerfd, and the descriptor that wakes the loop.
 * epoll's time-out counts whole milliseconds, so a nearer deadline is given to a timerfd,
 * and a later one to an ev_timer, rounded up (benchmark row: sleep below a millisecond). */
#include "loop/poll.h"

#include "base/tuning.h"
#include "loop/activity.h"
#include "loop/current.h"
#include "loop/signals.h"
#include "loop/timer.h"
#include "loop/wake.h"
#include "loop/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#endif

/* Within this a deadline is exact to the clock; beyond, a millisecond late at most. (Benchmark rows: timers
 * of 0.5 and 5 ms, which come 20 times and twice as late by libev's own milliseconds; 2026-11-30.) */
#define TIMERFD_HORIZON_NS TUNED(TIMERFD_HORIZON_NS, INT64_C(20000000))

/* -- the GIL ------------------------------------------------------------------------- */

static void
poll_release(struct ev_loop *ev)
{
    Loop *loop = ev_userdata(ev);
    COUNTER_SET(loop->counters->timers, timer_count(&loop->timers));
    counters_fall_asleep(loop->counters, loop->slept_ns);
    loop->released = PyEval_SaveThread();
}

static void
poll_acquire(struct ev_loop *ev)
{
    Loop *loop = ev_userdata(ev);
    /* Nobody else polls meanwhile: loop_begin_by_hand() sees to that. */
    PyThreadState *released = loop->released;
    loop->released = NULL;
    loop->woke_ns = monotonic_ns();
    span_end(&loop->counters->idle, loop->woke_ns);
    counters_begin_turn(loop->counters);    /* to wait for the GIL is not to sleep */
    PyEval_RestoreThread(released);
    loop->profiled_sleep = released->c_profilefunc != NULL;
}

/* libev calls the two above around the polls that may sleep, and around no others (guarded path: reader). */
static inline void
poll_set_release(Loop *loop, bool releases)
{
    if (UNLIKELY(loop->releases != releases)) {
        loop->releases = releases;
        ev_set_loop_release_cb(loop->ev, releases ? poll_release : NULL, releases ? poll_acquire : NULL);
    }
}

/* -- the end of a sleep ------------------------------------------------------------------ */

static void
poll_timer_fired(struct ev_loop *ev UNUSED, ev_timer *timer UNUSED, int revents UNUSED)
{
    /* The iteration looks at the heap after each poll. */
}

#ifdef __linux__
static void
timer_fd_fired(struct ev_loop *ev UNUSED, ev_io *io, int revents UNUSED)
{
    Loop *loop = container_of(io, Loop, timer_fd_watcher);
    loop->fds.events++;
    uint64_t expirations;
    if (read(io->fd, &expirations, sizeof(expirations)) == sizeof(expirations)) {
        loop->timer_fd_deadline = 0;
    }
}

static void
timer_fd_open(Loop *loop)
{
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    loop->timer_fd_deadline = 0;
    /* -1 (no descriptor left): timers are then exact to a millisecond */
    if (loop->timer_fd >= 0) {
        ev_io_init(&loop->timer_fd_watcher, timer_fd_fired, loop->timer_fd, EV_READ);
        if (watch_start_io(loop, &loop->timer_fd_watcher) < 0) {
            PyErr_Clear();    /* nor without memory for it */
            close(loop->timer_fd);
            loop->timer_fd = -1;
        }
    }
}

static bool
timer_fd_arm(Loop *loop, int64_t deadline)
{
    if (loop->timer_fd < 0) {
        timer_fd_open(loop);
    }
    if (loop->timer_fd < 0) {
        return false;
    }
    if (loop->timer_fd_deadline == deadline) {
        return true;
    }
    struct itimerspec spec = {
        .it_value = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000},
    };
    if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0) {
        return false;
    }
    loop->timer_fd_deadline = deadline;
    return true;
}
#else
static bool
timer_fd_arm(Loop *loop UNUSED, int64_t deadline UNUSED)
{
    return false;
}
#endif

static void
timer_fd_close(Loop *loop)
{
    if (loop->timer_fd >= 0) {
        if (loop->ev != NULL) {
            watch_stop_io(loop, &loop->timer_fd_watcher);
        }
        close(loop->timer_fd);
        loop->timer_fd = -1;
    }
}

/* Sees to it that the poll ends at `deadline` of the monotonic clock. A time-out that is
 * already armed for an earlier moment is left alone: its end is one idle iteration. */
static void
poll_arm(Loop *loop, int64_t now, int64_t deadline)
{
    if (deadline - now < TIMERFD_HORIZON_NS && timer_fd_arm(loop, deadline)) {
        return;
    }
    if (ev_is_active(&loop->poll_timer)) {
        if (loop->poll_timer_deadline > now && loop->poll_timer_deadline <= deadline) {
            return;
        }
        ev_timer_stop(loop->ev, &loop->poll_timer);
    }
    ev_now_update(loop->ev);    /* a timer is set relative to it, and it may be long ago */
    ev_timer_set(&loop->poll_timer, (double)(deadline - now) * 1e-9, 0.);
    struct reserve *outer = reserve_enter(loop->libev, &loop->reserve);
    ev_timer_start(loop->ev, &loop->poll_timer);
    reserve_leave(loop->libev, &loop->reserve, outer);
    loop->poll_timer_deadline = deadline;
}

/* What libev would end the process for. Kept by thread, because libev's callback for it is one
 * per process and knows no loop. */
static void
poll_failed(const char *message UNUSED)
{
    libev_call()->error = errno;
}

/* libev comes here before each look as well, and looks through all its priorities then (guarded
 * paths: protocol, reader). */
static void
poll_invoke(struct ev_loop *ev)
{
    if (ev_pending_count(ev) > 0) {
        ev_invoke_pending(ev);
    }
}

/* libev asks for a new epoll set until it has one, and nothing else happens meanwhile: only where
 * the system's table of files has room. (It closes the old one before: the process's has.) */
static int
poll_check_new_epoll(Loop *loop)
{
#ifdef __linux__
    int fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd < 0 && errno == ENFILE) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (fd >= 0) {
        close(fd);
    }
#endif
    loop->forked_epoll = false;
    return 0;
}

/* How many events libev takes from the kernel at once, until it has once had as many. */
#define LIBEV_ROOM 64

/* asyncio gives all events of a moment to one iteration. libev asks for more from the next time on
 * whenever it has got as many as it has room for, and does not tell how many that is: once there was
 * another look after `events`, it is more than these. */
static void
poll_for_the_rest(Loop *loop)
{
    struct fds *fds = &loop->fds;
    unsigned int total = fds->events;
    while (fds->events >= LIBEV_ROOM && fds->events >= fds->room && loop->libev->error == 0) {
        fds->room = fds->events + 1;
        fds->events = 0;
        fds->before = fds->noted.prev;
        ev_run(loop->ev, EVRUN_NOWAIT);
    }
    fds->events = total;
}

/* May nothing come of a sleep, or not enough? Then it is none. */
static inline bool
poll_may_sleep(Loop *loop)
{
    /* The check made work, another thread did, or a run was broken off. */
    return ready_length(&loop->ready) == 0 && list_empty(&loop->fds.noted) && loop_may_sleep(loop);
}

static inline void
poll_set_end(Loop *loop, int64_t wait_ns)
{
    if (loop->slept_ns == 0) {
        loop->slept_ns = monotonic_ns();
    }
    if (wait_ns != TIMER_NEVER) {
        int64_t now = loop->slept_ns;
        poll_arm(loop, now, wait_ns > TIMER_NEVER - now ? TIMER_NEVER : now + wait_ns);
    }
}

/* Inlined twice: what sleeping takes costs a look that does not sleep nothing (guarded path: reader). */
static inline __attribute__((always_inline)) int
poll_by(Loop *loop, int64_t wait_ns, const bool may_sleep)
{
    if (UNLIKELY(loop_prepare_ev(loop) < 0)) {
        return -1;
    }
    if (watch_has_changed(&loop->fds)) {
        watch_check_all_changed(loop);
    }
    if (UNLIKELY(loop->ev == NULL)) {
        return loop_closed_error(loop);    /* by a callback that was run just now */
    }
    bool sleeps = may_sleep && poll_may_sleep(loop);
    loop->polling_blocked = sleeps;
    if (sleeps) {
        poll_set_end(loop, wait_ns);
    }
    if (UNLIKELY(loop->forked_epoll) && poll_check_new_epoll(loop) < 0) {
        if (sleeps) {
            loop->polling_blocked = false;
            loop_awake(loop);
        }
        return -1;
    }
    poll_set_release(loop, sleeps);
    loop->fds.fresh = false;
    loop->fds.events = 0;
    /* The head, where the poll may sleep, in which another thread may stop a watch. */
    loop->fds.before = loop->fds.noted.prev;
    struct libev_call *call = loop->libev;
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    call->error = 0;
    ev_run(loop->ev, sleeps ? EVRUN_ONCE : EVRUN_NOWAIT);
    if (sleeps) {
        loop->polling_blocked = false;
        loop_awake(loop);
    }
    if (UNLIKELY(loop->fds.events >= LIBEV_ROOM) && !loop->left_to_poll) {
        poll_set_release(loop, false);
        poll_for_the_rest(loop);
        loop->fds.fresh = true;    /* the kernel's order is that of polls: the next one is not left out */
    }
    reserve_leave(call, &loop->reserve, outer);
    if (UNLIKELY(loop->left_to_poll)) {
        return -1;    /* the caller closes the rest, and tells */
    }
    if (UNLIKELY(call->error != 0)) {
        errno = call->error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

int
poll_sleep(Loop *loop, int64_t wait_ns)
{
    return poll_by(loop, wait_ns, true);
}

int
poll_now(Loop *loop)
{
    return poll_by(loop, 0, false);
}

static void
wake_fd_readable(struct ev_loop *ev, ev_io *io UNUSED, int revents UNUSED)
{
    Loop *loop = ev_userdata(ev);
    loop->fds.events++;
    wake_empty(loop);
}

static int
wake_fds_open(struct inbox *inbox)
{
#ifdef __linux__
    inbox->wake_fd = inbox->wake_write_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (inbox->wake_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
#else
    int fds[2];
    if (wake_open_pipe(fds) < 0) {
        return -1;
    }
    inbox->wake_fd = fds[0];
    inbox->wake_write_fd = fds[1];
#endif
    return 0;
}

static void
wake_fds_close(struct inbox *inbox)
{
    if (inbox->wake_write_fd >= 0 && inbox->wake_write_fd != inbox->wake_fd) {
        close(inbox->wake_write_fd);
    }
    if (inbox->wake_fd >= 0) {
        close(inbox->wake_fd);
    }
    inbox->wake_fd = inbox->wake_write_fd = -1;
}

static int
wake_open(Loop *loop)
{
    if (wake_fds_open(&loop->inbox) < 0) {
        return -1;
    }
    ev_io_init(&loop->inbox.wake_watcher, wake_fd_readable, loop->inbox.wake_fd, EV_READ);
    if (watch_start_io(loop, &loop->inbox.wake_watcher) < 0) {
        wake_fds_close(&loop->inbox);
        return -1;
    }
    return 0;
}

static void
wake_close(Loop *loop)
{
    watch_stop_io(loop, &loop->inbox.wake_watcher);
    pthread_mutex_lock(&loop->inbox.lock);
    wake_fds_close(&loop->inbox);
    pthread_mutex_unlock(&loop->inbox.lock);
}

/* -- life ------------------------------------------------------------------------------------------ */

int
poll_open(Loop *loop)
{
    /* NOENV: LIBEV_FLAGS must not switch a production program to another backend. */
    unsigned int backends = ev_supported_backends();
    unsigned int wanted = backends & EVBACKEND_EPOLL    ? EVBACKEND_EPOLL
                          : backends & EVBACKEND_KQUEUE ? EVBACKEND_KQUEUE
                                                        : EVBACKEND_POLL;
    reserve_install();
    if (reserve_open(&loop->reserve) < 0) {
        return -1;
    }
    struct libev_call *call = libev_call();
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    loop->ev = ev_loop_new(EVFLAG_NOENV | wanted);
    reserve_leave(call, &loop->reserve, outer);
    if (loop->ev == NULL) {
        int err = errno;
        reserve_close(&loop->reserve);
        errno = err;
        if (err != 0) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
        else {
            PyErr_SetString(PyExc_OSError, "libev could not make an event loop");
        }
        return -1;
    }
    ev_set_syserr_cb(poll_failed);
    ev_set_userdata(loop->ev, loop);
    ev_set_invoke_pending_cb(loop->ev, poll_invoke);
    loop->releases = false;
    ev_timer_init(&loop->poll_timer, poll_timer_fired, 0., 0.);
    if (wake_open(loop) < 0) {
        ev_loop_destroy(loop->ev);
        loop->ev = NULL;
        reserve_close(&loop->reserve);
        return -1;
    }
    return 0;
}

void
poll_close(Loop *loop)
{
    wake_close(loop);
    ev_timer_stop(loop->ev, &loop->poll_timer);
    timer_fd_close(loop);
    signals_close(loop);
}

int
poll_after_fork(Loop *loop)
{
    /* What wakes the loop is the parent's too, like its epoll set. While there is none for the child,
     * calls are taken nevertheless: a loop that cannot sleep needs nobody to wake it. */
    wake_close(loop);
    if (wake_open(loop) < 0) {
        return -1;
    }
    timer_fd_close(loop);
    ev_loop_fork(loop->ev);
    loop->forked_epoll = true;
    /* It may have slept, in a thread that the child does not have. */
    loop->polling_blocked = false;
    loop->released = NULL;
    loop->fds.check_all = true;
    return signals_after_fork(loop);
}
