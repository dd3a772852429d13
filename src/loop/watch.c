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
#include "loop/watch.h"

#include "loop/current.h"
#include "loop/overrides.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

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
    uint32_t watched;             /* how many watches are active on it */
    struct watch *place[2];       /* the reader and the writer: see watch_take_place() */
    PyObject *fileobj;            /* what add_reader() was given, if no number; while there is either */
    struct fd_callbacks *callbacks;    /* from the first call on */
};

/* The table is made of pages, each from its first use on: entries stay where they are, and a program
 * that moves a descriptor to a high number pays for one page. */
#define PAGE_BITS 6
#define PAGE_LENGTH (1 << PAGE_BITS)

struct fd_page {
    struct fd_entry entries[PAGE_LENGTH];
};

/* -- the table of descriptors --------------------------------------------------------- */

static inline bool
fd_is_closed(int fd)
{
    return fcntl(fd, F_GETFD) < 0 && errno == EBADF;
}

/* NULL where nothing was ever watched; sets no exception. */
static inline struct fd_entry *
fds_find(Loop *loop, int fd)
{
    struct fds *fds = &loop->fds;
    size_t page = (size_t)fd >> PAGE_BITS;
    if (UNLIKELY(fd < 0 || page >= fds->length || fds->pages[page] == NULL)) {
        return NULL;
    }
    return &fds->pages[page]->entries[fd & (PAGE_LENGTH - 1)];
}

/* The table, and libev's, which has no pages, grow for a descriptor that the kernel knows only.
 * NULL with ValueError, OSError or MemoryError. */
