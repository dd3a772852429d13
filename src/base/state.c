/* state.c - filling and clearing the module's state.
 *
 * The order in state_init() is the order of the layers: what a type needs is there
 * before it is made. */
#include "base/state.h"

#include "loop/activity.h"
#include "net/clients.h"
#include "loop/current.h"
#include "net/datagram.h"
#include "tasks/executor.h"
#include "base/freelist.h"
#include "tasks/future.h"
#include "loop/handle.h"
#include "base/instance.h"
#include "tasks/introspect.h"
#include "loop_type.h"
#include "loop/overrides.h"
#include "net/pipe.h"
#include "net/server.h"
#include "net/sockets.h"
#include "ops/resolve.h"
#include "ops/sockop.h"
#include "base/standard.h"
#include "net/stream.h"
#include "streams/stream_api.h"
#include "tasks/task.h"
#include "tls/tls.h"
#include "net/transport.h"
#include "loop/watchdog.h"

struct state *
state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &asyncloop_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* For good: what dies after this, while the interpreter ends, is freed at once, because
 * its type may be gone when the module's memory is. */
void
freelist_drain(struct freelist *list)
{
    while (list->head != NULL) {
        PyObject *op = list->head;
        list->head = (PyObject *)op->ob_type;
        list->length--;
        /* tp_free() asks the type where the allocation begins. */
        op->ob_type = list->type;
        list->type->tp_free(op);
    }
    list->length = FREELIST_MAX;
}

int
state_check_base(PyTypeObject *base, Py_ssize_t room)
{
    if (base->tp_basicsize > room) {
        PyErr_Format(PyExc_ImportError,
                     "asyncloop was built for another build of CPython: %s has %zd bytes, "
                     "there is room for %zd; build asyncloop again with this interpreter",
                     base->tp_name, base->tp_basicsize, room);
        return -1;
    }
    return 0;
}

int
state_add_type_with_bases(PyObject *module, PyType_Spec *spec, PyObject *bases, PyTypeObject **slot)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, bases);
    if (type == NULL) {
        return -1;
    }
    *slot = (PyTypeObject *)type;
    return PyModule_AddType(module, (PyTypeObject *)type);
}

int
state_add_type(PyObject *module, PyType_Spec *spec, PyObject *base,
               Py_ssize_t base_size, PyTypeObject **slot)
{
    if (base == NULL) {
        return state_add_type_with_bases(module, spec, NULL, slot);
    }
    PyObject *bases = state_check_base((PyTypeObject *)base, base_size) < 0 ? NULL
                                                                            : PyTuple_Pack(1, base);
    int result = bases == NULL ? -1 : state_add_type_with_bases(module, spec, bases, slot);
    Py_XDECREF(bases);
    return result;
}

/* new reference to module.name; NULL without an exception where it is missing and optional */
static int
import_name(PyObject **slot, const char *module_name, const char *name, bool optional)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return -1;
    }
    *slot = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    if (*slot == NULL && optional && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    return *slot == NULL ? -1 : 0;
}

