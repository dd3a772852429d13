/* tls_engine.c - which engine serves, and the self-test of the direct one. */
#include "tls/tls.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

/* -- self-test ---------------------------------------------------------------------------- */

/* One connection end of the test, by the direct engine. */
static bool
test_open(struct state *state, struct tls_engine *engine, PyObject *context, bool server_side,
          PyObject *hostname)
{
    *engine = (struct tls_engine){.ops = &tls_direct_ops, .state = state, .unwatched = true};
    return tls_direct_ops.open(engine, context, server_side, hostname) == 0
           && engine->ops == &tls_direct_ops
           && libssl.SSL_get_rbio(engine->direct.ssl) == engine->direct.bio;
}

static void
test_close(struct tls_engine *engine)
{
    if (engine->ops != NULL) {
        engine->ops->close(engine);
    }
    Py_CLEAR(engine->object);
    Py_CLEAR(engine->inner);
    Py_CLEAR(engine->dict);
    Py_CLEAR(engine->failure);
}

/* Do libssl and the ssl module say the same about the options of the context? */
static bool
test_options(SSL *ssl, PyObject *context)
{
    PyObject *value = PyObject_GetAttrString(context, "options");
    if (value == NULL) {
        return false;
    }
    unsigned long options = PyLong_AsUnsignedLongMask(value);
    Py_DECREF(value);
    return libssl.SSL_CTX_get_options(libssl.SSL_get_SSL_CTX(ssl)) == options;
}

/* What one end has to say, to the other end. */
static bool
test_move(struct tls_engine *from, struct tls_engine *to)
{
    struct tls_output output;
    if (from->ops->take(from, &output) < 0) {
        return false;
    }
    bool moved = output.n == 0
                 || (to->ops->feed(to, output.data, output.n) == 0 && to->ops->keep(to) == 0);
    free(output.memory);
    return moved;
}

/* Data from one end to the other, and the close_notify after it. */
static bool
test_data(struct tls_engine *from, struct tls_engine *to, const char *text)
{
    size_t n = 0;
    bool more = false;
    char buffer[64];
    PyObject *data;
    if (from->ops->write(from, NULL, text, strlen(text), &n) != TLS_OK || n != strlen(text)
        || !test_move(from, to)
        || to->ops->read(to, buffer, 4, &n, &more) != TLS_OK || n != 4 || !more
        || memcmp(buffer, text, 4) != 0) {
        return false;
    }
    if (to->ops->read_bytes(to, &data, &more) != TLS_OK) {
        return false;
    }
    bool same = !more && strcmp(PyBytes_AS_STRING(data), text + 4) == 0;
    Py_DECREF(data);
    return same && to->ops->read(to, buffer, sizeof(buffer), &n, &more) == TLS_WANT;
}

/* A whole connection in memory, without a certificate. True also where this libssl has no
 * cipher for that: nothing speaks against it then. */
static bool
test_connection(struct state *state, PyObject *ssl_module, PyObject *client_context)
{
    struct tls_engine client = {0}, server = {0};
    bool passed = false;
    PyObject *server_context = PyObject_CallMethod(
        ssl_module, "SSLContext", "N", PyObject_GetAttrString(ssl_module, "PROTOCOL_TLS_SERVER"));
    PyObject *version = PyObject_GetAttrString(ssl_module, "TLSVersion");
    PyObject *tls12 = version == NULL ? NULL : PyObject_GetAttrString(version, "TLSv1_2");
    if (server_context == NULL || tls12 == NULL
        || PyObject_SetAttrString(server_context, "maximum_version", tls12) < 0
        || PyObject_SetAttrString(client_context, "maximum_version", tls12) < 0) {
        goto done;
    }
    static const char ciphers[] = "AECDH-AES128-SHA:ADH-AES128-SHA256:@SECLEVEL=0";
    PyObject *result = PyObject_CallMethod(server_context, "set_ciphers", "s", ciphers);
    Py_XDECREF(result);
    if (result != NULL) {
        result = PyObject_CallMethod(client_context, "set_ciphers", "s", ciphers);
        Py_XDECREF(result);
    }
    if (result == NULL) {
        PyErr_Clear();
        passed = true;
        goto done;
    }
    if (!test_open(state, &client, client_context, false, NULL)
        || !test_open(state, &server, server_context, true, NULL)) {
        goto done;
    }
    bool client_done = false, server_done = false;
    for (int i = 0; i < 8 && !(client_done && server_done); i++) {
        enum tls_status status = client_done ? TLS_OK : client.ops->handshake(&client);
        client_done = status == TLS_OK;
        if (status == TLS_FAILED || !test_move(&client, &server)) {
            goto done;
        }
        status = server_done ? TLS_OK : server.ops->handshake(&server);
        server_done = status == TLS_OK;
        if (status == TLS_FAILED || !test_move(&server, &client)) {
            goto done;
        }
    }
    PyObject *said = PyObject_CallMethod(client.object, "version", NULL);
    const char *name = said == NULL ? NULL : PyUnicode_AsUTF8(said);
    bool same = name != NULL && strcmp(name, libssl.SSL_get_version(client.direct.ssl)) == 0;
    Py_XDECREF(said);
    char buffer[8];
    size_t n;
    bool more;
    passed = same && client_done && server_done && test_data(&client, &server, "from the client")
             && test_data(&server, &client, "from the server")
             && client.ops->shutdown(&client) == TLS_WANT && test_move(&client, &server)
             && server.ops->read(&server, buffer, sizeof(buffer), &n, &more) == TLS_EOF;
done:
    test_close(&client);
    test_close(&server);
    Py_XDECREF(version);
    Py_XDECREF(tls12);
    Py_XDECREF(server_context);
    return passed;
}

