/* watch.c - libev's I/O watchers and the table of descriptors.
 *
 * Invariants:
 *   - a watch is in fds->active, or in fds->noted while an event waits to be told, exactly while
 *     libev may call it, and holds its owner. libev alone stops one: one that is not closed but
 *     that the kernel refuses;
 *   - each watched descriptor whose watchers changed since the last poll is in
 *     fds->changed;
 *   - ev_io_set() comes before each ev_io_start(), because it marks the descriptor as
 *     new to libev: a number that was closed and opened again is then added again. */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct fd_callback {
    struct watch watch;           /* owner: the loop */
    Handle *handle;               /* strong; NULL: no callback */
};

/* add_reader() and add_writer() of one descriptor; most belong to a transport and have none. */
struct fd_callbacks {
    struct fd_callback reader;
    struct fd_callback writer;
};

struct fd_entry {
    PyObject *transport;          /* borrowed: it releases the descriptor before it dies */
#ifdef Py_GIL_DISABLED
    PyObject *reference;          /* a weak reference to it: it may be dying in another thread */
#endif
    struct fd_callbacks *callbacks;    /* from the first call on; stays where it is */
};

/* What libev takes from the kernel at once, until it has been more. */
#define LIBEV_FIRST_ROOM 64

/* -- watches ------------------------------------------------------------------------ */

/* 0, or -1 without memory; sets no exception. */
static int
fds_note_change(struct fds *fds, int fd)
{
    if (fds->changed_count == fds->changed_capacity) {
        size_t capacity = fds->changed_capacity == 0 ? 64 : fds->changed_capacity * 2;
        int *changed = fds->changed;
        PyMem_Resize(changed, int, capacity);
        if (changed == NULL) {
            return -1;
        }
        fds->changed = changed;
        fds->changed_capacity = capacity;
    }
    fds->changed[fds->changed_count++] = fd;
    return 0;
}

/* libev's call. It comes for the last event first, and for the watches of one descriptor together:
 * so in front of the batch, but behind those of the same descriptor that go first. */
static void
watch_note(struct ev_loop *ev UNUSED, ev_io *io, int revents UNUSED)
{
    struct watch *watch = container_of(io, struct watch, io);
    struct fds *fds = &watch_loop(watch)->fds;
    fds->events += fds->events == 0 || io->fd != fds->event_fd;
    fds->event_fd = io->fd;
    if (UNLIKELY(watch->noted)) {
        return;
    }
    bool is_reader = (io->events & EV_READ) != 0;
    struct list_node *next = fds->batch.next;
    for (; next != &fds->batch; next = next->next) {
        ev_io *other = &container_of(next, struct watch, active)->io;
        if (other->fd != io->fd || (is_reader && !(other->events & EV_READ))) {
            break;
        }
    }
    watch->noted = true;
    list_remove(&watch->active);
    list_append(next, &watch->active);
}

void
watch_end_batch(Loop *loop)
{
    struct fds *fds = &loop->fds;
    if (list_empty(&fds->batch)) {
        return;
    }
    /* behind what is noted already */
    struct list_node *first = fds->batch.next, *last = fds->batch.prev;
    list_init(&fds->batch);
    first->prev = fds->noted.prev;
    first->prev->next = first;
    last->next = &fds->noted;
    fds->noted.prev = last;
}

/* Nothing tells how many events libev asks the kernel for: 64 at first, and more from the next time
 * on whenever it has got so many. Once there was another look after `events`, it is more than these. */
bool
watch_batch_was_full(Loop *loop)
{
    struct fds *fds = &loop->fds;
    unsigned int events = fds->events;
    fds->events = 0;
    if (LIKELY(events < LIBEV_FIRST_ROOM || events < fds->room)) {
        return false;
    }
    fds->room = events + 1;
    return true;
}

static void
watch_tell(struct watch *watch)
{
    Loop *loop = watch_loop(watch);
    PyObject *owner = Py_NewRef(watch->owner);
    int revents = watch->io.events & (EV_READ | EV_WRITE);
    if (UNLIKELY(!ev_is_active(&watch->io))) {
        watch_stop(watch);
        revents = EV_ERROR;
    }
    if (LIKELY(!loop->debug || owner == (PyObject *)loop)) {
        watch->ready(watch, revents);
    }
    else {
        double started = loop_time(loop);
        watch->ready(watch, revents);
        loop_warn_slow(loop, owner, started);
    }
    Py_DECREF(owner);
    loop_flush_late(loop);
}

void
watch_dispatch(Loop *loop)
{
    struct fds *fds = &loop->fds;
    while (!list_empty(&fds->noted) && LIKELY(loop->run->exception == NULL)) {
        struct watch *watch = container_of(fds->noted.next, struct watch, active);
        watch->noted = false;
        list_remove(&watch->active);
        list_append(&fds->active, &watch->active);
        watch_tell(watch);
    }
}

