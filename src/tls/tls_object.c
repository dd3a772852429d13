/* tls_object.c - the methods of the SSLObject, called as asyncio calls them.
 *
 * The handshake and the shutdown come here with either engine: once per connection the object's own
 * methods decide. Reading and writing come here for an object that was changed while its connection
 * stands, in its class or in itself. One that is not the standard library's when the connection is
 * made does not get this far (tls_shipped.c).
 *
 * Python never gets memory of ours here, and the engine uses none that is lent. */
#include "tls/tls_object.h"

#include <string.h>

/* asyncio.sslproto.SSLProtocol.max_size: what its read() asks for */
#define READ_BYTES (256 * 1024)

PyObject *
tls_call(PyObject *op, PyObject *name, PyObject *arg1, PyObject *arg2)
{
    PyObject *stack[3] = {op, arg1, arg2};
    size_t nargs = 1 + (size_t)(arg1 != NULL) + (size_t)(arg2 != NULL);
    return PyObject_VectorcallMethod(name, stack, nargs, NULL);
}

enum tls_status
tls_status_of_exception(struct tls_engine *engine)
{
    /* asyncio.sslproto.SSLAgainErrors */
    struct tls_objects *tls = &tls_state(engine->state)->tls;
    if (PyErr_ExceptionMatches(tls->SSLWantReadError)
        || PyErr_ExceptionMatches(tls->SSLSyscallError)) {
        PyErr_Clear();
        return TLS_WANT;
    }
    return TLS_FAILED;
}

/* -- is it still the standard library's? ------------------------------------------------- */

void
tls_watch_object(struct tls_engine *engine, PyObject *context)
{
    struct tls_shipped *shipped = &tls_state(engine->state)->tls.shipped;
    engine->context = context;
    engine->foreign = true;
    if (shipped->classes == NULL
        || (PyObject *)Py_TYPE(engine->object)
               != PyTuple_GET_ITEM(shipped->classes, TLS_OBJECT_CLASS)) {
        return;
    }
    PyObject **own = _PyObject_GetDictPtr(engine->object);
    if (own == NULL || *own == NULL) {
        return;
    }
    /* Held, so that the interpreter does not take it apart again: what is set is seen in it. */
    engine->own = own;
    engine->dict = Py_NewRef(*own);
    engine->type = Py_TYPE(engine->object);
    engine->version = shipped->versions[TLS_OBJECT_CLASS];
    tls_is_foreign(engine);
}

/* Is the object's only attribute what its methods call? */
static bool
has_only_inner(struct tls_engine *engine)
{
    Py_ssize_t position = 0;
    PyObject *name, *value;
    GUARD(engine->dict);
#if PY_VERSION_HEX < 0x030C0000
    uint64_t version = ((PyDictObject *)engine->dict)->ma_version_tag;
    if (LIKELY(version == engine->dict_version)) {
        return true;
    }
#endif
    if (PyDict_GET_SIZE(engine->dict) != 1 || !PyDict_Next(engine->dict, &position, &name, &value)
        || value != engine->inner || name != engine->state->names._sslobj) {
        return false;
    }
#if PY_VERSION_HEX < 0x030C0000
    engine->dict_version = version;
#endif
    return true;
}

static bool
look(struct tls_engine *engine)
{
    const struct tls_shipped *shipped = &tls_state(engine->state)->tls.shipped;
    return UNLIKELY(engine->dict == NULL || shipped->functions == NULL
                    || Py_TYPE(engine->object) != engine->type
                    || SHARED_LOAD(engine->type->tp_version_tag) != engine->version
                    || engine->version == 0 || SHARED_LOAD(*engine->own) != engine->dict
                    || PyFunction_GET_CODE(shipped->read) != shipped->read_code
                    || PyFunction_GET_CODE(shipped->write) != shipped->write_code
                    || !has_only_inner(engine));
}

bool
tls_is_foreign(struct tls_engine *engine)
{
    if (UNLIKELY(engine->unwatched)) {
        return false;
    }
    return engine->foreign = look(engine);
}

/* The callback for names has given the connection another context, maybe: with a message callback,
 * whose exceptions come out of the object's methods alone. */
static int
watch_context(struct tls_engine *engine)
{
    PyObject *context;
    int any = PyObject_GetOptionalAttr(engine->inner, engine->state->names.context, &context);
    if (any > 0) {
        any = context == engine->context ? 0 : tls_has_message_callback(engine->state, context);
        Py_DECREF(context);
    }
    if (any > 0) {
        Py_CLEAR(engine->dict);
    }
    return any < 0 ? -1 : 0;
}

/* -- the methods ------------------------------------------------------------------------- */