static PyObject *
test_context(PyObject *ssl_module)
{
    PyObject *context = PyObject_CallMethod(
        ssl_module, "SSLContext", "N", PyObject_GetAttrString(ssl_module, "PROTOCOL_TLS_CLIENT"));
    PyObject *none = PyObject_GetAttrString(ssl_module, "CERT_NONE");
    if (context == NULL || none == NULL
        || PyObject_SetAttrString(context, "check_hostname", Py_False) < 0
        || PyObject_SetAttrString(context, "verify_mode", none) < 0) {
        Py_CLEAR(context);
    }
    Py_XDECREF(none);
    return context;
}

/* Is what libssl says of an SSL what the ssl module says of the object it belongs to? */
static bool
self_test(struct state *state, PyObject *ssl_module)
{
    struct tls_engine one = {0}, two = {0}, other = {0};
    bool passed = false;
    PyObject *context = test_context(ssl_module);
    PyObject *changed = test_context(ssl_module);
    PyObject *hostname = PyUnicode_FromString("asyncloop.example");
    PyObject *option = PyObject_GetAttrString(ssl_module, "OP_NO_TICKET");
    if (context == NULL || changed == NULL || hostname == NULL || option == NULL) {
        goto done;
    }
    PyObject *options = PyObject_GetAttrString(changed, "options");
    PyObject *more_options = options == NULL ? NULL : PyNumber_Or(options, option);
    int set = more_options == NULL ? -1 : PyObject_SetAttrString(changed, "options", more_options);
    Py_XDECREF(options);
    Py_XDECREF(more_options);
    if (set < 0 || !test_open(state, &one, context, false, hostname)
        || !test_open(state, &two, context, false, NULL)
        || !test_open(state, &other, changed, false, NULL)) {
        goto done;
    }
    SSL *ssl = one.direct.ssl;
    const char *name = libssl.SSL_get_servername(ssl, LIBSSL_SERVERNAME_HOST);
    if (ssl == two.direct.ssl || libssl_object_holds(two.inner, ssl)
        || libssl.SSL_get_SSL_CTX(ssl) != libssl.SSL_get_SSL_CTX(two.direct.ssl)
        || libssl.SSL_get_SSL_CTX(ssl) == libssl.SSL_get_SSL_CTX(other.direct.ssl)
        || !test_options(ssl, context) || !test_options(other.direct.ssl, changed)
        || name == NULL || strcmp(name, "asyncloop.example") != 0
        || libssl.SSL_get_servername(two.direct.ssl, LIBSSL_SERVERNAME_HOST) != NULL) {
        goto done;
    }
    /* The handshake of the SSLObject has to speak through our BIO: a ClientHello. */
    if (one.ops->handshake(&one) != TLS_WANT || !one.direct.starved
        || one.direct.out_length < 6 || memcmp(one.direct.out, "\x16\x03", 2) != 0) {
        goto done;
    }
    passed = test_connection(state, ssl_module, context);
done:
    test_close(&one);
    test_close(&two);
    test_close(&other);
    Py_XDECREF(context);
    Py_XDECREF(changed);
    Py_XDECREF(hostname);
    Py_XDECREF(option);
    return passed;
}

static bool
direct_is_usable(struct state *state)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *c_module = PyImport_ImportModule("_ssl");
    PyObject *module = c_module == NULL ? NULL : PyImport_ImportModule("ssl");
    bool usable = module != NULL && libssl_load(c_module) && self_test(state, module);
    Py_XDECREF(module);
    Py_XDECREF(c_module);
    PyErr_SetRaisedException(exc);    /* clears what the test left */
    return usable;
}

/* -- choice ------------------------------------------------------------------------------------ */

const struct tls_engine_ops *
tls_default_engine(struct state *state)
{
    struct tls_objects *tls = &tls_state(state)->tls;
    const struct tls_engine_ops *engine = SHARED_LOAD(tls->engine);
    if (LIKELY(engine != NULL)) {
        return engine;
    }
    const char *wanted = getenv("ASYNCLOOP_TLS");
    bool portable = (wanted != NULL && strcmp(wanted, "portable") == 0) || !SHORT_WAY(tls);
    engine = !portable && direct_is_usable(state) ? &tls_direct_ops : &tls_portable_ops;
    SHARED_STORE(tls->engine, engine);
    return engine;
}

/* 1 / 0 / -1 */
int
tls_has_message_callback(struct state *state, PyObject *context)
{
    PyObject *callback;
    if (PyObject_GetOptionalAttr(context, state->names._msg_callback, &callback) < 0) {
        return -1;
    }
    bool any = callback != NULL && callback != Py_None;
    Py_XDECREF(callback);
    return any;
}

const struct tls_engine_ops *
tls_choose_engine(struct state *state, PyObject *context)
{
    const struct tls_engine_ops *engine = tls_default_engine(state);
    if (engine == &tls_portable_ops) {
        return engine;
    }
    /* A message callback's exceptions are for the caller of the SSLObject's methods. */
    int any = tls_has_message_callback(state, context);
    return any < 0 ? NULL
           : any   ? &tls_portable_ops
                   : engine;
}
