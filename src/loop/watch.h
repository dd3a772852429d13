/* watch.h - who is told when a descriptor is readable or writable.
 *
 * The only file that starts and stops libev's I/O watchers. Before each poll it looks at
 * every descriptor whose watchers changed: one that is closed by then would make
 * libev's epoll backend abort the process, so its watchers are stopped and told.
 *
 * Owns:     while a watch is active, one strong reference to its owner.
 * Promises: ready() is called with the GIL held, never after watch_stop(); it lets no
 *           exception out. The events of one poll are told in the order in which the kernel
 *           gives them, those of one descriptor to its reader first, then to its writer.
 * Ignores:  the descriptor's own life: whoever made it closes it, after watch_stop(). */
#ifndef ASYNCLOOP_WATCH_H
#define ASYNCLOOP_WATCH_H

#include "base/state.h"

#include <ev.h>

struct fd_page;                       /* watch_inside.h */
struct fd_entry;                      /* watch_inside.h */

struct fd_change {
    struct fd_entry *entry;
    int fd;
};

/* The table of descriptors, and what is watched. */
struct fds {
    struct fd_page **pages;           /* NULL where none was watched */
    size_t length;
    struct fd_change *changed;        /* descriptors whose watchers changed since the last poll */
    size_t changed_count;
    size_t changed_capacity;
    struct list_node active;          /* every started struct watch, but for those that are noted */
    struct list_node noted;           /* those that an event has come for, to be told in this order */
    struct list_node lent;            /* those that an overridden _add_reader() looks after */
    struct list_node *before;         /* the events of this look at the kernel come behind it */
    unsigned int events;              /* of this look: descriptors, the loop's own among them */
    int event_fd;                     /* the last of these */
    unsigned int room;                /* libev takes more events than this from one look */
    PyObject *raised;                 /* NULL, or what waits for what a program's _remove_reader() raises */
    bool fresh;                       /* something was started since the last poll */
    bool check_all;                   /* a change could not be noted for want of memory */
};

/* Who waits for the descriptor, and so what asyncio calls for it. */
enum watch_user {
    WATCH_LOOP,         /* the loop itself: nothing of its own */
    WATCH_TRANSPORT,    /* or a server, or what waits beside one: loop._add_reader() and its kin */
    WATCH_OPERATION,    /* sock_recv() and its kin: they remove by loop.remove_reader() */
};

struct watch {
    ev_io io;                     /* io.fd, io.events; io.data: the loop, see watch_loop() */
    PyObject *owner;              /* the object that embeds this struct (borrowed, held while active) */
    /* EV_READ or EV_WRITE; or EV_ERROR: the descriptor was closed by somebody else
     * and the watch is stopped already (treat it as EBADF). */
    void (*ready)(struct watch *watch, int revents);
    struct list_node active;      /* in loop->fds.active, .noted or .lent */
    uint8_t user;                 /* enum watch_user */
    bool lent;                    /* somebody's loop._add_reader() was called in place of libev */
    bool noted;                   /* an event has come that is not told yet */
    bool placed;                  /* it is the reader or the writer of its descriptor */
    bool removed;                 /* it was, until remove_reader() or remove_writer() */
    bool is_callback;             /* of add_reader() or add_writer(): readers.c */
};

/* To the watch of a callback: it has lost its place. */
#define WATCH_PUT_OUT EV_CUSTOM
/* Beside EV_READ or EV_WRITE: no event has come, a program has called the owner's method. */
#define WATCH_BY_HAND (EV_CUSTOM << 1)

void watch_init(struct watch *watch, Loop *loop, PyObject *owner, enum watch_user user, int fd, int event,
                void (*ready)(struct watch *watch, int revents));
/* Idempotent; 0, or -1 with MemoryError, RuntimeError (closed loop), or ValueError or OSError for a
 * number that is no descriptor. */
int watch_start(struct watch *watch);
/* The same by _add_reader() or _add_writer(), with the owner's _read_ready() or _write_ready(). */
int watch_start_by_method(struct watch *watch);
void watch_abandon(struct watch *watch);  /* watch_stop() that calls no method: for an owner that dies */

