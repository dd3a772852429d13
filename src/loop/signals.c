/* signals.c - the pipe of signal.set_wakeup_fd(). */
#include "loop/signals.h"

#include "loop/wake.h"
#include "loop/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

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

static int
signals_open(Loop *loop)
{
    int fds[2];
    struct signals *signals = PyMem_Malloc(sizeof(*signals));
    if (signals == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (wake_open_pipe(fds) < 0) {
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
int
signals_after_fork(Loop *loop)
{
    int fds[2];
    struct signals *signals = loop->signals;
    if (signals == NULL) {
        return 0;
    }
    if (wake_open_pipe(fds) < 0) {
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

void
signals_close(Loop *loop)
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
signals_fd(Loop *loop)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    if (UNLIKELY(loop_prepare_ev(loop) < 0)) {
        return -1;
    }
    if (loop->signals == NULL && signals_open(loop) < 0) {
        return -1;
    }
    return loop->signals->write_fd;
}
