/* tls.h - TLS as a transport of its own above any other transport.
 *
 * A Tls object is two things of asyncio's in one: the transport that the user's protocol
 * sees, and the protocol of the transport below. Over a StreamTransport both directions
 * are C calls; over anything else (TLS in TLS, a transport of somebody else's) the
 * methods of Protocol and Transport.
 *
 *   tls.c           the states: shutdown, the end
 *   tls_handshake.c how it begins
 *   tls_read.c      from the transport below to the user's protocol
 *   tls_write.c     from write() to the transport below
 *   tls_type.c      Python's face, and tls_module.c
 *   tls_shipped.c   for which connections all this may stand for asyncio's own code
 *   tls_portable.c  engine over ssl.MemoryBIO and SSLObject
 *   tls_direct.c    engine over libssl's own functions, found by tls_libssl.c
 *
 * States, each entered at most once, in this order, any of them followed by UNWRAPPED:
 *   UNWRAPPED -> HANDSHAKE -> WRAPPED -> FLUSHING (the end has begun: what the peer has sent so far is
 *   still read) -> SHUTDOWN (close_notify is sent, the peer's is awaited) -> UNWRAPPED
 *
 * What happens in which order is asyncio.sslproto's, call by call, so that a protocol and a transport
 * in Python can tell no difference whatever they do inside a callback.
 *
 * Memory: the engine reads the peer's bytes where they lie, and writes its output into a block of
 * scratch memory (scratch.h), each for the time of one call of ours. Either belongs to that call: a
 * call outwards in the middle may use this connection, or any other, as it likes.
 *
 * Life: every way in from outside is between tls_enter() and tls_leave(). The engine is closed when the
 * connection is lost and nobody is inside any more. */
#ifndef ASYNCLOOP_TLS_H
#define ASYNCLOOP_TLS_H

#include "base/tuning.h"
#include "net/stream.h"
#include "tls/tls_libssl.h"
#include "tls/tls_loop.h"
#include "tls/tls_state.h"

#define TLS_FATAL_MESSAGE "Fatal error on SSL protocol"
#define TLS_RECORD_BYTES 16384       /* plaintext of a full record */
#define TLS_RECORD_OVERHEAD 512      /* more than any cipher suite adds */
/* Encrypted output of one system call: eight full records. (Benchmark row: TLS: Protocol, 1 MiB, of which up to
 * 4 % fewer go through with a call for each record; 2026-11-30.) */
#define TLS_OUT_RECORDS TUNED(TLS_OUT_RECORDS, 8)
#define TLS_OUT_BYTES (TLS_OUT_RECORDS * (TLS_RECORD_BYTES + TLS_RECORD_OVERHEAD))
#define TLS_HIGH_WATER (512 * 1024)          /* asyncio's for TLS */
#define TLS_READ_HIGH_WATER (256 * 1024)     /* the same for what waits to be decrypted */
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
    size_t (*waiting)(struct tls_engine *engine);    /* bytes fed and not used */

    enum tls_status (*handshake)(struct tls_engine *engine);    /* never TLS_EOF */
    /* Plaintext into memory, past the SSLObject: only while tls_is_foreign() says no. *more: there is more
     * without another feed(). */
    enum tls_status (*read)(struct tls_engine *engine, char *buffer, size_t capacity, size_t *n,
                            bool *more);
    /* All the plaintext there is, as a new bytes object. */
    enum tls_status (*read_bytes)(struct tls_engine *engine, PyObject **data, bool *more);
    /* Encrypts. `object` is what was given to write(), if it holds exactly the data, or NULL. */
    enum tls_status (*write)(struct tls_engine *engine, PyObject *object, const char *data,
                             size_t length, size_t *n);
    /* Sends close_notify; TLS_OK once the peer's has come as well. */
    enum tls_status (*shutdown)(struct tls_engine *engine);

    /* Nothing that was lent is used any more, neither input nor output. 0 / -1 */
    int (*settle)(struct tls_engine *engine);
    /* Encrypted output that take() would give. */
    size_t (*pending)(const struct tls_engine *engine);
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
    PyObject *context;              /* borrowed: to see whether there is another one */
    PyTypeObject *type;             /* borrowed */
    PyObject *dict;                 /* its attributes; strong, or NULL: it is not the standard one */
    PyObject **own;                 /* where it keeps them */
#if PY_VERSION_HEX < 0x030C0000
    uint64_t dict_version;          /* when its only attribute was `inner`; 0: never yet */
