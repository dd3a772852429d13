/* tls_state.h - the part of the module's state that is tls/'s: see base/state.h. */
#ifndef ASYNCLOOP_TLS_STATE_H
#define ASYNCLOOP_TLS_STATE_H

#include "net/net_state.h"

/* TLS as the standard library has it, when it was last looked at; NULL: not yet,
 * or it is not */
enum {
    TLS_CONTEXT_CLASS,
    TLS_OBJECT_CLASS,
    TLS_PROTOCOL_CLASS,
    TLS_TRANSPORT_CLASS,
    TLS_CLASSES,
};
struct tls_shipped {
    PyObject *classes;                    /* tuple */
    PyObject *functions;                  /* each followed by its code */
    PyObject *names;                      /* a module's dictionary, a name, what it stands for; ... */
    unsigned int versions[TLS_CLASSES];   /* version tags */
    PyObject *read;                       /* two of the functions with their code; borrowed */
    PyObject *read_code;
    PyObject *write;
    PyObject *write_code;
};

/* What TLS needs of the ssl module; NULL in a Python without it */
struct tls_objects {
    PyObject *SSLError;
    PyObject *SSLWantReadError;
    PyObject *SSLSyscallError;
    PyObject *SSLZeroReturnError;
    PyObject *CertificateError;
    PyObject *MemoryBIO;
    PyObject *SSLObject;
    PyObject *keywords_wrap_bio;          /* ("server_side", "server_hostname") */
    PyObject *record_bytes;               /* bytes of a full record */
    PyObject *empty_bytes;
    PyObject *one_byte;
    PyObject *cipher;                     /* what cipher() has said last: tls_handshake.c */
    const struct tls_engine_ops *engine;  /* NULL: not chosen yet */
    struct tls_shipped shipped;           /* tls_shipped.c */
};

/* What tls/ puts into the module: see base/state.h. */
#define TLS_TABLE(TYPE, INIT) \
    INIT(tls_type) TYPE(Tls)

struct tls_state {
    struct net_state below;
    struct {
        TLS_TABLE(STATE_TYPE, STATE_NOTHING)
    } types;
    struct tls_objects tls;               /* tls_type.c */
};

TLS_TABLE(STATE_NOTHING, STATE_INIT);

static inline struct tls_state *
tls_state(struct state *state)
{
    return (struct tls_state *)state;
}

#endif
