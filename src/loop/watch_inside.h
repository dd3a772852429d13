/* watch_inside.h - the table of descriptors, for watch.c and readers.c alone. */
#ifndef ASYNCLOOP_WATCH_INSIDE_H
#define ASYNCLOOP_WATCH_INSIDE_H

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
#define PAGE_BITS 6
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

struct fd_entry *fds_make_entry(Loop *loop, int fd);

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

static inline void
watch_unnote(struct watch *watch)
{
    watch->noted = false;
    list_move(&watch_loop(watch)->fds.active, &watch->active);
}

/* watch_start() and watch_stop(), where the entry of its descriptor is known. */
int watch_start_at(struct watch *watch, struct fd_entry *entry);
void watch_stop_at(struct watch *watch, struct fd_entry *entry);

void watch_put_out(struct watch *watch);

#endif
