/* stream_write.c - from write() to the kernel.
 *
 * With nothing queued, a write is given to the kernel at once. What the kernel does not take is
 * queued and goes out when the descriptor is writable, as many buffers per call as it takes.
 *
 * Bursts: each piece that leaves alone wakes its reader, and on another core that costs more than the
 * sending. So a stream counts the writes of a step (a callback, a part of a task). As many are expected
 * of the next step, and all but the last of them are sent with the remark that more follows: the kernel
 * has them and keeps their order with whatever else is done to the socket, but lets them leave
 * together. If the step ends before the last one came, loop_step_done() pushes them; if it does not
 * end, the kernel does, after 200 ms. Taken for granted: that the socket is TCP (io_holds(), asked at
 * the stream's first burst) and that a step is under way in this thread (asked each time).
 * Benchmark rows: bare ASGI, aiohttp, 100 writes of 64 bytes in a turn. */
#include "net/stream_write_inside.h"

#include "base/checked.h"
#include "base/tuning.h"
#include "tasks/future.h"
#include "net/hold.h"

#include <errno.h>

/* A longer piece is not worth waiting for more. (Benchmark rows: bare ASGI, of which 17 % fewer requests are
 * answered where nothing waits, with 10 KiB likewise; 100 writes in a turn take 6 times as long. 2026-11-30.) */
#define HOLD_BYTES TUNED(HOLD_BYTES, 16 * 1024)
/* Where output is gathered, the kernel holds it no longer than this and one callback. (Benchmark rows: bare
 * ASGI, of which 6 to 8 % fewer requests are answered where it leaves after each callback; 2026-11-30.) */
#define PUSH_INTERVAL_NS TUNED(PUSH_INTERVAL_NS, 500000)

/* -- queueing ---------------------------------------------------------------------- */

int
stream_write_failed(Stream *stream, int err)
{
    stream->write_failed |= err != 0 || !is_exit_exception();
    return transport_fatal_errno(&stream->base, err, WRITE_FAILED(&stream->base));
}

int
stream_wait_writable(Stream *stream, enum io_status status)
{
    Transport *tr = &stream->base;
    if (status == IO_ERROR) {
        return stream_write_failed(stream, tr->io.err) < 0 ? -1 : 1;
    }
    if (UNLIKELY(tr->head.loop == NULL || tr->head.conn_lost > 0)) {
        return 1;    /* a method of the socket has ended it: io_methods.h */
    }
    return transport_watch(tr, &tr->write_watch);
}

/* -- what the kernel holds -------------------------------------------------------------- */

/* The stream is among those that hold_release() is for. False without memory. */
static bool
unpushed_add(Loop *loop, Stream *stream)
{
    struct unpushed *unpushed = &net_loop(loop)->unpushed;
    if (stream->unpushed > 0) {
        return true;
    }
    if (unpushed->length == unpushed->capacity) {
        uint32_t capacity = unpushed->capacity == 0 ? ARRAY_FIRST : unpushed->capacity * 2;
        PyObject **streams = PyMem_Realloc(unpushed->streams, capacity * sizeof(*streams));
        if (streams == NULL) {
            return false;
        }
        unpushed->streams = streams;
        unpushed->capacity = capacity;
    }
    unpushed->streams[unpushed->length++] = (PyObject *)stream;
    stream->unpushed = unpushed->length;
    return true;
}

static void
unpushed_remove(Loop *loop, Stream *stream)
{
    struct unpushed *unpushed = &net_loop(loop)->unpushed;
    VERIFY(stream->unpushed > 0 && stream->unpushed <= unpushed->length);
    Stream *last = stream_cast(unpushed->streams[--unpushed->length]);
    unpushed->streams[stream->unpushed - 1] = (PyObject *)last;
    last->unpushed = stream->unpushed;
    stream->unpushed = 0;
}

#ifdef ASYNCLOOP_DEBUG
void
unpushed_verify(Loop *loop)
{
    const struct unpushed *unpushed = &net_loop(loop)->unpushed;
    VERIFY(unpushed->length <= unpushed->capacity);
    for (uint32_t i = 0; i < unpushed->length; i++) {
        VERIFY(verify_lives(unpushed->streams[i]));
        VERIFY(stream_cast(unpushed->streams[i])->unpushed == i + 1);
    }
}
#endif

