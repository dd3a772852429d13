/* tls_write.c - from write() to the transport below.
 *
 * write() encrypts and gives the output to the transport below before it returns, as asyncio does;
 * several pieces of one call are one write there. While the transport below has enough, the output
 * stays in the engine. Plaintext is queued only before the handshake has ended, while the peer
 * negotiates anew, and when a call comes in the middle of another one.
 *
 * Small pieces of one writelines() share records, where nobody can tell: the length of the output shows
 * in get_write_buffer_size() while it waits, and in what a transport in Python gets. */
#include "tls/tls.h"

#include "base/tuning.h"
#include "loop/scratch.h"
#include "net/io_methods.h"
#include "tls/tls_object.h"

#include <string.h>

/* Pieces of the queue that may go into one record (benchmark row: TLS writelines, 16 pieces of 64 bytes, where it
 * saves a third). */
#define GATHER_PIECES TUNED(GATHER_PIECES, 64)

/* -- to the transport below ------------------------------------------------------------ */

static void
output_clear(struct tls_output *output)
{
    Py_CLEAR(output->bytes);
    if (UNLIKELY(output->memory != NULL)) {
        free(output->memory);
        output->memory = NULL;
    }
}

/* By its method write(). The engine's memory is free again before that is called. */
static int
lower_write(Tls *tls, struct tls_output *output)
{
    PyObject *bytes = output->bytes != NULL
                          ? Py_NewRef(output->bytes)
                          : PyBytes_FromStringAndSize(output->data, (Py_ssize_t)output->n);
    output_clear(output);
    if (bytes == NULL) {
        return -1;
    }
    int result = tls_call_lower(tls, tls->head.state->names.write, bytes);
    Py_DECREF(bytes);
    return result;
}

/* May the output go to the stream below without its method write()? That has to be the stream's own,
 * and to have nothing to refuse. */
static inline bool
stream_takes_output(const Tls *tls)
{
    Stream *stream = tls->stream;
    if (UNLIKELY(stream == NULL || !transport_is_plain_stream(tls->head.state, (PyObject *)stream))) {
        return false;
    }
    io_choose(&stream->base);
    return LIKELY(stream->base.head.conn_lost == 0) && !stream->eof && stream->empty_waiter == NULL
           && !io_is_by_method(&stream->base);    /* which shows how it is called */
}

int
tls_send(Tls *tls)
{
    struct tls_output output;
    if (UNLIKELY(tls->engine.ops->take(&tls->engine, &output) < 0)) {
        return -1;
    }
    int result = 0;
    if (output.n > 0 && tls->lower != NULL) {
        if (UNLIKELY(!stream_takes_output(tls))) {
            result = lower_write(tls, &output);
        }
        else {
            result = output.bytes != NULL
                         ? stream_write_bytes(tls->stream, output.bytes)
                         : stream_write_memory(tls->stream, output.data, output.n);
        }
    }
    output_clear(&output);
    return result;
}

static int control_writing_sent(Tls *tls);

int
tls_process_outgoing(Tls *tls)
{
    if (UNLIKELY(tls->writing_paused)) {
        return tls_control_writing(tls);
    }
    return UNLIKELY(tls_send(tls) < 0) ? -1 : control_writing_sent(tls);
}

/* -- encrypting -------------------------------------------------------------------------- */

/* One call of ours that encrypts: its output lies in `block`, unless the transport below has enough. */
struct encryption {
    char *block;      /* scratch memory, or NULL: then the engine has memory of its own */
    bool sends;
    bool any;         /* something was encrypted since output has left: there may be enough for that */
};

static void
encryption_begin(Tls *tls, struct encryption *run)
{
    tls->encrypting = true;
    run->sends = !tls->writing_paused;
    run->block = NULL;
    run->any = false;
    if (LIKELY(run->sends)) {
        run->block = scratch_take(&tls->head.loop->scratch);
        if (UNLIKELY(run->block == NULL)) {
            PyErr_Clear();
        }
    }
}

/* Encrypts what lies at `data`. `object` as in the engine's write(). TLS_OK, TLS_WANT: the peer
 * negotiates anew, the rest comes after its next bytes; TLS_FAILED with an exception. */
