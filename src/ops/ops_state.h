/* ops_state.h - the part of the module's state that is ops/'s: see base/state.h. streams/ adds none. */
#ifndef ASYNCLOOP_OPS_STATE_H
#define ASYNCLOOP_OPS_STATE_H

#include "tls/tls_state.h"

/* What answers are made of */
struct resolve_state {
    PyObject *gaierror;
    PyObject *AddressFamily;
    PyObject *SocketKind;
    PyObject *inet;                       /* members of the two */
    PyObject *inet6;
    PyObject *stream;
    PyObject *dgram;
    int idle_ms;                          /* after which a thread of look_up.c ends */
};

/* What ops/ puts into the module: see base/state.h. */
#define OPS_TABLE(TYPE, INIT) \
    INIT(operation_type) TYPE(Operation) TYPE(CoroutineMethod) /* coroutine_method.c */ \
    INIT(sockop) \
    INIT(resolve) \
    INIT(thread_queue)

struct ops_state {
    struct tls_state below;
    struct {
        OPS_TABLE(STATE_TYPE, STATE_NOTHING)
    } types;
    struct {
        struct freelist free;
    } operations;                         /* operation.c */
    struct {
        PyObject *socket_family;          /* _socket.socket.family, the descriptor */
        PyObject *check_ssl_socket;       /* asyncio.base_events._check_ssl_socket */
        PyCFunction socket_fileno;        /* _socket.socket.fileno(), or NULL */
    } sockops;                            /* sockop.c */
    struct resolve_state resolve;         /* resolve.c */
};

OPS_TABLE(STATE_NOTHING, STATE_INIT);

static inline struct ops_state *
ops_state(struct state *state)
{
    return (struct ops_state *)state;
}

#endif