#endif
    unsigned int version;           /* of the type */
    bool foreign;                   /* they were replaced, when somebody last looked */
    bool unwatched;                 /* the self-test's */
    uint8_t deferred;               /* enum tls_status: what comes after the plaintext that was handed out */
    PyObject *failure;              /* the exception of a deferred TLS_FAILED */
    union {
        struct {
            PyObject *incoming;     /* ssl.MemoryBIO */
            PyObject *outgoing;
            bool drained;           /* `incoming` was found empty, and nothing was put into it since */
            bool wrote;             /* something was encrypted since the last take() */
        } portable;
        struct {
            SSL *ssl;               /* the SSLObject's */
            BIO *bio;               /* our reference */
            const char *in;         /* the peer's bytes that are not used yet */
            size_t in_length;
            char *kept;             /* our copy of them, or NULL while they are borrowed */
            size_t kept_capacity;
            char *out;
            size_t out_length;
            size_t out_capacity;
            uint32_t partial;       /* bytes of a record that libssl has only a part of */
            bool out_lent;          /* out is not ours to free */
            bool starved;           /* the last call asked for more of the peer's bytes */
            bool out_failed;        /* no memory for output */
        } direct;
    };
};

extern const struct tls_engine_ops tls_portable_ops;
extern const struct tls_engine_ops tls_direct_ops;

/* The engine by ASYNCLOOP_TLS and the self-test, which runs at the first call. */
const struct tls_engine_ops *tls_default_engine(struct state *state);
/* The engine for a new connection of this context: that one, unless the context asks for something
 * else. NULL with an exception. */
const struct tls_engine_ops *tls_choose_engine(struct state *state, PyObject *context);
int tls_has_message_callback(struct state *state, PyObject *context);

/* -- tls_shipped.c: is TLS what the standard library has? ------------------------------ */

PyObject *module_tls_check(PyObject *module, PyObject *context);
PyObject *module_tls_stamp(PyObject *module, PyObject *args);

/* -- transport ----------------------------------------------------------------------- */

enum tls_phase {
    TLS_UNWRAPPED,
    TLS_HANDSHAKE,
    TLS_WRAPPED,
    TLS_FLUSHING,
    TLS_SHUTDOWN,
};
/* What the user's protocol was told last. */
enum tls_app {
    TLS_APP_INIT,    /* nothing */
    TLS_APP_MADE,    /* connection_made() */
    TLS_APP_EOF,     /* eof_received() */
    TLS_APP_LOST,    /* connection_lost() */
};

typedef struct {
    Channel head;                   /* its protocol is the user's */
    PyObject *lower;                /* the transport below; NULL before and after */
    Stream *stream;                 /* the same, if it is one of ours (borrowed) */
    struct tls_engine engine;
    PyObject *sslcontext;
    PyObject *waiter;               /* future of the handshake, or NULL */
    TimerHandle *timer;             /* of the handshake, later of the shutdown */
    PyObject *handshake_timeout;    /* seconds: numbers, as the user gave them */
    PyObject *shutdown_timeout;
    double handshake_started;       /* loop.time(), in debug mode */
    struct wqueue output;           /* plaintext that the engine does not take yet */
    struct list_node pending;       /* in tls_loop(loop)->pending while there is output, encrypted or not */
    struct owed_call owed_reading;  /* what is there to be read */
    struct owed_call owed_close;    /* the transport below is closed */
    struct limits read_limits;      /* of bytes that wait to be decrypted */
    size_t never_read;              /* what waited when the connection was lost */
    size_t never_written;           /* what could not be encrypted, or waited when the connection was lost */
    PyObject *read_buffer;          /* bytearray of get_buffer(), or NULL */
    PyObject *late_error;           /* bytes were dropped: the end is this exception; or NULL */
    PyObject *bad_part;             /* what a part of a writelines() has raised: nothing is written any more */
    PyObject *last_protocol;        /* the protocol that is to hear of connection_lost() */
    PyObject *tell_lost;            /* its method, as it was when the connection was lost */
    unsigned int in_use;            /* calls that are under way inside */
    uint32_t late;                  /* bytes of plaintext that came after close() */
    uint8_t tls_state;
    uint8_t app;
    struct flag parted;             /* by a second close(): tls_type.c */
    bool lost;                      /* connection_lost() of the transport below has come */
    bool lower_paused;              /* we have paused the transport below */
    bool writing_paused;            /* the transport below has paused us */
    bool encrypting;                /* inside tls_write(): what comes in the middle is queued */
    /* not for each packet: */
    bool server_side : 1;
    bool owes_output : 1;           /* something was written before the shutdown, and waits */
    bool failed : 1;                /* tls_fatal() has given the end its reason */
    bool eof : 1;                   /* the transport below has ended, without close_notify */
    bool read_waits : 1;            /* start_tls() returns first */
    bool handshake_waits : 1;       /* for a later iteration: this one had enough of them */
} Tls;

int tls_type_add(PyObject *module, struct state *state, PyTypeObject **slot);    /* tls_type.c */

/* asyncio's SSLProtocol and its transport. `context` NULL: a copy of the current one; `waiter`
 * NULL: nobody waits. New reference or NULL. */
Tls *tls_new(Loop *loop, PyObject *protocol, PyObject *sslcontext, PyObject *waiter,
             bool server_side, PyObject *hostname, PyObject *handshake_timeout,
             PyObject *shutdown_timeout, bool call_connection_made, PyObject *context);

/* A way in: the transport and its engine stay until tls_leave(). */
static inline void
tls_enter(Tls *tls)
{
    Py_INCREF(tls);
    tls->in_use++;
}

