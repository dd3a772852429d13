/* stream_read.c - from a readable descriptor to the protocol.
 *
 * The protocol is called straight from the poll, once for each readable event, as asyncio does: what a
 * callback schedules runs before the next data, and other connections get their turn. The poll is
 * level-triggered: what is left makes the next event. Between any two lines that call into the protocol,
 * it may close, abort or pause the transport, give it another protocol of another kind,
 * or run the loop inside itself: transport_wants_data() is asked again each time. */
#include "net/stream.h"

#include "base/args.h"
#include "base/checked.h"
#include "base/tuning.h"
#include "loop/scratch.h"
#include "net/clients.h"
#include "net/io_methods.h"
#include "net/packet.h"
#include "net/reader.h"

#include <sys/ioctl.h>

/* What one event brings at most, as asyncio's max_size. */
#define STREAM_READ_BYTES SCRATCH_BYTES

/* Packets of so many bytes are received straight into the object that data_received() gets, if
 * they keep coming: to copy them costs 4 to 12 % of all that an echo of them does (benchmark rows: Protocol
 * and streams, with --sizes 65536 and 1048576). */
#define LARGE_BYTES TUNED(LARGE_BYTES, 32 * 1024)

/* glibc gives what is free at the end of its heap back to the system at once, and everybody who makes
 * messages of large blocks (a StreamReader's bytearray, most of all) pays a page fault for every 4 KiB of
 * each message: two thirds of the time of an echo of 1 MiB by streams over one connection (benchmark row:
 * streams, with --sizes 1048576 --connections 1). Its thresholds for that are the process's and stay as
 * they are. But what lies before a block in use is kept for the next message: so a block of the loop's own
 * is put behind room of this size, which is free, untouched, when the first large packet comes; until the
 * loop is closed. The pieces are smaller than what glibc takes from the system one by one. */
#define ROOM_BYTES (4 * 1024 * 1024)
#define ROOM_PIECE (96 * 1024)

/* What came of one attempt. */
enum read_outcome {
    READ_AGAIN,    /* nothing was read: by another way */
    READ_DONE,     /* the event has brought what it brings */
    READ_LEAVE,    /* an exception is set: an exit, or what asyncio's _read_ready() lets out */
};

static enum read_outcome
outcome_of_fatal(int result)
{
    VERIFY((result == -1) == (PyErr_Occurred() != NULL));
    return result < 0 ? READ_LEAVE : READ_DONE;
}

