/* tls.h - TLS as a transport of its own above any other transport.
 *
 * A Tls object is two things of asyncio's in one: the transport that the user's protocol
 * sees, and the protocol of the transport below. Over a StreamTransport both directions
 * are C calls; over anything else (TLS in TLS, a transport of somebody else's) the
 * methods of Protocol and Transport.
 *
 *   tls.c           the states: handshake, shutdown, the end
 *   tls_read.c      from the transport below to the user's protocol
 *   tls_write.c     from write() to the transport below
 *   tls_type.c      Python's face
 *   tls_shipped.c   for which connections all this may stand for asyncio's own code
 *   tls_portable.c  engine over ssl.MemoryBIO and SSLObject
 *   tls_direct.c    engine over libssl's own functions, found by tls_libssl.c
 *
 * States, each entered at most once, in this order, any of them followed by UNWRAPPED:
 *   UNWRAPPED -> HANDSHAKE -> WRAPPED -> FLUSHING (closing, output still to be encrypted)
 *   -> SHUTDOWN (close_notify is sent, the peer's is awaited) -> UNWRAPPED */
#ifndef ASYNCLOOP_TLS_H
#define ASYNCLOOP_TLS_H

#include "stream.h"
#include "tls_libssl.h"

#define TLS_FATAL_MESSAGE "Fatal error on SSL protocol"
#define TLS_RECORD_BYTES 16384       /* plaintext of a full record */
#define TLS_RECORD_OVERHEAD 512      /* more than any cipher suite adds */
/* Encrypted output of one system call: eight full records. */
#define TLS_OUT_BYTES (8 * (TLS_RECORD_BYTES + TLS_RECORD_OVERHEAD))
#define TLS_PLAIN_BYTES (256 * 1024)
/* Queued plaintext that one connection encrypts before the others get their turn: about 80 µs. */
#define TLS_TURN_BYTES ((size_t)256 * 1024)
#define TLS_HIGH_WATER (512 * 1024)  /* asyncio's for TLS */
#define TLS_LATE_BYTES (256 * 1024)  /* what may come after close() before the peer's own end */

enum tls_status {
    TLS_OK,
    TLS_WANT,      /* nothing moved: more of the peer's bytes are needed */
    TLS_EOF,       /* the peer has sent close_notify */
    TLS_FAILED,    /* an exception is set */
};

/* -- engine ------------------------------------------------------------------------ */

struct tls_engine;

/* What goes to the peer: memory that is lent, or one of the two owners. */
struct tls_output {
    const char *data;
    size_t n;
    PyObject *bytes;    /* strong, or NULL */
    char *memory;       /* to be freed, or NULL */
};

struct tls_engine_ops {
    const char *name;
    /* Makes the SSLObject. 0, or -1 with an exception. */
    int (*open)(struct tls_engine *engine, PyObject *context, bool server_side,
                PyObject *hostname);
    void (*close)(struct tls_engine *engine);
    /* Takes bytes of the peer's. They may be used where they are until keep(). 0 / -1 */
    int (*feed)(struct tls_engine *engine, const char *data, size_t n);
    int (*keep)(struct tls_engine *engine);
    size_t (*waiting)(const struct tls_engine *engine);    /* bytes fed and not used */

    enum tls_status (*handshake)(struct tls_engine *engine);
    /* Plaintext into memory. *more: there is more without another feed(). */
    enum tls_status (*read)(struct tls_engine *engine, char *buffer, size_t capacity, size_t *n,
                            bool *more);
    /* All the plaintext there is, as a new bytes object. */
    enum tls_status (*read_bytes)(struct tls_engine *engine, PyObject **data, bool *more);
    /* Encrypts. `bytes` is the object that holds the data, if it is exactly that, or NULL. */
    enum tls_status (*write)(struct tls_engine *engine, PyObject *bytes, const char *data,
                             size_t length, size_t *n);
    /* Sends close_notify; TLS_OK once the peer's has come as well. */
    enum tls_status (*shutdown)(struct tls_engine *engine);