static struct fd_entry *
fds_make_entry(Loop *loop, int fd)
{
    struct fds *fds = &loop->fds;
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return NULL;
    }
    if (fd_is_closed(fd)) {
        PyErr_SetFromErrno(PyExc_OSError);
        return NULL;
    }
    size_t page = (size_t)fd >> PAGE_BITS;
    if (page >= fds->length) {
        size_t length = fds->length * 2 > page + 1 ? fds->length * 2 : page + 1;
        struct fd_page **pages = fds->pages;
        PyMem_Resize(pages, struct fd_page *, length);
        if (pages == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        for (size_t i = fds->length; i < length; i++) {
            pages[i] = NULL;
        }
        fds->pages = pages;
        fds->length = length;
    }
    if (fds->pages[page] == NULL) {
        fds->pages[page] = PyMem_Calloc(1, sizeof(struct fd_page));
        if (fds->pages[page] == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    return &fds->pages[page]->entries[fd & (PAGE_LENGTH - 1)];
}

static inline struct fd_entry *
fds_entry(Loop *loop, int fd)
{
    struct fd_entry *entry = fds_find(loop, fd);
    return LIKELY(entry != NULL) ? entry : fds_make_entry(loop, fd);
}

/* The next entry from number *fd on, which is set to its own; NULL at the end. */
static struct fd_entry *
fds_next(Loop *loop, size_t *fd)
{
    struct fds *fds = &loop->fds;
    for (; *fd >> PAGE_BITS < fds->length; *fd = (*fd | (PAGE_LENGTH - 1)) + 1) {
        struct fd_page *page = fds->pages[*fd >> PAGE_BITS];
        if (page != NULL) {
            return &page->entries[*fd & (PAGE_LENGTH - 1)];
        }
    }
    return NULL;
}

static inline struct watch **
place_of(struct fd_entry *entry, int event)
{
    return &entry->place[event == EV_WRITE];
}

/* asyncio's selector knows a descriptor by what was registered first, until nothing is. */
static void
entry_left(struct fd_entry *entry)
{
    if (entry->place[0] == NULL && entry->place[1] == NULL) {
        Py_CLEAR(entry->fileobj);
    }
}

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

/* libev's call, while it polls. It comes for the last event first, and for the watches of one descriptor
 * together: so in front of the others of this look, but behind those of its descriptor that go first. */
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
    struct list_node *next = fds->before->next;
    for (; next != &fds->noted; next = next->next) {
        ev_io *other = &container_of(next, struct watch, active)->io;
        if (other->fd != io->fd || ((io->events & EV_READ) && !(other->events & EV_READ))) {
            break;
        }
    }
    watch->noted = true;
    list_remove(&watch->active);
    list_append(next, &watch->active);
}

static void
watch_tell(struct watch *watch)
{
    Loop *loop = watch_loop(watch);
    PyObject *owner = Py_NewRef(watch->owner);
    int revents = watch->io.events & (EV_READ | EV_WRITE);
    if (UNLIKELY(!ev_is_active(&watch->io))) {
        watch_abandon(watch);
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
    loop_step_done(loop);
}

static void
watch_unnote(struct watch *watch)
{
    watch->noted = false;
    list_remove(&watch->active);
    list_append(&watch_loop(watch)->fds.active, &watch->active);
}

void
watch_dispatch(Loop *loop)
{
    struct fds *fds = &loop->fds;
    while (!list_empty(&fds->noted) && LIKELY(loop->run->exception == NULL)) {
        struct watch *watch = container_of(fds->noted.next, struct watch, active);
        watch_unnote(watch);
        watch_tell(watch);
    }
}

void
watch_init(struct watch *watch, Loop *loop, PyObject *owner, enum watch_user user, int fd, int event,
           void (*ready)(struct watch *watch, int revents))
{
    ev_io_init(&watch->io, watch_note, fd, event);
    watch->io.data = loop;
    watch->owner = owner;
    watch->user = (uint8_t)user;
    watch->lent = false;
    watch->ready = ready;
    watch->noted = false;
    watch->placed = watch->removed = false;
    list_init(&watch->active);
}

static inline int
io_start(Loop *loop, ev_io *io)
{
    if (UNLIKELY(reserve_for_one_more(&loop->reserve, io->fd) < 0)) {
        return -1;
    }
    struct libev_call *call = libev_call();
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    ev_io_start(loop->ev, io);
    reserve_leave(call, &loop->reserve, outer);
    return 0;
}

int
watch_start_io(Loop *loop, ev_io *io)
{
    return io_start(loop, io);
}

static inline void
io_stop(Loop *loop, ev_io *io)
{
    struct libev_call *call = libev_call();
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    ev_io_stop(loop->ev, io);
    reserve_leave(call, &loop->reserve, outer);
    loop->reserve.watchers--;
}

void
watch_stop_io(Loop *loop, ev_io *io)
{
    if (ev_is_active(io)) {
        io_stop(loop, io);
    }
}

/* `entry` is its descriptor's (guarded paths: sock, reader). */
static inline int
watch_start_at(struct watch *watch, struct fd_entry *entry)
{
    Loop *loop = watch_loop(watch);
    if (watch_is_active(watch)) {
        return 0;
    }
    if (UNLIKELY(loop_check_closed(loop) < 0)) {
        return -1;
    }
    if (UNLIKELY(loop_prepare_ev(loop) < 0)) {
        PyErr_Clear();    /* the next poll tells */
    }
    ev_io_set(&watch->io, watch->io.fd, watch->io.events & (EV_READ | EV_WRITE));
    if (UNLIKELY(io_start(loop, &watch->io) < 0)) {
        return -1;
    }
    if (UNLIKELY(fds_note_change(&loop->fds, watch->io.fd) < 0)) {
        loop->fds.check_all = true;    /* what is watched for the second time never fails */
    }
    COUNT(loop->counters->descriptors, entry->watched++ == 0);
    list_append(&loop->fds.active, &watch->active);
    loop->fds.fresh = true;
    Py_INCREF(watch->owner);
    if (UNLIKELY(loop->polling_blocked)) {
        loop_wake(loop);    /* another thread's call, while the loop sleeps on the old set */
    }
    return 0;
}

/* Is the method by which asyncio would begin to watch, or end that, somebody else's? */
static inline bool
adds_by_method(const struct watch *watch)
{
    return UNLIKELY((loop_replaced(watch_loop(watch)) & LOOP_ADDING) != 0) && watch->user != WATCH_LOOP;
}

static inline bool
removes_by_method(const struct watch *watch)
{
    return UNLIKELY(watch->lent || (loop_replaced(watch_loop(watch)) & LOOP_REMOVING) != 0)
           && watch->user != WATCH_LOOP;
}

/* The owner is held and the watch active, as if libev knew it. 0 / -1 */
static int
watch_lend(struct watch *watch)
{
    Loop *loop = watch_loop(watch);
    bool reads = (watch->io.events & EV_READ) != 0;
    PyObject *owner = watch->owner;
    PyObject *ready = PyObject_GetAttrString(owner, reads ? "_read_ready" : "_write_ready");
    if (ready == NULL) {
        return -1;
    }
    watch->lent = true;
    list_append(&loop->fds.lent, &watch->active);
    Py_INCREF(owner);
    Py_INCREF(owner);
    Py_INCREF(loop);
    PyObject *result = PyObject_CallMethod((PyObject *)loop, reads ? "_add_reader" : "_add_writer", "iO",
                                           watch->io.fd, ready);
    if (result == NULL && watch->lent) {
        watch_abandon(watch);
    }
    bool failed = result == NULL;
    Py_XDECREF(result);
    Py_DECREF(ready);
    Py_DECREF(owner);
    Py_DECREF(loop);
    return failed ? -1 : 0;
}

int
watch_start(struct watch *watch)
{
    if (watch_is_active(watch)) {
        return 0;
    }
    if (UNLIKELY(loop_check_closed(watch_loop(watch)) < 0)) {
        return -1;
    }
    if (adds_by_method(watch)) {
        return watch_lend(watch);
    }
    struct fd_entry *entry = fds_entry(watch_loop(watch), watch->io.fd);
    return LIKELY(entry != NULL) ? watch_start_at(watch, entry) : -1;
}

static inline void
watch_stop_at(struct watch *watch, struct fd_entry *entry)
{
    Loop *loop = watch_loop(watch);
    watch->noted = false;
    PyObject *owner = watch->owner;
    list_remove(&watch->active);
    uint32_t left = --entry->watched;
    COUNT(loop->counters->descriptors, -(uint64_t)(left == 0));
    if (loop->ev != NULL) {
        io_stop(loop, &watch->io);
        /* Where nothing is left to watch libev makes no call that could fail. */
        if (left > 0 && fds_note_change(&loop->fds, watch->io.fd) < 0) {
            loop->fds.check_all = true;
        }
    }
    if (watch->placed) {
        watch->placed = false;
        struct watch **place = place_of(entry, watch->io.events & (EV_READ | EV_WRITE));
        if (*place == watch) {
            *place = NULL;
            entry_left(entry);
        }
    }
    Py_DECREF(owner);
}

void
watch_abandon(struct watch *watch)
{
    if (UNLIKELY(watch->lent)) {
        watch->lent = false;
        list_remove(&watch->active);
        Py_DECREF(watch->owner);
    }
    else if (watch_is_active(watch)) {
        watch_stop_at(watch, fds_find(watch_loop(watch), watch->io.fd));
    }
}

static void
watch_stop_by_method(struct watch *watch)
{
    Loop *loop = (Loop *)Py_NewRef(watch_loop(watch));
    PyObject *owner = Py_NewRef(watch->owner);
    bool reads = (watch->io.events & EV_READ) != 0;
    const char *name = reads ? "_remove_reader" : "_remove_writer";
    int fd = watch->io.fd;
    watch_abandon(watch);
    if (!loop->closed) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *result =
            PyObject_CallMethod((PyObject *)loop, name + (watch->user == WATCH_OPERATION), "i", fd);
        if (result == NULL) {
            PyErr_WriteUnraisable(owner);
        }
        Py_XDECREF(result);
        PyErr_SetRaisedException(exc);
    }
    Py_DECREF(owner);
    Py_DECREF(loop);
}

void
watch_stop(struct watch *watch)
{
    if (!watch_is_active(watch)) {
        return;
    }
    if (removes_by_method(watch)) {
        watch_stop_by_method(watch);
    }
    else {
        watch_stop_at(watch, fds_find(watch_loop(watch), watch->io.fd));
    }
}

void
watch_stop_anyway(struct watch *watch)
{
    if (watch_is_active(watch)) {
        watch_stop(watch);
    }
    else if (removes_by_method(watch)) {
        watch_stop_by_method(watch);
    }
}

PyObject *
watch_call_ready(Loop *loop, struct watch *watch)
{
    struct run run = {0};
    bool mine = loop_is_mine(loop);
    PyObject *owner = Py_NewRef(watch->owner);
    Py_INCREF(loop);
    if (mine) {
        loop_begin_run(loop, &run);
    }
    watch->ready(watch, watch->io.events & (EV_READ | EV_WRITE));
    if (mine) {
        loop_end_turn_by_hand(loop, &run);
        loop_end_run(loop, &run);
    }
    Py_DECREF(loop);
    Py_DECREF(owner);
    if (run.exception != NULL) {
        PyErr_SetRaisedException(run.exception);
        return NULL;
    }
    Py_RETURN_NONE;
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
        watch_abandon(watch);
        watch->ready(watch, EV_ERROR);
        Py_DECREF(owner);
        node = head->next;    /* the callback may have changed the list */
    }
}