int
stream_received_eof(Transport *tr)
{
    if (channel_log(&tr->head, "debug", "%r received EOF", NULL) < 0) {
        return -1;
    }
    PyObject *answer = proto_call(&tr->head.proto, tr->head.state->names.eof_received, NULL);
    if (answer == NULL) {
        return transport_fatal(tr, "Fatal error: protocol.eof_received() call failed.");
    }
    int keep_open = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (keep_open < 0) {
        return -1;
    }
    if (keep_open) {
        tr->read_eof = true;    /* until resume_reading(): then it is told again, as with asyncio */
        watch_stop(&tr->read_watch);
        server_stops_reading(tr);
        return 0;
    }
    PyObject *own = transport_own_method(tr, "close");
    if (UNLIKELY(own != NULL)) {
        PyObject *result = PyObject_CallNoArgs(own);
        Py_DECREF(own);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    if (tr->head.loop != NULL && transport_close(tr) < 0) {
        PyErr_Clear();    /* the loop was closed: nobody is left to be told */
    }
    return 0;
}

int
stream_data_failed(Transport *tr)
{
    return transport_fatal(tr, tr->head.proto.kind == PROTO_TLS    /* asyncio's is a BufferedProtocol */
                                   ? "Fatal error: protocol.buffer_updated() call failed."
                                   : "Fatal error: protocol.data_received() call failed.");
}

/* Anything but IO_OK. */
static enum read_outcome
stream_read_stopped(Transport *tr, enum io_status status)
{
    if (status == IO_EOF) {
        return outcome_of_fatal(tr->kind->received_eof(tr));
    }
    if (status == IO_ERROR) {
        return outcome_of_fatal(
            transport_fatal_errno(tr, tr->io.err, READ_FAILED(tr)));
    }
    return READ_DONE;
}

/* -- Protocol --------------------------------------------------------------------- */

int
stream_feed(struct proto *proto, struct state *state, const char *data, size_t n)
{
    if (proto->kind == PROTO_READER) {
        int fed = reader_feed(state, proto, data, n);
        if (LIKELY(fed != 0)) {
            return fed < 0 ? -1 : 0;
        }
        if (proto->kind == PROTO_READER) {
            proto->kind = PROTO_DATA;
        }
    }
    else if (proto->kind == PROTO_TLS) {
        PyObject *tls = Py_NewRef(proto->protocol);
        int result = net_state(state)->protocols.feed_tls(tls, data, n);
        Py_DECREF(tls);
        return result;
    }
    return proto_data_received(proto, state, data, n);
}

/* Room for a packet of n bytes that is followed by others about as long. */
static uint32_t
packet_room(size_t n)
{
    n += n / 8 - n / 64;    /* so that n is enough to fill the object: see spare_fits() */
    return (uint32_t)(n < STREAM_READ_BYTES ? n : STREAM_READ_BYTES);
}

/* Whether a read() gives bytes, and not an error, which the kernel would tell only once. */
static bool
stream_has_bytes(Transport *tr)
{
    int waiting = 0;
    return !io_is_gone(&tr->io) && ioctl(tr->fd, FIONREAD, &waiting) == 0 && waiting > 0;
}

/* More came than was expected: `bytes` is full (stolen), and the rest of what one recv() of asyncio's would
 * give goes into the same message. */
static __attribute__((noinline)) enum read_outcome
stream_read_longer(Transport *tr, Loop *loop, PyObject *bytes, size_t capacity, size_t n)
{
    struct state *state = tr->head.state;
    size_t more = 0;
    char *buffer = stream_has_bytes(tr) ? scratch_take(&loop->scratch) : NULL;
    PyErr_Clear();    /* no memory: the rest waits in the kernel */
    int result;
    if (buffer != NULL
        && transport_read(tr, buffer + n, STREAM_READ_BYTES - n, &more) == IO_OK) {
        memcpy(buffer, PyBytes_AS_STRING(bytes), n);
        packet_done(state, bytes, capacity);
        result = proto_data_received(&tr->head.proto, state, buffer, n + more);
    }
    else {
        packet_set_length(bytes, n);
        result = proto_data_received_packet(&tr->head.proto, state, bytes, capacity);
    }
    if (buffer != NULL) {
        scratch_give(&loop->scratch, buffer);
    }
    return LIKELY(result == 0) ? READ_DONE : outcome_of_fatal(tr->kind->data_failed(tr));
}

/* Into an object with room for what is expected. A packet that fills it is the object; a shorter
 * one, which may be kept for long, is copied. */
static __attribute__((noinline)) enum read_outcome
stream_read_large(Transport *tr, Loop *loop)
{
    struct proto *proto = &tr->head.proto;
    struct state *state = tr->head.state;
    size_t n, capacity, room = proto->expected;
    PyObject *bytes = packet_reserve(state, room, &capacity);
    if (UNLIKELY(bytes == NULL)) {
        proto->expected = 0;    /* the loop's buffer serves as well */
        PyErr_Clear();
        return READ_AGAIN;
    }
    enum io_status status = transport_read(tr, PyBytes_AS_STRING(bytes), room, &n);
    if (UNLIKELY(status != IO_OK)) {
        packet_done(state, bytes, capacity);
        return stream_read_stopped(tr, status);
    }
    int result;
    if (UNLIKELY(n == room && room < STREAM_READ_BYTES)) {
        proto->expected = packet_room(2 * room);
        return stream_read_longer(tr, loop, bytes, capacity, n);
    }
    if (LIKELY(spare_fits(capacity, n))) {
        packet_set_length(bytes, n);
        result = proto_data_received_packet(proto, state, bytes, capacity);
    }
    else {
        proto->expected = n >= LARGE_BYTES ? packet_room(n) : 0;
        result = proto_data_received(proto, state, PyBytes_AS_STRING(bytes), n);
        packet_done(state, bytes, capacity);
    }
    return LIKELY(result == 0) ? READ_DONE : outcome_of_fatal(tr->kind->data_failed(tr));
}

/* malloc() itself: nothing that a program makes, and nothing to fill or to account for. */
static void
loop_keep_room(Loop *loop)
{
#ifdef __GLIBC__
    void *pieces[ROOM_BYTES / ROOM_PIECE];
    size_t count = 0;
    while (count < ROOM_BYTES / ROOM_PIECE && (pieces[count] = malloc(ROOM_PIECE)) != NULL) {
        count++;
    }
    net_loop(loop)->behind_room = malloc(ROOM_PIECE);
    while (count > 0) {
        free(pieces[--count]);
    }
#else
    (void)loop;
#endif
}

/* The first of many large packets, maybe. */
static void
stream_expect_large(Transport *tr, size_t n)
{
    if ((tr->head.proto.kind == PROTO_DATA || tr->head.proto.kind == PROTO_READER) && SHORT_WAY(packets)) {
        tr->head.proto.expected = packet_room(n);
    }
    Loop *loop = tr->head.loop;
    if (loop != NULL && net_loop(loop)->behind_room == NULL) {
        loop_keep_room(loop);
    }
}

/* Into the buffer of a reader that waits for a large message. False: it does not. */
static __attribute__((noinline)) bool
stream_read_message(Transport *tr, enum read_outcome *outcome)
{
    size_t n = 0;
    enum io_status status = IO_OK;
    bool complete = false;
    int result = reader_receive(tr->head.state, &tr->head.proto, &tr->io, STREAM_READ_BYTES, &status, &n,
                                &complete);
    if (LIKELY(status == IO_OK) && tr->head.loop != NULL) {
        COUNT(tr->head.loop->counters->bytes_in, n);
    }
    if (result < 0) {
        *outcome = outcome_of_fatal(tr->kind->data_failed(tr));
    }
    else if (status != IO_OK) {
        *outcome = stream_read_stopped(tr, status);
    }
    else {
        *outcome = READ_DONE;
    }
    return result != 0;
}

/* What a program has put into the attribute, at most `most`. */
static size_t
transport_max_size(Transport *tr, size_t most)
{
    size_t size = most;
    PyObject *value = PyObject_GetAttrString((PyObject *)tr, "max_size");
    if (value == NULL || args_size(value, &size) < 0 || size == 0) {
        PyErr_Clear();
        size = most;
    }
    Py_XDECREF(value);
    return size < most ? size : most;
}

/* Into the loop's memory, and from there to the protocol. */
static inline enum read_outcome
stream_read_into(Transport *tr, char *buffer)
{
    size_t n = 0;
    size_t most = LIKELY(tr->head.dict == NULL) ? STREAM_READ_BYTES : transport_max_size(tr, STREAM_READ_BYTES);
    enum io_status status = transport_read(tr, buffer, most, &n);
    if (UNLIKELY(status != IO_OK)) {
        return stream_read_stopped(tr, status);
    }
    if (UNLIKELY(n >= LARGE_BYTES) && LIKELY(tr->head.dict == NULL)) {
        stream_expect_large(tr, n);
    }
    if (UNLIKELY(stream_feed(&tr->head.proto, tr->head.state, buffer, n) < 0)) {
        return outcome_of_fatal(tr->kind->data_failed(tr));
    }
    return READ_DONE;
}

static enum read_outcome
stream_read_data(Transport *tr, Loop *loop)
{
    if (UNLIKELY(tr->head.proto.expected != 0) && !io_is_by_method(tr)) {
        enum read_outcome outcome = READ_AGAIN;
        if (tr->head.proto.kind == PROTO_DATA) {
            outcome = stream_read_large(tr, loop);
        }
        else if (tr->head.proto.kind == PROTO_READER && !stream_read_message(tr, &outcome)) {
            outcome = READ_AGAIN;
        }
        if (LIKELY(outcome != READ_AGAIN)) {
            return outcome;
        }
    }
    char *buffer = scratch_take(&loop->scratch);
    if (UNLIKELY(buffer == NULL)) {
        return outcome_of_fatal(transport_fatal(tr, READ_FAILED(tr)));
    }
    enum read_outcome outcome = stream_read_into(tr, buffer);
    scratch_give(&loop->scratch, buffer);
    return outcome;
}

/* -- BufferedProtocol ---------------------------------------------------------------- */

/* What get_buffer() returned: its memory in *view. -1 with an exception, whose story is
 * in *message. */
static int
buffer_view(PyObject *buffer, Py_buffer *view, const char **message)
{
    Py_ssize_t length = PyObject_Size(buffer);
    if (length == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    }
    if (length <= 0) {
        *message = "Fatal error: protocol.get_buffer() call failed.";
        return -1;
    }
    *message = "Fatal read error on socket transport";
    if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0) {
        args_not_writable("recv_into() argument 1", buffer);
        return -1;
    }
    if (view->len == 0) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        return -1;
    }
    return 0;
}