bool
stream_push(Stream *stream)
{
    if (LIKELY(stream->unpushed == 0)) {
        return false;
    }
    unpushed_remove(stream->base.head.loop, stream);
    io_push(&stream->base.io);
    return true;
}

void
hold_release(Loop *loop)
{
    for (uint32_t i = 0; i < net_loop(loop)->unpushed.length; i++) {
        Stream *stream = stream_cast(net_loop(loop)->unpushed.streams[i]);
        stream->unpushed = 0;
        io_push(&stream->base.io);
    }
    net_loop(loop)->unpushed.length = 0;
}

void
hold_forget(Loop *loop)
{
    for (uint32_t i = 0; i < net_loop(loop)->unpushed.length; i++) {
        stream_cast(net_loop(loop)->unpushed.streams[i])->unpushed = 0;
    }
    net_loop(loop)->unpushed.length = 0;
}

void
hold_release_after_step(Loop *loop)
{
    if (loop_gathers(loop)) {
        int64_t since = net_loop(loop)->unpushed.pushed_ns > loop->now_ns ? net_loop(loop)->unpushed.pushed_ns
                                                                          : loop->now_ns;
        int64_t now = monotonic_ns();
        if (now - since < PUSH_INTERVAL_NS) {
            return;
        }
        net_loop(loop)->unpushed.pushed_ns = now;
    }
    hold_release(loop);
}

bool
stream_may_hold(Stream *stream, size_t length)
{
    Loop *loop = stream->base.head.loop;
    if (length > HOLD_BYTES || loop->run == NULL || loop->released != NULL || !SHORT_WAY(hold)) {
        return false;    /* no step that would end: outside of a run, or in another thread */
    }
    if (io_is_by_method(&stream->base)) {
        return false;    /* a send() of the user's knows of no flag */
    }
    if (stream->holds == HOLDS_UNKNOWN) {
        stream->holds = stream->base.kind->is_socket && io_holds(&stream->base.io) ? HOLDS
                                                                                   : HOLDS_NOT;
    }
    return stream->holds == HOLDS && unpushed_add(loop, stream);
}

/* All of it was sent. Without the remark that more follows, what the kernel held has left, too. */
static inline void
stream_sent(Stream *stream, bool more)
{
    if (UNLIKELY(stream->unpushed > 0) && !more) {
        unpushed_remove(stream->base.head.loop, stream);
    }
}

/* -- to the kernel ----------------------------------------------------------------------- */

/* How many buffers fit into the budget; *over: by how much the last of them is too long. */
static int
iov_within(const struct iovec *iov, size_t budget, size_t *over)
{
    int count = 0;
    size_t bytes = 0;
    while (bytes < budget) {
        bytes += iov[count++].iov_len;
    }
    *over = bytes - budget;
    return count;
}

enum io_status
stream_send(Stream *stream, struct iovec *iov, int count, bool more, size_t *budget, size_t *n)
{
    size_t wanted = 0, over = 0;
    for (int i = 0; i < count; i++) {
        wanted += iov[i].iov_len;
    }
    if (UNLIKELY(wanted > *budget)) {
        count = iov_within(iov, *budget, &over);
        wanted = *budget;
        iov[count - 1].iov_len -= over;
    }
    *n = 0;
    enum io_status status = transport_writev(&stream->base, iov, count, more, n);
    if (UNLIKELY(over > 0)) {
        iov[count - 1].iov_len += over;
    }
    *budget -= *n;
    if (LIKELY(status == IO_OK && *n == wanted)) {
        stream_sent(stream, more);
        return IO_OK;
    }
    return status == IO_OK ? IO_WANT_WRITE : status;
}

