/* wqueue.h - output that the user handed over and the kernel has not taken yet.
 *
 * Owns:     exact bytes objects only; anything else is copied on entry, because a
 *           caller may change a bytearray as soon as write() has returned.
 * Promises: `bytes` is the sum of unsent bytes whenever a function returns. An empty
 *           queue holds no memory, one of a single piece only that. Runs no Python.
 * Ignores:  sockets, water marks, protocols: stream_write.c joins these. */
#ifndef ASYNCLOOP_WQUEUE_H
#define ASYNCLOOP_WQUEUE_H

#include "base/compat.h"

#include <sys/uio.h>

struct wqueue_pieces {
    size_t capacity;
    PyObject *items[];    /* the used ones are [head, head + length) */
};

struct wqueue {
    union {               /* exact bytes, strong */
        PyObject *only;                  /* unless there are more: a first piece needs no array */
        struct wqueue_pieces *pieces;    /* if has_pieces */
    };
    uint32_t length;
    uint32_t head : 31;
    bool has_pieces : 1;
    size_t offset;        /* bytes of the first item that are sent already */
    size_t bytes;         /* unsent */
};

static inline bool
wqueue_is_empty(const struct wqueue *queue)
{
    return queue->length == 0;
}

/* The oldest piece, of which `offset` bytes are sent already; borrowed. Not of an empty queue. */
static inline PyObject *
wqueue_first(const struct wqueue *queue)
{
    return queue->has_pieces ? queue->pieces->items[queue->head] : queue->only;
}

/* Append what follows the first `skip` bytes of an exact bytes object (borrowed).
 * skip > 0 only into an empty queue. 0 / -1 with MemoryError. */
int wqueue_push(struct wqueue *queue, PyObject *bytes, size_t skip);
/* The same in front of everything else; skip > 0 only if no piece is sent in part. */
int wqueue_push_front(struct wqueue *queue, PyObject *bytes, size_t skip);
/* Append a copy. 0 / -1 with MemoryError. */
int wqueue_push_copy(struct wqueue *queue, const char *data, size_t length);

/* Fills at most `max` entries with the oldest output; returns how many. They are good
 * until the queue changes. */
int wqueue_iov(const struct wqueue *queue, struct iovec *iov, int max);
void wqueue_consume(struct wqueue *queue, size_t n);    /* n <= bytes */
void wqueue_clear(struct wqueue *queue);

PyObject *wqueue_as_list(const struct wqueue *queue);   /* new list of what is unsent */

#ifdef ASYNCLOOP_DEBUG
void wqueue_verify(const struct wqueue *queue, uint64_t turn);    /* checked.h */
#endif

#endif