static void
watch_fail_fd(Loop *loop, int fd)
{
    current_leave(loop);
    watch_fail_fd_in(&loop->fds.noted, fd);
    watch_fail_fd_in(&loop->fds.active, fd);
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
        if (UNLIKELY(fds_find(loop, fd)->watched > 0 && fd_is_closed(fd))) {
            watch_fail_fd(loop, fd);
        }
    }
    fds->changed_count = 0;
}

/* -- the place of a descriptor's reader, and of its writer ------------------------------ */

static void fd_callback_ready(struct watch *watch, int revents);
static void fd_callback_remove(struct fd_callback *callback);
static void watch_put_out(struct watch *watch);

int
watch_take_place(struct watch *watch)
{
    if (adds_by_method(watch)) {
        return watch_start(watch);
    }
    struct fd_entry *entry = fds_entry(watch_loop(watch), watch->io.fd);
    if (UNLIKELY(entry == NULL || watch_start_at(watch, entry) < 0)) {
        return -1;
    }
    struct watch **place = place_of(entry, watch->io.events & (EV_READ | EV_WRITE));
    struct watch *other = *place;
    *place = watch;
    watch->placed = true;
    if (UNLIKELY(other != NULL && other != watch)) {
        watch_put_out(other);
    }
    return 0;
}