/* Bytes that wait to be decrypted. */
static inline size_t
tls_waiting(Tls *tls)
{
    return UNLIKELY(tls->lost) ? tls->never_read : tls->engine.ops->waiting(&tls->engine);
}

void tls_close_engine(Tls *tls);    /* for the next one */

/* The way out. Keeps the current exception. */
static inline void
tls_leave(Tls *tls)
{
    assert(tls->in_use > 0);
    tls->in_use--;
    if (UNLIKELY(tls->lost) && tls->in_use == 0) {
        tls_close_engine(tls);
    }
    Py_DECREF(tls);
}

/* All that follow return 0, or -1 with an exception, which goes to the caller, whoever that is: a
 * user's call of write(), the transport below, a callback of the loop. That is asyncio's way, too:
 * where it ends the connection instead, so does tls_failed(). */

/* -- tls.c ------------------------------------------------------------------------------- */

/* connection_lost() and eof_received() of the transport below. `exc` may be NULL; *keep_open: what
 * eof_received() answers, also where this fails. */
int tls_lower_lost(Tls *tls, PyObject *exc);
int tls_lower_eof(Tls *tls, bool *keep_open);

int tls_close(Tls *tls);                 /* the transport's close() */
int tls_abort(Tls *tls, PyObject *exc);  /* at once, without close_notify; exc borrowed, or NULL */
int tls_start_shutdown(Tls *tls);        /* the way to close_notify: FLUSHING, with its timer */
int tls_do_flush(Tls *tls);              /* reads what is there, then the shutdown */
int tls_do_shutdown(Tls *tls);
/* A method of the transport below; `arg` may be NULL. */
int tls_call_lower(Tls *tls, PyObject *name, PyObject *arg);
/* The current exception ends the connection, if it is no KeyboardInterrupt or SystemExit. */
int tls_fatal(Tls *tls, const char *message);
int tls_failed(Tls *tls, const char *message);           /* the same for an Exception only */
/* What the engine has to tell the peer about the current exception, which stays: unless the call
 * raises one that is no Exception. */
void tls_send_alert(Tls *tls);
void tls_cancel_timer(Tls *tls);
int tls_start_timer(Tls *tls, PyObject *delay, native_callback callback);
void tls_wake_waiter(Tls *tls, PyObject *exc);    /* the future of the handshake: exc NULL is success */
/* A child of fork(): what waits in this loop's connections is the parent's to send. */
void tls_forked(Loop *loop);

/* -- tls_handshake.c --------------------------------------------------------------------- */

int tls_lower_made(Tls *tls, PyObject *transport);    /* connection_made() of the transport below: begins */
int tls_step_handshake(Tls *tls);        /* with what the peer has sent so far */
int tls_handshake_failed(Tls *tls);      /* by the current exception */
int tls_flush_at_eof(Tls *tls);          /* what is there is read first: now, or after resume_reading() */

/* -- tls_read.c -------------------------------------------------------------------------- */

int tls_received(Tls *tls, const char *data, size_t n);    /* bytes from the transport below */
int tls_feed(PyObject *op, const char *data, size_t n);    /* the state's protocols.feed_tls */
int tls_do_read(Tls *tls);
void tls_read_later(Tls *tls);           /* not before a later iteration */
int tls_resume(Tls *tls);                /* resume_reading() */
int tls_control_reading(Tls *tls);       /* pauses or resumes the transport below */
int tls_control_reading_strictly(Tls *tls);    /* AttributeError if that would be None's turn */
int tls_call_eof_received(Tls *tls);
/* What the peer sends until it knows of our close(). To end the connection at once would reset it,
 * and cost the peer what it has not read yet of our output; but who never stops does not get more
 * than TLS_LATE_BYTES. TLS_WANT: nothing is left; TLS_OK: it was too much; or the end. */
enum tls_status tls_discard(Tls *tls);

/* -- tls_write.c ------------------------------------------------------------------------- */

int tls_write(Tls *tls, PyObject *data);    /* the transport's write() and writelines() */
/* 1: something to write, 0: nothing, -1 with an exception: no data at all */
int tls_is_data(PyObject *data);
int tls_writelines(Tls *tls, PyObject *list);
int tls_append_backlog(Tls *tls, PyObject *data);    /* to what is written next */
int tls_do_write(Tls *tls);              /* what is queued */
int tls_send(Tls *tls);                  /* what the engine has made */
int tls_process_outgoing(Tls *tls);      /* the same, unless the transport below has enough; flow control */
int tls_control_writing(Tls *tls);       /* pauses or resumes the user's protocol by what waits */
size_t tls_queued(const Tls *tls);       /* bytes that wait: get_write_buffer_size() */

static inline Tls *
tls_cast(PyObject *op)
{
    return (Tls *)op;
}

#ifdef ASYNCLOOP_DEBUG
void tls_verify_all(Loop *loop, uint64_t turn);    /* checked.h */
#endif

#endif
