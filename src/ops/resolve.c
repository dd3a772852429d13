/* resolve.c - see resolve.h.
 *
 * Two ways to a numeric answer. The usual question (a plain address, an int for the port, a
 * stream or datagram socket, no unusual flags) is answered here, in the words that every C
 * library uses. Any other is put to the C library with the flags that forbid it to look
 * anything up; if it refuses, a thread asks again without them, so that errors are its own.
 * (Benchmark row: getaddrinfo, numeric.) */
#include "ops/resolve.h"

#include "base/args.h"
#include "base/checked.h"
#include "base/standard.h"
#include "loop/overrides.h"
#include "net/addr.h"
#include "ops/look_up.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct question {
    PyObject *host;
    PyObject *port;
    int family;
    int type;
    int proto;
    int flags;
};

/* -- the question ----------------------------------------------------------------------------- */

static bool
small_int(PyObject *object, int *value)
{
    *value = 0;
    if (object == NULL) {
        return true;
    }
    if (!PyLong_Check(object)) {
        return false;
    }
    int overflow;
    long number = PyLong_AsLongAndOverflow(object, &overflow);
    *value = (int)number;
    return overflow == 0 && number == *value;
}

/* What is borrowed from `args`: host, port, family, type, proto, flags, or NULL for 0. False: a
 * number is not one for the C library. */
static bool
question_read(struct question *question, PyObject *const *args)
{
    question->host = args[0];
    question->port = args[1];
    return small_int(args[2], &question->family) && small_int(args[3], &question->type)
           && small_int(args[4], &question->proto) && small_int(args[5], &question->flags);
}

static int
question_audit(const struct question *question)
{
    return PySys_Audit("socket.getaddrinfo", "OOiii", question->host, question->port,
                       question->family, question->type, question->proto);
}

/* -- parts of an answer -------------------------------------------------------------------- */

/* The enum member for a number, or the number where there is none: new reference. */
static PyObject *
enum_member(PyObject *enum_class, int value)
{
    PyObject *number = PyLong_FromLong(value);
    PyObject *member = number == NULL ? NULL : PyObject_CallOneArg(enum_class, number);
    if (member == NULL && PyErr_ExceptionMatches(PyExc_ValueError)) {
        PyErr_Clear();
        return number;
    }
    Py_XDECREF(number);
    return member;
}

static PyObject *
family_member(struct state *state, int family)
{
    switch (family) {
    case AF_INET:
        return Py_NewRef(ops_state(state)->resolve.inet);
    case AF_INET6:
        return Py_NewRef(ops_state(state)->resolve.inet6);
    default:
        return enum_member(ops_state(state)->resolve.AddressFamily, family);
    }
}

static PyObject *
type_member(struct state *state, int type)
{
    switch (type) {
    case SOCK_STREAM:
        return Py_NewRef(ops_state(state)->resolve.stream);
    case SOCK_DGRAM:
        return Py_NewRef(ops_state(state)->resolve.dgram);
    default:
        return enum_member(ops_state(state)->resolve.SocketKind, type);
    }
}

/* (family, type, proto, canonname, address); steals address, which may be NULL */
static PyObject *
build_entry_steal(struct state *state, int family, int type, int proto, const char *canonname,
                  PyObject *address)
{
    if (address == NULL) {
        return NULL;
    }
    PyObject *parts[5] = {
        family_member(state, family),
        type_member(state, type),
        PyLong_FromLong(proto),
        PyUnicode_FromString(canonname != NULL ? canonname : ""),
        address,
    };
    PyObject *entry = PyTuple_New(5);
    for (int i = 0; i < 5; i++) {
        if (entry == NULL || parts[i] == NULL) {
            Py_CLEAR(entry);
            Py_XDECREF(parts[i]);
        }
        else {
            PyTuple_SET_ITEM(entry, i, parts[i]);
        }
    }
    return entry;
}

/* -- the usual question ----------------------------------------------------------------------- */

/* The host as a C string (borrowed), or NULL where it has to be encoded or has a NUL.
 * Sets no exception. */
