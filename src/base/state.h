/* state.h - the module's state: our types, interned names, objects imported
 * from the standard library, and the free lists. One per interpreter.
 *
 * Every file reaches it without a search: a Loop, Future and Transport keep a
 * pointer to it. state_of_type() is for tp_new and the like. */
#ifndef ASYNCLOOP_STATE_H
#define ASYNCLOOP_STATE_H

#include "base/compat.h"

#include <pthread.h>

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
    X(get_debug) X(get_loop) X(handle) X(loop) X(message) X(msg) X(name) X(pause_writing) X(peername) \
    X(pipe) X(protocol) X(remove_done_callback) X(result) X(resume_writing) X(send) X(server) \
    X(set_name) X(set_result) X(shutdown) X(sockname) X(socket) X(source_traceback) X(task) \
    X(is_running) X(set_exception) X(PENDING) X(CANCELLED) X(FINISHED) \
    X(_attach) X(_buffer) X(_client_connected_cb) X(_clients) X(_closed) X(_detach) X(_eof) X(_exception) X(_limit) \
    X(_paused) X(_reader) X(_sockets) X(_stream_reader_wr) \
    X(_transport) X(_waiter) X(pause_reading) X(throw) X(time) X(transport) X(uncancel) X(values) \
    X(_check_default_executor) X(_default_executor) X(_drain_helper) X(_executor_shutdown_called) X(_result) X(create_future) \
    X(run_in_executor) X(submit) \
    X(accept) X(connect) X(family) X(getaddrinfo) X(proto) X(recv) X(recv_into) X(recvfrom) X(recvfrom_into) \
    X(recvmsg) X(sendmsg) X(sendto) X(type) \
    X(_force_close) X(_msg_callback) X(_sslobj) X(abort) X(cipher) X(compression) X(do_handshake) \
    X(get_extra_info) X(getpeercert) X(join) X(peercert) X(pending) X(read) X(resume_reading) \
    X(ssl_object) X(sslcontext) X(is_closing) X(setblocking) X(unwrap) X(wrap_bio) X(write) X(_wrap_bio) X(_encode_hostname) X(sslobject_class)

struct proto;

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

enum standard_module {
#define X(name, ...) MODULE_##name,
    STANDARD_MODULES(X)
#undef X
    STANDARD_MODULE_COUNT,
};

enum standard_global {
#define X(name, ...) STANDARD_##name,
    STANDARD_GLOBALS(X)
#undef X
    STANDARD_GLOBAL_COUNT,
};

/* Methods of socket.socket that short ways pass over. X(name, attribute) */
#define STANDARD_SOCKET_METHODS(X) \
    X(RECV, "recv") X(RECV_INTO, "recv_into") X(RECVFROM, "recvfrom") X(SEND, "send") X(SENDMSG, "sendmsg") \
    X(SENDTO, "sendto") X(SHUTDOWN, "shutdown") X(ACCEPT, "accept") X(RAW_ACCEPT, "_accept") \
    X(CONNECT, "connect") X(GETSOCKOPT, "getsockopt") X(FILENO, "fileno") X(FAMILY, "family") \
    X(SETBLOCKING, "setblocking") X(GETATTRIBUTE, "__getattribute__") X(NEW, "__new__") \
    X(INIT, "__init__")

enum standard_socket_method {
#define X(name, ...) SOCKET_##name,
    STANDARD_SOCKET_METHODS(X)
#undef X
    SOCKET_METHOD_COUNT,
};

/* Methods of our transports that short ways pass over. */
#define STANDARD_TRANSPORT_METHODS(X) X(write) X(is_closing)

/* overrides.h: methods of ours that asyncio's own code calls. */
#define LOOP_METHODS(X) \
    X(call_soon) X(call_soon_threadsafe) X(call_at) X(call_later) X(time) X(create_future) \
    X(create_task) X(run_in_executor) X(getaddrinfo) X(create_connection) X(_connect_sock) \
    X(_ensure_resolved)

enum loop_method {
#define X(name) LOOP_##name,
    LOOP_METHODS(X)
#undef X
    LOOP_METHOD_COUNT,
};