static enum read_outcome
stream_read_buffered(Transport *tr)
{
    size_t n = 0;
    const char *message = "Fatal error: protocol.get_buffer() call failed.";
    PyObject *buffer = NULL;
    Py_buffer view;
    enum read_outcome outcome = READ_DONE;
    if (proto_get_buffer(&tr->head.proto, tr->head.state, -1, &buffer) < 0
        || buffer_view(buffer, &view, &message) < 0) {
        outcome = outcome_of_fatal(transport_fatal(tr, message));
        goto done;
    }
    /* Also where get_buffer() has closed, paused or replaced: asyncio goes on, and tells whoever is
     * the protocol now. */
    enum io_status status;
    if (io_is_by_method(tr)) {
        PyBuffer_Release(&view);
        status = io_recv_into(tr, buffer, &n);
        if (status == IO_OK && tr->head.loop != NULL) {
            COUNT(tr->head.loop->counters->bytes_in, n);
        }
    }
    else {
        status = transport_read(tr, view.buf, (size_t)view.len, &n);
        PyBuffer_Release(&view);
    }
    if (UNLIKELY(status != IO_OK)) {
        outcome = stream_read_stopped(tr, status);
        goto done;
    }
    if (UNLIKELY(proto_buffer_updated(&tr->head.proto, tr->head.state, n) < 0)) {
        outcome = outcome_of_fatal(
            transport_fatal(tr, "Fatal error: protocol.buffer_updated() call failed."));
    }
done:
    Py_XDECREF(buffer);
    return outcome;
}