enum tls_status
tls_object_handshake(struct tls_engine *engine)
{
    /* the self-test is nobody's connection */
    PyObject *object = Py_NewRef(engine->unwatched ? engine->inner : engine->object);
    PyObject *result = engine->ops->settle(engine) < 0
                           ? NULL
                           : tls_call(object, engine->state->names.do_handshake, NULL, NULL);
    Py_DECREF(object);
    if (result == NULL) {
        return tls_status_of_exception(engine);
    }
    Py_DECREF(result);
    return watch_context(engine) < 0 ? TLS_FAILED : TLS_OK;
}

enum tls_status
tls_object_shutdown(struct tls_engine *engine)
{
    struct state_names *names = &engine->state->names;
    PyObject *object = Py_NewRef(engine->unwatched ? engine->inner : engine->object);
    PyObject *result =
        engine->ops->settle(engine) < 0
            ? NULL
            : tls_call(object, engine->unwatched ? names->shutdown : names->unwrap, NULL, NULL);
    Py_DECREF(object);
    if (result == NULL) {
        return tls_status_of_exception(engine);
    }
    Py_DECREF(result);
    return TLS_OK;
}

/* read(size) or read(size, buffer). New reference or NULL. */
static PyObject *
object_read(struct tls_engine *engine, size_t size, PyObject *buffer)
{
    PyObject *number = PyLong_FromSize_t(size);
    if (number == NULL || engine->ops->settle(engine) < 0) {
        Py_XDECREF(number);
        return NULL;
    }
    PyObject *object = Py_NewRef(engine->object);
    PyObject *result = tls_call(object, engine->state->names.read, number, buffer);
    Py_DECREF(object);
    Py_DECREF(number);
    return result;
}

/* One piece, whatever it is. TLS_OK: *data is a new reference, and true. */
static enum tls_status
object_read_piece(struct tls_engine *engine, PyObject **data)
{
    *data = object_read(engine, READ_BYTES, NULL);
    if (*data == NULL) {
        return tls_status_of_exception(engine);
    }
    int any = PyObject_IsTrue(*data);
    if (any > 0) {
        return TLS_OK;
    }
    Py_CLEAR(*data);
    return any < 0 ? TLS_FAILED : TLS_EOF;
}

enum tls_status
tls_object_read_bytes(struct tls_engine *engine, PyObject **data, bool *more)
{
    *more = false;
    PyObject *list = NULL;
    enum tls_status status = object_read_piece(engine, data);
    if (status != TLS_OK) {
        return status;
    }
    PyObject *first = *data;
    PyObject *piece;
    while ((status = object_read_piece(engine, &piece)) == TLS_OK) {
        if (list == NULL && (list = PyList_New(0)) != NULL && PyList_Append(list, first) < 0) {
            Py_CLEAR(list);
        }
        int appended = list == NULL ? -1 : PyList_Append(list, piece);
        Py_DECREF(piece);
        if (appended < 0) {
            status = TLS_FAILED;
            break;
        }
    }
    tls_put_off(engine, status, more);
    if (list != NULL) {
        Py_DECREF(first);
        *data = PyObject_CallMethodOneArg(tls_state(engine->state)->tls.empty_bytes,
                                          engine->state->names.join, list);
        Py_DECREF(list);
    }
    return *data == NULL ? TLS_FAILED : TLS_OK;
}

enum tls_status
tls_object_read_into(struct tls_engine *engine, PyObject *buffer, size_t size, size_t *n)
{
    PyObject *got = object_read(engine, size, buffer);
    if (got == NULL) {
        return tls_status_of_exception(engine);
    }
    *n = PyLong_AsSize_t(got);
    Py_DECREF(got);
    if (*n == (size_t)-1 && PyErr_Occurred()) {
        return TLS_FAILED;
    }
    if (*n > size) {
        PyErr_SetString(PyExc_ValueError, "read() says that it has read more than it was asked for");
        return TLS_FAILED;
    }
    return *n == 0 ? TLS_EOF : TLS_OK;
}

enum tls_status
tls_object_write(struct tls_engine *engine, PyObject *data, const char *memory, size_t length,
                 size_t *n)
{
    *n = 0;
    data = data != NULL ? Py_NewRef(data) : PyBytes_FromStringAndSize(memory, (Py_ssize_t)length);
    if (data == NULL || engine->ops->settle(engine) < 0) {
        Py_XDECREF(data);
        return TLS_FAILED;
    }
    PyObject *object = Py_NewRef(engine->object);
    PyObject *count = tls_call(object, engine->state->names.write, data, NULL);
    Py_DECREF(object);
    Py_DECREF(data);
    if (count == NULL) {
        return tls_status_of_exception(engine);
    }
    size_t written = PyLong_AsSize_t(count);
    Py_DECREF(count);
    if (written == (size_t)-1 && PyErr_Occurred()) {
        return TLS_FAILED;
    }
    *n = written < length ? written : length;
    return *n == 0 ? TLS_WANT : TLS_OK;
}
