/* readers.c - see readers.h. */
#include "readers.h"

#include "base/checked.h"
#include "loop/schedule.h"
#include "loop/watch_inside.h"
#include "net/hold.h"
#include "item.h"

struct fd_callback {
    struct watch watch;           /* owner: the loop */
    Handle *handle;               /* strong; NULL: no callback */
};

/* add_reader() and add_writer() of one descriptor; most belong to a transport and have none. */
struct fd_callbacks {
    struct fd_callback reader;
    struct fd_callback writer;
};

/* -- telling -------------------------------------------------------------------------------- */

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
    if (LIKELY(!FLAG(loop->debug) || owner == (PyObject *)loop)) {
        watch->ready(watch, revents);
    }
    else {
        double started = loop_time(loop);
        watch->ready(watch, revents);
        if (LIKELY(loop->run->exception == NULL)) {
            loop_warn_slow(loop, owner, started);
        }
    }
    VERIFY(!PyErr_Occurred());
    Py_DECREF(owner);
    loop_step_done(loop);
}

void
readers_tell(Loop *loop)
{
    struct fds *fds = &loop->fds;
    while (!list_empty(&fds->noted) && LIKELY(loop->run->exception == NULL)) {
        struct watch *watch = container_of(fds->noted.next, struct watch, active);
        watch_unnote(watch);
        watch_tell(watch);
    }
}

static void fd_callback_ready(struct watch *watch, int revents);
static void fd_callback_remove(struct fd_callback *callback, struct fd_entry *entry);

/* -- callbacks ------------------------------------------------------------------------------ */

