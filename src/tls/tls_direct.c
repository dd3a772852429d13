/* tls_direct.c - the engine over libssl's own functions.
 *
 * The SSL is the one that the ssl module has made for its SSLObject, which stays valid for
 * callbacks, extra information and sessions. Its two MemoryBIOs are replaced by a BIO of
 * ours, which reads from the bytes that the transport below has just received, where they
 * lie, and writes into memory that the transport above lends. The handshake and the shutdown are
 * the SSLObject's (once per connection, with everything that can go wrong in it); plaintext goes
 * through SSL_read() and SSL_write(). When they fail, the ssl module makes the exception.
 *
 * Safe by construction: libssl's pointer comes from libssl (tls_libssl.h), it has to be found
 * in the fields of the SSLObject's inner object, and a self-test before the first use
 * compares what both say. On any doubt the portable engine serves.
 *
 * Without a GIL the engine, its buffers and the calls of its BIO belong to the thread that has the loop. The
 * SSL is the SSLObject's, too, whose methods take its critical section, as our calls do (LOCK_SSL()): any
 * thread may ask it for its version, cipher, certificate or session at any time. do_handshake(), read(),
 * write() and unwrap() let go of that section inside of libssl, so that they are for the loop's thread, with
 * any engine and with asyncio's transport as well. */
#include "tls/tls_object.h"

#include "base/tuning.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static struct tls_engine *
engine_of(BIO *bio)
{
    return libssl.BIO_get_data(bio);
}

/* -- BIO: called by libssl, also without the GIL, during the handshake ----------------- */

static int
on_bio_read(BIO *bio, char *buffer, int size)
{
    struct tls_engine *engine = engine_of(bio);
    libssl.BIO_clear_flags(bio, LIBSSL_BIO_FLAGS);
    if (UNLIKELY(size <= 0)) {
        return -1;
    }
    if (UNLIKELY(engine == NULL)) {
        /* The connection is over. An empty MemoryBIO would say the same. */
        libssl.BIO_set_flags(bio, LIBSSL_BIO_READ | LIBSSL_BIO_SHOULD_RETRY);
        return -1;
    }
    size_t n = engine->direct.in_length;
    if (n == 0) {
        engine->direct.starved = true;
        libssl.BIO_set_flags(bio, LIBSSL_BIO_READ | LIBSSL_BIO_SHOULD_RETRY);
        return -1;
    }
    if (n > (size_t)size) {
        n = (size_t)size;
    }
    memcpy(buffer, engine->direct.in, n);
    engine->direct.in += n;
    engine->direct.in_length -= n;
    engine->direct.partial += (uint32_t)n;
    return (int)n;
}

/* Room for n more bytes of output, in memory of our own. */
static bool
out_reserve(struct tls_engine *engine, size_t n)
{
    size_t wanted = engine->direct.out_length + n;
    if (wanted <= engine->direct.out_capacity) {
        return true;
    }
    size_t capacity = ARRAY_FIRST;
    while (capacity < wanted) {
        capacity *= 2;
    }
    char *memory = malloc(capacity);
    if (memory == NULL) {
        return false;
    }
    if (engine->direct.out_length > 0) {
        memcpy(memory, engine->direct.out, engine->direct.out_length);
    }
    if (!engine->direct.out_lent) {
        free(engine->direct.out);
    }
    engine->direct.out = memory;
    engine->direct.out_capacity = capacity;
    engine->direct.out_lent = false;
    return true;
}

static int
on_bio_write(BIO *bio, const char *data, int size)
{
    struct tls_engine *engine = engine_of(bio);
    libssl.BIO_clear_flags(bio, LIBSSL_BIO_FLAGS);
    if (UNLIKELY(size < 0)) {
        return -1;
    }
    if (UNLIKELY(engine == NULL)) {
        return size;    /* to nobody */
    }
    if (UNLIKELY(!out_reserve(engine, (size_t)size))) {
        engine->direct.out_failed = true;
        return -1;
    }
    memcpy(engine->direct.out + engine->direct.out_length, data, (size_t)size);
    engine->direct.out_length += (size_t)size;
    return size;
}