    /* Nothing that was lent is used any more, neither input nor output. 0 / -1 */
    int (*settle)(struct tls_engine *engine);
    /* Memory for the output of the next calls, good until take(). May do nothing. */
    void (*lend)(struct tls_engine *engine, char *memory, size_t capacity);
    /* Is there no room for one more record? Then take() comes before the next write(). */
    bool (*is_full)(const struct tls_engine *engine);
    /* Moves the encrypted output out of the engine. 0 / -1 */
    int (*take)(struct tls_engine *engine, struct tls_output *output);
};

struct tls_engine {
    const struct tls_engine_ops *ops;
    struct state *state;            /* borrowed */
    PyObject *object;               /* ssl.SSLObject */
    PyObject *inner;                /* what its methods call: _ssl._SSLSocket, or the same */
    /* tls_object.c: what the object looks like while nobody has replaced its methods */
    PyTypeObject *type;             /* borrowed */
    PyObject *dict;                 /* its attributes; strong, or NULL: it is not the standard one */
    PyObject **own;                 /* where it keeps them */
    unsigned int version;           /* of the type */
    bool foreign;                   /* they were replaced, when somebody last looked */
    bool unwatched;                 /* the self-test's */
    enum tls_status deferred;       /* what comes after the plaintext that was handed out */
    PyObject *failure;              /* the exception of a deferred TLS_FAILED */
    union {
        struct {
            PyObject *incoming;     /* ssl.MemoryBIO */
            PyObject *outgoing;
        } portable;
        struct {
            SSL *ssl;               /* the SSLObject's */
            BIO *bio;               /* our reference */
            const char *in;         /* the peer's bytes that are not used yet */
            size_t in_length;
            char *kept;             /* our copy of them, or NULL while they are borrowed */
            size_t partial;         /* bytes of a record that libssl has only a part of */
            char *out;
            size_t out_length;
            size_t out_capacity;
            bool out_lent;          /* out is not ours to free */
            bool starved;           /* the last call asked for more of the peer's bytes */
            bool out_failed;        /* no memory for output */
        } direct;
    };
};

extern const struct tls_engine_ops tls_portable_ops;
extern const struct tls_engine_ops tls_direct_ops;

/* The engine for a new connection of this context: by ASYNCLOOP_TLS, by what the
 * self-test says, and by what the context asks for. NULL with an exception. */
/* The engine by ASYNCLOOP_TLS and the self-test, which runs at the first call. */
const struct tls_engine_ops *tls_default_engine(struct state *state);
const struct tls_engine_ops *tls_choose_engine(struct state *state, PyObject *context);

/* -- tls_shipped.c: is TLS what the standard library has? ------------------------------ */

PyObject *module_tls_check(PyObject *module, PyObject *context);
PyObject *module_tls_stamp(PyObject *module, PyObject *args);

/* -- transport ----------------------------------------------------------------------- */

enum tls_state { TLS_UNWRAPPED, TLS_HANDSHAKE, TLS_WRAPPED, TLS_FLUSHING, TLS_SHUTDOWN };
enum tls_app { TLS_APP_INIT, TLS_APP_MADE, TLS_APP_EOF, TLS_APP_LOST };