struct standard_transport {
    unsigned int version;                 /* tp_version_tag of the class at the last look */
    bool replaced;                        /* something is not as the class was made */
    struct {
#define X(name) PyObject *name;
        STANDARD_TRANSPORT_METHODS(X)
#undef X
    } own;                                /* what it was made with */
};

struct standard {
    struct standard_transport stream;     /* StreamTransport */
    struct standard_transport tls;        /* TlsTransport */
    unsigned int socket_version;          /* tp_version_tag of socket.socket at the last look */
    unsigned int socket_replaced;         /* a bit for each enum standard_socket_method */
    struct {
        PyObject *dict;                   /* of the module */
        const uint64_t *current;          /* before 3.12: where the dict has its version */
        uint64_t version;                 /* and which one that was at the last look */
    } modules[STANDARD_MODULE_COUNT];
    unsigned int changes;                 /* from 3.12 on: standard_changes at the last look */
    int class_watcher;                    /* of classes, the same */
    int watcher;                          /* of dicts; -1: none is to be had, so each use is a look */
    unsigned int missing;                 /* a bit for each that this Python has not */
    unsigned int replaced;                /* a bit for each enum standard_global that is not as it was */
};

/* reader.c: what asyncio.streams looked like at import */
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
    PyObject *own[OWN_FUNCTIONS];         /* the classes' own functions */
    PyObject *stream_reader;              /* StreamReaderProtocol._stream_reader */
    unsigned int protocol_version;        /* tp_version_tag of the classes at the last look */
    unsigned int reader_version;
    unsigned int writer_version;
    bool classes_ok;
    bool usable;                          /* they were as expected at import */
    PyTypeObject *FastReaderType;         /* stream_api.c: subclasses that objects in use change to */
    PyTypeObject *FastWriterType;
};

/* resolve.c: what answers are made of */
struct resolve_state {
    PyObject *gaierror;
    PyObject *AddressFamily;
    PyObject *SocketKind;
    int idle_ms;                          /* after which a thread of look_up.c ends */
    PyObject *inet;                       /* members of the two */
    PyObject *inet6;
    PyObject *stream;
    PyObject *dgram;
};

/* tls_shipped.c: TLS as the standard library has it, when it was last looked at; NULL: not yet,
 * or it is not */
enum { TLS_CONTEXT_CLASS, TLS_OBJECT_CLASS, TLS_PROTOCOL_CLASS, TLS_TRANSPORT_CLASS, TLS_CLASSES };
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

/* tls_type.c: what TLS needs of the ssl module; NULL in a Python without it */
struct tls_objects {
    PyTypeObject *Type;
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
    PyObject *flowcontrol_defaults;       /* asyncio.sslproto.add_flowcontrol_defaults */
    const struct tls_engine_ops *engine;  /* NULL: not chosen yet */
    /* tls.c: the peer's bytes for a TLS transport, from the transport below. 0 / -1 */
    int (*feed)(PyObject *tls, const char *data, size_t n);
    struct tls_shipped shipped;
};

struct state {
    /* our types (asyncloop._core.*) */
    PyTypeObject *LoopType;
    PyTypeObject *loop_class;             /* asyncloop.Loop, once a loop was made: see loop_check() */
    PyTypeObject *HandleType;
    PyTypeObject *TimerHandleType;
    PyTypeObject *FutureType;
    PyTypeObject *FutureIterType;
    PyTypeObject *TaskType;
    PyTypeObject *TransportType;          /* base of all transports */
    unsigned int info_version;            /* transport_type.c: a version of a class of ours, or 0 */
    PyTypeObject *StreamType;
    PyTypeObject *DatagramType;
    PyTypeObject *ReadPipeType;
    PyTypeObject *WritePipeType;
    PyTypeObject *AcceptorType;
    PyTypeObject *OperationType;
    PyTypeObject *ExecutorLinkType;
    PyTypeObject *ClientsType;            /* NULL where clients.h says so */
    PyTypeObject *WatchdogType;

