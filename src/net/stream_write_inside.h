/* stream_write_inside.h - what stream_writelines.c needs of stream_write.c. */
#ifndef ASYNCLOOP_STREAM_WRITE_INSIDE_H
#define ASYNCLOOP_STREAM_WRITE_INSIDE_H

#include "net/io_methods.h"
#include "net/stream.h"

/* One call of the kernel. IO_OK: it took all; IO_WANT_WRITE: a part, maybe nothing. Sends no more
 * than the budget, which shrinks by what was sent. */
enum io_status stream_send(Stream *stream, struct iovec *iov, int count, bool more, size_t *budget, size_t *n);

/* An attempt ended with anything but all sent: 0 to queue the rest, 1 when the transport
 * has ended and the rest is to be dropped, -1 with what the caller of write() gets. */
int stream_wait_writable(Stream *stream, enum io_status status);

/* The rest of a write was queued: 0, or -1 with an exit exception. */
int stream_rest_queued(Stream *stream);

/* What errno says, or the current exception if that is 0, ends the stream: a part of the data may be with the kernel
 * already, so that it cannot go on. 0, or -1 as transport_fatal(). */
int stream_write_failed(Stream *stream, int err);

/* Sends what is queued: 0, or -1 with an exit exception. */
int stream_flush(Stream *stream);

/* May the kernel hold this piece? It is told to; so the stream is noted down. */
bool stream_may_hold(Stream *stream, size_t length);

/* Called once for each write(): is the kernel to hold it? */
static inline bool
stream_holds(Stream *stream, size_t length)
{
    Loop *loop = stream->base.head.loop;
    if (UNLIKELY(loop == NULL || stream->holds == HOLDS_NOT)) {
        return false;    /* guarded path: write-burst */
    }
    uint32_t step = (uint32_t)loop->counters->steps;
    if (LIKELY(stream->step != step)) {
        stream->step = step;
        stream->usual_writes = stream->writes;
        stream->writes = 0;
    }
    stream->writes += stream->writes < UINT16_MAX;
    return UNLIKELY(stream->writes < stream->usual_writes || loop_gathers(loop))
           && stream_may_hold(stream, length);
}

/* What is queued is asyncio's sock.sendmsg(), from 3.12 on, which raises an audit event: before
 * anything of the queue is looked at, because a hook may do anything with it. IO_OK: go on. */
static inline enum io_status
stream_audit(Stream *stream UNUSED)
{
#if PY_VERSION_HEX >= 0x030C0000
    Transport *tr = &stream->base;
    if (tr->kind->is_socket && !io_is_by_method(tr)) {
        if (PySys_Audit("socket.sendmsg", "OO", tr->file, Py_None) < 0) {
            tr->io.err = 0;
            return IO_ERROR;
        }
        if (UNLIKELY(tr->head.conn_lost > 0)) {
            return IO_WANT_WRITE;
        }
    }
#endif
    return IO_OK;
}

/* -1 with RuntimeError if the stream takes no more data; `eof_message` as asyncio has it. */
static inline int
stream_check_open(Stream *stream, const char *eof_message, const char *sendfile_message)
{
    io_choose(&stream->base);
    if (UNLIKELY(stream->eof)) {
        PyErr_SetString(PyExc_RuntimeError, eof_message);
        return -1;
    }
    if (UNLIKELY(stream->empty_waiter != NULL)) {
        PyErr_SetString(PyExc_RuntimeError, sendfile_message);
        return -1;
    }
    return 0;
}

/* Does what is written go nowhere? */
static inline bool
stream_drops(const Transport *tr)
{
    return UNLIKELY(tr->head.conn_lost > 0) || (UNLIKELY(FLAG(tr->head.closing)) && tr->kind->close_ends_output);
}

#endif
