/* channel.h - what every transport has, whatever it lies upon: a descriptor (transport.h) or another
 * transport (tls.h). Its protocol, extra information, flow control, the writes that are dropped after
 * the end, and who is told of what goes wrong.
 *
 * Owns:     all of its fields but `state`.
 * Promises: code that needs no more than this does not ask which of the two it has.
 * Kinds:    the struct of a transport begins with this one as `head`, as does what Python sees of it: the
 *           types derive from asyncio.transports._FlowControlMixin, whose slots stay empty, because
 *           our attributes of the same names hide them. */
#ifndef ASYNCLOOP_CHANNEL_H
#define ASYNCLOOP_CHANNEL_H

#include "base/standard.h"
#include "loop/owner.h"
#include "net/net_state.h"
#include "net/proto.h"

/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
#define DROPPED_WRITES_BEFORE_WARNING 5

/* Water marks, in bytes. */
struct limits {
    size_t high;
    size_t low;
    PyObject *pair;                /* (low, high) as the user gave them, else NULL */
};

typedef struct {
    union {
        PyObject ob_base;
        char asyncio_fields[ASYNCIO_TRANSPORT_SIZE];
    };
    PyObject *dict;                /* __dict__, made on first use */
    PyObject *weakrefs;
    struct state *state;           /* borrowed: the type keeps the module alive */
    Loop *loop;                    /* strong; NULL when done */
    PyObject *extra;               /* dict of extra information; may be made on first need */
    struct proto proto;
    struct owed_call owed_lost;    /* connection_lost(), or what a kind does before that */
    struct limits limits;          /* of the output that waits */
    unsigned int conn_lost;        /* 0, or 1 + writes that were dropped since */
    struct flag closing;           /* what is_closing() says */
    struct flag paused;            /* by pause_reading() */
    struct flag protocol_paused;   /* by pause_writing() */
    bool extra_complete;           /* extra holds everything, own information too */
#ifdef ASYNCLOOP_DEBUG
    bool set_by_hand;              /* a program has set private attributes: they need not agree */
#endif
} Channel;

static inline void
channel_note_set_by_hand(Channel *ch UNUSED)
{
#ifdef ASYNCLOOP_DEBUG
    ch->set_by_hand = true;
#endif
}

/* One of the two transports that a StreamWriter may have, or NULL: borrowed. */
static inline Channel *
channel_of_stream(struct state *state, PyObject *op)
{
    struct net_state *net = net_state(state);
    return LIKELY(Py_IS_TYPE(op, net->types.Stream)) || Py_IS_TYPE(op, net->protocols.TlsType) ? (Channel *)op
                                                                                               : NULL;
}

/* New reference, or NULL. */
static inline Loop *
channel_loop_ref(Channel *ch)
{
    GUARD(ch);
    return (Loop *)Py_XNewRef(ch->loop);
}

/* Is nothing put on that transport, nor on its class? */
static inline bool
channel_is_plain(struct state *state, Channel *ch)
{
    struct net_state *net = net_state(state);
    PyTypeObject *type = Py_TYPE(ch);
    return LIKELY(ch->dict == NULL)
           && standard_transport_class(state, LIKELY(type == net->types.Stream) ? &net->streams.methods : &net->protocols.tls_methods,
                                       type);
}

/* -- life (guarded path: connection) -------------------------------------------------- */

/* Of memory that is zero. `context` NULL: a copy of the current one. 0, or -1 with an exception. */
static inline int
channel_init(Channel *ch, Loop *loop, PyObject *protocol, PyObject *context, enum proto_use use,
             size_t high_water)
{
    ch->state = loop->state;
    ch->loop = (Loop *)Py_NewRef(loop);
    ch->limits.high = high_water;
    ch->limits.low = high_water / 4;
    return proto_init(&ch->proto, protocol, context, use) < 0 ? -1
                                                              : proto_set(&ch->proto, ch->state, protocol);
}

int channel_traverse(Channel *ch, visitproc visit, void *arg);
/* For tp_clear: a method that is called on what is left finds a transport that was closed. The
 * loop stays. */