int
watch_remove(Loop *loop, int fd, int event)
{
    struct fd_entry *entry = fds_find(loop, fd);
    struct watch *watch = entry == NULL ? NULL : *place_of(entry, event);
    if (watch == NULL) {
        return 0;
    }
    watch->removed = true;
    watch_put_out(watch);
    return 1;
}

bool
watch_has_both(Loop *loop, int fd)
{
    struct fd_entry *entry = fds_find(loop, fd);
    return entry != NULL && entry->place[0] != NULL && entry->place[1] != NULL;
}

int
watch_find_fileobj(Loop *loop, PyObject *fileobj)
{
    struct fd_entry *entry;
    for (size_t fd = 0; (entry = fds_next(loop, &fd)) != NULL; fd++) {
        if (entry->fileobj == fileobj) {
            return (int)fd;
        }
    }
    return -1;
}

int
watch_check_pollable(int fd)
{
    struct stat about;
    if (fstat(fd, &about) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
#ifdef __linux__
    if (S_ISSOCK(about.st_mode) || S_ISFIFO(about.st_mode)) {
        return 0;
    }
    struct epoll_event event = {.events = 0};
    int set = epoll_create1(EPOLL_CLOEXEC);
    int result;
    if (set >= 0) {
        result = epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
        int err = errno;
        close(set);
        errno = err;
    }
    else {
        /* No descriptor left to ask with. */
        result = S_ISREG(about.st_mode) || S_ISDIR(about.st_mode) ? -1 : 0;
        errno = EPERM;
    }
    if (result < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
#endif
    return 0;
}

/* -- callbacks ------------------------------------------------------------------------------ */

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
    watch_init(&callbacks->reader.watch, loop, (PyObject *)loop, WATCH_LOOP, fd, EV_READ, fd_callback_ready);
    watch_init(&callbacks->writer.watch, loop, (PyObject *)loop, WATCH_LOOP, fd, EV_WRITE, fd_callback_ready);
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
watch_ensure_free(Loop *loop, int fd, PyObject *named)
{
    PyObject *transport = watch_fd_transport(loop, fd);
    if (transport == NULL) {
        return 0;
    }
    if (named == NULL) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R", fd, transport);
    }
    else {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R", named,
                     transport);
    }
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

/* Its watch is stopped. A descriptor that was closed stays registered and is heard of no more, as with
 * asyncio; that the kernel refuses one, asyncio tells at once, and libev now. */
static void
fd_callback_failed(Loop *loop, struct fd_callback *callback)
{
    int fd = callback->watch.io.fd;
    if (fd_is_closed(fd)) {
        return;
    }
    PyObject *handle = Py_XNewRef((PyObject *)callback->handle);
    if (watch_check_pollable(fd) == 0) {
        errno = EIO;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    fd_callback_remove(callback);
    loop_report(loop, "A descriptor of add_reader() or add_writer() cannot be watched", "handle",
                handle);
    Py_XDECREF(handle);
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
        fd_callback_remove(callback);
        return;
    }
    loop_run_handle(loop, callback->handle);
}

static struct fd_callback *
callback_of(struct fd_callbacks *callbacks, int event)
{
    return event == EV_READ ? &callbacks->reader : &callbacks->writer;
}

/* Out of its place, by add_reader() of another one or by remove_reader(). */
static void
fd_callback_remove(struct fd_callback *callback)
{
    Loop *loop = watch_loop(&callback->watch);
    Handle *handle = callback->handle;
    struct fd_entry *entry = fds_find(loop, callback->watch.io.fd);
    struct watch **place = place_of(entry, callback->watch.io.events & (EV_READ | EV_WRITE));
    Py_INCREF(loop);
    callback->handle = NULL;
    if (*place == &callback->watch) {
        *place = NULL;
    }
    if (LIKELY(watch_is_active(&callback->watch))) {
        watch_stop_at(&callback->watch, entry);
    }
    if (handle != NULL) {
        handle_cancel(handle);
        handle_leave_steal(handle);
    }
    entry_left(entry);
    Py_DECREF(loop);
}

bool
watch_change_callback(Loop *loop, int fd, int event, Handle *handle_steal)
{
    struct fd_entry *entry = fds_find(loop, fd);
    struct watch **place = entry == NULL ? NULL : place_of(entry, event);
    struct fd_callbacks *callbacks =
        place == NULL || *place == NULL ? NULL : fds_callbacks(loop, fd);
    if (callbacks == NULL) {
        PyErr_Clear();
        Py_DECREF(handle_steal);
        return false;
    }
    struct fd_callback *callback = callback_of(callbacks, event);
    struct watch *other = *place == &callback->watch ? NULL : *place;
    Handle *old = callback->handle;
    callback->handle = handle_steal;
    handle_set_place(handle_steal, HANDLE_WATCHING);
    *place = &callback->watch;
    if (other != NULL) {
        watch_put_out(other);
    }
    if (old != NULL) {
        handle_cancel(old);
        handle_leave_steal(old);
    }
    return true;
}

static void
watch_put_out(struct watch *watch)
{
    if (watch->ready == fd_callback_ready) {
        fd_callback_remove(container_of(watch, struct fd_callback, watch));
    }
    else {
        watch_abandon(watch);
    }
}

int
watch_set_callback(Loop *loop, int fd, int event, Handle *handle_steal, PyObject *fileobj)
{
    struct fd_callbacks *callbacks = fds_callbacks(loop, fd);
    if (callbacks == NULL) {
        Py_DECREF(handle_steal);
        return -1;
    }
    struct fd_entry *entry = fds_find(loop, fd);
    struct fd_callback *callback = callback_of(callbacks, event);
    struct watch **place = place_of(entry, event);
    if (entry->place[0] == NULL && entry->place[1] == NULL && !PyLong_Check(fileobj)) {
        Py_XSETREF(entry->fileobj, Py_NewRef(fileobj));
    }
    struct watch *other = *place == &callback->watch ? NULL : *place;
    Handle *old = callback->handle;
    callback->handle = handle_steal;
    handle_set_place(handle_steal, HANDLE_WATCHING);
    *place = &callback->watch;
    /* Started anew each time: the number may stand for another file by now. The loop
     * must survive the moment in which neither watch holds it: the caller does. */
    watch_stop(&callback->watch);
    int result = watch_start_at(&callback->watch, entry);
    if (result < 0) {
        fd_callback_remove(callback);
    }
    if (other != NULL) {
        watch_put_out(other);
    }
    if (old != NULL) {
        handle_cancel(old);
        handle_leave_steal(old);
    }
    return result;
}

/* -- as a list --------------------------------------------------------------------------- */

static PyObject *
watch_handle(struct watch *watch)
{
    struct fd_callback *callback = container_of(watch, struct fd_callback, watch);
    return watch->ready == fd_callback_ready && callback->handle != NULL
               ? (PyObject *)callback->handle
               : Py_None;
}

/* What is told of a watch, taken out of it before any object is made: that may run the collector,
 * and so stop and start watches. */
struct watched {
    int fd;
    int event;
    PyObject *fileobj;    /* strong, or NULL */
    PyObject *handle;     /* strong */
    PyObject *owner;      /* strong: a transport, a server or an operation that has no handle; or NULL */
};

static struct watched *
list_to_array(Loop *loop, struct list_node *head, struct watched *to)
{
    for (struct list_node *node = head->next; node != head; node = node->next, to++) {
        struct watch *watch = container_of(node, struct watch, active);
        struct fd_entry *entry = fds_find(loop, watch->io.fd);
        to->fd = watch->io.fd;
        to->event = watch->io.events & (EV_READ | EV_WRITE);
        to->fileobj = entry == NULL ? NULL : Py_XNewRef(entry->fileobj);
        to->handle = Py_NewRef(watch_handle(watch));
        to->owner = watch->user == WATCH_LOOP ? NULL : Py_NewRef(watch->owner);
    }
    return to;
}

static size_t
list_length(struct list_node *head)
{
    size_t length = 0;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        length++;
    }
    return length;
}

