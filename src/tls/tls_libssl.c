/* tls_libssl.c - see tls_libssl.h. */
#include "tls/tls_libssl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* glibc had them in a library of its own once, which an interpreter always brings along: a wheel need
 * not name it. */
#ifdef __GLIBC__
#pragma weak dlopen
#pragma weak dlsym
#define CAN_DLOPEN (dlopen != NULL && dlsym != NULL)
#else
#define CAN_DLOPEN true
#endif

struct libssl libssl;

/* -- the SSL that is being made ------------------------------------------------------ */

static _Thread_local struct {
    SSL *ssl;
    int count;
    bool active;
} capture;

static void
on_new_ssl(void *parent, void *ptr UNUSED, void *ad UNUSED, int idx UNUSED, long argl UNUSED,
           void *argp UNUSED)
{
    if (capture.active) {
        capture.ssl = parent;
        capture.count++;
    }
}

void
libssl_capture_begin(void)
{
    capture.ssl = NULL;
    capture.count = 0;
    capture.active = true;
}

SSL *
libssl_capture_end(void)
{
    capture.active = false;
    return capture.count == 1 ? capture.ssl : NULL;
}

bool
libssl_object_holds(PyObject *op, const void *pointer)
{
    const char *memory = (const char *)op;
    size_t size = (size_t)Py_TYPE(op)->tp_basicsize;
    for (size_t at = sizeof(PyObject); at + sizeof(void *) <= size; at += sizeof(void *)) {
        const void *word;
        memcpy(&word, memory + at, sizeof(word));
        if (word == pointer) {
            return true;
        }
    }
    return false;
}

/* -- finding the functions --------------------------------------------------------------- */

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static enum {
    NOT_LOADED,
    LOADED,
    LOAD_FAILED,
} load_state;

/* A handle of the library that the _ssl module is in, or NULL. */
static void *
open_ssl_module(PyObject *module)
{
    PyObject *file = PyObject_GetAttrString(module, "__file__");
    void *handle = NULL;
    if (file != NULL && PyUnicode_Check(file)) {
        const char *path = PyUnicode_AsUTF8(file);
        if (path != NULL) {
            handle = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        }
    }
    else if (file == NULL) {
        handle = dlopen(NULL, RTLD_LAZY);    /* linked into the interpreter */
    }
    PyErr_Clear();
    Py_XDECREF(file);
    return handle;
}

/* In the order of struct libssl. */
static const char function_names[] =
#define X(result, name, arguments) #name "\0"
    LIBSSL_FUNCTIONS(X)
#undef X
    ;

static bool
find_functions(void *handle, struct libssl *found)
{
    char *slot = (char *)found;
    for (const char *name = function_names; *name != '\0'; name += strlen(name) + 1) {
        void *symbol = dlsym(handle, name);
        if (symbol == NULL) {
            return false;
        }
        /* by way of memcpy: a pointer to data is no pointer to a function */
        memcpy(slot, &symbol, sizeof(symbol));
        slot += sizeof(symbol);
    }
    return true;
}

/* Is it OpenSSL? BoringSSL, AWS-LC and LibreSSL have functions of the same names, but not everything
 * behind them is the same. They say what they are, or have functions that OpenSSL has not; and none of
 * them has its asynchronous jobs. */
static bool
is_openssl(void *handle, const struct libssl *found, PyObject *module)
{
    static const char *const others[] = {
        "BORINGSSL_self_test",
        "BORINGSSL_integrity_test",
        "BORINGSSL_bcm_text_hash",
        "awslc_version_string",
        "awslc_api_version_num",
        "AWSLC_thread_local_clear",
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (dlsym(handle, others[i]) != NULL) {
            return false;
        }
    }
    const char *text = found->OpenSSL_version(0);
    if (text == NULL || strncmp(text, "OpenSSL ", 8) != 0 || strstr(text, "compatible") != NULL
        || strstr(text, "AWS-LC") != NULL || dlsym(handle, "ASYNC_is_capable") == NULL) {
        return false;
    }
    PyObject *known = PyObject_GetAttrString(module, "OPENSSL_VERSION");
    bool same = known != NULL && PyUnicode_Check(known)
                && PyUnicode_CompareWithASCIIString(known, text) == 0;
    Py_XDECREF(known);
    PyErr_Clear();
    return same;
}