static const char *
plain_host(PyObject *host)
{
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host)) {
        return NULL;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(host);
    return strlen(text) == (size_t)PyUnicode_GET_LENGTH(host) && text[0] != '\0' ? text : NULL;
}

/* The port of the usual question: -1 if it is none. */
static long
plain_port(PyObject *port)
{
    if (port == Py_None) {
        return 0;
    }
    if (!PyLong_CheckExact(port)) {
        return -1;
    }
    int overflow;
    long number = PyLong_AsLongAndOverflow(port, &overflow);
    return overflow != 0 || number < 0 || number > 65535 ? -1 : number;
}

/* The only protocol that this type of socket has: -1 if that cannot be said. */
static int
only_protocol(int type, int proto)
{
    int usual = type == SOCK_STREAM  ? IPPROTO_TCP
                : type == SOCK_DGRAM ? IPPROTO_UDP
                                     : -1;
    return proto == 0 || proto == usual ? usual : -1;
}

/* A list of one entry; NULL without an exception if the question is not a usual one. */
static PyObject *
answer_usual(struct state *state, const struct question *question)
{
    int proto = only_protocol(question->type, question->proto);
    long port = plain_port(question->port);
    const char *host = plain_host(question->host);
    if (proto < 0 || port < 0 || host == NULL
        || (question->flags & ~(AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV)) != 0) {
        return NULL;
    }
    struct addr addr = {0};
    if (question->family != AF_INET6 && inet_pton(AF_INET, host, &addr.in.sin_addr) == 1) {
        addr.in.sin_family = AF_INET;
        addr.in.sin_port = htons((uint16_t)port);
        addr.length = sizeof(addr.in);
    }
    else if (question->family != AF_INET
             && inet_pton(AF_INET6, host, &addr.in6.sin6_addr) == 1) {
        addr.in6.sin6_family = AF_INET6;
        addr.in6.sin6_port = htons((uint16_t)port);
        addr.length = sizeof(addr.in6);
    }
    else {
        return NULL;
    }
    PyObject *entry = build_entry_steal(state, addr.any.sa_family, question->type, proto, NULL,
                                        addr_build(&addr.any, addr.length));
    return entry == NULL ? NULL : list_of_one_steal(entry);
}

/* -- the C library ------------------------------------------------------------------------------- */

/* The address, or, as socket.getaddrinfo() has it for a family that it does not know, the pair of
 * its family and its first bytes. */
static PyObject *
build_address(const struct sockaddr *address, socklen_t length)
{
    PyObject *built = addr_build(address, length);
    if (UNLIKELY(built == NULL) && !PyErr_Occurred()) {
        built = Py_BuildValue("iy#", (int)address->sa_family, address->sa_data,
                              (Py_ssize_t)sizeof(address->sa_data));
    }
    return built;
}

static PyObject *
build_list(struct state *state, const struct addrinfo *found)
{
    PyObject *list = PyList_New(0);
    for (const struct addrinfo *one = found; one != NULL && list != NULL; one = one->ai_next) {
        PyObject *entry =
            build_entry_steal(state, one->ai_family, one->ai_socktype, one->ai_protocol,
                              one->ai_canonname, build_address(one->ai_addr, one->ai_addrlen));
        if (entry == NULL || PyList_Append(list, entry) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(entry);
    }
    return list;
}

/* The port as a C string in `buffer` or borrowed; *port NULL for None. False: not for us. */
static bool
port_text(PyObject *object, char *buffer, size_t size, const char **port)
{
    *port = NULL;
    if (object == Py_None) {
        return true;
    }
    if (PyLong_CheckExact(object)) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(object, &overflow);
        (void)snprintf(buffer, size, "%ld", number);
        *port = buffer;
        return overflow == 0;
    }
    *port = plain_host(object);
    return *port != NULL;
}

/* The question in the words of the C library, borrowed from its objects and from `encoded`. */
struct library_question {
    const char *host;
    const char *port;
    struct addrinfo hints;
    PyObject *encoded;    /* owned, or NULL */
    char buffer[32];
};