/* A transport that is watched has no handle; who looks finds one, as on asyncio. 0 / -1 */
static int
watched_make_handle(Loop *loop, struct watched *one)
{
    const char *name = one->event == EV_READ ? "_read_ready" : "_write_ready";
    PyObject *ready = PyObject_GetAttrString(one->owner, name);
    PyObject *handle = ready == NULL ? NULL : (PyObject *)handle_new(loop, ready, NULL, 0, NULL);
    Py_XDECREF(ready);
    if (handle != NULL) {
        Py_SETREF(one->handle, handle);
    }
    return handle != NULL ? 0 : -1;
}

PyObject *
watch_list(Loop *loop)
{
    size_t length = list_length(&loop->fds.active) + list_length(&loop->fds.noted) + 1;
    struct watched *all = PyMem_New(struct watched, length);
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = (struct watched){.fd = loop->inbox.wake_fd, .event = EV_READ,
                              .handle = Py_NewRef(Py_None)};
    list_to_array(loop, &loop->fds.noted, list_to_array(loop, &loop->fds.active, all + 1));
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < length; i++) {
        struct watched *one = &all[i];
        if (list != NULL && one->owner != NULL && watched_make_handle(loop, one) < 0) {
            Py_CLEAR(list);
        }
        PyObject *entry = list == NULL ? NULL
                          : one->fileobj == NULL
                              ? Py_BuildValue("(iiiO)", one->fd, one->event, one->fd, one->handle)
                              : Py_BuildValue("(iiOO)", one->fd, one->event, one->fileobj,
                                              one->handle);
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
        Py_XDECREF(one->fileobj);
        Py_DECREF(one->handle);
        Py_XDECREF(one->owner);
    }
    PyMem_Free(all);
    return list;
}

