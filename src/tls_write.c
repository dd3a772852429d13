/* tls_write.c - from write() to the transport below.
 *
 * What is written is queued; at the end of the loop's iteration, or of the event in which
 * it was written, the queue is encrypted into as few records as possible and goes to the
 * transport below in one call. More than FLUSH_BYTES go at once: nothing is gained by
 * waiting. While the transport below has enough, nothing is encrypted; what it takes at once goes
 * out in turns of TLS_TURN_BYTES, between which the loop serves the others. */
#include "tls.h"

#include <string.h>

#include "scratch.h"

#define FLUSH_BYTES (4 * TLS_RECORD_BYTES)
/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define DROPPED_WRITES_BEFORE_WARNING 5
#define GATHER_PIECES 64

/* -- to the transport below ------------------------------------------------------------ */

/* By its method write(). */
static int
lower_write(Tls *tls, struct tls_output *output)
{
    PyObject *bytes = output->bytes != NULL
                          ? Py_NewRef(output->bytes)
                          : PyBytes_FromStringAndSize(output->data, (Py_ssize_t)output->n);
    PyObject *lower = Py_NewRef(tls->lower);
    PyObject *result = bytes == NULL ? NULL
                                     : PyObject_CallMethodOneArg(lower, tls->state->names.write,
                                                                 bytes);
    Py_DECREF(lower);
    Py_XDECREF(bytes);
    if (result == NULL) {
        return tls_fatal(tls, "Fatal error on SSL protocol");
    }
    Py_DECREF(result);
    return 0;
}

int
tls_send_output(Tls *tls)
{
    struct tls_output output;
    if (UNLIKELY(tls->engine.ops->take(&tls->engine, &output) < 0)) {
        return tls_fatal(tls, "Fatal error on SSL protocol");
    }
    int result = 0;
    if (output.n > 0 && tls->lower != NULL) {
        if (UNLIKELY(tls->stream == NULL)) {
            result = lower_write(tls, &output);
        }
        else if (LIKELY(tls->stream->base.conn_lost == 0 && !tls->stream->eof)) {
            result = output.bytes != NULL
                         ? stream_write_bytes(tls->stream, output.bytes)
                         : stream_write_memory(tls->stream, output.data, output.n);
        }
    }
    Py_XDECREF(output.bytes);
    free(output.memory);
    return result;
}

/* -- encrypting -------------------------------------------------------------------------- */

/* Is it the time to encrypt? */
static inline bool
tls_may_encrypt(const Tls *tls)
{
    return (tls->tls_state == TLS_WRAPPED || tls->tls_state == TLS_FLUSHING)
           && !tls->writing_paused && tls->lower != NULL;
}

/* Encrypts what lies at `data`; stops when the transport below has enough. `bytes` as in
 * the engine's write(). 0 with *done, or -1 with an exit exception; what a failing engine
 * leaves is a transport in another state. */
static int
tls_encrypt(Tls *tls, PyObject *bytes, const char *data, size_t length, size_t *done)
{
    const struct tls_engine_ops *ops = tls->engine.ops;
    *done = 0;
    while (*done < length && tls_may_encrypt(tls)) {
        size_t n = 0;
        enum tls_status status = ops->write(&tls->engine, *done == 0 ? bytes : NULL, data + *done,
                                            length - *done, &n);
        if (UNLIKELY(status == TLS_FAILED)) {
            return tls_fatal(tls, "Fatal error on SSL protocol");
        }
        if (UNLIKELY(status != TLS_OK)) {
            break;    /* the peer negotiates anew: again after its next bytes */
        }
        *done += n;
    }
    return 0;
}

/* The first pieces of the queue as one record's plaintext. */
static size_t
gather(const struct iovec *iov, int count, char *memory)
{
    size_t total = 0;
    for (int i = 0; i < count && total < TLS_RECORD_BYTES; i++) {
        size_t n = iov[i].iov_len;
        if (n > TLS_RECORD_BYTES - total) {
            n = TLS_RECORD_BYTES - total;
        }
        memcpy(memory + total, iov[i].iov_base, n);
        total += n;
    }
    return total;
}

/* Native callback: this connection's next turn. */
static int
tls_run_flush(PyObject *owner, PyObject *arg UNUSED)
{
    Tls *tls = tls_cast(owner);
    tls->flush_waits = false;
    return wqueue_is_empty(&tls->output) ? 0 : tls_flush(tls);
}

/* The turn is over: the rest of the queue has to wait for the next one. 0, or -1 with an exit
 * exception. */
