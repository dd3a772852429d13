/* transport.h - what all transports share: closing, flow control, extra information.
 *
 * A transport goes through these states, each at most once:
 *
 *   open -> closing          close(): reading stops, output still goes out
 *        -> connection lost  conn_lost > 0: nothing moves any more; connection_lost()
 *                            is called in the next iteration, or is under way
 *        -> done             loop == NULL: the descriptor is closed, protocol and loop
 *                            are forgotten
 *
 * Owns:     the Python socket or file object that owns the descriptor, from creation on;
 *           it is closed through that object, once, after connection_lost().
 * Promises: connection_lost() is called once per transport, unless the loop ends first.
 * Kinds:    a concrete transport (stream, datagram, pipe) embeds this struct first and
 *           gives a struct transport_kind. Its Python type derives from TransportType. */
#ifndef ASYNCLOOP_TRANSPORT_H
#define ASYNCLOOP_TRANSPORT_H

#include "loop/watch.h"
#include "net/addr.h"
#include "net/channel.h"
#include "net/io.h"

typedef struct Transport Transport;

struct transport_kind {
    bool is_socket;         /* extra info: socket, sockname, peername; else pipe. The
                             * descriptor is the transport's alone: add_reader() refuses it */
    bool has_output;
    uint8_t flow;           /* enum flow_kind, if it has */
    bool close_ends_output; /* close() is write_eof(): what is written after it is dropped */
    /* bytes that wait to be sent */
    size_t (*queued)(Transport *tr);
    /* drops them */
    void (*discard_output)(Transport *tr);
    /* what the kernel holds of them leaves; may be NULL */
    void (*push)(Transport *tr);
    /* connection_lost() was called and the descriptor is closed; may be NULL */
    void (*lost)(Transport *tr);
    /* An error that only debug mode hears of, apart from connection_lost(); NULL: each
     * OSError. */
    bool (*is_expected)(Transport *tr, PyObject *exc);
    /* The repr, unless asyncio's for sockets. `polls`: the watches may be looked at. */
    PyObject *(*text)(Transport *tr, const char *state, bool polls);
    /* For stream_read.c. 0, or -1 with an exit exception. */
    int (*received_eof)(Transport *tr);
    int (*data_failed)(Transport *tr);    /* data_received() raised the current exception */
    /* For stream_write.c: a write that is too late. */
    int (*drop_write)(Transport *tr);
};

#define TRANSPORT_MESSAGE(tr, what) \
    ((tr)->kind->is_socket ? what " on socket transport" : what " on pipe transport")
#define READ_FAILED(tr) TRANSPORT_MESSAGE(tr, "Fatal read error")
#define WRITE_FAILED(tr) TRANSPORT_MESSAGE(tr, "Fatal write error")

struct Transport {
    Channel head;
    const struct transport_kind *kind;
    PyObject *file;                /* the Python object that owns the descriptor; strong */
    PyObject *made;                /* connection_made() of the protocol, until it is called; or NULL */
    PyObject *server;              /* asyncio.Server that we are attached to, or NULL: clients.c */
    struct list_node client;       /* in the server's list */
    PyObject *socket_view;         /* asyncio's TransportSocket, made on first need */
    PyObject *sockname;            /* once asked for, or before it is too late */
    union {
        struct addr addr;          /* the kernel's form: most are never asked for Python's */
        struct {
            socklen_t length;      /* PEER_IS_NAMED: it has been made */
            PyObject *name;
        } named;
    } peer;
    struct io io;
    struct watch read_watch;
    struct watch write_watch;
    int fd;                        /* for repr: stays when the descriptor is closed */
    bool begun;                    /* connection_made() was called */
    bool read_eof;                 /* the peer has ended its side, and the protocol stays */
    bool file_closed;
    bool fd_gone;                  /* closed by somebody else: the number is not ours any more */
};

extern PyGetSetDef Transport_getset[];    /* transport_attributes.c */

#define PEER_IS_NAMED ((socklen_t)-1)

/* Borrowed, or NULL. */
static inline PyObject *
transport_named_peer(const Transport *tr)
{
    return tr->peer.named.length == PEER_IS_NAMED ? tr->peer.named.name : NULL;
}

/* -- life ---------------------------------------------------------------------- */

/* A new transport of the given type with everything but its kind's own fields; its io is
 * the caller's to fill. The descriptor is claimed, the server attached. Takes over `file`
 * only on success: on failure the caller still closes it. New reference or NULL.
 * `extra` (dict), `server`, `context` may be NULL. */