/* The same for a single piece. */
static inline enum io_status
stream_send_piece(Stream *stream, const char *data, size_t length, size_t *sent)
{
    bool more = stream_holds(stream, length);
    struct iovec iov = {(void *)data, length};
    *sent = 0;
    enum io_status status = transport_writev(&stream->base, &iov, 1, more, sent);
    if (LIKELY(*sent == length)) {
        stream_sent(stream, more);
        return IO_OK;
    }
    return status == IO_OK && *sent < length ? IO_WANT_WRITE : status;
}

/* One call of the kernel with what is queued, as stream_send(). */
static enum io_status
stream_send_batch(Stream *stream)
{
    struct iovec iov[IO_IOV_MAX];
    /* by a method of the user's, all there is, as asyncio's */
    size_t n, budget = UNLIKELY(io_calls_python(&stream->base)) ? SIZE_MAX : WRITE_BUDGET_BYTES;
    enum io_status status = stream_audit(stream);
    int count = status == IO_OK ? wqueue_iov(&stream->output, iov, IO_IOV_MAX) : 0;
    if (UNLIKELY(count == 0)) {
        return status;    /* or a hook has sent all of it, by a turn of the loop */
    }
    status = stream_send(stream, iov, count, false, &budget, &n);
    if (LIKELY(status != IO_ERROR && stream->base.head.conn_lost == 0)) {
        wqueue_consume(&stream->output, n);
    }
    return status;
}

/* What is queued, or as much of it as one call of the kernel and the budget allow. IO_ERROR, or anything
 * else: the queue tells what is left. */
static inline enum io_status
stream_send_queue(Stream *stream)
{
    return wqueue_is_empty(&stream->output) ? IO_OK : stream_send_batch(stream);
}

static int stream_flush_failed(Stream *stream);

/* What the kernel holds of this stream may be what left no room (TCP_NOTSENT_LOWAT): without that it would
 * have taken more. */
int
stream_rest_queued(Stream *stream)
{
    if (UNLIKELY(stream_push(stream))) {
        if (stream_send_queue(stream) == IO_ERROR) {
            return stream_flush_failed(stream);
        }
        if (wqueue_is_empty(&stream->output)) {
            watch_stop(&stream->base.write_watch);
        }
    }
    return transport_maybe_pause(&stream->base);
}

/* -- write() -------------------------------------------------------------------------- */

/* Sends an exact bytes object, or queues it. */
int
stream_write_bytes(Stream *stream, PyObject *bytes)
{
    size_t length = (size_t)PyBytes_GET_SIZE(bytes);
    size_t sent = 0;
    if (LIKELY(wqueue_is_empty(&stream->output))) {
        enum io_status status =
            stream_send_piece(stream, PyBytes_AS_STRING(bytes), length, &sent);
        if (LIKELY(sent == length)) {
            return 0;
        }
        int result = stream_wait_writable(stream, status);
        if (result != 0) {
            return result < 0 ? -1 : 0;
        }
    }
    if (wqueue_push(&stream->output, bytes, sent) < 0) {
        return stream_write_failed(stream, 0);
    }
    return stream_rest_queued(stream);
}

/* The same for memory that is not ours to keep: the rest is copied. Does not pause yet: 1 if
 * something was queued, 0, -1. */
static int
stream_take_memory(Stream *stream, const char *data, size_t length)
{
    size_t sent = 0;
    if (wqueue_is_empty(&stream->output)) {
        enum io_status status = stream_send_piece(stream, data, length, &sent);
        if (sent == length) {
            return 0;
        }
        int result = stream_wait_writable(stream, status);
        if (result != 0) {
            return result < 0 ? -1 : 0;
        }
    }
    if (wqueue_push_copy(&stream->output, data + sent, length - sent) < 0) {
        return stream_write_failed(stream, 0);
    }
    return 1;
}

int
stream_write_memory(Stream *stream, const char *data, size_t length)
{
    int result = stream_take_memory(stream, data, length);
    return result > 0 ? stream_rest_queued(stream) : result;
}

/* What is not contiguous ends the connection when asyncio gives it to the kernel, and is an error of the
 * caller's where that adds it to a bytearray of what waits. */