    /* standard library: types that ours derive from or recognise */
    PyTypeObject *asyncio_Future;         /* _asyncio.Future */
    PyTypeObject *asyncio_Task;           /* _asyncio.Task */
    PyTypeObject *ServerType;             /* asyncio.base_events.Server, */
    unsigned int server_version;          /* as it was when clients.c last looked, */
    bool server_is_own;                   /* and what that has found */
    PyObject *clients_nothing;            /* clients.c: a function that does nothing, or NULL */
    PyObject *asyncio_Handle;             /* asyncio.events.Handle */
    PyObject *asyncio_ThreadSafeHandle;   /* asyncio.events._ThreadSafeHandle, NULL before 3.14 */
    PyObject *asyncio_TimerHandle;        /* asyncio.events.TimerHandle */
    unsigned int timer_handle_version;    /* its tp_version_tag when it was asyncio's own */
    PyObject *asyncio_FlowControlMixin;   /* asyncio.transports._FlowControlMixin */
    PyObject *asyncio_BaseEventLoop;      /* asyncio.base_events.BaseEventLoop */
    PyObject *asyncio_BufferedProtocol;   /* asyncio.protocols.BufferedProtocol */
    PyObject *asyncio_CancelledError;
    PyObject *asyncio_InvalidStateError;
    PyObject *concurrent_Future;          /* concurrent.futures.Future */

    /* standard library: functions and objects */
    PyObject *events_get_event_loop;      /* asyncio.events.get_event_loop */
    PyObject *events_get_running_loop;    /* asyncio.events._get_running_loop */
    PyObject *events_set_running_loop;    /* asyncio.events._set_running_loop */
    PyObject *base_futures_repr;          /* asyncio.base_futures._future_repr */
    PyObject *base_tasks_repr;            /* asyncio.base_tasks._task_repr */
    PyObject *base_tasks_get_stack;       /* asyncio.base_tasks._task_get_stack */
    PyObject *base_tasks_print_stack;     /* asyncio.base_tasks._task_print_stack */
    PyObject *coroutines_iscoroutine;     /* asyncio.coroutines.iscoroutine */
    PyObject *eager_task_factory;         /* asyncio.eager_task_factory, NULL before 3.12 */
    PyObject *extract_stack;              /* asyncio.format_helpers.extract_stack */
    PyObject *format_callback_source;     /* asyncio.format_helpers._format_callback_source */
    PyObject *futures_set_result_unless_cancelled;
    PyObject *chain_future;               /* asyncio.futures._chain_future */
    PyObject *copy_future_state;          /* asyncio.futures._copy_future_state */
    PyObject *wrap_future;                /* asyncio.futures.wrap_future */
    PyObject *base_events;                /* the module asyncio.base_events */
    PyObject *format_handle;              /* asyncio.base_events._format_handle */
    PyObject *sys_getframe;               /* sys._getframe */
    PyObject *asyncio_logger;             /* asyncio.log.logger */
    PyObject *TransportSocket;            /* asyncio.trsock.TransportSocket */

    PyObject *socket_class;               /* the class socket.socket of the standard library */
    PyObject *socket_family;              /* _socket.socket.family, the descriptor */
    PyCFunction socket_fileno;            /* _socket.socket.fileno(), or NULL */
    PyObject *check_ssl_socket;           /* asyncio.base_events._check_ssl_socket */

    /* transports: asyncio's (Python) bases keep nothing of ours; what somebody puts into
     * their slots all the same is dropped with the object. Offsets of those slots. */
    Py_ssize_t transport_slots[8];
    int transport_slot_count;
    struct standard standard;
    PyObject *loop_own[LOOP_METHOD_COUNT];    /* what LoopType was made with */
    struct reader_state reader;
    struct tls_objects tls;
    struct {
        PyObject *bytes;                  /* a packet that its protocol did not keep: see packet.h */
        size_t capacity;
    } spare;
    struct {
        PyObject *object;                 /* an int, or NULL */
        size_t value;
    } count;                              /* of the last buffer_updated() */
    bool instances_known;                 /* instance.c: it looks at the right places */
    PyObject *stop_iteration;             /* a spare one: see stop_iteration_bytes_steal() */
    struct resolve_state resolve;