void
watch_init(struct watch *watch, Loop *loop, PyObject *owner, int fd, int event,
           void (*ready)(struct watch *watch, int revents))
{
    ev_io_init(&watch->io, watch_note, fd, event);
    watch->io.data = loop;
    watch->owner = owner;
    watch->ready = ready;
    watch->noted = false;
    list_init(&watch->active);
}

/* Room to count the watches of fd. 0, or -1 without memory; sets no exception. */
static int
fds_reserve_watched(struct fds *fds, int fd)
{
    if (LIKELY((size_t)fd < fds->watched_length)) {
        return 0;
    }
    size_t length = ((size_t)fd + 64) & ~(size_t)63;
    uint32_t *watched = fds->watched;
    PyMem_Resize(watched, uint32_t, length);
    if (watched == NULL) {
        return -1;
    }
    for (size_t i = fds->watched_length; i < length; i++) {
        watched[i] = 0;
    }
    fds->watched = watched;
    fds->watched_length = length;
    return 0;
}

int
watch_start(struct watch *watch)
{
    Loop *loop = watch_loop(watch);
    if (watch_is_active(watch)) {
        return 0;
    }
    if (UNLIKELY(loop_check_closed(loop) < 0)) {
        return -1;
    }
    if (UNLIKELY(fds_reserve_watched(&loop->fds, watch->io.fd) < 0)) {
        PyErr_NoMemory();
        return -1;
    }
    if (UNLIKELY(fds_note_change(&loop->fds, watch->io.fd) < 0)) {
        loop->fds.check_all = true;    /* what is watched for the second time never fails */
    }
    loop->fds.watched[watch->io.fd]++;
    if (UNLIKELY(loop_prepare_ev(loop) < 0)) {
        PyErr_Clear();    /* the next poll tells */
    }
    ev_io_set(&watch->io, watch->io.fd, watch->io.events & (EV_READ | EV_WRITE));
    ev_io_start(loop->ev, &watch->io);
    list_append(&loop->fds.active, &watch->active);
    loop->fds.fresh = true;
    Py_INCREF(watch->owner);
    if (UNLIKELY(loop->polling_blocked)) {
        loop_wake(loop);    /* another thread's call, while the loop sleeps on the old set */
    }
    return 0;
}

void
watch_stop(struct watch *watch)
{
    if (!watch_is_active(watch)) {
        return;
    }
    Loop *loop = watch_loop(watch);
    watch->noted = false;
    list_remove(&watch->active);
    uint32_t left = --loop->fds.watched[watch->io.fd];
    if (loop->ev != NULL) {
        ev_io_stop(loop->ev, &watch->io);
        /* Where nothing is left to watch libev makes no call that could fail. */
        if (left > 0 && fds_note_change(&loop->fds, watch->io.fd) < 0) {
            loop->fds.check_all = true;
        }
    }
    Py_DECREF(watch->owner);
}

/* -- the check before each poll -------------------------------------------------------- */

static void
watch_fail_fd_in(struct list_node *head, int fd)
{
    struct list_node *node = head->next;
    while (node != head) {
        struct watch *watch = container_of(node, struct watch, active);
        node = node->next;
        if (watch->io.fd != fd) {
            continue;
        }
        PyObject *owner = Py_NewRef(watch->owner);
        watch_stop(watch);
        watch->ready(watch, EV_ERROR);
        Py_DECREF(owner);
        node = head->next;    /* the callback may have changed the list */
    }
}

static void
watch_fail_fd(Loop *loop, int fd)
{
    watch_fail_fd_in(&loop->fds.noted, fd);
    watch_fail_fd_in(&loop->fds.active, fd);
}

static inline bool
fd_is_closed(int fd)
{
    return fcntl(fd, F_GETFD) < 0 && errno == EBADF;
}

static void
watch_check_list(Loop *loop, struct list_node *head)
{
    for (struct list_node *node = head->next; node != head;) {
        int fd = container_of(node, struct watch, active)->io.fd;
        node = node->next;
        if (fd_is_closed(fd)) {
            watch_fail_fd(loop, fd);
            node = head->next;
        }
    }
}

static void
watch_check_all(Loop *loop)
{
    loop->fds.check_all = false;
    watch_check_list(loop, &loop->fds.noted);
    watch_check_list(loop, &loop->fds.active);
}

