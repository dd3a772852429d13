/* net_state.h - the part of the module's state that is net/'s: see base/state.h. */
#ifndef ASYNCLOOP_NET_STATE_H
#define ASYNCLOOP_NET_STATE_H

#include "tasks/tasks_state.h"

struct proto;

/* What asyncio.streams looked like at import. */
enum own_function {
    OWN_DATA_RECEIVED,                    /* of StreamReaderProtocol */
    OWN_DRAIN_HELPER,
    OWN_DEL,
    OWN_FEED_DATA,                        /* of StreamReader */
    OWN_WAKEUP_WAITER,
    OWN_WAIT_FOR_DATA,
    OWN_MAYBE_RESUME_TRANSPORT,
    OWN_READ,
    OWN_READEXACTLY,
    OWN_READLINE,
    OWN_READUNTIL,
    OWN_EXCEPTION,
    OWN_WRITE,                            /* of StreamWriter */
    OWN_DRAIN,
    OWN_FUNCTIONS,                        /* how many */
};

struct reader_state {
    PyObject *ProtocolType;               /* asyncio.StreamReaderProtocol */
    PyObject *ReaderType;                 /* asyncio.StreamReader */
    PyObject *WriterType;                 /* asyncio.StreamWriter */
    PyObject *own[OWN_FUNCTIONS];         /* the functions that the classes had at import */
    PyObject *names[OWN_FUNCTIONS];       /* the names of these, interned */
    PyObject *stream_reader;              /* StreamReaderProtocol._stream_reader */
    /* Filled by streams/: the length of the buffer that the watcher of a future waits for, or 0 */
    Py_ssize_t (*wanted_length)(PyObject *watcher, PyObject *reader);
    unsigned int protocol_version;        /* tp_version_tag of the classes at the last look */
    unsigned int reader_version;
    unsigned int writer_version;
    bool classes_ok;
    bool usable;                          /* they were as expected at import */
};

/* Types of transports with output. */
enum flow_kind {
    FLOW_STREAM,
    FLOW_DATAGRAM,
    FLOW_PIPE,
    FLOW_KINDS,
};

/* What net/ puts into the module: see base/state.h. */
#define NET_TABLE(TYPE, INIT) \
    INIT(transport_types) TYPE(Transport) \
    INIT(clients_type) TYPE(Clients) /* NULL where clients.h says so */ \
    INIT(reader) TYPE(FastReader) TYPE(FastWriter) /* by streams/: what objects in use change to */ \
    INIT(stream_type) TYPE(Stream) \
    INIT(datagram_type) TYPE(Datagram) \
    INIT(pipe_types) TYPE(ReadPipe) TYPE(WritePipe) \
    INIT(server_type) TYPE(Acceptor) \
    INIT(sockets)

struct net_state {
    struct tasks_state below;
    struct {
        NET_TABLE(STATE_TYPE, STATE_NOTHING)
    } types;
    struct {
        PyObject *FlowControlMixin;       /* asyncio.transports._FlowControlMixin */
        PyObject *TransportSocket;        /* asyncio.trsock.TransportSocket */
        PyObject *logger;                 /* asyncio.log.logger */
        unsigned int above_version;       /* of our Transport, while nothing above it is replaced; or 0 */
        unsigned int flow_version[FLOW_KINDS];    /* of the types with output, while their flow control is ours */
        /* asyncio's (Python) bases keep nothing of ours; what somebody puts into their slots all the
         * same is dropped with the object. Offsets of those slots. */
        Py_ssize_t slots[8];
        int slot_count;
    } transports;                         /* transport_type.c */
    struct {
        PyObject *BufferedProtocol;       /* asyncio.protocols.BufferedProtocol */
        struct {
            PyObject *object;             /* an int, or NULL */
            size_t value;
        } count;                          /* of the last buffer_updated() */
        /* A TLS transport of ours, and the peer's bytes for it: 0 / -1. Filled by tls/. */
        PyTypeObject *TlsType;            /* borrowed */
        struct standard_transport tls_methods;
        int (*feed_tls)(PyObject *tls, const char *data, size_t n);
        /* connection_made() of a protocol of kind PROTO_READER. Filled by streams/. */
        PyObject *(*stream_connection_made)(struct state *state, struct proto *proto,
                                            PyObject *transport);
    } protocols;                          /* proto.c */
    struct {
        PyObject *bytes;                  /* a packet that its protocol did not keep */
        size_t capacity;
    } packets;                            /* packet.h */
    struct reader_state reader;           /* reader.c */
    struct {
        struct standard_transport methods;
        vectorcallfunc write_by_position; /* of the descriptor of write() */
    } streams;                            /* stream.c */
    struct {
        PyTypeObject *ServerType;         /* asyncio.base_events.Server */
        unsigned int server_version;      /* tp_version_tag of it at the last look */
        bool server_is_own;               /* what that look has found: its methods are asyncio's */
    } clients;                            /* clients.c */
};

NET_TABLE(STATE_NOTHING, STATE_INIT);

static inline struct net_state *
net_state(struct state *state)
{
    return (struct net_state *)state;
}

#endif