    /* current task and the set of all tasks: see current.c */
    PyObject *current_tasks;              /* asyncio.tasks._current_tasks, NULL from 3.14 on */
    PyObject *enter_task;                 /* _asyncio._enter_task, for loops that are not ours */
    PyObject *leave_task;
    PyObject *swap_current_task;          /* _asyncio._swap_current_task, NULL before 3.12 */
    PyObject *register_task;              /* _asyncio._register_task */
    PyObject *unregister_task;
    PyObject *task_set_base;              /* before 3.14: the class that asyncio's WeakSet of tasks had */
    PyObject *add_awaited_by;             /* _asyncio.future_add_to_awaited_by, NULL before 3.14 */
    PyObject *discard_awaited_by;
    struct list_node tasks;               /* every pending Task before 3.14, those that are owed */

    /* introspect.c: offsets of fields of _asyncio.Task; all 0 before 3.14 and where unknown */
    struct introspect_offsets {
        size_t name;
        size_t coro;
        size_t awaited_by;
        size_t is_task;
        size_t thread;                    /* free-threaded: whose list of tasks it is in */
    } introspect;

    uint64_t next_task_number;            /* of the names Task-N */

    PyObject *keywords_context;           /* ("context",) */
    PyObject *keywords_msg;               /* ("msg",) */
    PyObject *keywords_debug;             /* ("debug",) */
    PyObject *keywords_loop;              /* ("loop",) */

    /* what Future and Task inherit and still call, of _asyncio.Future and _asyncio.Task */
    struct base_slots {
        traverseproc traverse;
        inquiry clear;
        destructor dealloc;
    } future_base, task_base;

    /* what lower layers call upwards: set by the files named */
    int (*run_task)(Loop *loop, PyObject *task);        /* task_step.c: READY_TASK */
    /* task_step.c: what a parked Task would have been as a callback; both new. 0 / -1 */
    int (*task_as_callback)(PyObject *task, PyObject **callback, PyObject **context);

    /* operation.c: a future with a watcher was cancelled */
    void (*future_cancelled)(PyObject *watcher);
    /* operation.c: before a poll, while an Operation waits: how long it may last */
    int64_t (*check_operations)(Loop *loop, int64_t now, int64_t wait_ns);

    /* stream_api.c: connection_made() of a protocol of kind PROTO_READER */
    PyObject *(*stream_connection_made)(struct state *state, struct proto *proto,
                                        PyObject *transport);

    struct list_node loops;               /* every Loop that is not closed, for fork */
    struct activities *activities;        /* activity.h: the same for threads outside of Python */
#ifdef Py_GIL_DISABLED
    pthread_mutex_t lists_lock;           /* loops are made and closed, Tasks owed in any thread */
#endif

    /* free lists: memory of dead objects of exactly our types; see freelist.h */
    struct freelist {
        PyObject *head;
        PyTypeObject *type;               /* borrowed: one of the types above */
        int length;
    } free_handles, free_timer_handles, free_futures, free_future_iters, free_tasks, free_operations;

    PyObject *empty_tuple;
    struct state_names {
#define X(identifier) PyObject *identifier;
        STATE_NAMES(X)
#undef X
    } names;
};

/* Around what changes or walks the lists of all loops and of owed Tasks; no Python inside. */
#ifdef Py_GIL_DISABLED
#define state_lock_lists(state) pthread_mutex_lock(&(state)->lists_lock)
#define state_unlock_lists(state) pthread_mutex_unlock(&(state)->lists_lock)
#else
#define state_lock_lists(state) ((void)0)
#define state_unlock_lists(state) ((void)0)
#endif

extern struct PyModuleDef asyncloop_module;

/* The state for a type of ours or a subclass of one, or NULL with TypeError. */
struct state *state_of_type(PyTypeObject *type);

int state_init(PyObject *module, struct state *state);
int state_traverse(struct state *state, visitproc visit, void *arg);
void state_clear(struct state *state);
void state_drain_free_lists(struct state *state);    /* and they stay empty */

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
