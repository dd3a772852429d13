/* stream.h - the transport of a byte stream: TCP, Unix sockets, and whatever an io_ops
 * table makes of them.
 *
 * stream.c holds the type and its life, stream_read.c what arrives, stream_write.c what
 * leaves. */
#ifndef ASYNCLOOP_STREAM_H
#define ASYNCLOOP_STREAM_H

#include "net/net_loop.h"
#include "net/transport.h"
#include "net/wqueue.h"

/* Can the kernel hold what is sent until more comes? */
enum holds {
    HOLDS_UNKNOWN,
    HOLDS,
    HOLDS_NOT,
};

typedef struct {
    Transport base;
    struct wqueue output;
    PyObject *empty_waiter;    /* a future that waits until all output is gone, or NULL */
    uint32_t step;             /* of the loop, in which write() was called last */
    uint16_t writes;           /* in that step */
    uint16_t usual_writes;     /* in the one before */
    uint32_t unpushed;         /* its place in net_loop(loop)->unpushed, from 1 on; 0: not there */
    uint8_t holds;             /* enum holds */
    bool eof;                  /* write_eof() was called */
    bool write_failed;         /* and so ended the transport */
} Stream;

/* A transport over a connected, non-blocking socket: connection_made() is scheduled, then
 * reading starts, then `waiter` (or NULL) is set. `sock` belongs to the transport on
 * success only. `peer` is the other end's address, or NULL to ask the kernel. `extra`,
 * `server` and `context` may be NULL. New reference or NULL. */
PyObject *stream_new(Loop *loop, PyObject *sock, int fd, PyObject *protocol, PyObject *waiter,
                     PyObject *extra, PyObject *server, PyObject *context,
                     const struct sockaddr *peer, socklen_t peer_length);

/* What the kinds of transports over a wqueue share. */
size_t stream_queued(Transport *tr);
void stream_discard_output(Transport *tr);
bool stream_push(Stream *stream);    /* false: the kernel held nothing of it */
void stream_lost(Transport *tr);
int stream_traverse(PyObject *op, visitproc visit, void *arg);
int stream_clear(PyObject *op);

/* A stream's answers to the end of input, and to a failing data_received(): the end of
 * the connection, unless eof_received() says otherwise. */
int stream_received_eof(Transport *tr);
int stream_data_failed(Transport *tr);

/* Callbacks of the two watches. The first needs a Transport, the second a Stream. */
void stream_on_readable(struct watch *watch, int revents);
void stream_on_writable(struct watch *watch, int revents);

/* asyncio's write(), writelines() and write_eof(). 0, or -1 with what the caller gets. */
int stream_write(Stream *stream, PyObject *data);
int stream_writelines(Stream *stream, PyObject *list);
int stream_write_eof(Stream *stream);    /* 0, or -1 with an exception */

/* Methods that a pipe for writing has, too. */
PyObject *Stream_writelines(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Stream_can_write_eof(PyObject *op, PyObject *ignored);

/* For the TLS transport, on a stream that is not lost and has no write_eof(): an exact bytes
 * object, or memory of which the rest is copied. 0, or -1 with an exit exception. */
int stream_write_bytes(Stream *stream, PyObject *bytes);
int stream_write_memory(Stream *stream, const char *data, size_t length);

/* Bytes to a protocol that is not a BufferedProtocol. 0, or -1 with what it raised. */
int stream_feed(struct proto *proto, struct state *state, const char *data, size_t n);

static inline Stream *
stream_cast(PyObject *op)
{
    return (Stream *)op;
}

#endif