/* Where loop._add_reader(), _add_writer(), or what removes them, is somebody else's, it is called, as
 * asyncio's transports, servers and sock_* do: with the method _read_ready or _write_ready of the owner, which is
 * watch_call_ready(). So watch_start() and watch_stop() of a watch that has a user may run Python. What
 * removing raises is told to the loop's exception handler, unless there is a method that can raise it. */

/* Around watch_stop() in a method: 0, or -1 with what removing has raised. */
static inline PyObject *
watch_begin_stopping(struct fds *fds)
{
    PyObject *outer = fds->raised;
    fds->raised = Py_None;
    return outer;
}
int watch_end_stopping(Loop *loop, PyObject *outer);

/* The watch's event has come, somebody says. None, or NULL with what has to leave. `loop` is not closed. */
PyObject *watch_call_ready(Loop *loop, struct watch *watch);
/* watch_stop(), and the method is called also for what was not watched. */
void watch_stop_anyway(struct watch *watch);

/* borrowed: the owner holds it */
static inline Loop *
watch_loop(const struct watch *watch)
{
    return watch->io.data;
}

static inline bool
watch_is_active(const struct watch *watch)
{
    return watch->active.next != &watch->active;
}

void watch_stop_active(struct watch *watch);    /* for the next one */

/* Idempotent; safe after the loop was closed; may free the owner. */
static inline void
watch_stop(struct watch *watch)
{
    if (watch_is_active(watch)) {
        watch_stop_active(watch);    /* often it is not: guarded path sock */
    }
}

/* -- the table of descriptors ------------------------------------------------ */

/* Marks fd as used by a transport (borrowed; the transport must call
 * watch_release_fd() before it closes the descriptor). 0 / -1 with MemoryError. */
int watch_claim_fd(Loop *loop, int fd, PyObject *transport);
void watch_release_fd(Loop *loop, int fd, PyObject *transport);
/* -1 with asyncio's RuntimeError if a transport uses fd, which the user `named` so (NULL: by number). */
int watch_ensure_free(Loop *loop, int fd, PyObject *named);
/* The transport that uses fd (new reference), or NULL without an exception. */
PyObject *watch_fd_transport(Loop *loop, int fd);

/* As in asyncio's selector, a descriptor has one reader and one writer: add_reader(), sock_recv() and
 * its kin and the accepting of a server take the place from each other, and remove_reader() takes it
 * from any of them. Who has lost it is not told. */

/* watch_start() as the reader or the writer of the descriptor. What a method in the place of ours returns is a
 * new reference in *handle, which is NULL before; `handle` may be NULL. */
int watch_take_place(struct watch *watch, PyObject **handle);
int watch_remove(Loop *loop, int fd, int event);    /* 1, or 0: there was none */
/* What add_reader() and the like have left there, for the transport of a socket, which has no place: with asyncio
 * its own watching ends theirs. May run Python. */
void watch_clear_place(Loop *loop, int fd, int event);
/* The number under which an object that may be closed by now was registered, or -1. */
int watch_find_fileobj(Loop *loop, PyObject *fileobj);
/* -1 with the OSError of asyncio's selector if the descriptor is closed, or nothing to wait for. */
int watch_check_pollable(int fd);

/* ev_io_start() and ev_io_stop(), with memory for libev: for the loop's own watchers. 0, or -1 with
 * MemoryError. */
int watch_start_io(Loop *loop, ev_io *io);
void watch_stop_io(Loop *loop, ev_io *io);

/* Each descriptor whose watchers changed since the last poll: one that is closed by now is told to its watchers as
 * EV_ERROR, and libev hears no more of it. */
void watch_check_all_changed(Loop *loop);

/* Is that needed? Before each poll. */
static inline bool
watch_has_changed(const struct fds *fds)
{
    return fds->changed_count > 0 || UNLIKELY(fds->check_all);
}

PyObject *watch_transports(Loop *loop);   /* {descriptor: transport} */

void watch_clear(Loop *loop);             /* stops everything: the loop closes */
void watch_free(Loop *loop);
int watch_traverse(Loop *loop, visitproc visit, void *arg);

#ifdef ASYNCLOOP_DEBUG
void watch_verify(Loop *loop, uint64_t turn);    /* checked.h */
void watch_verify_transports(Loop *loop, uint64_t turn,
                             void (*verify)(PyObject *transport, Loop *loop, uint64_t turn));
#endif

#endif
