/* proto.c - see proto.h. */
#include "net/proto.h"

#include "net/packet.h"
#include "net/reader.h"

#include <string.h>

int
proto_init(struct proto *proto, PyObject *protocol, PyObject *context,
           enum proto_use use)
{
    *proto = (struct proto){.seen = INSTANCE_UNSEEN, .use = use};
    proto->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (proto->context == NULL) {
        return -1;
    }
    proto->protocol = Py_NewRef(protocol);
    return 0;
}

void
proto_drop_protocol(struct proto *proto)
{
    proto->seen.version = INSTANCE_NEVER;
    proto->kind = PROTO_DATA;
    Py_CLEAR(proto->feed);
    Py_CLEAR(proto->get);
    Py_CLEAR(proto->updated);
    Py_CLEAR(proto->protocol);
}

void
proto_clear(struct proto *proto)
{
    proto_drop_protocol(proto);
    Py_CLEAR(proto->context);
}

int
proto_traverse(struct proto *proto, visitproc visit, void *arg)
{
    Py_VISIT(proto->protocol);
    Py_VISIT(proto->context);
    Py_VISIT(proto->feed);
    Py_VISIT(proto->get);
    Py_VISIT(proto->updated);
    return 0;
}

int
proto_set(struct proto *proto, struct state *state, PyObject *protocol)
{
    uint8_t kind = PROTO_DATA;
    if (reader_protocol_is_plain(state, protocol)) {
        kind = PROTO_READER;
    }
    else if (Py_IS_TYPE(protocol, net_state(state)->protocols.TlsType)) {
        kind = PROTO_TLS;
    }
    else {
        int buffered = PyObject_IsInstance(protocol, net_state(state)->protocols.BufferedProtocol);
        if (buffered < 0) {
            return -1;
        }
        kind = buffered ? PROTO_BUFFERED : PROTO_DATA;
    }
    PyObject *get = NULL, *updated = NULL;
    if (proto->use == PROTO_FOR_PIPE && kind == PROTO_BUFFERED) {
        kind = PROTO_DATA;
    }
    if (proto->use == PROTO_FOR_TLS && kind == PROTO_BUFFERED
        && ((get = PyObject_GetAttr(protocol, state->names.get_buffer)) == NULL
            || (updated = PyObject_GetAttr(protocol, state->names.buffer_updated)) == NULL)) {
        Py_XDECREF(get);
        return -1;
    }
    /* What is dropped may run Python, so the new state is complete before. */
    struct proto old = *proto;
    proto->protocol = Py_NewRef(protocol);
    proto->kind = kind;
    proto->feed = NULL;
    proto->get = get;
    proto->updated = updated;
    proto->seen.version = INSTANCE_NEVER;
    proto->looks = 0;
    old.context = NULL;
    proto_clear(&old);
    return 0;
}

/* -- the context ------------------------------------------------------------------- */

/* Enters the context, or a copy of it where it is entered already: a protocol's callback
 * may write so much that it is paused, and then one call runs inside another. New
 * reference for context_leave(), or NULL. */
static inline PyObject *
context_enter(struct proto *proto)
{
    PyObject *context;
    if (LIKELY(proto->entered == 0)) {
        context = Py_NewRef(proto->context);
        if (LIKELY(PyContext_Enter(context) == 0)) {
            proto->entered++;
            return context;
        }
        /* somebody else has entered it: a user may have given it to a task */
        PyErr_Clear();
        Py_DECREF(context);
    }
    context = PyContext_Copy(proto->context);
    if (context == NULL || PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        return NULL;
    }
    proto->entered++;
    return context;
}

/* Keeps the error indicator; `result` passes through, or is dropped on failure. */
static inline PyObject *
context_leave(struct proto *proto, PyObject *context_steal, PyObject *result)
{
    proto->entered--;
    if (UNLIKELY(PyContext_Exit(context_steal) < 0)) {
        Py_CLEAR(result);
    }
    Py_DECREF(context_steal);
    return result;
}

PyObject *
proto_call_method(struct proto *proto, PyObject *name, PyObject **args, size_t nargs)
{
    if (UNLIKELY(proto->protocol == NULL)) {
        return PyObject_GetAttr(Py_None, name);    /* asyncio's AttributeError */
    }
    PyObject *context = context_enter(proto);
    if (UNLIKELY(context == NULL)) {
        return NULL;
    }
    PyObject *protocol = args[0] = Py_NewRef(proto->protocol);
    PyObject *result = PyObject_VectorcallMethod(name, args, nargs, NULL);
    result = context_leave(proto, context, result);
    Py_DECREF(protocol);
    return result;
}