static int
intern_names(struct state_names *names)
{
#define X(identifier)                                              \
    names->identifier = PyUnicode_InternFromString(#identifier);   \
    if (names->identifier == NULL) {                               \
        return -1;                                                 \
    }
    STATE_NAMES(X)
#undef X
    return 0;
}

static int
import_asyncio(struct state *state)
{
    const struct {
        void *slot;
        const char *module;
        const char *name;
        bool optional;
    } wanted[] = {
        {&state->asyncio_Future, "_asyncio", "Future", false},
        {&state->asyncio_Task, "_asyncio", "Task", false},
        {&state->asyncio_Handle, "asyncio.events", "Handle", false},
        {&state->asyncio_ThreadSafeHandle, "asyncio.events", "_ThreadSafeHandle", true},
        {&state->asyncio_TimerHandle, "asyncio.events", "TimerHandle", false},
        {&state->asyncio_FlowControlMixin, "asyncio.transports", "_FlowControlMixin", false},
        {&state->asyncio_BaseEventLoop, "asyncio.base_events", "BaseEventLoop", false},
        {&state->asyncio_BufferedProtocol, "asyncio.protocols", "BufferedProtocol", false},
        {&state->asyncio_CancelledError, "asyncio.exceptions", "CancelledError", false},
        {&state->asyncio_InvalidStateError, "asyncio.exceptions", "InvalidStateError", false},
        {&state->concurrent_Future, "concurrent.futures", "Future", false},
        {&state->events_get_event_loop, "asyncio.events", "get_event_loop", false},
        {&state->events_get_running_loop, "asyncio.events", "_get_running_loop", false},
        {&state->events_set_running_loop, "asyncio.events", "_set_running_loop", false},
        {&state->base_futures_repr, "asyncio.base_futures", "_future_repr", false},
        {&state->base_tasks_repr, "asyncio.base_tasks", "_task_repr", false},
        {&state->base_tasks_get_stack, "asyncio.base_tasks", "_task_get_stack", false},
        {&state->base_tasks_print_stack, "asyncio.base_tasks", "_task_print_stack", false},
        {&state->coroutines_iscoroutine, "asyncio.coroutines", "iscoroutine", false},
        {&state->eager_task_factory, "asyncio", "eager_task_factory", true},
        {&state->extract_stack, "asyncio.format_helpers", "extract_stack", false},
        {&state->format_callback_source, "asyncio.format_helpers", "_format_callback_source", false},
        {&state->futures_set_result_unless_cancelled, "asyncio.futures",
         "_set_result_unless_cancelled", false},
        {&state->chain_future, "asyncio.futures", "_chain_future", false},
        {&state->copy_future_state, "asyncio.futures", "_copy_future_state", false},
        {&state->wrap_future, "asyncio.futures", "wrap_future", false},
        {&state->base_events, "asyncio", "base_events", false},
        {&state->format_handle, "asyncio.base_events", "_format_handle", false},
        {&state->asyncio_logger, "asyncio.log", "logger", false},
        {&state->TransportSocket, "asyncio.trsock", "TransportSocket", false},
        {&state->sys_getframe, "sys", "_getframe", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        if (import_name(wanted[i].slot, wanted[i].module, wanted[i].name, wanted[i].optional) < 0) {
            return -1;
        }
    }
    return 0;
}

int
state_init(PyObject *module, struct state *state)
{
    list_init(&state->loops);
#ifdef Py_GIL_DISABLED
    pthread_mutex_init(&state->lists_lock, NULL);
#endif
    list_init(&state->tasks);
    state->empty_tuple = PyTuple_New(0);
    if (state->empty_tuple == NULL
        || intern_names(&state->names) < 0
        || import_asyncio(state) < 0
        || instance_init(state) < 0
        || handle_types_init(module, state) < 0
        || future_types_init(module, state) < 0
        || current_init(module, state) < 0
        || introspect_init(state) < 0
        || task_type_init(module, state) < 0
        || transport_types_init(module, state) < 0
        || clients_type_init(module, state) < 0
        || stream_type_init(module, state) < 0
        || tls_type_init(module, state) < 0
        || datagram_type_init(module, state) < 0
        || pipe_types_init(module, state) < 0
        || server_type_init(module, state) < 0
        || operation_type_init(module, state) < 0
        || sockop_init(module, state) < 0
        || stream_api_init(module, state) < 0
        || resolve_init(module, state) < 0
        || sockets_init(module, state) < 0
        || executor_init(module, state) < 0
        || watchdog_init(module, state) < 0
        || loop_type_init(module, state) < 0
        || overrides_init(state) < 0
        || standard_init(module, state) < 0) {
        return -1;
    }
    state->free_handles.type = state->HandleType;
    state->free_timer_handles.type = state->TimerHandleType;
    state->free_futures.type = state->FutureType;
    state->free_future_iters.type = state->FutureIterType;
    state->free_tasks.type = state->TaskType;
    state->free_operations.type = state->OperationType;
    return 0;
}

/* Every owned reference of the state, once: for traverse and clear. */
#define STATE_OBJECTS(X) \
    X(LoopType) X(WatchdogType) X(HandleType) X(TimerHandleType) X(FutureType) X(FutureIterType) \
    X(TaskType) X(TransportType) X(StreamType) X(DatagramType) X(AcceptorType) X(OperationType) \
    X(ReadPipeType) X(WritePipeType) X(ClientsType) X(ServerType) X(clients_nothing) \
    X(asyncio_Future) X(asyncio_Task) X(asyncio_Handle) X(asyncio_ThreadSafeHandle) X(asyncio_TimerHandle) \
    X(asyncio_FlowControlMixin) X(asyncio_BaseEventLoop) X(asyncio_BufferedProtocol) \
    X(asyncio_CancelledError) X(asyncio_InvalidStateError) X(concurrent_Future) X(ExecutorLinkType) \
    X(events_get_event_loop) X(events_get_running_loop) X(events_set_running_loop) \
    X(base_futures_repr) X(base_tasks_repr) X(base_tasks_get_stack) \
    X(base_tasks_print_stack) X(coroutines_iscoroutine) X(eager_task_factory) \
    X(extract_stack) X(format_callback_source) X(futures_set_result_unless_cancelled) \
    X(chain_future) X(copy_future_state) X(wrap_future) \
    X(base_events) X(format_handle) X(asyncio_logger) X(TransportSocket) X(sys_getframe) \
    X(current_tasks) X(enter_task) X(leave_task) X(swap_current_task) X(register_task) \
    X(unregister_task) X(task_set_base) X(add_awaited_by) X(discard_awaited_by) \
    X(keywords_context) X(keywords_msg) X(keywords_debug) X(keywords_loop) X(empty_tuple) X(socket_class) \
    X(socket_family) X(check_ssl_socket) \
    X(reader.ProtocolType) X(reader.ReaderType) X(reader.WriterType) X(reader.stream_reader) \
    X(reader.own[OWN_DATA_RECEIVED]) X(reader.own[OWN_DRAIN_HELPER]) X(reader.own[OWN_DEL]) X(reader.own[OWN_FEED_DATA]) \
    X(reader.own[OWN_WAKEUP_WAITER]) X(reader.own[OWN_WAIT_FOR_DATA]) \
    X(reader.own[OWN_MAYBE_RESUME_TRANSPORT]) X(reader.own[OWN_READ]) \
    X(reader.own[OWN_READEXACTLY]) X(reader.own[OWN_READLINE]) X(reader.own[OWN_READUNTIL]) \
    X(reader.own[OWN_EXCEPTION]) X(reader.own[OWN_WRITE]) X(reader.own[OWN_DRAIN]) \
    X(reader.FastReaderType) X(reader.FastWriterType) \
    X(tls.Type) X(tls.SSLError) X(tls.SSLWantReadError) X(tls.SSLSyscallError) \
    X(tls.SSLZeroReturnError) X(tls.CertificateError) X(tls.MemoryBIO) X(tls.SSLObject) \
    X(tls.keywords_wrap_bio) X(tls.record_bytes) X(tls.empty_bytes) X(tls.one_byte) \
    X(tls.flowcontrol_defaults) \
    X(tls.shipped.classes) X(tls.shipped.functions) X(tls.shipped.names) \
    X(spare.bytes) X(count.object) X(stop_iteration) X(loop_class) \
    X(resolve.gaierror) X(resolve.AddressFamily) \
    X(resolve.SocketKind) X(resolve.inet) X(resolve.inet6) X(resolve.stream) X(resolve.dgram)

int
state_traverse(struct state *state, visitproc visit, void *arg)
{
#define X(field) Py_VISIT(state->field);
    STATE_OBJECTS(X)
#undef X
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        Py_VISIT(state->standard.modules[i].dict);
    }
    for (int i = 0; i < LOOP_METHOD_COUNT; i++) {
        Py_VISIT(state->loop_own[i]);
    }
#define X(name) Py_VISIT(state->standard.stream.own.name); Py_VISIT(state->standard.tls.own.name);
    STANDARD_TRANSPORT_METHODS(X)
#undef X
    return 0;
}

void
state_drain_free_lists(struct state *state)
{
    freelist_drain(&state->free_handles);
    freelist_drain(&state->free_timer_handles);
    freelist_drain(&state->free_futures);
    freelist_drain(&state->free_future_iters);
    freelist_drain(&state->free_tasks);
    freelist_drain(&state->free_operations);
}

void
state_clear(struct state *state)
{
    activities_drop(state->activities);
    state->activities = NULL;
    state_drain_free_lists(state);
    standard_clear(state);
    for (int i = 0; i < LOOP_METHOD_COUNT; i++) {
        Py_CLEAR(state->loop_own[i]);
    }
#define X(field) Py_CLEAR(state->field);
    STATE_OBJECTS(X)
#undef X
#define X(identifier) Py_CLEAR(state->names.identifier);
    STATE_NAMES(X)
#undef X
}