Transport *transport_new(PyTypeObject *type, const struct transport_kind *kind, Loop *loop,
                         PyObject *file, int fd, PyObject *protocol, PyObject *extra,
                         PyObject *server, PyObject *context);

/* Where a socket object keeps the number of its descriptor, -1 once it is closed; good as long as
 * the object is. NULL if `sock` is no socket.socket, or keeps it elsewhere. */
const int *transport_socket_number(struct state *state, PyObject *sock, int fd);

/* -1 with asyncio's RuntimeError if a transport that is not closing uses fd, which the user `named`
 * so (NULL: by number). One whose socket was closed by somebody else ends here, before it meets the
 * next owner of the number. */
int transport_ensure_free(Loop *loop, int fd, PyObject *named);

/* Takes a transport that has not begun out of the world, and drops the reference: `file`
 * is the caller's again. Keeps the current exception. */
void transport_undo(Transport *tr);

/* loop.call_soon(callback, *args), as asyncio's transports call it: both are stolen, and may be NULL with an exception.
 * 0 / -1 */
int transport_call_soon_steal(Transport *tr, PyObject *callback, PyObject *args);

/* Schedules connection_made(), then the first reading, then the waiter (or NULL). 0 / -1. */
int transport_begin(Transport *tr, PyObject *waiter);

/* For tp_traverse, tp_clear, tp_dealloc and tp_finalize of the kinds. */
int transport_traverse(PyObject *op, visitproc visit, void *arg);
int transport_clear(PyObject *op);
void transport_dealloc(PyObject *op);
void transport_finalize(PyObject *op);

static inline Transport *
transport_cast(PyObject *op)
{
    return (Transport *)op;
}

/* Is it exactly our transport of a stream socket, with nothing put on it or its class? Then to write
 * is to call stream_write(). */
static inline bool
transport_is_plain_stream(struct state *state, PyObject *op)
{
    return LIKELY(Py_IS_TYPE(op, net_state(state)->types.Stream)) && LIKELY(transport_cast(op)->head.dict == NULL)
           && standard_transport_class(state, &net_state(state)->streams.methods, net_state(state)->types.Stream);
}

/* May one of the methods of flow control be somebody's, or get_write_buffer_size(), which they call? */
static inline bool
transport_flow_is_replaced(Transport *tr)
{
    struct net_state *net = net_state(tr->head.state);
    return UNLIKELY(tr->head.dict != NULL)
           || !standard_class_is_same(Py_TYPE(tr), &net->transports.flow_version[tr->kind->flow]);
}

/* -- what is known of a connection (transport_info.c) ------------------------------ */

/* Who is at the other end, as accept() told; length 0 asks the kernel. Before the
 * transport begins. 0 / -1. */
int transport_set_peer(Transport *tr, const struct sockaddr *address, socklen_t length);

/* The own address, unless it is known: it has to be asked for before the descriptor goes. 0 / -1 */
int transport_remember_sockname(Transport *tr);

/* get_extra_info(): new reference, or NULL with an exception. */
PyObject *transport_get_info(Transport *tr, PyObject *name, PyObject *otherwise);

/* The whole dict, as asyncio's transports have it (borrowed), or NULL with an exception. */
PyObject *transport_extra(Transport *tr);

/* -- reading and closing ----------------------------------------------------------- */

/* The transport is done: it forgets its loop, which counts it no more. Idempotent. */
static inline void
transport_leave_loop(Transport *tr)
{
    if (tr->head.loop != NULL) {
        COUNT_SHARED(tr->head.loop->counters->transports, (uint64_t)-1);
    }
    shared_loop_drop((PyObject *)tr, &tr->head.loop);
}

/* io.ops->read() and writev(), and the loop counts the bytes. */
static inline enum io_status
transport_read(Transport *tr, void *buffer, size_t capacity, size_t *n)
{
    enum io_status status = tr->io.ops->read(&tr->io, buffer, capacity, n);
    if (LIKELY(status == IO_OK) && LIKELY(tr->head.loop != NULL)) {
        COUNT(tr->head.loop->counters->bytes_in, *n);
    }
    return status;
}

/* *n is 0 before. */
static inline enum io_status
transport_writev(Transport *tr, const struct iovec *iov, int count, bool more, size_t *n)
{
    enum io_status status = tr->io.ops->writev(&tr->io, iov, count, more, n);
    if (LIKELY(tr->head.loop != NULL)) {
        COUNT(tr->head.loop->counters->bytes_out, *n);
    }
    return status;
}

