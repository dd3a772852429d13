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

#include "loop.h"

struct watch {
    ev_io io;                     /* io.fd, io.events; io.data: the loop, see watch_loop() */
    PyObject *owner;              /* the object that embeds this struct (borrowed, held while active) */
    /* EV_READ or EV_WRITE; or EV_ERROR: the descriptor was closed by somebody else
     * and the watch is stopped already (treat it as EBADF). */
    void (*ready)(struct watch *watch, int revents);
    struct list_node active;      /* in loop->fds.active, or .noted */
    bool noted;                   /* an event has come that is not told yet */
};

void watch_init(struct watch *watch, Loop *loop, PyObject *owner, int fd, int event,
                void (*ready)(struct watch *watch, int revents));
int watch_start(struct watch *watch);     /* idempotent; 0 / -1 MemoryError or RuntimeError (closed loop) */
void watch_stop(struct watch *watch);     /* idempotent; safe after the loop was closed; may free the owner */

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

/* -- the table of descriptors ------------------------------------------------ */

/* Marks fd as used by a transport (borrowed; the transport must call
 * watch_release_fd() before it closes the descriptor). 0 / -1 with MemoryError. */
int watch_claim_fd(Loop *loop, int fd, PyObject *transport);
void watch_release_fd(Loop *loop, int fd, PyObject *transport);
/* -1 with asyncio's RuntimeError if a transport uses fd. */
int watch_ensure_free(Loop *loop, int fd);
/* The transport that uses fd (new reference), or NULL without an exception. */
PyObject *watch_fd_transport(Loop *loop, int fd);

/* add_reader() and friends; event is EV_READ or EV_WRITE. */
int watch_set_callback(Loop *loop, int fd, int event, Handle *handle_steal);
int watch_remove_callback(Loop *loop, int fd, int event);    /* 1 removed, 0 there was none, -1 */

/* -- for loop.c ---------------------------------------------------------------- */
void watch_check_changed(Loop *loop);     /* before each poll */
void watch_end_batch(Loop *loop);         /* libev has told of all events of one look */
/* Whether libev may have had no room for more events than the last batch has, so that there may be more. */
bool watch_batch_was_full(Loop *loop);
void watch_dispatch(Loop *loop);          /* tells what was noted, until the run has to end */
void watch_clear(Loop *loop);             /* stops everything: the loop closes */
void watch_free(Loop *loop);
int watch_traverse(Loop *loop, visitproc visit, void *arg);

#endif