static enum tls_status
encrypt_part(Tls *tls, struct encryption *run, PyObject *object, const char *data, size_t length,
             size_t *done)
{
    struct tls_engine *engine = &tls->engine;
    *done = 0;
    while (*done < length) {
        if (LIKELY(run->block != NULL)) {
            engine->ops->lend(engine, run->block, TLS_OUT_BYTES);
        }
        /* To ask the portable engine costs a look-up (guarded path: tls-portable). */
        if (run->any && run->block != NULL && engine->ops->is_full(engine) && stream_takes_output(tls)) {
            run->any = false;
            if (UNLIKELY(tls_send(tls) < 0)) {
                return TLS_FAILED;
            }
            continue;
        }
        size_t n = 0;
        enum tls_status status = engine->ops->write(engine, *done == 0 ? object : NULL,
                                                    data + *done, length - *done, &n);
        if (UNLIKELY(status != TLS_OK)) {
            return status;
        }
        *done += n;
        run->any = true;
    }
    return TLS_OK;
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

/* The first piece of the queue, or several in one record. */
static enum tls_status
encrypt_first(Tls *tls, struct encryption *run)
{
    struct wqueue *output = &tls->output;
    struct iovec iov[GATHER_PIECES];
    int count = wqueue_iov(output, iov, GATHER_PIECES);
    size_t done;
    enum tls_status status;
    char *plain = NULL;
    PyObject *first = Py_NewRef(wqueue_first(output));
    if (count > 1 && iov[0].iov_len < TLS_RECORD_BYTES && run->sends && stream_takes_output(tls)
        && !tls_is_foreign(&tls->engine)) {
        plain = scratch_take(&tls->head.loop->scratch);
        if (UNLIKELY(plain == NULL)) {
            PyErr_Clear();
        }
    }
    if (plain != NULL) {
        status = encrypt_part(tls, run, NULL, plain, gather(iov, count, plain), &done);
        scratch_give(&tls->head.loop->scratch, plain);
    }
    else {
        status = encrypt_part(tls, run, output->offset == 0 ? first : NULL, iov[0].iov_base,
                              iov[0].iov_len, &done);
    }
    /* The connection may be lost by now, or this a child of fork() that has written itself: then it
     * is another queue. */
    if (!wqueue_is_empty(output) && wqueue_first(output) == first && done <= output->bytes) {
        wqueue_consume(output, done);
    }
    Py_DECREF(first);
    return status;
}

static enum tls_status
encrypt_queue(Tls *tls, struct encryption *run)
{
    enum tls_status status = TLS_OK;
    while (status == TLS_OK && !wqueue_is_empty(&tls->output)) {
        status = encrypt_first(tls, run);
    }
    if (UNLIKELY(tls->bad_part != NULL) && status == TLS_OK) {
        PyErr_SetRaisedException(Py_NewRef(tls->bad_part));
        status = TLS_FAILED;
    }
    return status;
}

/* Everything is encrypted, or waits: the output leaves, and then, with nothing left to do, the protocol may
 * be called. What has failed ends the connection, and sends nothing, as with asyncio. */
static int
encryption_end(Tls *tls, struct encryption *run, enum tls_status status)
{
    tls->encrypting = false;
    int result = 0;
    if (UNLIKELY(status == TLS_FAILED)) {
        PyObject *exc = PyErr_GetRaisedException();
        if (tls->engine.ops->settle(&tls->engine) < 0) {    /* `block` is another's from now on */
            PyErr_Clear();
        }
        PyErr_SetRaisedException(exc);
        result = -1;
    }
    else if (LIKELY(run->sends)) {
        result = tls_send(tls);
    }
    if (run->block != NULL) {
        scratch_give(&tls->head.loop->scratch, run->block);
    }
    if (UNLIKELY(result < 0)) {
        return -1;
    }
    return LIKELY(run->sends) ? control_writing_sent(tls) : tls_control_writing(tls);
}

int
tls_do_write(Tls *tls)
{
    if (tls->encrypting) {
        return 0;    /* whoever does it looks at the queue again */
    }
    struct encryption run;
    encryption_begin(tls, &run);
    return encryption_end(tls, &run, encrypt_queue(tls, &run));
}

/* -- flow control --------------------------------------------------------------------------- */

size_t
tls_queued(const Tls *tls)
{
    return tls->engine.ops->pending(&tls->engine) + tls->output.bytes + tls->never_written;
}

/* A child of fork() has to find what waits: `size` bytes. */
static inline void
tls_note_pending(Tls *tls, size_t size)
{
    if (LIKELY((size > 0) != list_empty(&tls->pending))) {
        return;
    }
    list_remove(&tls->pending);
    if (size > 0) {
        list_append(&tls_loop(tls->head.loop)->pending, &tls->pending);
    }
}

/* With `size` bytes that wait. */
static int
control_writing(Tls *tls, size_t size)
{
    if (LIKELY(!tls->lost)) {
        tls_note_pending(tls, size);
    }
    if (UNLIKELY(size >= tls->head.limits.high && !FLAG(tls->head.protocol_paused))) {
        return channel_pause_writing(&tls->head);
    }
    if (UNLIKELY(FLAG(tls->head.protocol_paused)) && size <= tls->head.limits.low) {
        return channel_resume_writing(&tls->head);
    }
    return 0;
}

int
tls_control_writing(Tls *tls)
{
    return control_writing(tls, tls_queued(tls));
}

/* The same after tls_send(): the engine has nothing left, unless the transport below has enough now. */
static int
control_writing_sent(Tls *tls)
{
    return control_writing(tls, LIKELY(!tls->writing_paused) ? tls->output.bytes : tls_queued(tls));
}

/* -- write() ----------------------------------------------------------------------------------- */

static int
tls_drop_write(Tls *tls)
{
    return channel_drop_write(&tls->head, "SSL connection is closed");
}

/* Before the connection is made a write waits for it; after the end it is dropped. */
static inline bool
tls_takes_writes(const Tls *tls)
{
    return tls->tls_state == TLS_WRAPPED || tls->tls_state == TLS_HANDSHAKE
           || (tls->tls_state == TLS_UNWRAPPED && !FLAG(tls->head.closing) && tls->lower == NULL);
}

/* May what is written be encrypted where it lies? */
static inline bool
tls_is_idle(const Tls *tls)
{
    return LIKELY(tls->tls_state == TLS_WRAPPED) && LIKELY(!tls->encrypting)
           && LIKELY(wqueue_is_empty(&tls->output)) && LIKELY(tls->bad_part == NULL);
}

/* Something was queued: it goes out after the handshake, or now. */
static int
tls_queue_grew(Tls *tls)
{
    if (tls->tls_state != TLS_WRAPPED) {
        tls_note_pending(tls, tls->output.bytes);
        return 0;
    }
    return tls_do_write(tls);
}

/* The peer wants to be heard before the rest of `bytes`, which is older than what was written
 * meanwhile, inside a call of the engine's. */
static int
tls_keep_rest(Tls *tls, PyObject *bytes, size_t done)
{
    return tls->lost ? 0 : wqueue_push_front(&tls->output, bytes, done);
}

/* What is no data at all is in asyncio's queue as well, and ends the connection when its turn comes. The
 * current exception tells why. */
static void
tls_note_bad_part(Tls *tls)
{
    if (tls->bad_part == NULL) {
        tls->bad_part = PyErr_GetRaisedException();
    }
    else {
        PyErr_Clear();
    }
}

/* A part goes into the queue, whatever a generator has done to the connection meanwhile, and then asyncio asks
 * for its length. -1 with an exception: it has none, or there is no memory. */
static int
tls_queue_part(Tls *tls, PyObject *part)
{
    if (LIKELY(PyBytes_CheckExact(part) && tls->bad_part == NULL)) {
        return PyBytes_GET_SIZE(part) > 0 ? wqueue_push(&tls->output, part, 0) : 0;
    }
    Py_ssize_t length = PyObject_Size(part);
    PyObject *exc = PyErr_GetRaisedException();
    Py_buffer view;
    int result = 0;
    if (PyObject_GetBuffer(part, &view, PyBUF_SIMPLE) < 0) {
        tls_note_bad_part(tls);
        tls->never_written += length > 0 ? (size_t)length : 0;
    }
    else {
        if (tls->bad_part != NULL) {
            tls->never_written += (size_t)view.len;
        }
        else if (view.len > 0) {
            result = wqueue_push_copy(&tls->output, view.buf, (size_t)view.len);
        }
        PyBuffer_Release(&view);
    }
    if (UNLIKELY(exc != NULL)) {
        PyErr_SetRaisedException(exc);
        result = -1;
    }
    return result;
}

static int
tls_write_bytes(Tls *tls, PyObject *bytes)
{
    if (!tls_is_idle(tls)) {
        return tls_queue_part(tls, bytes) < 0 ? -1 : tls_queue_grew(tls);
    }
    struct encryption run;
    size_t done, length = (size_t)PyBytes_GET_SIZE(bytes);
    encryption_begin(tls, &run);
    enum tls_status status = encrypt_part(tls, &run, bytes, PyBytes_AS_STRING(bytes), length, &done);
    if (UNLIKELY(status == TLS_WANT) && tls_keep_rest(tls, bytes, done) < 0) {
        status = TLS_FAILED;    /* a part of it has gone: the connection cannot go on without the rest */
    }
    if (LIKELY(status == TLS_OK)) {
        status = encrypt_queue(tls, &run);
    }
    else if (status == TLS_FAILED) {
        tls->never_written += length - done;
    }
    return encryption_end(tls, &run, status);
}

/* Memory that is not ours to keep. `object` is what has it, or NULL. */
static enum tls_status
tls_encrypt_memory(Tls *tls, struct encryption *run, PyObject *object, const char *data,
                   size_t length)
{
    size_t done;
    enum tls_status status = encrypt_part(tls, run, object, data, length, &done);
    if (UNLIKELY(status == TLS_WANT)) {
        PyObject *rest = PyBytes_FromStringAndSize(data + done, (Py_ssize_t)(length - done));
        if (rest == NULL || tls_keep_rest(tls, rest, 0) < 0) {
            status = TLS_FAILED;    /* as above */
        }
        Py_XDECREF(rest);
    }
    return status;
}

/* A type other than exact bytes. */
static int
tls_write_other(Tls *tls, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyObject *exc = PyErr_GetRaisedException();
        Py_ssize_t length = PyObject_Size(data);
        tls->never_written += length > 0 ? (size_t)length : 0;
        PyErr_Clear();
        PyErr_SetRaisedException(exc);
        return -1;
    }
    struct encryption run;
    enum tls_status status = TLS_OK;
    int result = 0;
    bool idle = tls_is_idle(tls), taken = view.len > 0 && tls_takes_writes(tls);
    if (taken && idle) {
        encryption_begin(tls, &run);
        status = tls_encrypt_memory(tls, &run, data, view.buf, (size_t)view.len);
    }
    else if (taken) {
        result = wqueue_push_copy(&tls->output, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);    /* whoever is called now may want to change the size of the buffer */
    if (!taken || result < 0) {
        return result;
    }
    if (!idle) {
        return tls_queue_grew(tls);
    }
    if (status == TLS_OK) {
        status = encrypt_queue(tls, &run);
    }
    return encryption_end(tls, &run, status);
}

int
tls_is_data(PyObject *data)
{
    if (UNLIKELY(!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data))) {
        PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %.200s",
                     type_name(Py_TYPE(data)));
        return -1;
    }
    return PyObject_IsTrue(data);
}