static int
tls_flush_later(Tls *tls)
{
    if (loop_call_soon_native(tls->loop, tls_run_flush, (PyObject *)tls, NULL) < 0) {
        return tls_fatal(tls, "Fatal error on SSL protocol");
    }
    tls->flush_waits = true;
    return 0;
}

static int
tls_encrypt_queue(Tls *tls)
{
    struct wqueue *output = &tls->output;
    size_t budget = TLS_TURN_BYTES;
    while (!wqueue_is_empty(output) && tls_may_encrypt(tls)) {
        if (UNLIKELY(budget == 0)) {
            return tls_flush_later(tls);
        }
        struct iovec iov[GATHER_PIECES];
        int count = wqueue_iov(output, iov, GATHER_PIECES);
        size_t done, length = iov[0].iov_len;
        int result;
        if (count == 1 || length >= TLS_RECORD_BYTES) {
            PyObject *first = Py_NewRef(wqueue_first(output));
            bool whole = output->offset == 0 && length <= budget;
            length = length < budget ? length : budget;
            result = tls_encrypt(tls, whole ? first : NULL, iov[0].iov_base, length, &done);
            Py_DECREF(first);
        }
        else {
            char *plain = scratch_take(tls->loop);
            if (plain == NULL) {
                return tls_fatal(tls, "Fatal error on SSL protocol");
            }
            length = gather(iov, count, plain);
            result = tls_encrypt(tls, NULL, plain, length, &done);
            scratch_give(tls->loop, plain);
        }
        if (result < 0) {
            return -1;
        }
        if (wqueue_is_empty(output)) {
            break;    /* the connection was lost meanwhile */
        }
        wqueue_consume(output, done);
        budget -= done < budget ? done : budget;
        if (done < length) {
            break;
        }
    }
    return 0;
}

int
tls_flush(Tls *tls)
{
    list_remove(&tls->flush.node);
    if (tls->flushing) {
        return 0;    /* whoever does it looks at the queue again */
    }
    if (UNLIKELY(tls->flush_waits)) {
        return tls_control_writing(tls);
    }
    Py_INCREF(tls);
    tls->flushing = true;
    int result = tls_encrypt_queue(tls);
    tls->flushing = false;
    if (result == 0 && tls->tls_state == TLS_FLUSHING && wqueue_is_empty(&tls->output)) {
        result = tls_advance_shutdown(tls);    /* close_notify goes out with the last data */
    }
    if (result == 0) {
        result = tls_send_output(tls);
    }
    if (result == 0 && tls->tls_state == TLS_FLUSHING) {
        tls_update_lower(tls);
    }
    if (result == 0) {
        result = tls_control_writing(tls);
    }
    Py_DECREF(tls);
    return result;
}

void
tls_flush_node(struct flush_node *node)
{
    Tls *tls = container_of(node, Tls, flush);
    Loop *loop = (Loop *)Py_NewRef(tls->loop);
    if (tls_flush(tls) < 0) {
        loop_propagate(loop);
    }
    Py_DECREF(loop);
}

/* -- flow control --------------------------------------------------------------------------- */

size_t
tls_queued(Tls *tls)
{
    return tls->output.bytes;
}

int
tls_control_writing(Tls *tls)
{
    size_t size = tls->output.bytes;
    if (size >= tls->high_water && size > 0 && !tls->protocol_paused) {
        tls->protocol_paused = true;
        PyObject *result = proto_call(&tls->proto, tls->state->names.pause_writing, NULL);
        if (result == NULL) {
            return tls_callback_failed(tls, "protocol.pause_writing() failed");
        }
        Py_DECREF(result);
    }
    else if (size <= tls->low_water && tls->protocol_paused) {
        tls->protocol_paused = false;
        PyObject *result = proto_call(&tls->proto, tls->state->names.resume_writing, NULL);
        if (result == NULL) {
            return tls_callback_failed(tls, "protocol.resume_writing() failed");
        }
        Py_DECREF(result);
    }
    return 0;
}

/* -- write() ----------------------------------------------------------------------------------- */

/* Something was queued: now, or at the end of the iteration. */
static int
tls_schedule_flush(Tls *tls)
{
    if (tls->tls_state != TLS_WRAPPED) {
        return tls_control_writing(tls);    /* it goes out after the handshake */
    }
    if (tls->output.bytes >= FLUSH_BYTES || tls->output.bytes >= tls->high_water) {
        if (tls->writing_paused || tls->flush_waits) {
            return tls_control_writing(tls);
        }
        return tls_flush(tls);
    }
    if (!tls->feeding && !tls->flush_waits && list_empty(&tls->flush.node)) {
        list_append(&tls->loop->flush, &tls->flush.node);
    }
    return 0;
}

