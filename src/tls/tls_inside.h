/* tls_inside.h - what asyncio's SSLProtocol keeps in private attributes, for whoever reads them. */
#ifndef ASYNCLOOP_TLS_INSIDE_H
#define ASYNCLOOP_TLS_INSIDE_H

#include "base/compat.h"

enum tls_inside {
    TLS_INSIDE_STATE,
    TLS_INSIDE_APP_STATE,
    TLS_INSIDE_HOSTNAME,
    TLS_INSIDE_HANDSHAKE_TIMEOUT,
    TLS_INSIDE_SHUTDOWN_TIMEOUT,
    TLS_INSIDE_BACKLOG,
    TLS_INSIDE_BACKLOG_BYTES,
    TLS_INSIDE_EOF,
    TLS_INSIDE_WRITING_PAUSED,
    TLS_INSIDE_READING_PAUSED,
    TLS_INSIDE_IS_BUFFERED,
    TLS_INSIDE_MADE,
    TLS_INSIDE_INCOMING_HIGH,
    TLS_INSIDE_INCOMING_LOW,
    TLS_INSIDE_OUTGOING_HIGH,
    TLS_INSIDE_OUTGOING_LOW,
    TLS_INSIDE_MAX_SIZE,
    TLS_INSIDE_APP_PAUSED,
    TLS_INSIDE_HANDSHAKE_TIMER,
    TLS_INSIDE_SHUTDOWN_TIMER,
    TLS_INSIDE_HANDSHAKE_STARTED,
};

PyObject *Tls_get_inside(PyObject *op, void *closure);    /* closure: one of these, as a number */

#define TLS_INSIDE(name, what) {name, Tls_get_inside, NULL, NULL, (void *)(intptr_t)(TLS_INSIDE_##what)}
#define TLS_INSIDE_GETSETS                                       \
    TLS_INSIDE("_state", STATE),                                 \
    TLS_INSIDE("_app_state", APP_STATE),                         \
    TLS_INSIDE("_server_hostname", HOSTNAME),                    \
    TLS_INSIDE("_ssl_handshake_timeout", HANDSHAKE_TIMEOUT),     \
    TLS_INSIDE("_ssl_shutdown_timeout", SHUTDOWN_TIMEOUT),       \
    TLS_INSIDE("_write_backlog", BACKLOG),                       \
    TLS_INSIDE("_write_buffer_size", BACKLOG_BYTES),             \
    TLS_INSIDE("_eof_received", EOF),                            \
    TLS_INSIDE("_ssl_writing_paused", WRITING_PAUSED),           \
    TLS_INSIDE("_ssl_reading_paused", READING_PAUSED),           \
    TLS_INSIDE("_app_protocol_is_buffer", IS_BUFFERED),          \
    TLS_INSIDE("_app_transport_created", MADE),                  \
    TLS_INSIDE("_incoming_high_water", INCOMING_HIGH),           \
    TLS_INSIDE("_incoming_low_water", INCOMING_LOW),             \
    TLS_INSIDE("_outgoing_high_water", OUTGOING_HIGH),           \
    TLS_INSIDE("_outgoing_low_water", OUTGOING_LOW),             \
    TLS_INSIDE("_app_writing_paused", APP_PAUSED),               \
    TLS_INSIDE("_handshake_timeout_handle", HANDSHAKE_TIMER),    \
    TLS_INSIDE("_shutdown_timeout_handle", SHUTDOWN_TIMER),      \
    TLS_INSIDE("_handshake_start_time", HANDSHAKE_STARTED),      \
    TLS_INSIDE("max_size", MAX_SIZE)

#endif