static int
stream_write_unreadable(Stream *stream, PyObject *data)
{
    bool adds = PY_VERSION_HEX < 0x030C0000 || !stream->base.kind->is_socket;
    if (!adds || wqueue_is_empty(&stream->output)) {
        return stream_write_failed(stream, 0);
    }
    PyErr_Format(PyExc_TypeError,
                 stream->base.kind->is_socket ? "can't set bytearray slice from %.100s"
                                              : "can't concat %.100s to bytearray",
                 Py_TYPE(data)->tp_name);
    return -1;
}

/* What the user's own send() or os.write() has left of `data`, or all of it. It may be a view, which is gone
 * before pause_writing(): that may want to change the size of the buffer. */
static int
stream_queue_object_steal(Stream *stream, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        int failed = stream_write_unreadable(stream, data);
        Py_DECREF(data);
        return failed;
    }
    size_t length = (size_t)view.len;
    int result = length == 0 ? 0 : wqueue_push_copy(&stream->output, view.buf, length);
    PyBuffer_Release(&view);
    Py_DECREF(data);
    if (result < 0) {
        return stream_write_failed(stream, 0);
    }
    if (length == 0) {
        return 0;
    }
    return transport_watch(&stream->base, &stream->base.write_watch) < 0 ? -1 : stream_rest_queued(stream);
}

/* A send() or os.write() of the user's gets the user's own object, as from asyncio. */
static int
stream_write_by_method(Stream *stream, PyObject *data)
{
    PyObject *rest = Py_NewRef(data);
    if (wqueue_is_empty(&stream->output)) {
        PyObject *left = NULL;
        enum io_status status = io_send(&stream->base, data, &left);
        int result = status == IO_OK ? 0 : stream_wait_writable(stream, status);
        if (status == IO_OK) {
            Py_SETREF(rest, left);
        }
        if (result != 0 || rest == NULL) {
            Py_XDECREF(rest);
            return result > 0 ? 0 : -1;
        }
        if (UNLIKELY(stream->base.head.loop == NULL || stream->base.head.conn_lost > 0)) {
            Py_DECREF(rest);
            return 0;    /* the call has ended the transport */
        }
    }
    return stream_queue_object_steal(stream, rest);
}