/* -- per packet ----------------------------------------------------------------------- */

/* The function behind a method of the protocol's class: new reference, NULL if it is none that may
 * be kept. Runs no Python (nothing is asked of the object), sets no exception. */
static PyObject *
class_function(PyObject *protocol, PyObject *name)
{
#ifdef Py_GIL_DISABLED
    PyObject *function = _PyType_LookupRef(Py_TYPE(protocol), name);
#else
    PyObject *function = Py_XNewRef(_PyType_Lookup(Py_TYPE(protocol), name));
#endif
    if (function != NULL && !PyFunction_Check(function)) {
        Py_CLEAR(function);
    }
    return function;
}

/* Looks up what is called per packet, to keep it if that is possible; not for ever again. */
static __attribute__((noinline)) void
proto_keep(struct proto *proto, struct state *state)
{
    bool buffered = proto->kind == PROTO_BUFFERED;
    PyObject *names[2] = {state->names.data_received, NULL};
    if (buffered) {
        names[0] = state->names.get_buffer;
        names[1] = state->names.buffer_updated;
    }
    if (!state->instances_known || proto->looks == UINT8_MAX || proto->protocol == NULL
        || proto->kind == PROTO_READER || (buffered && proto->use == PROTO_FOR_TLS)) {
        return;
    }
    proto->looks++;
    PyObject *protocol = proto->protocol;
    PyObject *first = class_function(protocol, names[0]);
    PyObject *updated = first == NULL || !buffered ? NULL : class_function(protocol, names[1]);
    struct instance_seen seen = INSTANCE_UNSEEN;
    bool kept = first != NULL && (updated != NULL || !buffered)
                && instance_see(state, protocol, &seen, names, 1 + buffered);
    struct proto old = *proto;
    proto->feed = kept && !buffered ? first : NULL;
    proto->get = kept && buffered ? first : NULL;
    proto->updated = kept ? updated : NULL;
    proto->seen = seen;
    if (!kept) {
        proto->looks = UINT8_MAX;
        Py_XDECREF(first);
        Py_XDECREF(updated);
    }
    Py_XDECREF(old.feed);
    Py_XDECREF(old.get);
    Py_XDECREF(old.updated);
}

/* Nothing that may be called at once is kept. */
static __attribute__((noinline)) PyObject *
method_call_slowly(struct proto *proto, struct state *state, PyObject **kept, PyObject *name,
                   PyObject *arg)
{
    if (*kept != NULL && proto->use == PROTO_FOR_TLS && proto->kind == PROTO_BUFFERED) {
        PyObject *method = Py_NewRef(*kept);
        PyObject *result = proto_call_bound(proto, method, arg);
        Py_DECREF(method);
        return result;
    }
    proto_keep(proto, state);    /* for the next one */
    PyObject *stack[2] = {NULL, arg};
    return proto_call_method(proto, name, stack, 2);
}

