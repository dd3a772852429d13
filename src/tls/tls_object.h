/* tls_object.h - the methods of a connection's SSLObject, and whether they have to be called.
 *
 * The engines read and write past them: by libssl's functions, or by the methods of the C object
 * inside. They may do so while tls_is_foreign() says no. */
#ifndef ASYNCLOOP_TLS_OBJECT_H
#define ASYNCLOOP_TLS_OBJECT_H

#include "tls/tls.h"

/* op.name(arg1, arg2), where both may be NULL. New reference or NULL. */
PyObject *tls_call(PyObject *op, PyObject *name, PyObject *arg1, PyObject *arg2);
/* The current exception of a method: TLS_WANT, and it is gone, or TLS_FAILED. */
enum tls_status tls_status_of_exception(struct tls_engine *engine);

/* Remembers what a new object looks like, and the context that it was made of, which has to stay. */
void tls_watch_object(struct tls_engine *engine, PyObject *context);
/* Have its methods been replaced, in its class or in itself? Costs some nanoseconds. */
bool tls_is_foreign(struct tls_engine *engine);

/* do_handshake(), unwrap() and write(data), of which *n bytes were taken: as the engine's operations of tls.h. */
enum tls_status tls_object_handshake(struct tls_engine *engine);
enum tls_status tls_object_shutdown(struct tls_engine *engine);
enum tls_status tls_object_write(struct tls_engine *engine, PyObject *data, const char *memory,
                                 size_t length, size_t *n);
/* All that there is: the very object that read() gave, or several joined. */
enum tls_status tls_object_read_bytes(struct tls_engine *engine, PyObject **data, bool *more);
/* Into a buffer of the user's: read(size, buffer). */
enum tls_status tls_object_read_into(struct tls_engine *engine, PyObject *buffer, size_t size,
                                     size_t *n);

/* The end, or a failure with its exception, that came behind bytes which are handed out. */
static inline void
tls_put_off(struct tls_engine *engine, enum tls_status status, bool *more)
{
    if (UNLIKELY(status == TLS_EOF || status == TLS_FAILED)) {
        engine->deferred = status;
        engine->failure = status == TLS_FAILED ? PyErr_GetRaisedException() : NULL;
        *more = true;
    }
}

#endif