/* The host as a C string, encoded as socket.getaddrinfo() does it if it is not ASCII; NULL where that
 * is impossible, without the exception, which asyncio's method raises once more. May run Python, and
 * so sets what is no Exception, such as KeyboardInterrupt. */
static const char *
host_for_library(PyObject *host, PyObject **encoded)
{
    if (PyUnicode_CheckExact(host) && !PyUnicode_IS_ASCII(host)) {
        host = *encoded = PyUnicode_AsEncodedString(host, "idna", NULL);
        if (host == NULL) {
            if (PyErr_ExceptionMatches(PyExc_Exception)) {
                PyErr_Clear();
            }
            return NULL;
        }
    }
    if (!PyBytes_CheckExact(host)) {
        return plain_host(host);
    }
    const char *text = PyBytes_AS_STRING(host);
    return strlen(text) == (size_t)PyBytes_GET_SIZE(host) && text[0] != '\0' ? text : NULL;
}

/* False: of a wrong type, or what only socket.getaddrinfo() knows to refuse. `encoded` is the
 * caller's to drop in both cases. */
static bool
question_for_library(const struct question *question, struct library_question *asked)
{
    asked->host = NULL;
    asked->encoded = NULL;
    asked->hints = (struct addrinfo){
        .ai_family = question->family,
        .ai_socktype = question->type,
        .ai_protocol = question->proto,
        .ai_flags = question->flags,
    };
    if (!port_text(question->port, asked->buffer, sizeof(asked->buffer), &asked->port)) {
        return false;
    }
    if (question->host != Py_None) {
        asked->host = host_for_library(question->host, &asked->encoded);
        return asked->host != NULL;
    }
    return true;
}

/* False: no C library takes it for an address (they know hexadecimal parts, too). */
static bool
may_be_numeric(const char *host)
{
    return strchr(host, ':') != NULL || host[strspn(host, "0123456789abcdefABCDEFxX.")] == '\0';
}

/* A list; NULL without an exception if the library cannot answer without a look-up. */
static PyObject *
answer_by_library(struct state *state, const struct library_question *asked)
{
    if (asked->host != NULL && !may_be_numeric(asked->host)) {
        return NULL;
    }
    struct addrinfo hints = asked->hints;
    hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    struct addrinfo *found = NULL;
    if (getaddrinfo(asked->host, asked->port, &hints, &found) != 0) {
        return NULL;
    }
    PyObject *list = build_list(state, found);
    freeaddrinfo(found);
    return list;
}

/* -- the look-up ------------------------------------------------------------------------------- */

#define LABEL_MAX 63    /* bytes between two dots of a name: RFC 1035 */

/* The codec of host names refuses others, with an error that names the label. */
static bool
labels_are_plain(const char *host)
{
    size_t length = 0;
    for (; *host != '\0'; host++) {
        if (*host != '.') {
            length++;
        }
        else if (length == 0 || length > LABEL_MAX) {
            return false;
        }
        else {
            length = 0;
        }
    }
    return length <= LABEL_MAX;
}

static void
set_look_up_error(struct state *state, int code, int error)
{
    if (code == EAI_SYSTEM) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return;
    }
    PyObject *args = Py_BuildValue("(is)", code, gai_strerror(code));
    if (args != NULL) {
        PyErr_SetObject(ops_state(state)->resolve.gaierror, args);
        Py_DECREF(args);
    }
}

static PyObject *
read_look_up(struct state *state, int code, int error, const struct addrinfo *found)
{
    if (code != 0) {
        set_look_up_error(state, code, error);
        return NULL;
    }
    return build_list(state, found);
}

/* -- the operation --------------------------------------------------------------------------------- */

/* Somebody who has replaced socket.getaddrinfo(), or the module that asyncio has it from,
 * wants to be asked. */
static bool
getaddrinfo_is_replaced(struct state *state)
{
    return !SHORT_WAY(names) || !standard_is(state, STANDARD_BASE_EVENTS_SOCKET)
           || !standard_is(state, STANDARD_SOCKET_GETADDRINFO);
}

