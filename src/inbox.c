/* inbox.c - call_soon_threadsafe().
 *
 * Owns: the descriptor that wakes the poll, and on free-threaded builds the list of
 * handles. Where there is a GIL, it already protects the ready ring: other threads push
 * right there, which keeps the order of call_soon() and call_soon_threadsafe().
 * The lock is held for a few instructions, never across a call that may run Python or
 * wait for the GIL. Only the first call that finds the loop asleep writes to the
 * descriptor (benchmark row: call_soon_threadsafe).
 * Rejected: libev's ev_async, which ends the process when no descriptor is left. */
#include "inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#define INBOX_INITIAL 64

/* -- waking ------------------------------------------------------------------------- */

static void
inbox_woken(struct ev_loop *ev UNUSED, ev_io *io, int revents UNUSED)
{
    /* The iteration drains the inbox after each poll; here only the descriptor. */
    char waste[64];
    ssize_t ignored UNUSED = read(io->fd, waste, sizeof(waste));
}

/* with the lock held */
static void
inbox_wake_locked(struct inbox *inbox)
{
    if (inbox->asleep && inbox->wake_write_fd >= 0) {
        static const uint64_t one = 1;
        inbox->asleep = false;
        /* It can only fail by being full, and then the loop wakes up anyway. */
        ssize_t ignored UNUSED = write(inbox->wake_write_fd, &one, sizeof(one));
    }
}

bool
inbox_may_sleep(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    bool empty = loop->inbox.count == 0;
    loop->inbox.asleep = empty;
    pthread_mutex_unlock(&loop->inbox.lock);
    return empty;
}

void
inbox_awake(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    loop->inbox.asleep = false;
    pthread_mutex_unlock(&loop->inbox.lock);
}

/* -- waiting for a callback ------------------------------------------------------------ */

void
inbox_wait_while(Loop *loop, const bool *flag)
{
    struct inbox *inbox = &loop->inbox;
    inbox->waiters++;    /* before the GIL goes: the loop sees it, or has cleared the flag */
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&inbox->lock);
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE)) {
        pthread_cond_wait(&inbox->told, &inbox->lock);
    }
    pthread_mutex_unlock(&inbox->lock);
    Py_END_ALLOW_THREADS
    inbox->waiters--;
}

void
inbox_tell_some_waiters(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    pthread_cond_broadcast(&loop->inbox.told);
    pthread_mutex_unlock(&loop->inbox.lock);
}

/* -- life ------------------------------------------------------------------------------ */

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
    if (pipe(fds) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
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

void
inbox_init(Loop *loop)
{
    pthread_mutex_init(&loop->inbox.lock, NULL);
    pthread_cond_init(&loop->inbox.told, NULL);
    loop->inbox.wake_fd = loop->inbox.wake_write_fd = -1;
}

int
inbox_open(Loop *loop)
{
    if (wake_fds_open(&loop->inbox) < 0) {
        return -1;
    }
    ev_io_init(&loop->inbox.wake_watcher, inbox_woken, loop->inbox.wake_fd, EV_READ);
    ev_io_start(loop->ev, &loop->inbox.wake_watcher);
    return 0;
}

/* Takes all items out; the caller frees the array. */
static Handle **
inbox_take(struct inbox *inbox, size_t *count)
{
    pthread_mutex_lock(&inbox->lock);
    Handle **items = inbox->items;
    *count = inbox->count;
    inbox->items = NULL;
    inbox->capacity = 0;
    __atomic_store_n(&inbox->count, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&inbox->lock);
    return items;
}

void
inbox_close(Loop *loop)
{
    ev_io_stop(loop->ev, &loop->inbox.wake_watcher);
    pthread_mutex_lock(&loop->inbox.lock);
    wake_fds_close(&loop->inbox);
    pthread_mutex_unlock(&loop->inbox.lock);
    inbox_free(loop);
}

void
inbox_free(Loop *loop)
{
    size_t count;
    Handle **items = inbox_take(&loop->inbox, &count);
    for (size_t i = 0; i < count; i++) {
        handle_discard(items[i]);
        Py_DECREF(items[i]);
    }
    PyMem_RawFree(items);
}

int
inbox_after_fork(Loop *loop)
{
    /* Another thread of the parent may have held the lock, and the descriptor is the
     * parent's too. */
    pthread_mutex_init(&loop->inbox.lock, NULL);
    pthread_cond_init(&loop->inbox.told, NULL);
    loop->inbox.waiters = 0;
    loop->inbox.asleep = false;
    ev_io_stop(loop->ev, &loop->inbox.wake_watcher);
    wake_fds_close(&loop->inbox);
    return inbox_open(loop);
}

/* -- the list ----------------------------------------------------------------------------- */

int
inbox_drain_some(Loop *loop)
{
    struct inbox *inbox = &loop->inbox;
    int result = 0;
    pthread_mutex_lock(&inbox->lock);
    size_t count = inbox->count;
    size_t i = 0;
    for (; i < count; i++) {
        /* The reserve first: a push that fails would drop the reference under the lock. */
        if (ready_length(&loop->ready) > loop->ready.mask && ready_grow(&loop->ready) < 0) {
            result = -1;
            break;
        }
        ready_push_steal(&loop->ready, (PyObject *)inbox->items[i], READY_HANDLE);
    }
    for (size_t rest = i; rest < count; rest++) {
        inbox->items[rest - i] = inbox->items[rest];
    }
    __atomic_store_n(&inbox->count, count - i, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&inbox->lock);
    return result;
}

void
loop_wake(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    inbox_wake_locked(&loop->inbox);
    pthread_mutex_unlock(&loop->inbox.lock);
}

#ifdef Py_GIL_DISABLED
static int
inbox_reserve(struct inbox *inbox)
{
    if (inbox->count < inbox->capacity) {
        return 0;
    }
    size_t capacity = inbox->capacity == 0 ? INBOX_INITIAL : inbox->capacity * 2;
    Handle **items = PyMem_RawRealloc(inbox->items, capacity * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    inbox->items = items;
    inbox->capacity = capacity;
    return 0;
}

/* 0; -1: no memory; -2: closed. The reference is taken only with 0. */
static int
inbox_push_steal(Loop *loop, Handle *handle)
{
    struct inbox *inbox = &loop->inbox;
    int result = 0;
    pthread_mutex_lock(&inbox->lock);
    if (inbox->wake_fd < 0) {
        result = -2;
    }
    else if (inbox_reserve(inbox) < 0) {
        result = -1;
    }
    else {
        inbox->items[inbox->count] = handle;
        __atomic_store_n(&inbox->count, inbox->count + 1, __ATOMIC_RELEASE);
        inbox_wake_locked(inbox);
    }
    pthread_mutex_unlock(&inbox->lock);
    return result;
}

int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    int result = inbox_push_steal(loop, handle_steal);
    if (result == 0) {
        return 0;
    }
    Py_DECREF(handle_steal);
    if (result == -1) {
        PyErr_NoMemory();
        return -1;
    }
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}
#else
int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    if (loop_check_closed(loop) < 0) {
        Py_DECREF(handle_steal);
        return -1;
    }
    if (ready_push_steal(&loop->ready, (PyObject *)handle_steal, READY_HANDLE) < 0) {
        return -1;
    }
    if (loop->inbox.asleep) {
        loop_wake(loop);
    }
    return 0;
}
#endif

int
inbox_traverse(Loop *loop, visitproc visit, void *arg)
{
    for (size_t i = 0; i < loop->inbox.count; i++) {
        int result = handle_traverse(loop->inbox.items[i], HANDLE_ONCE, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
