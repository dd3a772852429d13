/* stream_writelines.c - several pieces as one, in as few calls of the kernel as possible. */
#include "net/stream_write_inside.h"

/* Does asyncio's writelines() join the pieces, and give them to write()? */
#if PY_VERSION_HEX >= 0x030C0000
#define JOINS(tr) (!(tr)->kind->is_socket)
#else
#define JOINS(tr) (true)
#endif

/* -- the parts --------------------------------------------------------------------------- */

/* One part of a writelines(): exact bytes, or a view of something else. */
struct part {
    PyObject *bytes;    /* strong, or NULL: then view is held */
    Py_buffer view;
};

struct parts {
    struct part *items;
    struct iovec *iov;
    size_t count;
    size_t bytes;
};

static void
parts_free(struct parts *parts)
{
    for (size_t i = 0; i < parts->count; i++) {
        if (parts->items[i].bytes != NULL) {
            Py_DECREF(parts->items[i].bytes);
        }
        else {
            PyBuffer_Release(&parts->items[i].view);
        }
    }
    PyMem_Free(parts->items);
    PyMem_Free(parts->iov);
}

/* The buffer of something else than bytes. Where it is not contiguous, a join() has a TypeError;
 * otherwise asyncio's memoryview() takes it, and sendmsg() fails: then 1, with that exception. */
