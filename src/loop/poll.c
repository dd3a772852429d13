/* poll.c - libev's side of the loop: the sleeping poll, its timer, its GIL, its signals.
 *
 * Owns: the timerfd and the pipe for signals.
 * epoll's time-out counts whole milliseconds, so a nearer deadline is given to a timerfd,
 * and a later one to an ev_timer, rounded up (benchmark row: sleep below a millisecond). */
#include "loop/poll.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/timerfd.h>
#endif

#include "loop/activity.h"
#include "loop/current.h"
#include "loop/inbox.h"
#include "loop/timer.h"
#include "loop/watch.h"

/* Within this a deadline is exact to the clock; beyond, a millisecond late at most. */
#define TIMERFD_HORIZON_NS INT64_C(20000000)

/* -- the GIL ------------------------------------------------------------------------- */

static void
poll_release(struct ev_loop *ev)
{
    Loop *loop = ev_userdata(ev);
    if (loop->polling_blocked) {
        counters_sleep(loop->counters);
        span_begin(&loop->counters->idle, loop->slept_ns);
        loop->released = PyEval_SaveThread();
    }
}

static void
poll_acquire(struct ev_loop *ev)
{
    Loop *loop = ev_userdata(ev);
    PyThreadState *released = loop->released;
    if (released != NULL) {
        /* Nobody else polls meanwhile: loop_begin_by_hand() sees to that. */
        loop->released = NULL;
        loop->woke_ns = monotonic_ns();
        span_end(&loop->counters->idle, loop->woke_ns);
        counters_begin_turn(loop->counters);    /* to wait for the GIL is not to sleep */
        PyEval_RestoreThread(released);
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

int
poll_once(Loop *loop, int64_t wait_ns)
{
    if (UNLIKELY(loop_prepare_ev(loop) < 0)) {
        return -1;
    }
    watch_check_changed(loop);
    if (UNLIKELY(loop->ev == NULL)) {
        return loop_closed_error(loop);    /* by a callback that was run just now */
    }
    if (wait_ns > 0
        && (ready_length(&loop->ready) > 0 || !list_empty(&loop->fds.noted)
            || !inbox_may_sleep(loop))) {
        wait_ns = 0;    /* the check made work, another thread did, or a run was broken off */
    }
    loop->polling_blocked = wait_ns > 0;
    if (wait_ns > 0 && loop->slept_ns == 0) {
        loop->slept_ns = monotonic_ns();
    }
    if (wait_ns > 0 && wait_ns != TIMER_NEVER) {
        int64_t now = loop->slept_ns;
        poll_arm(loop, now, wait_ns > TIMER_NEVER - now ? TIMER_NEVER : now + wait_ns);
    }
    if (UNLIKELY(loop->forked_epoll) && poll_check_new_epoll(loop) < 0) {
        if (loop->polling_blocked) {
            loop->polling_blocked = false;
            inbox_awake(loop);
        }
        return -1;
    }
    loop->fds.fresh = false;
    loop->fds.events = 0;
    /* The head, where the poll may sleep, in which another thread may stop a watch. */
    loop->fds.before = loop->fds.noted.prev;
    struct libev_call *call = loop->libev;
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    call->error = 0;
    ev_run(loop->ev, wait_ns > 0 ? EVRUN_ONCE : EVRUN_NOWAIT);
    if (loop->polling_blocked) {
        loop->polling_blocked = false;
        inbox_awake(loop);
    }
    if (UNLIKELY(loop->fds.events >= LIBEV_ROOM) && !loop->left_to_poll) {
        poll_for_the_rest(loop);
        loop->fds.fresh = true;    /* the kernel's order is that of polls: the next one is not left out */
    }
    reserve_leave(call, &loop->reserve, outer);
    if (UNLIKELY(loop->left_to_poll)) {
        loop_close_kernel_side(loop);
        return loop_closed_error(loop);
    }
    if (UNLIKELY(call->error != 0)) {
        errno = call->error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* Apart from the poll, because asyncio's order is: what was ready before the poll, then
 * what the poll has brought, then due timers. */
void
poll_dispatch(Loop *loop)
{
    loop->polls++;
    loop->crowd = 0;
    if (!list_empty(&loop->fds.noted)) {
        current_leave(loop);
        watch_dispatch(loop);
    }
    loop->answering = loop->fds.events > 0;
    loop->crowd = loop->fds.events;
}

/* -- signals ---------------------------------------------------------------------------------- */

/* At least so many signals fit into the pipe on every system (65536 on Linux, where a pair of
 * sockets takes 278). If as many have come, more may have been dropped. */
#define SIGNAL_PIPE_FULL 16384

struct signals {
    struct watch watch;           /* of the end that is read; owner: the loop */
    int write_fd;
};

/* Python's C signal handler writes the number of each signal there, while the loop has signal
 * handlers. Any other signal just ends a sleep (EINTR), and loop_poll() runs its handler. */
static void
signals_arrived(struct watch *watch, int revents)
{
    struct signals *signals = container_of(watch, struct signals, watch);
    Loop *loop = watch_loop(watch);
    int fd = watch->io.fd;
    char numbers[4096];
    if (UNLIKELY(revents & EV_ERROR)) {
        return;    /* somebody has closed the loop's own descriptor */
    }
    ssize_t count = read(fd, numbers, sizeof(numbers)), total = 0;
    if (count <= 0) {
        return;
    }
    if (PyErr_CheckSignals() < 0) {
        loop_propagate(loop);
    }
    while (count > 0) {
        total += count;
        PyObject *bytes = PyBytes_FromStringAndSize(numbers, (Py_ssize_t)count);
        if (bytes == NULL && loop->signals == signals
            && write(signals->write_fd, numbers, (size_t)count) == count) {
            PyErr_Clear();    /* no memory: they arrive again */
            return;
        }
        PyObject *result = bytes == NULL
                               ? NULL
                               : PyObject_CallMethod((PyObject *)loop, "_signals_arrived", "Oi",
                                                     bytes, total >= SIGNAL_PIPE_FULL);
        Py_XDECREF(bytes);
        if (result == NULL) {
            loop_report(loop, "Exception while signals were handled", NULL, NULL);
        }
        Py_XDECREF(result);
        /* the rest of a flood waits for the next iteration */
        bool more = count == sizeof(numbers) && total < SIGNAL_PIPE_FULL
                    && loop->signals == signals;    /* else the loop was closed */
        count = more ? read(fd, numbers, sizeof(numbers)) : 0;
    }
}

int
poll_open_pipe(int fds[2])
{
#ifdef __linux__
    int result = pipe2(fds, O_CLOEXEC | O_NONBLOCK);
#else
    int result = pipe(fds);
    for (int i = 0; result == 0 && i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
#endif
    if (result < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return result;
}

static int
signal_fds_open(Loop *loop)
{
    int fds[2];
    struct signals *signals = PyMem_Malloc(sizeof(*signals));
    if (signals == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (poll_open_pipe(fds) < 0) {
        PyMem_Free(signals);
        return -1;
    }
    watch_init(&signals->watch, loop, (PyObject *)loop, WATCH_LOOP, fds[0], EV_READ, signals_arrived);
    signals->write_fd = fds[1];
    if (watch_start(&signals->watch) < 0) {
        close(fds[0]);
        close(fds[1]);
        PyMem_Free(signals);
        return -1;
    }
    loop->signals = signals;
    return 0;
}

/* A new pipe under the same numbers: signal.set_wakeup_fd() goes on with the one that it has. */
static int
signal_fds_renew(Loop *loop)
{
    int fds[2];
    struct signals *signals = loop->signals;
    if (signals == NULL) {
        return 0;
    }
    if (poll_open_pipe(fds) < 0) {
        return -1;
    }
    /* libev puts all that it watches into its new set anyway. */
    (void)dup2(fds[0], signals->watch.io.fd);
    (void)dup2(fds[1], signals->write_fd);
    fcntl(signals->watch.io.fd, F_SETFD, FD_CLOEXEC);
    fcntl(signals->write_fd, F_SETFD, FD_CLOEXEC);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

static void
signal_fds_close(Loop *loop)
{
    struct signals *signals = loop->signals;
    if (signals != NULL) {
        loop->signals = NULL;
        watch_stop(&signals->watch);
        close(signals->watch.io.fd);
        close(signals->write_fd);
        PyMem_Free(signals);
    }
}

int
poll_signal_fd(Loop *loop)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    if (UNLIKELY(loop_prepare_ev(loop) < 0)) {
        return -1;
    }
    if (loop->signals == NULL && signal_fds_open(loop) < 0) {
        return -1;
    }
    return loop->signals->write_fd;
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
    ev_set_loop_release_cb(loop->ev, poll_release, poll_acquire);
    ev_timer_init(&loop->poll_timer, poll_timer_fired, 0., 0.);
    return 0;
}

void
poll_close(Loop *loop)
{
    ev_timer_stop(loop->ev, &loop->poll_timer);
    timer_fd_close(loop);
    signal_fds_close(loop);
}

int
poll_after_fork(Loop *loop)
{
    /* Both are shared with the parent, like its epoll set: the child gets its own. */
    timer_fd_close(loop);
    ev_loop_fork(loop->ev);
    loop->forked_epoll = true;
    /* It may have slept, in a thread that the child does not have. */
    loop->polling_blocked = false;
    loop->released = NULL;
    loop->fds.check_all = true;
    return signal_fds_renew(loop);
}