static void
tls_drop_write(Tls *tls)
{
    if (tls->conn_lost >= DROPPED_WRITES_BEFORE_WARNING) {
        PyObject *result = PyObject_CallMethod(tls->state->asyncio_logger, "warning", "s",
                                               "SSL connection is closed");
        if (result == NULL) {
            PyErr_WriteUnraisable((PyObject *)tls);
        }
        Py_XDECREF(result);
    }
    if (tls->conn_lost < UINT_MAX) {
        tls->conn_lost++;
    }
}

/* Before the connection is made a write waits for it; after the end it is dropped. */
static inline bool
tls_takes_writes(const Tls *tls)
{
    return tls->tls_state == TLS_WRAPPED || tls->tls_state == TLS_HANDSHAKE
           || (tls->tls_state == TLS_UNWRAPPED && !tls->closed && tls->lower == NULL);
}

/* Queues memory that is not ours to keep. A large piece is encrypted where it lies, as
 * far as the transport below takes it, and at most as much as a stream sends at once. */
static int
tls_queue_memory(Tls *tls, const char *data, size_t length)
{
    size_t done = 0;
    if (length >= TLS_RECORD_BYTES && tls->tls_state == TLS_WRAPPED && !tls->flushing
        && !tls->flush_waits) {
        if (!wqueue_is_empty(&tls->output) && tls_flush(tls) < 0) {
            return -1;
        }
        if (wqueue_is_empty(&tls->output) && !tls->flushing) {
            size_t most = length < WRITE_BUDGET_BYTES ? length : WRITE_BUDGET_BYTES;
            tls->flushing = true;
            int result = tls_encrypt(tls, NULL, data, most, &done);
            tls->flushing = false;
            if (result < 0 || tls_send_output(tls) < 0
                || (done == most && most < length && tls_may_encrypt(tls)
                    && tls_flush_later(tls) < 0)) {
                return -1;
            }
        }
    }
    if (done == length || !tls_takes_writes(tls)) {
        return 0;
    }
    int result = wqueue_push_copy(&tls->output, data + done, length - done);
    /* A part of it has gone: the connection cannot go on without the rest. */
    return result < 0 && done > 0 ? tls_fatal(tls, "Fatal error on SSL protocol") : result;
}

static int
tls_queue(Tls *tls, PyObject *data)
{
    if (LIKELY(PyBytes_CheckExact(data))) {
        return PyBytes_GET_SIZE(data) == 0 ? 0 : wqueue_push(&tls->output, data, 0);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    int result = 0;
    if (view.len > 0 && tls_takes_writes(tls)) {
        result = tls_queue_memory(tls, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    return result;
}

int
tls_write(Tls *tls, PyObject *data)
{
    if (UNLIKELY(!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))) {
        PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %.200s",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
    if (UNLIKELY(!PyBytes_CheckExact(data))) {
        int has_data = PyObject_IsTrue(data);
        if (has_data <= 0) {
            return has_data;
        }
    }
    else if (UNLIKELY(PyBytes_GET_SIZE(data) == 0)) {
        return 0;
    }
    if (UNLIKELY(!tls_takes_writes(tls))) {
        tls_drop_write(tls);
        return 0;
    }
    return tls_queue(tls, data) < 0 ? -1 : tls_schedule_flush(tls);
}

int
tls_writelines(Tls *tls, PyObject *list)
{
    PyObject *parts = PySequence_Tuple(list);
    if (parts == NULL) {
        return -1;
    }
    int result = 0;
    Py_ssize_t count = PyTuple_GET_SIZE(parts);
    for (Py_ssize_t i = 0; i < count && result == 0; i++) {
        PyObject *part = PyTuple_GET_ITEM(parts, i);
        if (!PyObject_CheckBuffer(part)) {
            PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %.200s",
                         Py_TYPE(part)->tp_name);
            result = -1;
        }
    }
    if (result == 0 && !tls_takes_writes(tls)) {
        tls_drop_write(tls);
        count = 0;
    }
    for (Py_ssize_t i = 0; i < count && result == 0 && tls_takes_writes(tls); i++) {
        result = tls_queue(tls, PyTuple_GET_ITEM(parts, i));
        if (UNLIKELY(result < 0) && i > 0 && PyErr_ExceptionMatches(PyExc_MemoryError)) {
            result = tls_fatal(tls, "Fatal error on SSL protocol");    /* as above */
            break;
        }
    }
    Py_DECREF(parts);
    return result < 0 || count == 0 ? result : tls_schedule_flush(tls);
}