int
tls_write(Tls *tls, PyObject *data)
{
    bool is_bytes = PyBytes_CheckExact(data);
    int wanted = LIKELY(is_bytes) ? PyBytes_GET_SIZE(data) > 0 : tls_is_data(data);
    if (UNLIKELY(wanted <= 0)) {
        return wanted;
    }
    if (UNLIKELY(!tls_takes_writes(tls))) {
        return tls_drop_write(tls);
    }
    tls_enter(tls);
    int result = LIKELY(is_bytes) ? tls_write_bytes(tls, data) : tls_write_other(tls, data);
    if (UNLIKELY(result < 0)) {
        result = tls_failed(tls, TLS_FATAL_MESSAGE);
    }
    tls_leave(tls);
    return result;
}

/* -- writelines() -------------------------------------------------------------------------------- */

/* Each part as it comes: a generator may write in between. */
static int
tls_queue_parts(Tls *tls, PyObject *iterable)
{
    PyObject *iterator = PyObject_GetIter(iterable);
    PyObject *part;
    int result = 0;
    if (iterator == NULL) {
        return -1;
    }
    while (result == 0 && (part = PyIter_Next(iterator)) != NULL) {
        result = tls_queue_part(tls, part);
        Py_DECREF(part);
    }
    Py_DECREF(iterator);
    return result < 0 || PyErr_Occurred() ? -1 : 0;
}

int
tls_append_backlog(Tls *tls, PyObject *data)
{
    tls_enter(tls);
    int result = tls_queue_part(tls, data);
    if (!tls->lost) {
        tls_note_pending(tls, tls_queued(tls));
    }
    tls_leave(tls);
    return result;
}

int
tls_writelines(Tls *tls, PyObject *list)
{
    if (UNLIKELY(!tls_takes_writes(tls))) {
        return tls_drop_write(tls);    /* and nobody asks for what is in it */
    }
    tls_enter(tls);
    int result = tls_queue_parts(tls, list);
    if (UNLIKELY(result < 0)) {
        if (!tls->lost) {
            tls_note_pending(tls, tls_queued(tls));
        }
    }
    else if (LIKELY(!tls->lost) && tls_queue_grew(tls) < 0) {
        result = tls_failed(tls, TLS_FATAL_MESSAGE);
    }
    tls_leave(tls);
    return result;
}