void channel_clear(Channel *ch);
/* The end of tp_dealloc: tp_clear, and the memory. */
static inline void
channel_free(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (SHARED_LOAD(((Channel *)op)->weakrefs) != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    type->tp_clear(op);
    Py_CLEAR(((Channel *)op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

/* For tp_finalize: abandon(op, NULL), by the thread that has the loop. Where that is another one, the
 * transport comes back to life for it. */
void channel_abandon(Channel *ch, native_callback abandon);
void channel_warn_unclosed(Channel *ch);    /* ResourceWarning */

/* May this thread look at all of the transport, to describe it? Then it has the loop until
 * loop_unclaim(). Sets no exception. */
bool channel_claim(Channel *ch, struct claim *claim);

/* -- the end --------------------------------------------------------------------- */

/* A write after the connection was lost: dropped, with a warning in the log from the fifth on. 0, or -1 with
 * what the logger has raised. */
int channel_drop_write(Channel *ch, const char *warning);

/* connection_lost(exc) of `protocol` has come. Keeps the current exception. Either may be NULL. */
void channel_lost_was_told(Channel *ch, PyObject *protocol, PyObject *exc);

/* -- telling --------------------------------------------------------------------- */

/* The current exception came out of a method of the protocol that is not allowed to end the transport:
 * it is told to the exception handler. 0, or -1 with an exit exception, or with what the handler has
 * raised. */
int channel_callback_failed(Channel *ch, const char *message);

/* The current exception came out of what asyncio would have called by a Handle: method(arg) of
 * `object`, or if `method` is NULL, object(arg). It does not end the transport: it is told to the
 * exception handler so, and what that raises leaves the run. `arg` may be NULL. 0, or -1 with an exit
 * exception. Without a loop it is sys.unraisablehook that is told. */
int channel_call_failed(Loop *loop, PyObject *object, const char *method, PyObject *arg);

/* `exc` ends the connection: the exception handler is told, as of `transport`, or, if it was `expected`, the log in
 * debug mode. 0, or -1 with what either has raised: asyncio's _fatal_error() ends there. */
int channel_tell_fatal(Channel *ch, PyObject *transport, const char *message, PyObject *exc, bool expected);

/* In debug mode: logger.level(format, transport, arg), where format has one %r, and more for arg, which
 * may be NULL. 0, or -1 with what it has raised: a filter or a handler of logging may do that, and
 * asyncio lets it out of the function that logs. */
int channel_log(Channel *ch, const char *level, const char *format, PyObject *arg);
int channel_log_warning(Channel *ch, const char *message);    /* in any mode */

/* What asyncio's own module of that name logs to, which a test may have replaced: new reference. Never
 * NULL. */
PyObject *asyncio_logger(struct state *state, const char *module);

/* -- flow control ------------------------------------------------------------------ */

/* The limits of set_write_buffer_limits(high, low): objects of the user's; None for what follows from the
 * other one, or is asyncio's: `high_water`. 0, or -1 with TypeError, ValueError, or what a comparison
 * raised. */
int limits_set(struct limits *limits, size_t high_water, const char *function, PyObject *const *args,
               Py_ssize_t nargs, PyObject *kwnames);
int limits_set_one(struct limits *limits, bool high, PyObject *value);    /* in any order */
PyObject *limits_get(const struct limits *limits);    /* (low, high) */

/* Output is above, or again below: the protocol is told. 0, or -1 with an exit exception. */
int channel_pause_writing(Channel *ch);
int channel_resume_writing(Channel *ch);

/* -- methods and attributes of both types --------------------------------------------- */

PyObject *Channel_set_protocol(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Channel_get_protocol(PyObject *op, PyObject *ignored);
PyObject *Channel_get_write_buffer_limits(PyObject *op, PyObject *ignored);

PyObject *Channel_loop(PyObject *op, void *closure);
PyObject *Channel_protocol(PyObject *op, void *closure);
PyObject *Channel_closing(PyObject *op, void *closure);
PyObject *Channel_paused(PyObject *op, void *closure);
PyObject *Channel_protocol_paused(PyObject *op, void *closure);
PyObject *Channel_conn_lost(PyObject *op, void *closure);

#endif