typedef struct {
    union {
        PyObject ob_base;
        char asyncio_fields[ASYNCIO_TRANSPORT_SIZE];
    };
    PyObject *dict;
    PyObject *weakrefs;
    struct state *state;            /* borrowed: the type keeps the module alive */
    Loop *loop;                     /* strong */
    struct proto proto;             /* the user's */
    PyObject *lower;                /* the transport below; NULL before and after */
    Stream *stream;                 /* the same, if it is one of ours (borrowed) */
    struct tls_engine engine;
    PyObject *sslcontext;
    PyObject *extra;                /* dict */
    PyObject *waiter;               /* future of the handshake, or NULL */
    TimerHandle *timer;             /* of the handshake, later of the shutdown */
    PyObject *handshake_timeout;    /* seconds: numbers, as the user gave them */
    PyObject *shutdown_timeout;
    double handshake_started;       /* loop.time(), in debug mode */
    struct wqueue output;           /* plaintext */
    struct flush_node flush;
    struct owed_call owed_lost;     /* connection_lost() */
    struct owed_call owed_reading;  /* what is there to be read */
    size_t high_water;              /* bytes of output */
    size_t low_water;
    PyObject *write_limits;         /* (low, high) as the user gave them, or NULL */
    PyObject *read_limits;
    unsigned int conn_lost;         /* 0, or 1 + writes that were dropped since */
    uint8_t tls_state;
    uint8_t app;
    bool server_side;
    bool closed;                    /* what is_closing() says */
    bool lost;                      /* connection_lost() of the transport below has come */
    bool paused;                    /* by pause_reading() */
    bool lower_paused;              /* we have paused the transport below */
    bool writing_paused;            /* the transport below has paused us */
    bool protocol_paused;           /* we have paused the protocol */
    bool eof;                       /* the transport below has ended, without close_notify */
    bool feeding;                   /* inside a call of the transport below */
    bool flushing;                  /* inside tls_flush() */
    bool unread;                    /* the engine has more to read: paused */
    bool read_waits;                /* start_tls() returns first */
    bool handshake_waits;           /* for a later iteration: this one had enough of them */
    bool flush_waits;               /* the same for output */
    uint32_t late;                  /* bytes of plaintext that came after close() */
} Tls;

int tls_type_init(PyObject *module, struct state *state);

/* asyncio's SSLProtocol and its transport. `context` NULL: a copy of the current one; `waiter`
 * NULL: nobody waits. New reference or NULL. */
Tls *tls_new(Loop *loop, PyObject *protocol, PyObject *sslcontext, PyObject *waiter,
             bool server_side, PyObject *hostname, PyObject *handshake_timeout,
             PyObject *shutdown_timeout, bool call_connection_made, PyObject *context);

/* -- tls.c: 0, or -1 with an exit exception (KeyboardInterrupt, SystemExit) -------------- */

int tls_lower_made(Tls *tls, PyObject *transport);
int tls_lower_lost(Tls *tls, PyObject *exc);
int tls_lower_eof(Tls *tls, bool *keep_open);

int tls_close(Tls *tls);
int tls_abort(Tls *tls, PyObject *exc);
int tls_step_handshake(Tls *tls);        /* with what the peer has sent so far */
int tls_start_shutdown(Tls *tls);
int tls_advance_shutdown(Tls *tls);
void tls_update_lower(Tls *tls);         /* pauses or resumes the transport below */
/* The current exception ends the connection. */
int tls_fatal(Tls *tls, const char *message);
int tls_engine_failed(Tls *tls, const char *message);    /* it came out of the engine */
/* The current exception came out of pause_writing() or resume_writing(): `message` */
int tls_callback_failed(Tls *tls, const char *message);

/* -- tls_read.c: the same ------------------------------------------------------------ */

int tls_received(Tls *tls, const char *data, size_t n);
int tls_feed(PyObject *op, const char *data, size_t n);    /* state->tls_feed */
int tls_read(Tls *tls);                  /* inside a call that brings bytes, or ends the handshake */
int tls_read_rest(Tls *tls);             /* outside of one */
void tls_read_later(Tls *tls);           /* not before a later iteration */
int tls_resume(Tls *tls);                /* resume_reading() */
int tls_call_eof_received(Tls *tls);
/* What the peer sends until it knows of our close(). To end the connection at once would reset it,
 * and cost the peer what it has not read yet of our output; but who never stops does not get more
 * than TLS_LATE_BYTES. TLS_WANT: nothing is left; TLS_OK: it was too much; or the end. */
enum tls_status tls_discard(Tls *tls);

/* -- tls_write.c: 0, or -1 with what the caller of write() gets ---------------------------- */

int tls_write(Tls *tls, PyObject *data);
int tls_writelines(Tls *tls, PyObject *list);
int tls_flush(Tls *tls);
void tls_flush_node(struct flush_node *node);
int tls_send_output(Tls *tls);           /* what the engine has made */
int tls_control_writing(Tls *tls);
size_t tls_queued(Tls *tls);

static inline Tls *
tls_cast(PyObject *op)
{
    return (Tls *)op;
}

#endif
