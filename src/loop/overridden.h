/* overridden.h - which methods of a loop a program may replace, and what is known of that: for overrides.h. */
#ifndef ASYNCLOOP_OVERRIDDEN_H
#define ASYNCLOOP_OVERRIDDEN_H

#include "base/compat.h"

/* Methods of ours that asyncio's own code calls. */
#define LOOP_METHODS(X) \
    X(call_soon) X(call_soon_threadsafe) X(call_at) X(call_later) X(time) X(create_future) \
    X(create_task) X(run_in_executor) X(getaddrinfo) X(create_connection) X(_connect_sock) \
    X(_ensure_resolved) X(_check_closed) X(_check_thread) X(_check_callback) X(_call_soon) X(get_debug) \
    X(_timer_handle_cancelled) X(_add_reader) X(_add_writer) X(_remove_reader) X(_remove_writer) \
    X(remove_reader) X(remove_writer) X(_write_to_self) X(_ensure_fd_no_transport)

/* clang-format off */
enum loop_method {
#define X(name) LOOP_##name,
    LOOP_METHODS(X)
#undef X
    LOOP_METHOD_COUNT,
};
/* clang-format on */

/* Functions of asyncio's whose code is looked at: the methods above, and these. */
enum loop_seen {
    SEEN_HANDLE_INIT = LOOP_METHOD_COUNT,
    SEEN_HANDLE_RUN,
    SEEN_TIMER_HANDLE,                        /* three methods */
    SEEN_COUNT = SEEN_TIMER_HANDLE + 3,
};

/* What is replaced, as bits (overrides.h), and at which versions that was found out. */
struct overrides {
    unsigned int replaced;
    unsigned int base;            /* those of BaseEventLoop, and what its methods call */
#if PY_VERSION_HEX >= 0x030C0000
    unsigned int changes;
#else
    unsigned int versions;        /* of the loop's class and of asyncio's Handle, added */
    PyObject *exposed;            /* the instance's dict, once somebody has got hold of it; or NULL */
    uint64_t exposed_version;
    unsigned int exposed_versions;
#endif
};

#endif