/* What send() or os.write() of a program's says that it has sent. */
static inline void
transport_count_sent(Transport *tr, PyObject *count)
{
    if (PyLong_CheckExact(count) && tr->head.loop != NULL) {
        int overflow;
        long long n = PyLong_AsLongLongAndOverflow(count, &overflow);
        COUNT(tr->head.loop->counters->bytes_out, n > 0 ? (uint64_t)n : 0);
    }
}

/* May and should the kind read? Asked again after each call into the protocol. */
static inline bool
transport_wants_data(const Transport *tr)
{
    return !FLAG(tr->head.closing) && !FLAG(tr->head.paused) && tr->begun && !tr->read_eof;
}

/* The current exception came out of asyncio's `method`, _read_ready() or _write_ready(): who has called that by
 * hand gets it, else the exception handler, as from a Handle, unless it is to leave the loop. */
void transport_step_failed(Transport *tr, Loop *loop, const char *method, int revents);

/* asyncio's _read_ready() asks for no more than this, whoever calls it. */
static inline bool
transport_reads_by_hand(const Transport *tr, int revents)
{
    return (revents & WATCH_BY_HAND) != 0 && tr->head.conn_lost == 0;
}

#define TRANSPORT_HIGH_WATER (64 * 1024)    /* asyncio's */

/* What asyncio's transports read at most at a time, in bytes: the default of the attribute max_size. */
#define TRANSPORT_MAX_SIZE ((size_t)256 * 1024)

/* connection_lost() now, in place of the next iteration. 0, or -1 with what that has raised. */
int transport_lose_now(Transport *tr, PyObject *exc);    /* exc borrowed, or NULL */

/* Of a socket, whose write_watch was started: ends what add_writer() and the like have left. May run Python. */
static inline void
transport_clear_writer(Transport *tr)
{
    if (!tr->write_watch.lent && tr->head.loop != NULL) {
        watch_clear_place(tr->head.loop, tr->fd, EV_WRITE);
    }
}

int transport_watch(Transport *tr, struct watch *watch);    /* one of its own: by a method put on it, or libev; 0 / -1 */
int transport_update_reading(Transport *tr);    /* starts or stops the read watch; 0 / -1 */

void transport_stop_watches(Transport *tr);     /* may run Python: watch.h */
void transport_release_fd(Transport *tr);       /* the loop forgets who uses the descriptor */
/* Closes the descriptor through the object that owns it, which only forgets one that was closed
 * behind its back. Errors go to sys.unraisablehook. */
int transport_close_file(Transport *tr);    /* 0, or -1 with what close() has raised */

/* In a child of fork(): what waits to be sent is the parent's. */
void transports_forked(struct state *state);

int transport_close(Transport *tr);             /* 0, or -1 with RuntimeError: loop closed */
int transport_force_close(Transport *tr, PyObject *exc);    /* exc borrowed, or NULL */
int transport_force_close_here(Transport *tr, PyObject *exc);    /* see transport_own_method() */

/* Output has all gone: ends a transport that was closing. 0, or -1 with what connection_lost() has raised. */
int transport_drained(Transport *tr);

/* The current exception ends the transport: it is told to the exception handler (an
 * OSError in debug mode only, to the log) and to connection_lost(). 0, or -1 with an exit
 * exception (KeyboardInterrupt, SystemExit), which is not told to anybody and must leave
 * the loop, or with what the handler or the logger has raised: then nothing ends. */
int transport_fatal(Transport *tr, const char *message);
/* The descriptor was closed by somebody else: the end, with EBADF. 0 / -1 as above. */
int transport_descriptor_gone(Transport *tr);
/* transport_fatal(), also where a program has put another _fatal_error() on the transport. */
int transport_fatal_here(Transport *tr, const char *message);
/* The same as transport_fatal() for an errno; 0: an exception is set. */
int transport_fatal_errno(Transport *tr, int err, const char *message);

/* -- flow control --------------------------------------------------------------------- */

/* Output grew, or shrank: asyncio's _maybe_pause_protocol() and _maybe_resume_protocol(), or what a program has in
 * their place. 0, or -1 with an exit exception, or with what a program's has raised. */
int transport_maybe_pause(Transport *tr);
int transport_maybe_resume(Transport *tr);
/* The same where nothing is in their place: tells the protocol, once, by the water marks. 0, or -1 with an exit
 * exception. */
int transport_pause_if_full(Transport *tr);
int transport_resume_if_empty(Transport *tr);

/* A write after the connection was lost: dropped, with asyncio's warning from the fifth on. */
int transport_drop_write(Transport *tr);

/* What a program has put on the transport itself in place of a method that asyncio's transports call of
 * themselves: new reference, or NULL. The C functions of these methods end in _here and do not look. */
PyObject *transport_own_method(Transport *tr, const char *name);

#endif