/* Is that the executor that asyncio has made for the loop, with the submit() of its class? */
static bool
executor_is_made(Loop *loop, PyObject *executor, PyObject *class)
{
    PyObject *made = loop->made_executor == NULL ? NULL : PyObject_CallNoArgs(loop->made_executor);
    PyObject *dict = made == executor ? PyObject_GenericGetDict(executor, NULL) : NULL;
    bool same = dict != NULL && (PyObject *)Py_TYPE(executor) == class
                && PyDict_GetItemWithError(dict, loop->state->names.submit) == NULL;
    Py_XDECREF(dict);
    Py_XDECREF(made);
    return same;
}

/* Would asyncio ask an executor of the program's, or a submit() of its? Sets no exception. */
static bool
executor_is_programs(Loop *loop)
{
    PyObject *executor = PyObject_GetAttr((PyObject *)loop, loop->state->names._default_executor);
    PyObject *name = PyUnicode_InternFromString("concurrent.futures.thread");
    PyObject *module = name == NULL ? NULL : PyImport_GetModule(name);
    PyObject *package = PyImport_ImportModule("concurrent.futures");
    bool asyncios = executor == Py_None && module == NULL;    /* nobody has had a class to change */
    if (module != NULL && package != NULL && executor != NULL) {
        PyObject *class = PyObject_GetAttrString(package, "ThreadPoolExecutor");
        PyObject *submit = class == NULL ? NULL : PyObject_GetAttr(class, loop->state->names.submit);
        asyncios = submit != NULL && standard_function(submit, PyModule_GetDict(module), "ThreadPoolExecutor.submit")
                   && (executor == Py_None || executor_is_made(loop, executor, class));
        Py_XDECREF(submit);
        Py_XDECREF(class);
    }
    PyErr_Clear();
    Py_XDECREF(package);
    Py_XDECREF(module);
    Py_XDECREF(name);
    Py_XDECREF(executor);
    return !asyncios;
}

/* By asyncio's own method, so in the default executor. */
static enum attempt
ask_asyncio(Operation *op)
{
    PyObject *names = Py_BuildValue("(ssss)", "family", "type", "proto", "flags");
    PyObject *zero = PyLong_FromLong(0);
    PyObject *coroutine = NULL;
    if (names != NULL && zero != NULL) {
        PyObject *stack[OPERATION_MAX_ARGS];
        for (int i = 0; i < OPERATION_MAX_ARGS; i++) {
            stack[i] = op->args[i] != NULL ? op->args[i] : zero;
        }
        coroutine = overrides_call_base(op->loop, op->state->names.getaddrinfo, stack, 2, names);
    }
    Py_XDECREF(zero);
    Py_XDECREF(names);
    return operation_await_steal(op, coroutine);
}

/* Numeric answer: new list; NULL without an exception if it has to be looked up. `asked` is NULL
 * for what is not in the words of the C library. */