static long
on_bio_ctrl(BIO *bio UNUSED, int command, long number UNUSED, void *pointer UNUSED)
{
    return command == LIBSSL_BIO_CTRL_FLUSH;
}

/* One per process. Two interpreters may make one at the same time: then one of them is unused. */
static BIO_METHOD *bio_method;

static BIO *
bio_new(struct tls_engine *engine)
{
    BIO_METHOD *method = __atomic_load_n(&bio_method, __ATOMIC_ACQUIRE);
    if (UNLIKELY(method == NULL)) {
        method = libssl.BIO_meth_new(libssl.BIO_get_new_index() | LIBSSL_BIO_SOURCE, "asyncloop");
        if (method == NULL || !libssl.BIO_meth_set_read(method, on_bio_read)
            || !libssl.BIO_meth_set_write(method, on_bio_write)
            || !libssl.BIO_meth_set_ctrl(method, on_bio_ctrl)) {
            return NULL;
        }
        __atomic_store_n(&bio_method, method, __ATOMIC_RELEASE);
    }
    BIO *bio = libssl.BIO_new(method);
    if (bio != NULL) {
        libssl.BIO_set_data(bio, engine);
        libssl.BIO_set_init(bio, 1);
    }
    return bio;
}

/* -- life ---------------------------------------------------------------------------------- */

static int
direct_open(struct tls_engine *engine, PyObject *context, bool server_side, PyObject *hostname)
{
    struct tls_objects *tls = &tls_state(engine->state)->tls;
    PyObject *incoming = PyObject_CallNoArgs(tls->MemoryBIO);
    PyObject *outgoing = incoming == NULL ? NULL : PyObject_CallNoArgs(tls->MemoryBIO);
    SSL *ssl = NULL;
    if (incoming != NULL && outgoing != NULL) {
        PyObject *args[] = {context, incoming, outgoing, server_side ? Py_True : Py_False,
                            hostname == NULL ? Py_None : hostname};
        libssl_capture_begin();
        engine->object = PyObject_VectorcallMethod(engine->state->names.wrap_bio, args, 3,
                                                   tls->keywords_wrap_bio);
        ssl = libssl_capture_end();
    }
    if (engine->object != NULL) {
        engine->inner = PyObject_GetAttr(engine->object, engine->state->names._sslobj);
    }
    if (engine->inner == NULL) {
        Py_XDECREF(incoming);
        Py_XDECREF(outgoing);
        return -1;
    }
    tls_watch_object(engine, context);
    BIO *bio = ssl != NULL && libssl_object_holds(engine->inner, ssl) ? bio_new(engine) : NULL;
    if (bio == NULL) {
        /* Not what was expected: these objects serve the portable engine as they are. */
        engine->ops = &tls_portable_ops;
        engine->portable.incoming = incoming;
        engine->portable.outgoing = outgoing;
        return 0;
    }
    Py_DECREF(incoming);
    Py_DECREF(outgoing);
    libssl.BIO_up_ref(bio);    /* ours: the SSLObject may outlive us, and libssl's goes with it */
    libssl.SSL_set_bio(ssl, bio, bio);
    engine->direct.ssl = ssl;
    engine->direct.bio = bio;
    return 0;
}

static void
direct_close(struct tls_engine *engine)
{
    if (engine->direct.bio != NULL) {
        libssl.BIO_set_data(engine->direct.bio, NULL);
        libssl.BIO_free(engine->direct.bio);
        engine->direct.bio = NULL;
    }
    engine->direct.ssl = NULL;    /* the SSLObject's */
    free(engine->direct.kept);
    engine->direct.kept = NULL;
    engine->direct.in_length = 0;
    if (!engine->direct.out_lent) {
        free(engine->direct.out);
    }
    engine->direct.out = NULL;
    engine->direct.out_length = engine->direct.out_capacity = 0;
    engine->direct.out_lent = false;
}