static bool
load(PyObject *module)
{
    /* The handle stays open for the rest of the process: the functions are used as long. */
    void *handle = CAN_DLOPEN ? open_ssl_module(module) : NULL;
    struct libssl found;
    if (handle == NULL || !find_functions(handle, &found) || !is_openssl(handle, &found, module)) {
        return false;
    }
    PyObject *number = PyObject_GetAttrString(module, "OPENSSL_VERSION_NUMBER");
    unsigned long version = number == NULL ? 0 : PyLong_AsUnsignedLong(number);
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return false;
    }
    if (version < 0x10101000UL || found.OpenSSL_version_num() != version
        || found.CRYPTO_get_ex_new_index(LIBSSL_EX_INDEX_SSL, 0, NULL, on_new_ssl, NULL, NULL) < 0) {
        return false;
    }
    libssl = found;
    return true;
}

bool
libssl_load(PyObject *ssl_module)
{
    if (pthread_mutex_trylock(&load_lock) != 0) {
        /* Whoever has it calls Python, and may wait for all other threads. */
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&load_lock);
        Py_END_ALLOW_THREADS
    }
    if (load_state == NOT_LOADED) {
        load_state = load(ssl_module) ? LOADED : LOAD_FAILED;
    }
    bool loaded = load_state == LOADED;
    pthread_mutex_unlock(&load_lock);
    return loaded;
}

/* -- errors --------------------------------------------------------------------------------- */

/* "certificate required" -> "CERTIFICATE_REQUIRED", as the ssl module names reasons */
static PyObject *
reason_name(const char *reason)
{
    char name[128];
    size_t n = 0;
    for (; reason[n] != '\0' && n < sizeof(name) - 1; n++) {
        char c = reason[n];
        name[n] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A')
                  : c == ' '           ? '_'
                                       : c;
    }
    return PyUnicode_FromStringAndSize(name, (Py_ssize_t)n);
}

/* "SSL routines" -> "SSL" */
static PyObject *
library_name(const char *library)
{
    const char *space = strchr(library, ' ');
    size_t n = space == NULL ? strlen(library) : (size_t)(space - library);
    return PyUnicode_FromStringAndSize(library, (Py_ssize_t)n);
}

struct libssl_error
libssl_last_error(void)
{
    unsigned long code = libssl.ERR_peek_last_error();
    return (struct libssl_error){
        .reason = code == 0 ? NULL : libssl.ERR_reason_error_string(code),
        .library = code == 0 ? NULL : libssl.ERR_lib_error_string(code),
    };
}

bool
libssl_error_is(const struct libssl_error *error, PyObject *exc)
{
    PyObject *text = error->reason == NULL ? NULL : PyObject_GetAttrString(exc, "strerror");
    const char *utf8 = text == NULL || !PyUnicode_Check(text) ? NULL : PyUnicode_AsUTF8(text);
    bool same = utf8 != NULL && strstr(utf8, error->reason) != NULL;
    Py_XDECREF(text);
    PyErr_Clear();
    return same;
}

void
libssl_raise(const struct libssl_error *error, PyObject *ssl_error)
{
    const char *reason = error->reason == NULL ? "unknown error" : error->reason;
    PyObject *name = reason_name(reason);
    PyObject *source = library_name(error->library == NULL ? "SSL" : error->library);
    PyObject *text = name == NULL || source == NULL
                         ? NULL
                         : PyUnicode_FromFormat("[%U: %U] %s", source, name, reason);
    PyObject *exc = text == NULL
                        ? NULL
                        : PyObject_CallFunction(ssl_error, "iO", LIBSSL_ERROR_SSL, text);
    if (exc != NULL && PyObject_SetAttrString(exc, "reason", name) == 0
        && PyObject_SetAttrString(exc, "library", source) == 0) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    }
    Py_XDECREF(exc);
    Py_XDECREF(text);
    Py_XDECREF(name);
    Py_XDECREF(source);
}