/* -- the event -------------------------------------------------------------------------- */

/* asyncio's TLS is a BufferedProtocol. That shows where somebody has put methods of his own on it, or
 * where the socket's are somebody's. */
static void
stream_look_at_tls(Transport *tr)
{
    PyObject *tls = tr->head.proto.protocol;
    PyObject **dict = (PyObject **)(void *)((char *)tls + Py_TYPE(tls)->tp_dictoffset);
    if (*dict != NULL || io_is_by_method(tr)) {
        tr->head.proto.kind = PROTO_BUFFERED;
    }
}

static enum read_outcome
stream_read(Transport *tr, Loop *loop, int revents)
{
    io_choose(tr);
    if (UNLIKELY(!transport_wants_data(tr)) && !transport_reads_by_hand(tr, revents)) {
        return READ_DONE;
    }
    if (tr->head.proto.kind == PROTO_TLS) {
        stream_look_at_tls(tr);
    }
    return tr->head.proto.kind == PROTO_BUFFERED ? stream_read_buffered(tr) : stream_read_data(tr, loop);
}

void
stream_on_readable(struct watch *watch, int revents)
{
    Transport *tr = container_of(watch, Transport, read_watch);
    Loop *loop = watch_loop(watch);
    VERIFY(Py_REFCNT(tr) > 0);    /* held by who tells of the event, whatever the protocol drops */
    enum read_outcome outcome = UNLIKELY(revents & EV_ERROR)
                                    ? outcome_of_fatal(transport_descriptor_gone(tr))
                                    : stream_read(tr, loop, revents);
    if (UNLIKELY(outcome == READ_LEAVE)) {
        transport_step_failed(tr, loop, "_read_ready", revents);
    }
}
