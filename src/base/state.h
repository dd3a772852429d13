/* state.h - the module's state, one per interpreter: interned names, what is asked of the standard
 * library, and a list of what is owned.
 *
 * struct state is the part of base/. Each folder above adds its own part behind the one below it
 * (loop/loop_state.h, tasks/tasks_state.h, ...), and reaches it by a cast: loop_state(state). All of
 * them together are one object, whose size module.c knows.
 *
 * Owns:     what was registered by state_own(): whoever fills fields of a part registers them.
 * Promises: every file reaches it without a search: a Loop, Future and Transport keep a pointer to
 *           it. state_of_type() is for tp_new and the like. */
#ifndef ASYNCLOOP_STATE_H
#define ASYNCLOOP_STATE_H

#include "base/guard.h"

typedef struct Loop Loop;
typedef struct Handle Handle;
typedef struct TimerHandle TimerHandle;
typedef struct Future Future;
typedef struct Task Task;

/* Names that are looked up at run time, interned once. X(identifier) */
#define STATE_NAMES(X) \
    X(__class__) X(__context__) X(__cause__) X(__self__) X(_asyncio_future_blocking) \
    X(_asyncio_awaited_by) X(_callbacks) X(_cancel_message) X(_cancelled_exc) \
    X(_check_closed) X(_loop) X(_run) X(_source_traceback) X(_state) X(_timer_handle_cancelled) \
    X(add_done_callback) X(buffer_updated) X(call_at) X(call_exception_handler) X(call_later) X(call_soon) \
    X(call_soon_threadsafe) X(callback) X(cancel) X(cancelled) X(close) X(closed) X(connection_lost) \
    X(connection_made) X(context) X(coro) X(create_task) X(data_received) X(datagram_received) \
    X(debug) X(done) X(eager_start) X(eof_received) X(error_received) X(exception) X(fileno) X(future) X(get_buffer) \
    X(get_debug) X(get_loop) X(handle) X(loop) X(message) X(name) X(pause_writing) X(peername) \
    X(pipe) X(protocol) X(remove_done_callback) X(result) X(resume_writing) X(send) X(server) \
    X(set_name) X(set_result) X(shutdown) X(sockname) X(socket) X(source_traceback) X(task) \
    X(is_running) X(set_exception) X(PENDING) X(CANCELLED) X(FINISHED) \
    X(_attach) X(_buffer) X(_client_connected_cb) X(_clients) X(_closed) X(_detach) X(_eof) X(_exception) X(_limit) \
    X(_paused) X(_reader) X(_sockets) X(_stream_reader) X(_stream_reader_wr) \
    X(_transport) X(_waiter) X(pause_reading) X(throw) X(time) X(transport) X(uncancel) X(values) \
    X(_default_executor) X(_drain_helper) X(_executor_shutdown_called) X(_result) X(create_future) \
    X(run_in_executor) X(submit) X(_call_soon) \
    X(accept) X(connect) X(family) X(getaddrinfo) X(proto) X(recv) X(recv_into) X(recvfrom) X(recvfrom_into) \
    X(recvmsg) X(sendmsg) X(sendto) X(type) \
    X(_force_close) X(_msg_callback) X(_sslobj) X(abort) X(cipher) X(compression) X(do_handshake) \
    X(_maybe_pause_protocol) X(_maybe_resume_protocol) X(get_extra_info) X(getpeercert) X(join) X(peercert) X(pending) X(read) X(resume_reading) \
    X(ssl_object) X(sslcontext) X(is_closing) X(setblocking) X(unwrap) X(wrap_bio) X(write) X(_wrap_bio) X(_encode_hostname) X(sslobject_class)