PyObject *
watch_transports(Loop *loop)
{
    PyObject *all = PyDict_New();
    struct fd_entry *entry;
    /* by number: an object that is made may run the collector, and the table may grow */
    for (size_t fd = 0; all != NULL && (entry = fds_next(loop, &fd)) != NULL; fd++) {
        PyObject *transport = watch_fd_transport(loop, (int)fd);
        PyObject *number = transport == NULL ? NULL : PyLong_FromSize_t(fd);
        if (transport != NULL && (number == NULL || PyDict_SetItem(all, number, transport) < 0)) {
            Py_CLEAR(all);
        }
        Py_XDECREF(number);
        Py_XDECREF(transport);
    }
    return all;
}

static struct watch *
watch_find(Loop *loop, int fd, int event)
{
    struct list_node *heads[] = {&loop->fds.active, &loop->fds.noted};
    for (int i = 0; i < 2; i++) {
        for (struct list_node *node = heads[i]->next; node != heads[i]; node = node->next) {
            struct watch *watch = container_of(node, struct watch, active);
            if (watch->io.fd == fd && (watch->io.events & event) != 0) {
                return watch;
            }
        }
    }
    return NULL;
}

/* Out of the ring: the watch may have been stopped since. */
static int
posted_event_run(PyObject *loop, PyObject *event)
{
    long number = PyLong_AsLong(event);
    struct watch *watch = watch_find((Loop *)loop, (int)(number >> 2), (int)(number & 3));
    if (watch != NULL) {
        watch_unnote(watch);
        watch_tell(watch);
    }
    return 0;
}