/* A type other than exact bytes. */
static int
stream_write_other(Stream *stream, PyObject *data)
{
    int has_data = PyObject_IsTrue(data);
    if (has_data <= 0) {
        return has_data;
    }
    if (stream_drops(&stream->base)) {
        return stream->base.kind->drop_write(&stream->base);
    }
    if (io_calls_python(&stream->base)) {
        return stream_write_by_method(stream, data);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return stream_write_unreadable(stream, data);
    }
    int result = 0;
    /* a __buffer__() of the user's may have done anything meanwhile */
    if (view.len > 0 && !stream_drops(&stream->base) && !stream->eof) {
        result = stream_take_memory(stream, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);    /* pause_writing() may want to change the size of the buffer */
    return result > 0 ? stream_rest_queued(stream) : result;
}

/* With all that has to be looked at. */
static __attribute__((noinline)) int
stream_write_anything(Stream *stream, PyObject *data)
{
    bool is_bytes = PyBytes_CheckExact(data);
    if (UNLIKELY(!is_bytes && !PyBytes_Check(data) && !PyByteArray_Check(data)
                 && !PyMemoryView_Check(data))) {
        PyErr_Format(PyExc_TypeError,
#if PY_VERSION_HEX >= 0x030E0000
                     "data argument must be a bytes, bytearray, or memoryview object, not '%.200s'",
#else
                     "data argument must be a bytes-like object, not '%.200s'",
#endif
                     type_name(Py_TYPE(data)));
        return -1;
    }
    if (stream_check_open(stream, "Cannot call write() after write_eof()",
                          "unable to write; sendfile is in progress")
        < 0) {
        return -1;
    }
    if (UNLIKELY(!is_bytes || io_calls_python(&stream->base))) {
        return stream_write_other(stream, data);
    }
    if (UNLIKELY(PyBytes_GET_SIZE(data) == 0)) {
        return 0;
    }
    if (stream_drops(&stream->base)) {
        return stream->base.kind->drop_write(&stream->base);
    }
    return stream_write_bytes(stream, data);
}

/* What is usual goes on at once, with no registers saved for the rest (guarded path: write-burst). */
int
stream_write(Stream *stream, PyObject *data)
{
    const Transport *tr = &stream->base;
    return LIKELY(PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0 && io_is_chosen(tr) && !io_calls_python(tr)
                  && !stream->eof && stream->empty_waiter == NULL && tr->head.conn_lost == 0
                  && !FLAG(tr->head.closing))
               ? stream_write_bytes(stream, data)
               : stream_write_anything(stream, data);
}

/* -- the end of output -------------------------------------------------------------------- */

/* 0, or -1 with an exception: a peer that is gone already makes it fail. */
static int
stream_shutdown(Stream *stream)
{
    struct io *io = &stream->base.io;
    io_choose(&stream->base);
    if (stream->base.file_closed || io->ops->shutdown(io) != IO_ERROR) {
        return 0;
    }
    if (io->err != 0) {
        errno = io->err;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return -1;
}

int
stream_write_eof(Stream *stream)
{
    if (FLAG(stream->base.head.closing) || stream->eof) {
        return 0;
    }
    stream->eof = true;
    return wqueue_is_empty(&stream->output) ? stream_shutdown(stream) : 0;
}

/* -- the event ------------------------------------------------------------------------------ */

static int
stream_settle_empty_waiter(Stream *stream)
{
    PyObject *waiter = stream->empty_waiter;
    if (waiter == NULL) {
        return 0;
    }
    Py_INCREF(waiter);
    int result = future_settle_result(stream->base.head.state, waiter, Py_None);
    Py_DECREF(waiter);
    return result;
}

/* The queue is empty: what waited for that goes on. */
static int
stream_emptied(Stream *stream)
{
    Transport *tr = &stream->base;
    watch_stop(&tr->write_watch);
    if (stream_settle_empty_waiter(stream) < 0) {
        return -1;
    }
    if (FLAG(tr->head.closing)) {
        return transport_drained(tr);
    }
    if (stream->eof && stream_shutdown(stream) < 0) {
        return -1;
    }
    return 0;
}

/* The output failed: whoever waits for its end is told, too. */
static int
stream_flush_failed(Stream *stream)
{
    Transport *tr = &stream->base;
    int err = tr->io.err;
    PyObject *exc;
    if (err != 0) {
        errno = err;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    exc = PyErr_GetRaisedException();
    watch_stop(&tr->write_watch);
    wqueue_clear(&stream->output);
    if (err == 0) {
        PyErr_SetRaisedException(Py_NewRef(exc));
    }
    int result = stream_write_failed(stream, err);
    if (result == 0 && stream->empty_waiter != NULL) {
        PyObject *waiter = Py_NewRef(stream->empty_waiter);
        if (future_settle_exception(tr->head.state, waiter, exc) < 0) {
            PyErr_WriteUnraisable(waiter);
        }
        Py_DECREF(waiter);
    }
    Py_DECREF(exc);
    return result;
}

int
stream_flush(Stream *stream)
{
    if (UNLIKELY(stream_send_queue(stream) == IO_ERROR)) {
        return stream_flush_failed(stream);
    }
    /* asyncio's pipes resume when all of it has gone */
    if ((wqueue_is_empty(&stream->output) || !stream->base.kind->close_ends_output)
        && transport_maybe_resume(&stream->base) < 0) {
        return -1;
    }
    /* resume_writing() may have written, closed or aborted */
    return wqueue_is_empty(&stream->output) && stream->base.head.loop != NULL ? stream_emptied(stream) : 0;
}

void
stream_on_writable(struct watch *watch, int revents)
{
    Transport *tr = container_of(watch, Transport, write_watch);
    Loop *loop = watch_loop(watch);
    Py_INCREF(tr);
    io_choose(tr);
    int result = UNLIKELY(revents & EV_ERROR) ? transport_descriptor_gone(tr)
                                              : stream_flush((Stream *)tr);
    if (UNLIKELY(result < 0)) {
        transport_step_failed(tr, loop, "_write_ready", revents);
    }
    Py_DECREF(tr);
}
