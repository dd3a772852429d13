/* watch_inside.h - the table of descriptors, for watch.c, and for readers.c and loop_descriptors.c, which are
 * its add_reader() and the like. */
#ifndef ASYNCLOOP_WATCH_INSIDE_H
#define ASYNCLOOP_WATCH_INSIDE_H

#include "base/checked.h"
#include "base/tuning.h"
#include "loop/wake.h"
#include "loop/watch.h"

#include <errno.h>
#include <fcntl.h>

struct fd_callbacks;              /* readers.c */

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
#define PAGE_BITS TUNED(PAGE_BITS, 6)
#define PAGE_LENGTH (1 << PAGE_BITS)

struct fd_page {
    struct fd_entry entries[PAGE_LENGTH];
};

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

/* The same where there may be none yet: NULL with MemoryError. */
struct fd_entry *fds_make_entry(Loop *loop, int fd);

static inline struct fd_entry *
fds_entry(Loop *loop, int fd)
{
    struct fd_entry *entry = fds_find(loop, fd);
    return LIKELY(entry != NULL) ? entry : fds_make_entry(loop, fd);
}

/* The next entry from number *fd on, which is set to its own; NULL at the end. */
static UNUSED struct fd_entry *
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

static inline void
watch_unnote(struct watch *watch)
{
    watch->noted = false;
    list_move(&watch_loop(watch)->fds.active, &watch->active);
}

/* 0, or -1 without memory; sets no exception. */
static inline int
fds_note_change(struct fds *fds, struct fd_entry *entry, int fd)
{
    if (fds->changed_count == fds->changed_capacity) {
        size_t capacity = fds->changed_capacity == 0 ? ARRAY_FIRST : fds->changed_capacity * 2;
        struct fd_change *changed = fds->changed;
        PyMem_Resize(changed, struct fd_change, capacity);
        if (changed == NULL) {
            return -1;
        }
        fds->changed = changed;
        fds->changed_capacity = capacity;
    }
    fds->changed[fds->changed_count++] = (struct fd_change){entry, fd};
    return 0;
}

/* libev_call(), which the loop knows of the thread that runs it. */
static inline struct libev_call *
loop_libev_call(Loop *loop UNUSED)
{
#ifndef Py_GIL_DISABLED
    const struct run *run = loop->run;
    if (LIKELY(run != NULL && run->thread == (unsigned long)pthread_self())) {
        return loop->libev;
    }
#endif
    return libev_call();
}

static inline int
io_start(Loop *loop, ev_io *io)
{
    if (UNLIKELY(reserve_for_one_more(&loop->reserve, io->fd) < 0)) {
        return -1;
    }
    struct libev_call *call = loop_libev_call(loop);
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    ev_io_start(loop->ev, io);
    reserve_leave(call, &loop->reserve, outer);
    return 0;
}

static inline void
io_stop(Loop *loop, ev_io *io)
{
    struct libev_call *call = loop_libev_call(loop);
    struct reserve *outer = reserve_enter(call, &loop->reserve);
    ev_io_stop(loop->ev, io);
    reserve_leave(call, &loop->reserve, outer);
    loop->reserve.watchers--;
}

/* watch_start() and watch_stop(), where the entry of its descriptor is known. Inlined for the guarded paths
 * sock and reader. */

static inline int
watch_start_at(struct watch *watch, struct fd_entry *entry)
{
    Loop *loop = watch_loop(watch);
    VERIFY(entry == fds_find(loop, watch->io.fd) && verify_lives(watch->owner));
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
    if (UNLIKELY(fds_note_change(&loop->fds, entry, watch->io.fd) < 0)) {
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

static inline void
watch_stop_at(struct watch *watch, struct fd_entry *entry)
{
    Loop *loop = watch_loop(watch);
    VERIFY(watch_is_active(watch) && !watch->lent);
    VERIFY(entry == fds_find(loop, watch->io.fd) && entry->watched > 0);
    watch->noted = false;
    PyObject *owner = watch->owner;
    list_remove(&watch->active);
    uint32_t left = --entry->watched;
    COUNT(loop->counters->descriptors, -(uint64_t)(left == 0));
    if (loop->ev != NULL) {
        io_stop(loop, &watch->io);
        /* Where nothing is left to watch libev makes no call that could fail. */
        if (left > 0 && fds_note_change(&loop->fds, entry, watch->io.fd) < 0) {
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

void watch_put_out(struct watch *watch);    /* another one has its place, or nobody */
int watch_remove_at(struct fd_entry *entry, int event);    /* watch_remove() */

#endif
