/* proto.c - see proto.h. */
#include "proto.h"

#include <string.h>

#include "packet.h"
#include "reader.h"

int
proto_init(struct proto *proto, PyObject *protocol, PyObject *context)
{
    *proto = (struct proto){0};
    proto->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (proto->context == NULL) {
        return -1;
    }
    proto->protocol = Py_NewRef(protocol);
    return 0;
}

static void
method_clear(struct proto_method *method)
{
    Py_CLEAR(method->function);
    Py_CLEAR(method->self);
}

void
proto_drop_protocol(struct proto *proto)
{
    method_clear(&proto->feed);
    method_clear(&proto->updated);
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
    Py_VISIT(proto->feed.function);
    Py_VISIT(proto->feed.self);
    Py_VISIT(proto->updated.function);
    Py_VISIT(proto->updated.self);
    return 0;
}

int
proto_set(struct proto *proto, struct state *state, PyObject *protocol)
{
    uint8_t kind = PROTO_DATA;
    if (reader_protocol_is_plain(state, protocol)) {
        kind = PROTO_READER;
    }
    else if (Py_IS_TYPE(protocol, state->tls.Type)) {
        kind = PROTO_TLS;
    }
    else {
        int buffered = PyObject_IsInstance(protocol, state->asyncio_BufferedProtocol);
        if (buffered < 0) {
            return -1;
        }
        kind = buffered ? PROTO_BUFFERED : PROTO_DATA;
    }
    /* What is dropped may run Python, so the new state is complete before. */
    struct proto old = *proto;
    proto->protocol = Py_NewRef(protocol);
    proto->kind = kind;
    proto->feed = proto->updated = (struct proto_method){0};
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
        PyErr_SetString(PyExc_RuntimeError, "the transport has no protocol");
        return NULL;
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

static int
method_look_up(struct proto *proto, struct proto_method *method, PyObject *name)
{
    if (UNLIKELY(proto->protocol == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "the transport has no protocol");
        return -1;
    }
    PyObject *bound = PyObject_GetAttr(proto->protocol, name);
    if (bound == NULL) {
        return -1;
    }
    struct proto_method old = *method;
    if (PyMethod_Check(bound)) {
        method->function = Py_NewRef(PyMethod_GET_FUNCTION(bound));
        method->self = Py_NewRef(PyMethod_GET_SELF(bound));
        Py_DECREF(bound);
    }
    else {
        method->function = bound;
        method->self = NULL;
    }
    method_clear(&old);    /* a __getattr__ of the user's may have come here as well */
    return 0;
}

/* Calls the method with one argument, or none. New reference or NULL. */
static inline PyObject *
method_call(struct proto *proto, struct proto_method *method, PyObject *name, PyObject *arg)
{
    if (UNLIKELY(method->function == NULL) && method_look_up(proto, method, name) < 0) {
        return NULL;
    }
    PyObject *function = Py_NewRef(method->function);
    PyObject *self = Py_XNewRef(method->self);
    PyObject *result = NULL;
    PyObject *context = context_enter(proto);
    if (LIKELY(context != NULL)) {
        PyObject *stack[3] = {NULL, self, arg};
        if (LIKELY(self != NULL && PyFunction_Check(function))) {
            /* what PyObject_Vectorcall() would find, without its detours */
            vectorcallfunc call = ((PyFunctionObject *)function)->vectorcall;
            result = call(function, stack + 1,
                          (1 + (arg != NULL)) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        }
        else if (self != NULL) {
            result = PyObject_Vectorcall(
                function, stack + 1, (1 + (arg != NULL)) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        }
        else {
            result = PyObject_Vectorcall(
                function, stack + 2, (arg != NULL) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        }
        result = context_leave(proto, context, result);
    }
    Py_DECREF(function);
    Py_XDECREF(self);
    return result;
}

static inline int
call_data_received(struct proto *proto, struct state *state, PyObject *bytes_steal, size_t capacity)
{
    PyObject *result = method_call(proto, &proto->feed, state->names.data_received, bytes_steal);
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
    PyObject *result = method_call(proto, &proto->feed, state->names.data_received, bytes);
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
    *buffer = method_call(proto, &proto->feed, state->names.get_buffer, hint);
    Py_DECREF(hint);
    return *buffer == NULL ? -1 : 0;
}

/* New reference to the int n. One message is often as long as the one before. */
static inline PyObject *
count_ref(struct state *state UNUSED, size_t n)
{
#ifndef Py_GIL_DISABLED
    if (LIKELY(state->count.object != NULL && state->count.value == n)) {
        return Py_NewRef(state->count.object);
    }
    PyObject *count = PyLong_FromSize_t(n);
    if (LIKELY(count != NULL)) {
        state->count.value = n;
        Py_XSETREF(state->count.object, Py_NewRef(count));
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
    PyObject *result = method_call(proto, &proto->updated, state->names.buffer_updated, count);
    Py_DECREF(count);
    if (UNLIKELY(result == NULL)) {
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

/* -- per connection --------------------------------------------------------------------- */

PyObject *
proto_call(struct proto *proto, PyObject *name, PyObject *arg)
{
    if (proto->protocol == NULL) {
        return Py_NewRef(Py_None);
    }
    PyObject *protocol = Py_NewRef(proto->protocol);
    PyObject *result = NULL;
    PyObject *context = context_enter(proto);
    bool without = context == NULL && PyErr_ExceptionMatches(PyExc_MemoryError);
    if (without) {
        PyErr_Clear();    /* for the copy of a context: a call that does not come is worse */
    }
    if (context != NULL || without) {
        PyObject *stack[2] = {protocol, arg};
        result = PyObject_VectorcallMethod(name, stack, 1 + (arg != NULL), NULL);
    }
    if (context != NULL) {
        result = context_leave(proto, context, result);
    }
    Py_DECREF(protocol);
    return result;
}

PyObject *
proto_call_bound(struct proto *proto, PyObject *method, PyObject *arg)
{
    PyObject *context = context_enter(proto);
    return UNLIKELY(context == NULL)
               ? NULL
               : context_leave(proto, context, PyObject_CallOneArg(method, arg));
}

PyObject *
proto_connection_made(struct proto *proto, struct state *state, PyObject *transport)
{
    if (proto->kind == PROTO_READER && state->reader.FastReaderType != NULL) {
        return state->stream_connection_made(state, proto, transport);
    }
    return proto_call(proto, state->names.connection_made, transport);
}
