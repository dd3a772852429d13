/* proto.h - every call into a user's protocol.
 *
 * Owns:     the protocol, its class's methods that are called per packet, and the context in
 *           which each call runs: the one in which the transport was made.
 * Promises: what is called is what the protocol's attribute is at that moment: what was looked up
 *           is used again only while the protocol and its class are as they were (instance.h).
 *           Each function holds what it calls for the call: the protocol may close its
 *           transport, be replaced, or lose its last other reference meanwhile.
 * Ignores:  what to do about an exception: the caller decides (transport.h). */
#ifndef ASYNCLOOP_PROTO_H
#define ASYNCLOOP_PROTO_H

#include "base/instance.h"
#include "loop/loop.h"
#include "net/net_state.h"

/* How a protocol takes bytes. */
enum proto_kind {
    PROTO_DATA,        /* data_received(bytes) */
    PROTO_BUFFERED,    /* get_buffer(), buffer_updated(n) */
    PROTO_READER,      /* exactly StreamReaderProtocol: see reader.h */
    PROTO_TLS,         /* a TLS transport of ours: protocols.feed_tls() */
};

enum proto_use {
    PROTO_FOR_SOCKET,
    PROTO_FOR_PIPE,    /* asyncio's pipes know no BufferedProtocol: data_received() */
    PROTO_FOR_TLS,     /* a BufferedProtocol's methods are those that it has when it is set, as in
                        * asyncio: bound in `get` and `updated` */
};

struct proto {
    PyObject *protocol;            /* strong; NULL once the connection is lost */
    PyObject *context;             /* strong */
    PyObject *feed;                /* data_received of its class, strong, or NULL */
    PyObject *get;                 /* get_buffer and buffer_updated */
    PyObject *updated;
    struct instance_seen seen;     /* the protocol, when these were looked up */
    uint8_t kind;
    uint8_t use;                   /* enum proto_use */
    uint8_t looks;                 /* how often that was: never more than 255 times */
    uint16_t entered;              /* calls that are under way in `context` */
    uint32_t expected;             /* bytes to receive straight into an object for data_received():
                                    * the packets are large; else 0 */
};

/* `context` NULL: a copy of the current one. 0 / -1. */
int proto_init(struct proto *proto, PyObject *protocol, PyObject *context, enum proto_use use);
/* Replaces the protocol. 0, or -1 with the exception of its __class__. */
int proto_set(struct proto *proto, struct state *state, PyObject *protocol);
void proto_clear(struct proto *proto);           /* also the context */
void proto_drop_protocol(struct proto *proto);   /* keeps the context */
int proto_traverse(struct proto *proto, visitproc visit, void *arg);

/* Per packet. 0, or -1 with what the protocol raised. */
int proto_data_received(struct proto *proto, struct state *state, const char *data, size_t n);
/* The same with a packet of packet.h. */
int proto_data_received_packet(struct proto *proto, struct state *state, PyObject *bytes_steal,
                               size_t capacity);
int proto_data_received_bytes(struct proto *proto, struct state *state, PyObject *bytes);
/* get_buffer(hint): *buffer is a new reference. */
int proto_get_buffer(struct proto *proto, struct state *state, Py_ssize_t size_hint,
                     PyObject **buffer);
int proto_buffer_updated(struct proto *proto, struct state *state, size_t n);

/* connection_made(transport). New reference or NULL. */
PyObject *proto_connection_made(struct proto *proto, struct state *state, PyObject *transport);

/* Per connection: looked up at each call. New reference or NULL. `arg` may be NULL. */
PyObject *proto_call(struct proto *proto, PyObject *name, PyObject *arg);

/* Without an argument, in the context that is current: for what asyncio calls from within the
 * user's own call (pause_writing() from write()). */
PyObject *proto_call_here(struct proto *proto, PyObject *name);

/* A method of the protocol that was looked up before, or one of an object that was the protocol. New
 * reference or NULL. */
PyObject *proto_call_bound(struct proto *proto, PyObject *method, PyObject *arg);
PyObject *proto_call_of(struct proto *proto, PyObject *object, PyObject *name, PyObject *arg);

/* proto_call() with nargs - 1 arguments in args[1] and up; args[0] is overwritten. */
PyObject *proto_call_method(struct proto *proto, PyObject *name, PyObject **args, size_t nargs);

#endif
