/* inbox.c - call_soon_threadsafe(), and what threads outside of Python have finished.
 *
 * Owns: the descriptor that wakes the poll, and the queue of what other threads have sent.
 * Where there is a GIL, it already protects the ready ring: other threads push right
 * there, which keeps the order of call_soon() and call_soon_threadsafe(), and into the
 * queue only what exceeds DIRECT_MAX in one iteration. Without a GIL whatever comes from
 * another thread goes through the queue: Tasks that are woken as well.
 * The lock is held for a few instructions, never across a call that may run Python or
 * wait for the GIL. Only the first call that finds the loop asleep writes to the
 * descriptor (benchmark row: call_soon_threadsafe).
 * Threads that have no thread state (look_up.c) post: no reference, no memory, no GIL.
 * Rejected: libev's ev_async, which ends the process when no descriptor is left. */
#include "loop/inbox.h"

#include "loop/current.h"
#include "loop/poll.h"
#include "loop/watch.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

#define INBOX_INITIAL 64

/* What other threads may make one iteration run, in items: with a microsecond or two for
 * each, descriptors and timers wait some milliseconds behind a flood that has no end. */
#define DIRECT_MAX 1024
#define DRAIN_MAX 1024

/* -- waking ------------------------------------------------------------------------- */

static void
inbox_woken(struct ev_loop *ev, ev_io *io UNUSED, int revents UNUSED)
{
    Loop *loop = ev_userdata(ev);
    loop->fds.events++;
    inbox_empty(loop);
}

void
inbox_empty(Loop *loop)
{
    /* The iteration drains the inbox after each poll; here only the descriptor. */
    char waste[64];
    ssize_t ignored UNUSED = read(loop->inbox.wake_fd, waste, sizeof(waste));
}

static void
inbox_write(struct inbox *inbox)
{
    static const uint64_t one = 1;
    /* It can only fail by being full, and then the loop wakes up anyway. */
    ssize_t ignored UNUSED = write(inbox->wake_write_fd, &one, sizeof(one));
}

static inline bool
inbox_is_asleep(struct inbox *inbox)
{
    return __atomic_load_n(&inbox->asleep, __ATOMIC_SEQ_CST);
}

static inline void
inbox_set_asleep(struct inbox *inbox, bool asleep)
{
    __atomic_store_n(&inbox->asleep, asleep, __ATOMIC_RELAXED);
}

/* with the lock held */
static void
inbox_wake_locked(struct inbox *inbox)
{
    if (inbox_is_asleep(inbox) && inbox->wake_write_fd >= 0) {
        inbox_set_asleep(inbox, false);
        inbox_write(inbox);
    }
}

bool
inbox_may_sleep(Loop *loop)
{
    /* Without the lock (guarded path: protocol): who has work first says so, then looks whether the
     * loop sleeps; the loop first says that it sleeps, then looks for work. One sees the other. */
    struct inbox *inbox = &loop->inbox;
    __atomic_store_n(&inbox->asleep, true, __ATOMIC_SEQ_CST);
    if (LIKELY(!__atomic_load_n(&inbox->any, __ATOMIC_SEQ_CST)
               && !__atomic_load_n(&inbox->poked, __ATOMIC_SEQ_CST))) {
        return true;
    }
    inbox_awake(loop);
    return false;
}

void
inbox_awake(Loop *loop)
{
    inbox_set_asleep(&loop->inbox, false);    /* who saw it asleep wakes the next poll: no matter */
    if (UNLIKELY(__atomic_load_n(&loop->inbox.poked, __ATOMIC_SEQ_CST))) {
        __atomic_store_n(&loop->inbox.poked, false, __ATOMIC_RELAXED);
    }
}

/* -- waiting for a callback ------------------------------------------------------------ */