static int
part_view(PyObject *data, Py_ssize_t index, bool joins, Py_buffer *view)
{
    if (LIKELY(PyObject_GetBuffer(data, view, PyBUF_SIMPLE) == 0)) {
        return 0;
    }
    if (joins) {
        PyErr_Format(PyExc_TypeError, "sequence item %zd: expected a bytes-like object, %.80s found", index,
                     Py_TYPE(data)->tp_name);
        return -1;
    }
    if (!PyObject_CheckBuffer(data)) {
        PyErr_Format(PyExc_TypeError, "memoryview: a bytes-like object is required, not '%.200s'",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (PyObject_GetBuffer(data, view, PyBUF_FULL_RO) < 0) {
        Py_DECREF(exc);
        return -1;
    }
    PyBuffer_Release(view);
    PyErr_SetRaisedException(exc);
    return 1;
}

/* 0, -1 with an exception for the caller of writelines(), 1 with one that ends the connection. */
static int
parts_add(struct parts *parts, PyObject *data, Py_ssize_t index, bool joins)
{
    struct part *part = &parts->items[parts->count];
    struct iovec *iov = &parts->iov[parts->count];
    if (LIKELY(PyBytes_CheckExact(data))) {
        if (PyBytes_GET_SIZE(data) == 0) {
            return 0;    /* could never be sent, so it would never leave the queue */
        }
        part->bytes = Py_NewRef(data);
        iov->iov_base = PyBytes_AS_STRING(data);
        iov->iov_len = (size_t)PyBytes_GET_SIZE(data);
    }
    else {
#if PY_VERSION_HEX >= 0x030E0000
        int truth = joins ? 1 : PyObject_IsTrue(data);    /* asyncio takes None and the like for nothing */
        if (truth <= 0) {
            return truth;
        }
#endif
        int result = part_view(data, index, joins, &part->view);
        if (result != 0) {
            return result;
        }
        if (part->view.len == 0) {
            PyBuffer_Release(&part->view);
            return 0;
        }
        part->bytes = NULL;
        iov->iov_base = part->view.buf;
        iov->iov_len = (size_t)part->view.len;
    }
    parts->bytes += iov->iov_len;
    parts->count++;
    return 0;
}

/* Takes every part of a list before anything is sent: all or nothing. */
static int
parts_take(struct parts *parts, PyObject *list, bool joins)
{
    PyObject *fast = joins ? PySequence_Fast(list, "can only join an iterable") : Py_NewRef(list);
    PyObject *sequence = fast == NULL ? NULL : PySequence_Tuple(fast);
    Py_XDECREF(fast);
    if (sequence == NULL) {
        return -1;
    }
    Py_ssize_t length = PyTuple_GET_SIZE(sequence);
    parts->items = PyMem_New(struct part, length > 0 ? (size_t)length : 1);
    parts->iov = PyMem_New(struct iovec, length > 0 ? (size_t)length : 1);
    int result = 0;
    if (parts->items == NULL || parts->iov == NULL) {
        PyErr_NoMemory();
        result = -1;
    }
    for (Py_ssize_t i = 0; i < length && result == 0; i++) {
        result = parts_add(parts, PyTuple_GET_ITEM(sequence, i), i, joins);
    }
    Py_DECREF(sequence);
    return result;
}

/* Queues what follows the first `sent` bytes. */
static int
parts_queue(const struct parts *parts, struct wqueue *queue, size_t sent)
{
    for (size_t i = 0; i < parts->count; i++) {
        size_t length = parts->iov[i].iov_len;
        if (sent >= length) {
            sent -= length;
            continue;
        }
        PyObject *bytes = parts->items[i].bytes;
        int result = bytes != NULL
                         ? wqueue_push(queue, bytes, sent)
                         : wqueue_push_copy(queue, (char *)parts->iov[i].iov_base + sent,
                                            length - sent);
        if (result < 0) {
            return -1;
        }
        sent = 0;
    }
    return 0;
}

/* Sends as much as the kernel takes. 0 with *sent, 1 when the transport
 * has ended, -1. */
static int
parts_send(Stream *stream, const struct parts *parts, size_t *sent)
{
    size_t first = 0, budget = SIZE_MAX;
    bool more = stream_holds(stream, parts->bytes);
    while (first < parts->count) {
        size_t left = parts->count - first, n = 0;
        int count = left < IO_IOV_MAX ? (int)left : IO_IOV_MAX;
        enum io_status status = stream_audit(stream);
        if (UNLIKELY(!wqueue_is_empty(&stream->output)) && status == IO_OK) {
            status = IO_WANT_WRITE;    /* a hook, or a send() of the user's, has written: behind that */
        }
        if (LIKELY(status == IO_OK)) {
            status = stream_send(stream, &parts->iov[first], count, more, &budget, &n);
        }
        *sent += n;
        if (status != IO_OK) {
            return stream_wait_writable(stream, status);
        }
        first += (size_t)count;
    }
    return 0;
}

/* As stream_take_memory(), and 2 if there was output before. */
static int
stream_write_parts(Stream *stream, const struct parts *parts)
{
    size_t sent = 0;
    bool first = wqueue_is_empty(&stream->output);
    if (first) {
        int result = parts_send(stream, parts, &sent);
        if (result != 0) {
            return result < 0 ? -1 : 0;
        }
        if (sent == parts->bytes) {
            return 0;
        }
    }
    if (parts_queue(parts, &stream->output, sent) < 0) {
        return stream_write_failed(stream, 0);
    }
    return first ? 1 : 2;
}

/* Where asyncio joins the parts and calls write(), that shows in what a send(), os.write() or write() of
 * the user's gets. */
static bool
stream_joins(Transport *tr)
{
    io_choose(tr);
#if PY_VERSION_HEX >= 0x030C0000
    return !tr->kind->is_socket && (tr->io.ops == &io_os_functions || tr->head.dict != NULL);
#else
    return io_calls_python(tr)
           || (tr->kind->is_socket ? !transport_is_plain_stream(tr->head.state, (PyObject *)tr)
                                   : tr->head.dict != NULL);
#endif
}

static int
stream_write_joined(Stream *stream, PyObject *list)
{
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *joined = empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "(O)", list);
    PyObject *op = Py_NewRef((PyObject *)stream);
    PyObject *value = joined == NULL ? NULL
                                     : PyObject_CallMethodOneArg(op, stream->base.head.state->names.write, joined);
    Py_DECREF(op);
    Py_XDECREF(empty);
    Py_XDECREF(joined);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

int
stream_writelines(Stream *stream, PyObject *list)
{
    bool joins = JOINS(&stream->base);
    if (!joins) {
        if (stream_check_open(stream, "Cannot call writelines() after write_eof()",
                              "unable to writelines; sendfile is in progress")
            < 0) {
            return -1;
        }
        int has_parts = PyObject_IsTrue(list);    /* asyncio takes None for nothing, too */
        if (has_parts <= 0) {
            return has_parts;
        }
        if (stream_drops(&stream->base)) {
            return stream->base.kind->drop_write(&stream->base);    /* whatever it is */
        }
    }
    if (UNLIKELY(stream_joins(&stream->base))) {
        return stream_write_joined(stream, list);
    }
    struct parts parts = {0};
    int result = parts_take(&parts, list, joins);
    if (UNLIKELY(result > 0)) {
        parts_free(&parts);
        return stream_write_failed(stream, 0);
    }
    if (result == 0 && joins) {
        result = stream_check_open(stream, "Cannot call write() after write_eof()",
                                   "unable to write; sendfile is in progress");
    }
    if (result == 0 && parts.count > 0 && !stream->eof) {
        if (stream_drops(&stream->base)) {
            result = stream->base.kind->drop_write(&stream->base);
        }
        else {
            result = stream_write_parts(stream, &parts);
        }
    }
    parts_free(&parts);
    /* asyncio's own tries the kernel also where output waits, as if it were writable */
    if (result == 2 && !joins) {
        int flushed = stream_flush(stream);
        if (flushed < 0 || wqueue_is_empty(&stream->output)) {
            return flushed;
        }
    }
    return result > 0 ? stream_rest_queued(stream) : result;
}
