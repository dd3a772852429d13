/* tls_libssl.h - functions of the libssl that the interpreter's ssl module has loaded.
 *
 * Never a second libssl: the functions come from the very file, by dlsym() on a handle of
 * the _ssl module, whose dependencies it searches.
 *
 * How an SSL * is had: libssl calls us for every SSL that it makes (an "ex data" index), so
 * what context.wrap_bio() makes is known without a look into Python's objects. That the
 * function tables belong to the same library follows from the same call: another libssl
 * would not make it.
 *
 * No header of OpenSSL is needed: only functions whose prototypes are the same since
 * 1.1.1, and constants that are part of its ABI. */
#ifndef ASYNCLOOP_TLS_LIBSSL_H
#define ASYNCLOOP_TLS_LIBSSL_H

#include "base/state.h"

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;
typedef void ex_data_new(void *parent, void *ptr, void *ad, int idx, long argl, void *argp);

/* X(result, name, arguments) */
#define LIBSSL_FUNCTIONS(X) \
    X(int, SSL_read, (SSL * ssl, void *buffer, int n)) \
    X(int, SSL_write, (SSL * ssl, const void *buffer, int n)) \
    X(int, SSL_pending, (const SSL *ssl)) \
    X(int, SSL_get_error, (const SSL *ssl, int result)) \
    X(void, SSL_set_bio, (SSL * ssl, BIO *rbio, BIO *wbio)) \
    X(BIO *, SSL_get_rbio, (const SSL *ssl)) \
    X(SSL_CTX *, SSL_get_SSL_CTX, (const SSL *ssl)) \
    X(unsigned long, SSL_CTX_get_options, (const SSL_CTX *ctx)) \
    X(const char *, SSL_get_servername, (const SSL *ssl, int type)) \
    X(const char *, SSL_get_version, (const SSL *ssl)) \
    X(unsigned long, OpenSSL_version_num, (void)) \
    X(const char *, OpenSSL_version, (int what)) \
    X(int, CRYPTO_get_ex_new_index, (int class_index, long argl, void *argp, \
                                     ex_data_new *on_new, void *on_dup, void *on_free)) \
    X(void, ERR_clear_error, (void)) \
    X(unsigned long, ERR_peek_last_error, (void)) \
    X(const char *, ERR_reason_error_string, (unsigned long error)) \
    X(const char *, ERR_lib_error_string, (unsigned long error)) \
    X(int, BIO_get_new_index, (void)) \
    X(BIO_METHOD *, BIO_meth_new, (int type, const char *name)) \
    X(int, BIO_meth_set_read, (BIO_METHOD * method, int (*read)(BIO *, char *, int))) \
    X(int, BIO_meth_set_write, (BIO_METHOD * method, int (*write)(BIO *, const char *, int))) \
    X(int, BIO_meth_set_ctrl, (BIO_METHOD * method, long (*ctrl)(BIO *, int, long, void *))) \
    X(BIO *, BIO_new, (const BIO_METHOD *method)) \
    X(int, BIO_up_ref, (BIO * bio)) \
    X(int, BIO_free, (BIO * bio)) \
    X(void, BIO_set_data, (BIO * bio, void *data)) \
    X(void *, BIO_get_data, (BIO * bio)) \
    X(void, BIO_set_init, (BIO * bio, int init)) \
    X(void, BIO_set_flags, (BIO * bio, int flags)) \
    X(void, BIO_clear_flags, (BIO * bio, int flags))

struct libssl {
#define X(result, name, arguments) result(*name) arguments;
    LIBSSL_FUNCTIONS(X)
#undef X
};

/* Filled once per process, by the first libssl_load() that succeeds. */
extern struct libssl libssl;

#define LIBSSL_ERROR_SSL 1
#define LIBSSL_ERROR_ZERO_RETURN 6
#define LIBSSL_BIO_READ 0x01
#define LIBSSL_BIO_FLAGS 0x0F             /* READ, WRITE, IO_SPECIAL, SHOULD_RETRY */
#define LIBSSL_BIO_SHOULD_RETRY 0x08
#define LIBSSL_BIO_CTRL_FLUSH 11
#define LIBSSL_BIO_SOURCE 0x0400
#define LIBSSL_EX_INDEX_SSL 0
#define LIBSSL_SERVERNAME_HOST 0

/* Finds the functions. True if all are there. Sets no exception. */
bool libssl_load(PyObject *ssl_module);

/* Between the two calls, in one thread: the one SSL that was made, or NULL if there was
 * none, or several. */
void libssl_capture_begin(void);
SSL *libssl_capture_end(void);

/* Does the memory of the Python object (its own fields) hold this pointer? */
bool libssl_object_holds(PyObject *op, const void *pointer);

/* libssl's last error of this thread; NULL for what it has no words for. */
struct libssl_error {
    const char *reason;
    const char *library;
};

struct libssl_error libssl_last_error(void);
/* Is the exception about this error? */
bool libssl_error_is(const struct libssl_error *error, PyObject *exc);
/* Sets an ssl.SSLError much like the ssl module's. */
void libssl_raise(const struct libssl_error *error, PyObject *ssl_error);

#endif