/* -- the peer's bytes ------------------------------------------------------------------------ */

/* Behind those that are not used yet. With room for as many again, from the second time: who has
 * paused may get a lot of small packets. */
static int
direct_append(struct tls_engine *engine, const char *data, size_t n)
{
    size_t length = engine->direct.in_length;
    char *kept = engine->direct.kept;
    size_t used = kept == NULL ? length : (size_t)(engine->direct.in - kept) + length;
    if (kept != NULL && n <= engine->direct.kept_capacity - used) {
        memcpy(kept + used, data, n);
        engine->direct.in_length += n;
        return 0;
    }
    size_t capacity = (length + n) * (kept == NULL ? 1 : 2);
    char *memory = malloc(capacity);
    if (memory == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(memory, engine->direct.in, length);
    memcpy(memory + length, data, n);
    free(kept);
    engine->direct.in = engine->direct.kept = memory;
    engine->direct.kept_capacity = capacity;
    engine->direct.in_length += n;
    return 0;
}

static int
direct_feed(struct tls_engine *engine, const char *data, size_t n)
{
    if (UNLIKELY(engine->direct.in_length > 0)) {
        return direct_append(engine, data, n);
    }
    free(engine->direct.kept);
    engine->direct.kept = NULL;
    engine->direct.in = data;
    engine->direct.in_length = n;
    return 0;
}

static int
direct_keep(struct tls_engine *engine)
{
    if (LIKELY(engine->direct.in_length == 0)) {
        free(engine->direct.kept);
        engine->direct.kept = NULL;
        return 0;
    }
    if (engine->direct.kept != NULL) {
        return 0;
    }
    char *kept = malloc(engine->direct.in_length);
    if (kept == NULL) {
        engine->direct.in_length = 0;
        PyErr_NoMemory();
        return -1;
    }
    memcpy(kept, engine->direct.in, engine->direct.in_length);
    engine->direct.in = engine->direct.kept = kept;
    engine->direct.kept_capacity = engine->direct.in_length;
    return 0;
}

static size_t
direct_waiting(struct tls_engine *engine)
{
    return engine->direct.in_length;
}

/* -- the SSLObject's own methods ----------------------------------------------------------------- */

static int
direct_settle(struct tls_engine *engine)
{
    if (direct_keep(engine) < 0) {
        return -1;
    }
    if (engine->direct.out_lent) {
        char *lent = engine->direct.out;
        size_t n = engine->direct.out_length;
        engine->direct.out = NULL;
        engine->direct.out_length = engine->direct.out_capacity = 0;
        engine->direct.out_lent = false;
        if (n > 0) {
            if (!out_reserve(engine, n)) {
                PyErr_NoMemory();
                return -1;
            }
            memcpy(engine->direct.out, lent, n);
            engine->direct.out_length = n;
        }
    }
    return 0;
}

/* There was no memory for output: the ssl module has taken that for something else. */
static enum tls_status
direct_outcome(struct tls_engine *engine, enum tls_status status)
{
    if (UNLIKELY(engine->direct.out_failed)) {
        engine->direct.out_failed = false;
        PyErr_Clear();
        PyErr_NoMemory();
        return TLS_FAILED;
    }
    return status;
}

static enum tls_status
direct_handshake(struct tls_engine *engine)
{
    return direct_outcome(engine, tls_object_handshake(engine));
}

static enum tls_status
direct_shutdown(struct tls_engine *engine)
{
    return direct_outcome(engine, tls_object_shutdown(engine));
}

/* -- plaintext ---------------------------------------------------------------------------------- */

#ifdef Py_GIL_DISABLED
struct ssl_lock {
    struct guard guard;
    PyObject *inner;    /* a callback may end the connection, which lets go of it */
};

static inline void
ssl_lock_begin(struct ssl_lock *lock, const struct tls_engine *engine)
{
    lock->inner = Py_NewRef(engine->inner);
    guard_begin(&lock->guard, lock->inner);
}

static inline void
ssl_lock_end(struct ssl_lock *lock)
{
    guard_end(&lock->guard);
    Py_DECREF(lock->inner);
}
/* To the end of the block. */
#define LOCK_SSL(engine)                                            \
    struct ssl_lock lock __attribute__((cleanup(ssl_lock_end)));    \
    ssl_lock_begin(&lock, engine)
#else
#define LOCK_SSL(engine) ((void)(engine))
#endif

/* Before libssl is called. What others have left in this thread's queue must not look like an
 * error of ours. */
static inline void
direct_begin(struct tls_engine *engine)
{
    engine->direct.starved = false;
    if (UNLIKELY(libssl.ERR_peek_last_error() != 0)) {
        libssl.ERR_clear_error();
    }
}

/* The exception for a call that libssl has refused. The ssl module makes it: a connection that has
 * failed fails in the same way once more, and what libssl has said is still in its queue. */
static __attribute__((noinline)) void
direct_raise(struct tls_engine *engine, PyObject *method, PyObject *argument)
{
    struct libssl_error error = libssl_last_error();
    PyObject *result = tls_call(engine->inner, method, argument, NULL);
    Py_XDECREF(result);
    if (result == NULL && !PyErr_ExceptionMatches(tls_state(engine->state)->tls.SSLError)) {
        return;    /* out of a callback */
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (exc != NULL && libssl_error_is(&error, exc)) {
        PyErr_SetRaisedException(exc);
    }
    else {
        Py_XDECREF(exc);
        libssl_raise(&error, tls_state(engine->state)->tls.SSLError);
    }
    libssl.ERR_clear_error();
}

/* Of a call that moved nothing, and what SSL_get_error() says of it. The method and its argument would do
 * the same. */
static enum tls_status
direct_status(struct tls_engine *engine, int error, PyObject *method, PyObject *argument)
{
    if (engine->direct.starved) {
        return TLS_WANT;
    }
    if (engine->direct.out_failed) {
        return direct_outcome(engine, TLS_FAILED);
    }
    if (error == LIBSSL_ERROR_ZERO_RETURN) {
        return TLS_EOF;
    }
    direct_raise(engine, method, argument);
    return TLS_FAILED;
}

/* One record, or a part of it. */
static enum tls_status
direct_read(struct tls_engine *engine, char *buffer, size_t capacity, size_t *n, bool *more)
{
    int size = capacity > INT_MAX ? INT_MAX : (int)capacity;
    int got, error = 0;
    uint32_t partial = 0;
    direct_begin(engine);
    {
        LOCK_SSL(engine);
        SSL *ssl = engine->direct.ssl;
        got = libssl.SSL_read(ssl, buffer, size);
        if (UNLIKELY(got <= 0)) {
            error = libssl.SSL_get_error(ssl, got);
        }
        else if (UNLIKELY(got == size)) {
            partial = (uint32_t)libssl.SSL_pending(ssl);
        }
    }
    if (UNLIKELY(got <= 0)) {
        *more = false;
        return direct_status(engine, error, engine->state->names.read,
                             tls_state(engine->state)->tls.record_bytes);
    }
    *n = (size_t)got;
    /* libssl takes one record at a time: what it has and we not is the rest of this one */
    engine->direct.partial = partial;
    *more = engine->direct.in_length > 0 || engine->direct.partial > 0;
    return TLS_OK;
}

/* Fills memory with as many records as there are. */
static enum tls_status
read_records(struct tls_engine *engine, char *buffer, size_t capacity, size_t *n, bool *more)
{
    *n = 0;
    do {
        size_t got = 0;
        enum tls_status status = direct_read(engine, buffer + *n, capacity - *n, &got, more);
        if (status != TLS_OK) {
            if (*n == 0) {
                return status;
            }
            tls_put_off(engine, status, more);
            return TLS_OK;
        }
        *n += got;
    } while (*more && *n < capacity);
    return TLS_OK;
}

static enum tls_status
direct_read_bytes(struct tls_engine *engine, PyObject **data, bool *more)
{
    size_t n;
    enum tls_status status;
    *data = NULL;
    if (UNLIKELY(tls_is_foreign(engine))) {
        return tls_object_read_bytes(engine, data, more);
    }
    /* Decrypted data is never longer than encrypted data. libssl has a part of one record at most;
     * what else it took was no data: keys, tickets, handshakes. */
    size_t partial = engine->direct.partial;
    if (UNLIKELY(partial > TLS_RECORD_BYTES + TLS_RECORD_OVERHEAD)) {
        partial = TLS_RECORD_BYTES + TLS_RECORD_OVERHEAD;
    }
    size_t capacity = partial + engine->direct.in_length;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)capacity);
    if (bytes == NULL) {
        return TLS_FAILED;
    }
    status = read_records(engine, PyBytes_AS_STRING(bytes), capacity, &n, more);
    if (status != TLS_OK) {
        Py_DECREF(bytes);
        return status;
    }
    if (n < capacity && _PyBytes_Resize(&bytes, (Py_ssize_t)n) < 0) {
        return TLS_FAILED;
    }
    *data = bytes;
    return TLS_OK;
}