/* standard.h: globals that short ways pass over. X(name, module, attribute, kind) */
#define STANDARD_GLOBALS(X) \
    X(TIME_MONOTONIC, TIME, "monotonic", BUILTIN) \
    X(OS_READ, OS, "read", BUILTIN) \
    X(OS_WRITE, OS, "write", BUILTIN) \
    X(OS_WRITEV, OS, "writev", BUILTIN) \
    X(SOCKET_GETADDRINFO, SOCKET, "getaddrinfo", FUNCTION) \
    X(SOCKET_SOCKET, SOCKET, "socket", CLASS) \
    X(SOCKET_INET_PTON, SOCKET, "inet_pton", BUILTIN) \
    X(BASE_EVENTS_IPADDR_INFO, BASE_EVENTS, "_ipaddr_info", FUNCTION) \
    X(EVENTS_HANDLE, EVENTS, "Handle", CLASS) \
    X(EVENTS_TIMER_HANDLE, EVENTS, "TimerHandle", CLASS) \
    X(EVENTS_THREAD_SAFE_HANDLE, EVENTS, "_ThreadSafeHandle", CLASS) \
    X(FUTURES_FUTURE, FUTURES, "Future", ASYNCIO) \
    X(FUTURES_WRAP_FUTURE, FUTURES, "wrap_future", FUNCTION) \
    X(FUTURES_CHAIN_FUTURE, FUTURES, "_chain_future", FUNCTION) \
    X(FUTURES_SET_RESULT, FUTURES, "_set_result_unless_cancelled", FUNCTION) \
    X(TASKS_TASK, TASKS, "Task", ASYNCIO) \
    X(BASE_EVENTS_TIME, BASE_EVENTS, "time", MODULE) \
    X(BASE_EVENTS_SOCKET, BASE_EVENTS, "socket", MODULE) \
    X(BASE_EVENTS_EVENTS, BASE_EVENTS, "events", MODULE) \
    X(BASE_EVENTS_FUTURES, BASE_EVENTS, "futures", MODULE) \
    X(BASE_EVENTS_TASKS, BASE_EVENTS, "tasks", MODULE) \
    X(UNIX_EVENTS_OS, UNIX_EVENTS, "os", MODULE)

#define STANDARD_MODULES(X) \
    X(TIME, "time") X(OS, "os") X(SOCKET, "socket") X(EVENTS, "asyncio.events") \
    X(FUTURES, "asyncio.futures") X(TASKS, "asyncio.tasks") X(BASE_EVENTS, "asyncio.base_events") \
    X(UNIX_EVENTS, "asyncio.unix_events")

/* clang-format off */
enum standard_module {
#define X(name, ...) MODULE_##name,
    STANDARD_MODULES(X)
#undef X
    STANDARD_MODULE_COUNT,
};
/* clang-format on */

/* clang-format off */
enum standard_global {
#define X(name, ...) STANDARD_##name,
    STANDARD_GLOBALS(X)
#undef X
    STANDARD_GLOBAL_COUNT,
};
/* clang-format on */

/* Methods of socket.socket that short ways pass over. X(name, attribute) */
#define STANDARD_SOCKET_METHODS(X) \
    X(RECV, "recv") X(RECV_INTO, "recv_into") X(RECVFROM, "recvfrom") X(SEND, "send") X(SENDMSG, "sendmsg") \
    X(SENDTO, "sendto") X(SHUTDOWN, "shutdown") X(ACCEPT, "accept") X(RAW_ACCEPT, "_accept") \
    X(CONNECT, "connect") X(GETSOCKOPT, "getsockopt") X(SETSOCKOPT, "setsockopt") X(FILENO, "fileno") X(FAMILY, "family") \
    X(SETBLOCKING, "setblocking") X(GETATTRIBUTE, "__getattribute__") X(NEW, "__new__") \
    X(INIT, "__init__") X(GETSOCKNAME, "getsockname") X(GETPEERNAME, "getpeername")

/* clang-format off */
enum standard_socket_method {
#define X(name, ...) SOCKET_##name,
    STANDARD_SOCKET_METHODS(X)
#undef X
    SOCKET_METHOD_COUNT,
};
/* clang-format on */

/* Methods of our transports that short ways pass over. */
#define STANDARD_TRANSPORT_METHODS(X) X(write) X(is_closing)

struct standard_transport {
    struct {
#define X(name) PyObject *name;
        STANDARD_TRANSPORT_METHODS(X)
#undef X
    } own;                                /* what it was made with */
    unsigned int version;                 /* tp_version_tag of the class at the last look */
    unsigned int replaced;                /* something is not as the class was made */
};

struct standard {
    PyObject *socket_class;               /* the class socket.socket of the standard library */
    unsigned int socket_version;          /* its tp_version_tag at the last look */
    unsigned int socket_replaced;         /* a bit for each enum standard_socket_method */
    PyTypeObject *classes[STANDARD_GLOBAL_COUNT][2];    /* borrowed: of C, asyncio's and ours in its place */
    struct {
        PyObject *dict;                   /* of the module */
        const uint64_t *current;          /* before 3.12: where the dict has its version */
        uint64_t version;                 /* and which one that was at the last look */
    } modules[STANDARD_MODULE_COUNT];
    struct standard_function {
        PyObject *function;               /* or NULL */
        PyObject *code;                   /* of it at the last look: another one may be assigned */
    } functions[STANDARD_GLOBAL_COUNT];   /* of those that are functions of their module */
    unsigned int changes;                 /* from 3.12 on: standard_changes at the last look */
    int class_watcher;                    /* of classes, the same */
    int watcher;                          /* of dicts; -1: none is to be had, so each use is a look */
    unsigned int missing;                 /* a bit for each that this Python has not */
    unsigned int replaced;                /* a bit for each enum standard_global that is not as it was */
};