static int
watch_post(Loop *loop, struct watch *watch)
{
    PyObject *handle = watch_handle(watch);
    if (handle != Py_None && LIKELY(ev_is_active(&watch->io))) {
        return ready_push_steal(&loop->ready, Py_NewRef(handle), READY_HANDLE);
    }
    long number = (long)watch->io.fd << 2 | (watch->io.events & (EV_READ | EV_WRITE));
    PyObject *event = PyLong_FromLong(number);
    int result = event == NULL
                     ? -1
                     : loop_call_soon_native(loop, posted_event_run, (PyObject *)loop, event);
    Py_XDECREF(event);
    return result;
}

int
watch_post_event(Loop *loop, int fd, int event)
{
    struct watch *watch = watch_find(loop, fd, event);
    return watch == NULL ? 0 : watch_post(loop, watch);
}

PyObject *
watch_take_events(Loop *loop)
{
    struct fds *fds = &loop->fds;
    PyObject *list = PyList_New(0);
    while (list != NULL && !list_empty(&fds->noted)) {
        struct watch *watch = container_of(fds->noted.next, struct watch, active);
        int fd = watch->io.fd, event = watch->io.events & (EV_READ | EV_WRITE);
        watch_unnote(watch);
        PyObject *entry = NULL;
        int result;
        if (UNLIKELY(!ev_is_active(&watch->io))) {
            result = watch_post(loop, watch);    /* it was refused: nobody else would tell */
        }
        else {
            entry = Py_BuildValue("(ii)", fd, event);
            result = entry == NULL ? -1 : PyList_Append(list, entry);
        }
        Py_XDECREF(entry);
        if (result < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

/* -- the loop's end ------------------------------------------------------------------------- */

static void
stop_all(struct list_node *head)
{
    while (!list_empty(head)) {
        watch_abandon(container_of(head->next, struct watch, active));
    }
}

void
watch_clear(Loop *loop)
{
    stop_all(&loop->fds.noted);
    stop_all(&loop->fds.active);
    stop_all(&loop->fds.lent);
    struct fd_entry *entry;
    for (size_t fd = 0; (entry = fds_next(loop, &fd)) != NULL; fd++) {
        entry->place[0] = entry->place[1] = NULL;
        if (entry->callbacks != NULL) {
            fd_callback_discard(&entry->callbacks->reader);
            fd_callback_discard(&entry->callbacks->writer);
        }
        Py_CLEAR(entry->fileobj);
    }
    loop->fds.changed_count = 0;
}

void
watch_free(Loop *loop)
{
    struct fds *fds = &loop->fds;
    for (size_t page = 0; page < fds->length; page++) {
        for (int i = 0; fds->pages[page] != NULL && i < PAGE_LENGTH; i++) {
            struct fd_entry *entry = &fds->pages[page]->entries[i];
#ifdef Py_GIL_DISABLED
            Py_CLEAR(entry->reference);
#endif
            PyMem_Free(entry->callbacks);
        }
        PyMem_Free(fds->pages[page]);
    }
    PyMem_Free(fds->pages);
    PyMem_Free(fds->changed);
    fds->pages = NULL;
    fds->changed = NULL;
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
    if (result == 0) {
        result = traverse_owners(&loop->fds.lent, visit, arg);
    }
    if (result != 0) {
        return result;
    }
    struct fd_entry *entry;
    for (size_t fd = 0; (entry = fds_next(loop, &fd)) != NULL; fd++) {
        Py_VISIT(entry->fileobj);
        if (entry->callbacks == NULL) {
            continue;
        }
        result = fd_callback_traverse(&entry->callbacks->reader, visit, arg);
        if (result == 0) {
            result = fd_callback_traverse(&entry->callbacks->writer, visit, arg);
        }
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