static PyObject *
answer_numeric(Operation *op, const struct question *question,
               const struct library_question *asked)
{
    if (question->family != AF_UNSPEC && question->family != AF_INET
        && question->family != AF_INET6) {
        return NULL;
    }
    PyObject *list = answer_usual(op->state, question);
    if (list == NULL && asked != NULL && !PyErr_Occurred()) {
        list = answer_by_library(op->state, asked);
    }
    if (list == NULL) {
        return NULL;
    }
    if (question_audit(question) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

static enum attempt
ask_library(Operation *op, const struct question *question,
            const struct library_question *asked, PyObject **result)
{
    *result = answer_numeric(op, question, asked);
    if (*result != NULL) {
        return ATTEMPT_DONE;
    }
    if (PyErr_Occurred()) {
        return ATTEMPT_FAILED;
    }
    if (asked == NULL || (asked->host != NULL && !labels_are_plain(asked->host))) {
        return ask_asyncio(op);
    }
    return question_audit(question) < 0
                   || look_up_begin(op, asked->host, asked->port, &asked->hints, read_look_up) < 0
               ? ATTEMPT_FAILED
               : ATTEMPT_WAIT_FUTURE;
}

static enum attempt
ask(Operation *op, PyObject **result)
{
    struct question question;
    struct library_question asked;
    op->phase = LOOK_UP_ANSWERED;
    if (!question_read(&question, op->args) || FLAG(op->loop->debug)
        || getaddrinfo_is_replaced(op->state) || executor_is_programs(op->loop)) {
        return ask_asyncio(op);
    }
    bool possible = question_for_library(&question, &asked);
    if (!possible && PyErr_Occurred()) {
        return ATTEMPT_FAILED;
    }
    enum attempt attempt = ask_library(op, &question, possible ? &asked : NULL, result);
    Py_XDECREF(asked.encoded);
    return attempt;
}

static enum attempt
attempt_getaddrinfo(Operation *op, PyObject **result)
{
    if (op->phase == LOOK_UP_NEW || op->phase == LOOK_UP_ASKED) {
        if (loop_check_closed(op->loop) < 0) {
            return ATTEMPT_FAILED;
        }
        return ask(op, result);    /* once more where somebody else has settled the future */
    }
    PyObject *value = op->value;
    op->value = NULL;
    if (op->phase == LOOK_UP_FAILED) {
        PyErr_SetRaisedException(value);
        return ATTEMPT_FAILED;
    }
    *result = value;
    return ATTEMPT_DONE;
}

PyObject *
Loop_getaddrinfo(PyObject *loop, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct operation_kind kind = {
        .name = "getaddrinfo", .attempt = attempt_getaddrinfo, .owner = "BaseEventLoop", .warns = true, .leave = look_up_leave};
    static const char *const names[] = {"host", "port", "family", "type", "proto", "flags", NULL};
    PyObject *values[OPERATION_MAX_ARGS] = {NULL};
    /* asyncio's method asks run_in_executor(), and that create_future() */
    if (UNLIKELY(loop_replaced((Loop *)loop) & LOOP_BIT(run_in_executor))
        || loop_has_custom_futures((Loop *)loop)
        || loop_base_replaced((Loop *)loop, LOOP_BIT(getaddrinfo))) {
        return overrides_call_base((Loop *)loop, ((Loop *)loop)->state->names.getaddrinfo, args,
                                   nargs, kwnames);
    }
    if (args_unpack("getaddrinfo", args, nargs, kwnames, names, 2, 2, values) < 0) {
        return NULL;
    }
    return operation_new((Loop *)loop, &kind, NULL, values, OPERATION_MAX_ARGS);
}

PyObject *
resolve_set_idle(PyObject *module, PyObject *milliseconds)
{
    int value;
    if (!small_int(milliseconds, &value) || value <= 0) {
        PyErr_SetString(PyExc_ValueError, "milliseconds must be a positive number");
        return NULL;
    }
    ops_state(PyModule_GetState(module))->resolve.idle_ms = value;
    Py_RETURN_NONE;
}

int
resolve_init(PyObject *module UNUSED, struct state *state)
{
    struct resolve_state *resolve = &ops_state(state)->resolve;
    STATE_OWN_UNTIL(state, resolve, idle_ms);
    resolve->idle_ms = LOOK_UP_IDLE_MS;
    PyObject *socket_module = PyImport_ImportModule("socket");
    if (socket_module == NULL) {
        return -1;
    }
    resolve->gaierror = PyObject_GetAttrString(socket_module, "gaierror");
    resolve->AddressFamily = PyObject_GetAttrString(socket_module, "AddressFamily");
    resolve->SocketKind = PyObject_GetAttrString(socket_module, "SocketKind");
    Py_DECREF(socket_module);
    if (resolve->gaierror == NULL || resolve->AddressFamily == NULL || resolve->SocketKind == NULL) {
        return -1;
    }
    resolve->inet = enum_member(resolve->AddressFamily, AF_INET);
    resolve->inet6 = enum_member(resolve->AddressFamily, AF_INET6);
    resolve->stream = enum_member(resolve->SocketKind, SOCK_STREAM);
    resolve->dgram = enum_member(resolve->SocketKind, SOCK_DGRAM);
    return resolve->inet == NULL || resolve->inet6 == NULL || resolve->stream == NULL
                   || resolve->dgram == NULL
               ? -1
               : 0;
}
