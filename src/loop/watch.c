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
#include "loop/watch_inside.h"

#include "base/checked.h"
#include "base/context.h"
#include "loop/current.h"
#include "loop/overrides.h"
#include "loop/wake.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#endif

/* -- the table of descriptors --------------------------------------------------------- */

#define DOUBTFUL (1 << 16)

/* The table, and libev's, which has no pages, grow for so high a number only if the kernel knows it.
 * NULL with ValueError, OSError or MemoryError. */
struct fd_entry *
fds_make_entry(Loop *loop, int fd)
{
    struct fds *fds = &loop->fds;
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return NULL;
    }
    if (UNLIKELY(fd >= DOUBTFUL) && fd_is_closed(fd)) {
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

/* -- watches ------------------------------------------------------------------------ */

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
    list_move(next, &watch->active);
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
    watch->placed = watch->removed = watch->is_callback = false;
    list_init(&watch->active);
}

int
watch_start_io(Loop *loop, ev_io *io)
{
    return io_start(loop, io);
}

void
watch_stop_io(Loop *loop, ev_io *io)
{
    if (ev_is_active(io)) {
        io_stop(loop, io);
    }
}

/* Is the method by which asyncio would begin to watch, or end that, somebody else's? */
static inline bool
adds_by_method(const struct watch *watch)
{
    return watch->user != WATCH_LOOP && UNLIKELY((loop_replaced(watch_loop(watch)) & LOOP_ADDING) != 0);
}

static inline bool
removes_by_method(const struct watch *watch)
{
    return watch->user != WATCH_LOOP
           && UNLIKELY(watch->lent || (loop_replaced(watch_loop(watch)) & LOOP_REMOVING) != 0);
}

/* The owner is held and the watch active, as if libev knew it. `handle`: see watch.h. 0 / -1 */
static int
watch_lend(struct watch *watch, PyObject **handle)
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
    PyObject *result = context_call_method_steal((PyObject *)loop, reads ? "_add_reader" : "_add_writer",
                                                 Py_BuildValue("(iO)", watch->io.fd, ready), owner);
    if (result == NULL && watch->lent) {
        watch_abandon(watch);
    }
    bool failed = result == NULL;
    if (!failed && handle != NULL && watch->lent) {
        Py_XSETREF(*handle, Py_NewRef(result));
    }
    Py_XDECREF(result);
    Py_DECREF(ready);
    Py_DECREF(owner);
    Py_DECREF(loop);
    return failed ? -1 : 0;
}

int
watch_start_by_method(struct watch *watch)
{
    if (watch_is_active(watch)) {
        return 0;
    }
    return loop_check_closed(watch_loop(watch)) < 0 ? -1 : watch_lend(watch, NULL);
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
        return watch_lend(watch, NULL);
    }
    struct fd_entry *entry = fds_entry(watch_loop(watch), watch->io.fd);
    return LIKELY(entry != NULL) ? watch_start_at(watch, entry) : -1;
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
    bool is_operation = watch->user == WATCH_OPERATION;
    int fd = watch->io.fd;
    watch_abandon(watch);
    if (!FLAG(loop->closed)) {
        PyObject *exc = PyErr_GetRaisedException();
        PyObject *result =
            PyObject_CallMethod((PyObject *)loop, name + is_operation, "i", fd);
        if (result == NULL && !is_operation && loop->fds.raised == Py_None) {
            loop->fds.raised = PyErr_GetRaisedException();
        }
        else if (result == NULL) {
            /* in a callback of its future, by asyncio, or of a Handle */
            loop_report(loop, "Exception in callback that stops to wait for a descriptor", "transport", owner);
        }
        Py_XDECREF(result);
        PyErr_SetRaisedException(exc);
    }
    Py_DECREF(owner);
    Py_DECREF(loop);
}

int
watch_end_stopping(Loop *loop, PyObject *outer)
{
    PyObject *raised = loop->fds.raised;
    loop->fds.raised = outer;
    if (LIKELY(raised == Py_None)) {
        return 0;
    }
    PyErr_SetRaisedException(raised);
    return -1;
}

void
watch_stop_active(struct watch *watch)
{
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
    struct run *run = NULL;
    PyObject *exception = NULL;
    if (loop_is_mine(loop) && (run = loop_begin_run(loop)) == NULL) {
        return NULL;
    }
    PyObject *owner = Py_NewRef(watch->owner);
    Py_INCREF(loop);
    PyObject *context = context_step_out(owner);
    watch->ready(watch, (watch->io.events & (EV_READ | EV_WRITE)) | WATCH_BY_HAND);
    context_step_in(context);
    if (run != NULL) {
        loop_state(loop->state)->run.end_turn_by_hand(loop, run);
        exception = loop_end_run(loop, run);
    }
    Py_DECREF(loop);
    Py_DECREF(owner);
    if (exception != NULL) {
        PyErr_SetRaisedException(exception);
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
watch_check_all_changed(Loop *loop)
{
    struct fds *fds = &loop->fds;
    if (UNLIKELY(fds->check_all)) {
        watch_check_all(loop);
    }
    /* By index: what fails may stop and start watches, which adds entries. */
    for (size_t i = 0; i < fds->changed_count; i++) {
        struct fd_change change = fds->changed[i];
        if (change.entry->watched > 0 && UNLIKELY(fd_is_closed(change.fd))) {
            watch_fail_fd(loop, change.fd);
        }
    }
    fds->changed_count = 0;
}

/* -- the place of a descriptor's reader, and of its writer ------------------------------ */

/* Another one has its place, or nobody: who watched is told only if it is readers.c. */
void
watch_put_out(struct watch *watch)
{
    if (watch->is_callback) {
        watch->ready(watch, WATCH_PUT_OUT);
    }
    else {
        watch_abandon(watch);
    }
}

int
watch_take_place(struct watch *watch, PyObject **handle)
{
    VERIFY(!watch_is_active(watch));
    if (adds_by_method(watch)) {
        return loop_check_closed(watch_loop(watch)) < 0 ? -1 : watch_lend(watch, handle);
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

void
watch_clear_place(Loop *loop, int fd, int event)
{
    struct fd_entry *entry = fds_find(loop, fd);
    struct watch *other = entry == NULL ? NULL : *place_of(entry, event);
    if (UNLIKELY(other != NULL)) {
        watch_put_out(other);
    }
}

int
watch_remove(Loop *loop, int fd, int event)
{
    struct fd_entry *entry = fds_find(loop, fd);
    return entry == NULL ? 0 : watch_remove_at(entry, event);
}

int
watch_remove_at(struct fd_entry *entry, int event)
{
    struct watch *watch = *place_of(entry, event);
    if (watch == NULL) {
        return 0;
    }
    watch->removed = true;
    watch_put_out(watch);
    return 1;
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

/* -- transports ----------------------------------------------------------------------- */

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
    }
    return 0;
}