static enum tls_status
direct_write(struct tls_engine *engine, PyObject *bytes, const char *data, size_t length, size_t *n)
{
    if (UNLIKELY(tls_is_foreign(engine))) {
        return direct_outcome(engine, tls_object_write(engine, bytes, data, length, n));
    }
    int size = length > TLS_RECORD_BYTES ? TLS_RECORD_BYTES : (int)length;
    *n = 0;
    int written, error = 0;
    direct_begin(engine);
    {
        LOCK_SSL(engine);
        SSL *ssl = engine->direct.ssl;
        written = libssl.SSL_write(ssl, data, size);
        if (UNLIKELY(written <= 0)) {
            error = libssl.SSL_get_error(ssl, written);
        }
    }
    if (UNLIKELY(written <= 0)) {
        return direct_status(engine, error, engine->state->names.write,
                             tls_state(engine->state)->tls.one_byte);
    }
    *n = (size_t)written;
    return TLS_OK;
}

/* -- output ---------------------------------------------------------------------------------------- */

static size_t
direct_pending(const struct tls_engine *engine)
{
    return engine->direct.out_length;
}

static void
direct_lend(struct tls_engine *engine, char *memory, size_t capacity)
{
    if (engine->direct.out == NULL) {
        engine->direct.out = memory;
        engine->direct.out_capacity = capacity;
        engine->direct.out_lent = true;
    }
}

static bool
direct_is_full(const struct tls_engine *engine)
{
    return engine->direct.out_length + TLS_RECORD_BYTES + TLS_RECORD_OVERHEAD
           > engine->direct.out_capacity;
}

static int
direct_take(struct tls_engine *engine, struct tls_output *output)
{
    output->data = engine->direct.out;
    output->n = engine->direct.out_length;
    output->bytes = NULL;
    output->memory = engine->direct.out_lent ? NULL : engine->direct.out;
    engine->direct.out = NULL;
    engine->direct.out_length = engine->direct.out_capacity = 0;
    engine->direct.out_lent = false;
    return 0;
}

const struct tls_engine_ops tls_direct_ops = {
    .name = "direct",
    .open = direct_open,
    .close = direct_close,
    .feed = direct_feed,
    .keep = direct_keep,
    .waiting = direct_waiting,
    .handshake = direct_handshake,
    .read = direct_read,
    .read_bytes = direct_read_bytes,
    .write = direct_write,
    .shutdown = direct_shutdown,
    .settle = direct_settle,
    .pending = direct_pending,
    .lend = direct_lend,
    .is_full = direct_is_full,
    .take = direct_take,
};