/* Calls a method of the protocol with one argument. New reference or NULL. */
static inline PyObject *
method_call(struct proto *proto, struct state *state, PyObject **kept, PyObject *name, PyObject *arg)
{
    PyObject *protocol = proto->protocol;
    PyObject *function = *kept;
    if (UNLIKELY(protocol == NULL || function == NULL
                 || !instance_is_as_seen(protocol, &proto->seen))) {
        return method_call_slowly(proto, state, kept, name, arg);
    }
    Py_INCREF(function);
    PyObject *self = Py_NewRef(protocol);
    PyObject *result = NULL;
    PyObject *context = context_enter(proto);
    if (LIKELY(context != NULL)) {
        PyObject *stack[3] = {NULL, self, arg};
        /* what PyObject_Vectorcall() would find, without its detours */
        vectorcallfunc call = ((PyFunctionObject *)function)->vectorcall;
        result = call(function, stack + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        result = context_leave(proto, context, result);
    }
    Py_DECREF(function);
    Py_DECREF(self);
    return result;
}

static inline int
call_data_received(struct proto *proto, struct state *state, PyObject *bytes_steal, size_t capacity)
{
    PyObject *result = method_call(proto, state, &proto->feed, state->names.data_received, bytes_steal);
    packet_done(state, bytes_steal, capacity);
    if (UNLIKELY(result == NULL)) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

int
proto_data_received(struct proto *proto, struct state *state, const char *data, size_t n)
{
    size_t capacity;
    PyObject *bytes = packet_new(state, data, n, &capacity);
    return UNLIKELY(bytes == NULL) ? -1 : call_data_received(proto, state, bytes, capacity);
}

int
proto_data_received_packet(struct proto *proto, struct state *state, PyObject *bytes_steal,
                           size_t capacity)
{
    return call_data_received(proto, state, bytes_steal, capacity);
}

int
proto_data_received_bytes(struct proto *proto, struct state *state, PyObject *bytes)
{
    PyObject *result = method_call(proto, state, &proto->feed, state->names.data_received, bytes);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
proto_get_buffer(struct proto *proto, struct state *state, Py_ssize_t size_hint, PyObject **buffer)
{
    PyObject *hint = PyLong_FromSsize_t(size_hint);
    if (hint == NULL) {
        return -1;
    }
    *buffer = method_call(proto, state, &proto->get, state->names.get_buffer, hint);
    Py_DECREF(hint);
    return *buffer == NULL ? -1 : 0;
}

/* New reference to the int n. One message is often as long as the one before (guarded path buffered: 3 %
 * of the instructions). */
static inline PyObject *
count_ref(struct state *state UNUSED, size_t n)
{
#ifndef Py_GIL_DISABLED
    if (LIKELY(net_state(state)->protocols.count.object != NULL && net_state(state)->protocols.count.value == n)) {
        return Py_NewRef(net_state(state)->protocols.count.object);
    }
    PyObject *count = PyLong_FromSize_t(n);
    if (LIKELY(count != NULL)) {
        net_state(state)->protocols.count.value = n;
        Py_XSETREF(net_state(state)->protocols.count.object, Py_NewRef(count));
    }
    return count;
#else
    return PyLong_FromSize_t(n);
#endif
}

int
proto_buffer_updated(struct proto *proto, struct state *state, size_t n)
{
    PyObject *count = count_ref(state, n);
    if (UNLIKELY(count == NULL)) {
        return -1;
    }
    PyObject *result = method_call(proto, state, &proto->updated, state->names.buffer_updated, count);
    Py_DECREF(count);
    if (UNLIKELY(result == NULL)) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* -- per connection --------------------------------------------------------------------- */

PyObject *
proto_call_here(struct proto *proto, PyObject *name)
{
    if (proto->protocol == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *protocol = Py_NewRef(proto->protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, name);
    Py_DECREF(protocol);
    return result;
}

/* `name` NULL: calls the object itself. `arg` may be NULL. */
static PyObject *
call_in_context(struct proto *proto, PyObject *object, PyObject *name, PyObject *arg)
{
    PyObject *result = NULL;
    PyObject *context = context_enter(proto);
    bool without = context == NULL && PyErr_ExceptionMatches(PyExc_MemoryError);
    if (without) {
        PyErr_Clear();    /* for the copy of a context: a call that does not come is worse */
    }
    if (context != NULL || without) {
        PyObject *stack[2] = {object, arg};
        result = name == NULL ? PyObject_Vectorcall(object, stack + 1, arg != NULL, NULL)
                              : PyObject_VectorcallMethod(name, stack, 1 + (arg != NULL), NULL);
    }
    return context != NULL ? context_leave(proto, context, result) : result;
}

PyObject *
proto_call(struct proto *proto, PyObject *name, PyObject *arg)
{
    if (proto->protocol == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *protocol = Py_NewRef(proto->protocol);
    PyObject *result = call_in_context(proto, protocol, name, arg);
    Py_DECREF(protocol);
    return result;
}

PyObject *
proto_call_bound(struct proto *proto, PyObject *method, PyObject *arg)
{
    return call_in_context(proto, method, NULL, arg);
}

PyObject *
proto_call_of(struct proto *proto, PyObject *object, PyObject *name, PyObject *arg)
{
    return call_in_context(proto, object, name, arg);
}

PyObject *
proto_connection_made(struct proto *proto, struct state *state, PyObject *transport)
{
    if (proto->kind == PROTO_READER && net_state(state)->types.FastReader != NULL) {
        return net_state(state)->protocols.stream_connection_made(state, proto, transport);
    }
    return proto_call(proto, state->names.connection_made, transport);
}