/* NULL with MemoryError */
static struct fd_callbacks *
fds_make_callbacks(Loop *loop, int fd, struct fd_entry *entry)
{
    struct fd_callbacks *callbacks = PyMem_Calloc(1, sizeof(*callbacks));
    if (callbacks == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    watch_init(&callbacks->reader.watch, loop, (PyObject *)loop, WATCH_LOOP, fd, EV_READ, fd_callback_ready);
    watch_init(&callbacks->writer.watch, loop, (PyObject *)loop, WATCH_LOOP, fd, EV_WRITE, fd_callback_ready);
    callbacks->reader.watch.is_callback = callbacks->writer.watch.is_callback = true;
    entry->callbacks = callbacks;
    return callbacks;
}

static inline struct fd_callbacks *
fds_callbacks(Loop *loop, int fd, struct fd_entry *entry)
{
    return LIKELY(entry->callbacks != NULL) ? entry->callbacks : fds_make_callbacks(loop, fd, entry);
}

/* Out of the table, and cancelled with that. One that nobody else has need not look cancelled, but in debug
 * mode asyncio makes a text of it then. */
static inline void
handle_cancel_steal(Loop *loop UNUSED, Handle *handle)
{
#ifndef Py_GIL_DISABLED
    if (LIKELY(Py_REFCNT(handle) == 1 && !FLAG(loop->debug))) {
        Py_DECREF(handle);
        return;
    }
#endif
    handle_set_watched(handle, false);
    handle_cancel(handle);
    handle_left(handle);
    Py_DECREF(handle);
}

static void
fd_callback_discard(struct fd_callback *callback)
{
    Handle *handle = callback->handle;
    callback->handle = NULL;
    if (handle != NULL) {
        handle_set_watched(handle, false);
        handle_drop_steal(handle);
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
    fd_callback_remove(callback, fds_find(loop, fd));
    loop_report(loop, "A descriptor of add_reader() or add_writer() cannot be watched", "handle",
                handle);
    Py_XDECREF(handle);
}

static void
fd_callback_ready(struct watch *watch, int revents)
{
    struct fd_callback *callback = container_of(watch, struct fd_callback, watch);
    Loop *loop = watch_loop(watch);
    if (UNLIKELY(revents & (EV_ERROR | WATCH_PUT_OUT))) {
        if (revents & EV_ERROR) {
            fd_callback_failed(loop, callback);
        }
        else {
            Py_INCREF(loop);
            fd_callback_remove(callback, fds_find(loop, watch->io.fd));
            Py_DECREF(loop);
        }
        return;
    }
    if (callback->handle->cancelled) {
        fd_callback_remove(callback, fds_find(loop, watch->io.fd));
        return;
    }
    loop_run_handle(loop, callback->handle);
}

static struct fd_callback *
callback_of(struct fd_callbacks *callbacks, int event)
{
    return event == EV_READ ? &callbacks->reader : &callbacks->writer;
}

/* Out of its place, by add_reader() of another one or by remove_reader(). The caller holds the loop. */
static void
fd_callback_remove(struct fd_callback *callback, struct fd_entry *entry)
{
    Loop *loop = watch_loop(&callback->watch);
    Handle *handle = callback->handle;
    struct watch **place = place_of(entry, callback->watch.io.events & (EV_READ | EV_WRITE));
    callback->handle = NULL;
    if (*place == &callback->watch) {
        *place = NULL;
    }
    if (LIKELY(watch_is_active(&callback->watch))) {
        watch_stop_at(&callback->watch, entry);
    }
    if (handle != NULL) {
        handle_cancel_steal(loop, handle);
    }
    entry_left(entry);
}

int
readers_remove(struct fd_entry *entry, int event)
{
    struct watch *watch = *place_of(entry, event);
    if (LIKELY(watch != NULL && watch->is_callback)) {
        fd_callback_remove(container_of(watch, struct fd_callback, watch), entry);
        return 1;
    }
    return watch_remove_at(entry, event);
}

bool
readers_change(Loop *loop, int fd, int event, Handle *handle_steal)
{
    struct fd_entry *entry = fds_find(loop, fd);
    struct watch **place = entry == NULL ? NULL : place_of(entry, event);
    struct fd_callbacks *callbacks =
        place == NULL || *place == NULL ? NULL : fds_callbacks(loop, fd, entry);
    if (callbacks == NULL) {
        PyErr_Clear();
        Py_DECREF(handle_steal);
        return false;
    }
    struct fd_callback *callback = callback_of(callbacks, event);
    struct watch *other = *place == &callback->watch ? NULL : *place;
    Handle *old = callback->handle;
    callback->handle = handle_steal;
    handle_set_watched(handle_steal, true);
    *place = &callback->watch;
    if (other != NULL) {
        watch_put_out(other);
    }
    if (old != NULL) {
        handle_cancel_steal(loop, old);
    }
    return true;
}

int
readers_set(Loop *loop, int fd, struct fd_entry *entry, int event, Handle *handle_steal, PyObject *fileobj)
{
    if (UNLIKELY(entry == NULL)) {
        entry = fds_entry(loop, fd);    /* made meanwhile, maybe */
    }
    struct fd_callbacks *callbacks = entry == NULL ? NULL : fds_callbacks(loop, fd, entry);
    if (callbacks == NULL) {
        Py_DECREF(handle_steal);
        return -1;
    }
    struct fd_callback *callback = callback_of(callbacks, event);
    struct watch **place = place_of(entry, event);
    if (entry->place[0] == NULL && entry->place[1] == NULL && !PyLong_Check(fileobj)) {
        Py_XSETREF(entry->fileobj, Py_NewRef(fileobj));
    }
    struct watch *other = *place == &callback->watch ? NULL : *place;
    Handle *old = callback->handle;
    callback->handle = handle_steal;
    handle_set_watched(handle_steal, true);
    *place = &callback->watch;
    /* Started anew each time: the number may stand for another file by now. The loop
     * must survive the moment in which neither watch holds it: the caller does. */
    watch_stop(&callback->watch);
    int result = watch_start_at(&callback->watch, entry);
    if (result < 0) {
        fd_callback_remove(callback, entry);
    }
    if (other != NULL) {
        watch_put_out(other);
    }
    if (old != NULL) {
        handle_cancel_steal(loop, old);
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

/* A transport that is watched has no handle: in its place comes the method that one would call. 0 / -1 */
static int
watched_find_method(struct watched *one)
{
    PyObject *ready = PyObject_GetAttrString(one->owner, one->event == EV_READ ? "_read_ready" : "_write_ready");
    if (ready != NULL) {
        Py_SETREF(one->handle, ready);
    }
    return ready != NULL ? 0 : -1;
}

PyObject *
readers_list(Loop *loop)
{
    size_t length = list_length(&loop->fds.active) + list_length(&loop->fds.noted) + 1;
    struct watched *all = PyMem_New(struct watched, length);
    if (all == NULL) {
        return PyErr_NoMemory();
    }
    all[0] = (struct watched){
        .fd = loop->inbox.wake_fd,
        .event = EV_READ,
        .handle = Py_NewRef(Py_None),
    };
    list_to_array(loop, &loop->fds.noted, list_to_array(loop, &loop->fds.active, all + 1));
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < length; i++) {
        struct watched *one = &all[i];
        if (list != NULL && one->owner != NULL && watched_find_method(one) < 0) {
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
readers_post_event(Loop *loop, int fd, int event)
{
    struct watch *watch = watch_find(loop, fd, event);
    return watch == NULL ? 0 : watch_post(loop, watch);
}

PyObject *
readers_take_events(Loop *loop)
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

static int
fd_callback_traverse(struct fd_callback *callback, visitproc visit, void *arg)
{
    return callback->handle == NULL
               ? 0
               : handle_traverse(callback->handle, true, visit, arg);
}

/* After watch_clear(). */
void
readers_clear(Loop *loop)
{
    struct fd_entry *entry;
    for (size_t fd = 0; (entry = fds_next(loop, &fd)) != NULL; fd++) {
        if (entry->callbacks != NULL) {
            fd_callback_discard(&entry->callbacks->reader);
            fd_callback_discard(&entry->callbacks->writer);
        }
    }
}

int
readers_traverse(Loop *loop, visitproc visit, void *arg)
{
    struct fd_entry *entry;
    for (size_t fd = 0; (entry = fds_next(loop, &fd)) != NULL; fd++) {
        if (entry->callbacks == NULL) {
            continue;
        }
        int result = fd_callback_traverse(&entry->callbacks->reader, visit, arg);
        if (result == 0) {
            result = fd_callback_traverse(&entry->callbacks->writer, visit, arg);
        }
        if (result != 0) {
            return result;
        }
    }
    return 0;
}