/* Memory of dead objects of exactly one of our types: see freelist.h. */
struct freelist {
    PyTypeObject *type;                   /* borrowed */
#ifdef Py_GIL_DISABLED
    size_t place;                         /* in struct kept, of the one that each loop has for it */
#else
    PyObject *head;
    int length;
#endif
    struct freelist *next;                /* of all */
};

#ifdef Py_GIL_DISABLED
#define FREELIST_COUNT 6

/* The same of a loop. */
struct kept {
    struct kept_list {
        PyObject *head;
        PyTypeObject *type;               /* borrowed, of the loop's interpreter */
        int length;
    } lists[FREELIST_COUNT];
};
#endif

/* What Future and Task inherit and still call. */
struct base_slots {
    traverseproc traverse;
    inquiry clear;
    destructor dealloc;
};

/* Each folder's part of the state has a table of what the folder puts into the module, from the ground up.
 * TYPE(Noun): a place for a type, state->types.Noun; INIT(noun): noun_init() is called at import, 0 / -1.
 * These are what the two may stand for. */
#define STATE_TYPE(name) PyTypeObject *name;
#define STATE_INIT(name) int name##_init(PyObject *module, struct state *state);
#define STATE_NOTHING(name)

#define STATE_OWNED_MAX 48

struct state {
    struct {
        PyObject **first;
        size_t count;
    } owned[STATE_OWNED_MAX];             /* fields of the parts: references, or NULL */
    size_t owned_count;
    struct freelist *free_lists;

    struct state_names {
#define X(identifier) PyObject *identifier;
        STATE_NAMES(X)
#undef X
    } names;
    struct {
        PyObject *context;                /* ("context",) and so on: for calls with one keyword */
        PyObject *debug;
        PyObject *loop;
    } keywords;
    PyObject *empty_tuple;

    struct standard standard;             /* standard.c */
    bool instances_known;                 /* instance.c: it looks at the right places */
};

/* What the module is made from: the same at each import. Before anything else. */
void state_set_definition(struct PyModuleDef *definition);

/* The state for a type of ours or a subclass of one, or NULL with TypeError. */
struct state *state_of_type(PyTypeObject *type);

/* Names, keywords and what base/ needs itself. 0 / -1 */
int state_init(PyObject *module, struct state *state);
int state_traverse(struct state *state, visitproc visit, void *arg);
void state_clear(struct state *state);

/* `count` fields from `first` on hold references, or NULL, from now on: the collector sees them, and
 * they are dropped with the state. */
void state_own(struct state *state, void *first, size_t count);
/* All fields of a part of the state, or those before `end`. */
#define STATE_OWN(state, part) state_own(state, part, sizeof(*(part)) / sizeof(PyObject *))
#define STATE_OWN_UNTIL(state, part, end) \
    state_own(state, part, offsetof(__typeof__(*(part)), end) / sizeof(PyObject *))

/* Names of modules: 0 / -1. One that is optional may be missing. */
struct state_import {
    void *slot;
    const char *module;
    const char *name;
    bool optional;
};
int state_import(const struct state_import *wanted, size_t count);
#define STATE_IMPORT(wanted) state_import(wanted, ARRAY_LEN(wanted))

/* Makes a type from spec with the given base (a new reference in *slot), and adds it
 * to the module under its own name. `struct_size` is that of our C struct; the base's
 * must fit into `base_size`, the room that the struct leaves for it. */
int state_add_type(PyObject *module, PyType_Spec *spec, PyObject *base,
                   Py_ssize_t base_size, PyTypeObject **slot);
/* The same with a tuple of bases, or NULL, whose sizes the caller has checked. */
int state_add_type_with_bases(PyObject *module, PyType_Spec *spec, PyObject *bases,
                              PyTypeObject **slot);
/* ImportError and -1 if the base's struct has more than `room` bytes. */
int state_check_base(PyTypeObject *base, Py_ssize_t room);

#endif