void
watch_check_changed(Loop *loop)
{
    struct fds *fds = &loop->fds;
    if (UNLIKELY(fds->check_all)) {
        watch_check_all(loop);
    }
    /* By index: what fails may stop and start watches, which adds entries. */
    for (size_t i = 0; i < fds->changed_count; i++) {
        int fd = fds->changed[i];
        if (UNLIKELY(fds->watched[fd] > 0 && fd_is_closed(fd))) {
            watch_fail_fd(loop, fd);
        }
    }
    fds->changed_count = 0;
}

/* -- the table ---------------------------------------------------------------------------- */

static void fd_callback_ready(struct watch *watch, int revents);

/* Good until the table grows; NULL where nothing was ever watched. */
static struct fd_entry *
fds_find(Loop *loop, int fd)
{
    struct fds *fds = &loop->fds;
    return fd >= 0 && (size_t)fd < fds->length ? &fds->entries[fd] : NULL;
}

static struct fd_entry *
fds_entry(Loop *loop, int fd)
{
    struct fds *fds = &loop->fds;
    if ((size_t)fd >= fds->length) {
        size_t length = ((size_t)fd + 64) & ~(size_t)63;
        struct fd_entry *entries = fds->entries;
        PyMem_Resize(entries, struct fd_entry, length);
        if (entries == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memset(entries + fds->length, 0, (length - fds->length) * sizeof(*entries));
        fds->entries = entries;
        fds->length = length;
    }
    return &fds->entries[fd];
}

/* NULL with MemoryError */
static struct fd_callbacks *
fds_callbacks(Loop *loop, int fd)
{
    struct fd_entry *entry = fds_entry(loop, fd);
    if (entry == NULL || entry->callbacks != NULL) {
        return entry == NULL ? NULL : entry->callbacks;
    }
    struct fd_callbacks *callbacks = PyMem_Calloc(1, sizeof(*callbacks));
    if (callbacks == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    watch_init(&callbacks->reader.watch, loop, (PyObject *)loop, fd, EV_READ, fd_callback_ready);
    watch_init(&callbacks->writer.watch, loop, (PyObject *)loop, fd, EV_WRITE, fd_callback_ready);
    entry->callbacks = callbacks;
    return callbacks;
}

int
watch_claim_fd(Loop *loop, int fd, PyObject *transport)
{
#ifdef Py_GIL_DISABLED
    PyObject *reference = PyWeakref_NewRef(transport, NULL);
    if (reference == NULL) {
        return -1;
    }
#endif
    struct fd_entry *entry = fds_entry(loop, fd);
#ifdef Py_GIL_DISABLED
    if (entry == NULL) {
        Py_DECREF(reference);
        return -1;
    }
    Py_XSETREF(entry->reference, reference);
#endif
    if (entry == NULL) {
        return -1;
    }
    entry->transport = transport;
    return 0;
}

void
watch_release_fd(Loop *loop, int fd, PyObject *transport)
{
    struct fd_entry *entry = fds_find(loop, fd);
    if (entry != NULL && entry->transport == transport) {
        entry->transport = NULL;
#ifdef Py_GIL_DISABLED
        Py_CLEAR(entry->reference);
#endif
    }
}

PyObject *
watch_fd_transport(Loop *loop, int fd)
{
    struct fd_entry *entry = fds_find(loop, fd);
    if (LIKELY(entry == NULL || entry->transport == NULL)) {
        return NULL;
    }
#ifdef Py_GIL_DISABLED
    PyObject *transport;
    if (PyWeakref_GetRef(entry->reference, &transport) < 0) {
        PyErr_Clear();
    }
    return transport;
#else
    return Py_NewRef(entry->transport);
#endif
}

int
watch_ensure_free(Loop *loop, int fd)
{
    PyObject *transport = watch_fd_transport(loop, fd);
    if (transport == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R", fd, transport);
    Py_DECREF(transport);
    return -1;
}

/* Of a handle that is not in the table any more and will not be called: who still has it, a report
 * perhaps, has nothing of the loop with it. */
static void
handle_leave_steal(Handle *handle)
{
    handle_discard(handle);
    if (handle->place == HANDLE_WATCHING) {
        handle_set_place(handle, HANDLE_ONCE);
    }
    handle_let_loop_go(handle);
    Py_DECREF(handle);
}

static void
fd_callback_discard(struct fd_callback *callback)
{
    Handle *handle = callback->handle;
    callback->handle = NULL;
    if (handle != NULL) {
        handle_leave_steal(handle);
    }
}

static void
fd_callback_failed(Loop *loop, struct fd_callback *callback)
{
    Handle *handle = callback->handle;
    callback->handle = NULL;
    errno = EBADF;
    PyErr_SetFromErrno(PyExc_OSError);
    loop_report(loop, "The descriptor of add_reader() or add_writer() was closed", "handle",
                (PyObject *)handle);
    if (handle != NULL) {
        handle_leave_steal(handle);
    }
}

static void
fd_callback_ready(struct watch *watch, int revents)
{
    struct fd_callback *callback = container_of(watch, struct fd_callback, watch);
    Loop *loop = watch_loop(watch);
    if (UNLIKELY(revents & EV_ERROR)) {
        fd_callback_failed(loop, callback);
        return;
    }
    if (callback->handle->cancelled) {
        Handle *handle = callback->handle;
        callback->handle = NULL;
        watch_stop(watch);
        handle_leave_steal(handle);
        return;
    }
    loop_run_handle(loop, callback->handle);
}

static struct fd_callback *
callback_of(struct fd_callbacks *callbacks, int event)
{
    return event == EV_READ ? &callbacks->reader : &callbacks->writer;
}

int
watch_set_callback(Loop *loop, int fd, int event, Handle *handle_steal)
{
    struct fd_callbacks *callbacks = fds_callbacks(loop, fd);
    if (callbacks == NULL) {
        Py_DECREF(handle_steal);
        return -1;
    }
    struct fd_callback *callback = callback_of(callbacks, event);
    Handle *old = callback->handle;
    callback->handle = handle_steal;
    handle_set_place(handle_steal, HANDLE_WATCHING);
    /* Started anew each time: the number may stand for another file by now. The loop
     * must survive the moment in which neither watch holds it: the caller does. */
    watch_stop(&callback->watch);
    int result = watch_start(&callback->watch);
    if (result < 0) {
        fd_callback_discard(callback);
    }
    if (old != NULL) {
        handle_cancel(old);
        handle_leave_steal(old);
    }
    return result;
}

int
watch_remove_callback(Loop *loop, int fd, int event)
{
    struct fd_entry *entry = fds_find(loop, fd);
    struct fd_callback *callback =
        entry == NULL || entry->callbacks == NULL ? NULL : callback_of(entry->callbacks, event);
    if (callback == NULL || callback->handle == NULL) {
        return 0;
    }
    Handle *handle = callback->handle;
    callback->handle = NULL;
    watch_stop(&callback->watch);
    handle_cancel(handle);
    handle_leave_steal(handle);
    return 1;
}

/* -- the loop's end ------------------------------------------------------------------------- */

static void
stop_all(struct list_node *head)
{
    while (!list_empty(head)) {
        watch_stop(container_of(head->next, struct watch, active));
    }
}

void
watch_clear(Loop *loop)
{
    stop_all(&loop->fds.noted);
    stop_all(&loop->fds.active);
    for (size_t fd = 0; fd < loop->fds.length; fd++) {
        struct fd_callbacks *callbacks = loop->fds.entries[fd].callbacks;
        if (callbacks != NULL) {
            fd_callback_discard(&callbacks->reader);
            fd_callback_discard(&callbacks->writer);
        }
    }
    loop->fds.changed_count = 0;
}

void
watch_free(Loop *loop)
{
    struct fds *fds = &loop->fds;
    for (size_t fd = 0; fd < fds->length; fd++) {
#ifdef Py_GIL_DISABLED
        Py_CLEAR(fds->entries[fd].reference);
#endif
        PyMem_Free(fds->entries[fd].callbacks);
    }
    PyMem_Free(fds->entries);
    PyMem_Free(fds->watched);
    PyMem_Free(fds->changed);
    fds->entries = NULL;
    fds->watched = NULL;
    fds->changed = NULL;
    fds->watched_length = 0;
    fds->length = fds->changed_count = fds->changed_capacity = 0;
}

static int
fd_callback_traverse(struct fd_callback *callback, visitproc visit, void *arg)
{
    return callback->handle == NULL
               ? 0
               : handle_traverse(callback->handle, HANDLE_WATCHING, visit, arg);
}

static int
traverse_owners(struct list_node *head, visitproc visit, void *arg)
{
    for (struct list_node *node = head->next; node != NULL && node != head; node = node->next) {
        Py_VISIT(container_of(node, struct watch, active)->owner);
    }
    return 0;
}

int
watch_traverse(Loop *loop, visitproc visit, void *arg)
{
    int result = traverse_owners(&loop->fds.active, visit, arg);
    if (result == 0) {
        result = traverse_owners(&loop->fds.noted, visit, arg);
    }
    if (result != 0) {
        return result;
    }
    for (size_t fd = 0; fd < loop->fds.length; fd++) {
        struct fd_callbacks *callbacks = loop->fds.entries[fd].callbacks;
        if (callbacks != NULL) {
            result = fd_callback_traverse(&callbacks->reader, visit, arg);
            if (result == 0) {
                result = fd_callback_traverse(&callbacks->writer, visit, arg);
            }
            if (result != 0) {
                return result;
            }
        }
    }
    return 0;
}