void
inbox_wait_while(Loop *loop, const uint32_t *runner)
{
    struct inbox *inbox = &loop->inbox;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&inbox->lock);
    /* Before the look: the loop sees the one or has cleared the other. */
    __atomic_add_fetch(&inbox->waiters, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(runner, __ATOMIC_SEQ_CST) != 0) {
        pthread_cond_wait(&inbox->told, &inbox->lock);
    }
    __atomic_sub_fetch(&inbox->waiters, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&inbox->lock);
    Py_END_ALLOW_THREADS
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
    if (poll_open_pipe(fds) < 0) {
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

void
inbox_init(Loop *loop)
{
    pthread_mutex_init(&loop->inbox.lock, NULL);
    pthread_cond_init(&loop->inbox.told, NULL);
    loop->inbox.wake_fd = loop->inbox.wake_write_fd = -1;
    loop->inbox.posted_end = &loop->inbox.posted;
}

int
inbox_open(Loop *loop)
{
    if (wake_fds_open(&loop->inbox) < 0) {
        return -1;
    }
    ev_io_init(&loop->inbox.wake_watcher, inbox_woken, loop->inbox.wake_fd, EV_READ);
    if (watch_start_io(loop, &loop->inbox.wake_watcher) < 0) {
        wake_fds_close(&loop->inbox);
        return -1;
    }
    loop->inbox.open = true;
    return 0;
}

/* with the lock held */
static void
inbox_set_count(struct inbox *inbox, size_t count)
{
    __atomic_store_n(&inbox->count, count, __ATOMIC_RELEASE);
    __atomic_store_n(&inbox->any, count > 0 || inbox->posted != NULL, __ATOMIC_SEQ_CST);
}

void
inbox_close(Loop *loop)
{
    watch_stop_io(loop, &loop->inbox.wake_watcher);
    pthread_mutex_lock(&loop->inbox.lock);
    loop->inbox.open = false;
    wake_fds_close(&loop->inbox);
    pthread_mutex_unlock(&loop->inbox.lock);
    inbox_free(loop);
}

void
inbox_free(Loop *loop)
{
    struct inbox *inbox = &loop->inbox;
    pthread_mutex_lock(&inbox->lock);
    uintptr_t *items = inbox->items;
    size_t head = inbox->head;
    size_t count = inbox->count;
    inbox->items = NULL;
    inbox->capacity = inbox->head = 0;
    inbox_set_count(inbox, 0);
    pthread_mutex_unlock(&inbox->lock);
    for (size_t i = 0; i < count; i++) {
        ready_drop_item(items[head + i]);
    }
    PyMem_RawFree(items);
}

void
inbox_forked(Loop *loop)
{
    /* Another thread of the parent may have held the lock. Not later: without a GIL the first call
     * takes it before the loop runs, and then other threads of the child may hold it. */
    pthread_mutex_init(&loop->inbox.lock, NULL);
    pthread_cond_init(&loop->inbox.told, NULL);
    loop->inbox.waiters = 0;
    inbox_set_asleep(&loop->inbox, false);
    /* Whoever has posted them does so again: see look_up.c. */
    loop->inbox.posted = NULL;
    loop->inbox.posted_end = &loop->inbox.posted;
    inbox_set_count(&loop->inbox, loop->inbox.count);
}

int
inbox_after_fork(Loop *loop)
{
    /* The descriptor is the parent's too. While there is none for the child, calls are taken
     * nevertheless: a loop that cannot sleep needs nobody to wake it. */
    watch_stop_io(loop, &loop->inbox.wake_watcher);
    wake_fds_close(&loop->inbox);
    return inbox_open(loop);
}

/* -- the list ----------------------------------------------------------------------------- */

static void
inbox_drain_at_most(Loop *loop, size_t most)
{
    struct inbox *inbox = &loop->inbox;
    /* The room first: a push that fails would drop the reference under the lock. What there is no
     * memory for stays for the next iteration, which comes without a sleep. */
    size_t hint = __atomic_load_n(&inbox->count, __ATOMIC_ACQUIRE);
    size_t room = ready_reserve(&loop->ready, hint < most ? hint : most);
    uintptr_t *emptied = NULL;
    pthread_mutex_lock(&inbox->lock);
    size_t count = inbox->count < most ? inbox->count : most;
    count = count < room ? count : room;
    for (size_t i = 0; i < count; i++) {
        uintptr_t item = inbox->items[inbox->head + i];
        ready_push_steal(&loop->ready, ready_object(item), item & READY_KIND_MASK);
    }
    inbox->head += count;
    inbox_set_count(inbox, inbox->count - count);
    if (inbox->count == 0) {
        inbox->head = 0;
        if (inbox->capacity > DRAIN_MAX) {
            /* A burst must not keep its peak for good. */
            emptied = inbox->items;
            inbox->items = NULL;
            inbox->capacity = 0;
        }
    }
    pthread_mutex_unlock(&inbox->lock);
    PyMem_RawFree(emptied);
}

void
inbox_post(Loop *loop, struct posted *posted)
{
    struct inbox *inbox = &loop->inbox;
    posted->next = NULL;
    pthread_mutex_lock(&inbox->lock);
    *inbox->posted_end = posted;
    inbox->posted_end = &posted->next;
    inbox_set_count(inbox, inbox->count);
    bool asleep = inbox_is_asleep(inbox) && inbox->wake_write_fd >= 0;
    inbox_set_asleep(inbox, false);
    pthread_mutex_unlock(&inbox->lock);
    if (asleep) {
        inbox_write(inbox);    /* after the lock, which the loop wants as soon as it is awake */
    }
}

void
inbox_run_posted(Loop *loop)
{
    struct inbox *inbox = &loop->inbox;
    pthread_mutex_lock(&inbox->lock);
    struct posted *posted = inbox->posted;
    inbox->posted = NULL;
    inbox->posted_end = &inbox->posted;
    inbox_set_count(inbox, inbox->count);
    pthread_mutex_unlock(&inbox->lock);
    if (posted != NULL) {
        current_leave(loop);    /* it may run Python */
    }
    while (posted != NULL) {
        struct posted *next = posted->next;    /* it frees itself */
        posted->run(posted, loop);
        posted = next;
    }
}

void
inbox_drain_some(Loop *loop)
{
    if (__atomic_load_n(&loop->inbox.count, __ATOMIC_RELAXED) > 0) {
        inbox_drain_at_most(loop, DRAIN_MAX);
    }
    inbox_run_posted(loop);
}

void
inbox_drain_all(Loop *loop)
{
    inbox_drain_at_most(loop, SIZE_MAX);
}

void
loop_wake(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    __atomic_store_n(&loop->inbox.poked, true, __ATOMIC_SEQ_CST);
    inbox_wake_locked(&loop->inbox);
    pthread_mutex_unlock(&loop->inbox.lock);
}

/* Room for one more behind the last: 0 / -1, with the lock held. */
static int
inbox_reserve(struct inbox *inbox)
{
    if (inbox->head + inbox->count < inbox->capacity) {
        return 0;
    }
    if (inbox->head > inbox->capacity / 2) {
        memmove(inbox->items, inbox->items + inbox->head, inbox->count * sizeof(*inbox->items));
        inbox->head = 0;
        return 0;
    }
    size_t capacity = inbox->capacity == 0 ? INBOX_INITIAL : inbox->capacity * 2;
    uintptr_t *items = PyMem_RawRealloc(inbox->items, capacity * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    inbox->items = items;
    inbox->capacity = capacity;
    return 0;
}

int
inbox_push_steal(Loop *loop, PyObject *op, enum ready_kind kind)
{
    struct inbox *inbox = &loop->inbox;
    bool closed = false, full = false;
    pthread_mutex_lock(&inbox->lock);
    if (!inbox->open) {
        closed = true;
    }
    else if (inbox_reserve(inbox) < 0) {
        full = true;
    }
    else {
        inbox->items[inbox->head + inbox->count] = (uintptr_t)op | (uintptr_t)kind;
        inbox_set_count(inbox, inbox->count + 1);
        inbox_wake_locked(inbox);
        COUNT(loop->counters->from_threads, 1);    /* by one thread at a time */
    }
    pthread_mutex_unlock(&inbox->lock);
    if (LIKELY(!closed && !full)) {
        return 0;
    }
    Py_DECREF(op);
    if (closed) {
        return loop_closed_error(loop);
    }
    PyErr_NoMemory();
    return -1;
}

#ifdef Py_GIL_DISABLED
int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    return loop_push_steal(loop, (PyObject *)handle_steal, READY_HANDLE);
}
#else
/* Whether a call has to queue: others do already, or there were enough for this iteration. A
 * call of the loop's own thread keeps its place among those of call_soon(). */
static bool
inbox_is_next(Loop *loop)
{
    return loop->thread_id != 0 && loop->thread_id != PyThread_get_thread_ident();
}

int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    struct inbox *inbox = &loop->inbox;
    if (loop_check_closed(loop) < 0) {
        Py_DECREF(handle_steal);
        return -1;
    }
    if (UNLIKELY(inbox->direct >= DIRECT_MAX || inbox->count > 0) && inbox_is_next(loop)) {
        return inbox_push_steal(loop, (PyObject *)handle_steal, READY_HANDLE);
    }
    inbox->direct++;
    COUNT(loop->counters->from_threads, inbox_is_next(loop));
    if (ready_push_steal(&loop->ready, (PyObject *)handle_steal, READY_HANDLE) < 0) {
        return -1;
    }
    if (inbox_is_asleep(inbox)) {
        loop_wake(loop);
    }
    return 0;
}
#endif

int
inbox_traverse(Loop *loop, visitproc visit, void *arg)
{
    struct inbox *inbox = &loop->inbox;
    for (size_t i = 0; i < inbox->count; i++) {
        int result = ready_traverse_item(inbox->items[inbox->head + i], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
