/* addr.c - see addr.h. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

/* Writes a number below 256; returns the place behind it. */
static inline char *
write_octet(char *at, unsigned int octet)
{
    if (octet >= 100) {
        *at++ = (char)('0' + octet / 100);
    }
    if (octet >= 10) {
        *at++ = (char)('0' + octet / 10 % 10);
    }
    *at++ = (char)('0' + octet % 10);
    return at;
}

/* (host, port); by hand, because inet_ntop() and Py_BuildValue() take longer than all else
 * that a datagram from an unknown sender costs (benchmark row: UDP). */
static PyObject *
build_in(const struct sockaddr_in *address)
{
    char text[INET_ADDRSTRLEN];
    uint8_t octets[4];
    memcpy(octets, &address->sin_addr, sizeof(octets));
    char *end = write_octet(text, octets[0]);
    for (int i = 1; i < 4; i++) {
        *end++ = '.';
        end = write_octet(end, octets[i]);
    }
    PyObject *host = PyUnicode_New(end - text, 127);
    PyObject *port = host == NULL ? NULL : PyLong_FromLong(ntohs(address->sin_port));
    PyObject *tuple = port == NULL ? NULL : PyTuple_New(2);
    if (tuple == NULL) {
        Py_XDECREF(host);
        Py_XDECREF(port);
        return NULL;
    }
    memcpy(PyUnicode_1BYTE_DATA(host), text, (size_t)(end - text));
    PyTuple_SET_ITEM(tuple, 0, host);
    PyTuple_SET_ITEM(tuple, 1, port);
    return tuple;
}

static PyObject *
build_in6(const struct sockaddr_in6 *address)
{
    char host[INET6_ADDRSTRLEN];
    if (inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof(host)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("siII", host, (int)ntohs(address->sin6_port),
                         (unsigned int)ntohl(address->sin6_flowinfo),
                         (unsigned int)address->sin6_scope_id);
}

static PyObject *
build_unix(const struct sockaddr_un *address, socklen_t length)
{
    size_t path_length = 0;
    if (length > offsetof(struct sockaddr_un, sun_path)) {
        path_length = length - offsetof(struct sockaddr_un, sun_path);
    }
#ifdef __linux__
    if (path_length > 0 && address->sun_path[0] == '\0') {
        /* a name in the abstract name space: all of it counts, zeros too */
        return PyBytes_FromStringAndSize(address->sun_path, (Py_ssize_t)path_length);
    }
#endif
    return PyUnicode_DecodeFSDefaultAndSize(
        address->sun_path, (Py_ssize_t)strnlen(address->sun_path, path_length));
}

PyObject *
addr_build(const struct sockaddr *address, socklen_t length)
{
    if (length == 0) {
        return Py_NewRef(Py_None);
    }
    switch (address->sa_family) {
    case AF_INET:
        return build_in((const struct sockaddr_in *)(const void *)address);
    case AF_INET6:
        return build_in6((const struct sockaddr_in6 *)(const void *)address);
    case AF_UNIX:
        return build_unix((const struct sockaddr_un *)(const void *)address, length);
    default:
        return NULL;
    }
}

bool
addr_keep(struct addr *addr, const struct sockaddr *address, socklen_t length)
{
    if ((address->sa_family == AF_INET && length >= sizeof(addr->in))
        || (address->sa_family == AF_INET6 && length >= sizeof(addr->in6))) {
        addr->length = address->sa_family == AF_INET ? sizeof(addr->in) : sizeof(addr->in6);
        memcpy(&addr->any, address, addr->length);
        return true;
    }
    addr->length = 0;
    return false;
}

bool
addr_parse(struct addr *addr, int family, PyObject *object)
{
    if (!PyTuple_CheckExact(object)) {
        return false;
    }
    Py_ssize_t size = PyTuple_GET_SIZE(object);
    if (size < 2 || size > (family == AF_INET6 ? 4 : 2)) {
        return false;
    }
    PyObject *host = PyTuple_GET_ITEM(object, 0);
    Py_ssize_t length;
    const char *text = PyUnicode_CheckExact(host) ? PyUnicode_AsUTF8AndSize(host, &length) : NULL;
    long numbers[3] = {0, 0, 0};
    for (Py_ssize_t i = 1; text != NULL && i < size; i++) {
        PyObject *number = PyTuple_GET_ITEM(object, i);
        int overflow = 1;
        numbers[i - 1] = PyLong_CheckExact(number) ? PyLong_AsLongAndOverflow(number, &overflow) : 0;
        if (overflow || numbers[i - 1] < 0 || numbers[i - 1] > (i == 1 ? 65535 : UINT32_MAX)
            || (i == 2 && numbers[1] > 0xfffff)) {
            return false;
        }
    }
    if (text == NULL) {
        PyErr_Clear();
        return false;
    }
    if (strlen(text) != (size_t)length) {
        return false;
    }
    memset(addr, 0, sizeof(*addr));
    addr->any.sa_family = (sa_family_t)family;
    if (family == AF_INET) {
        addr->length = sizeof(addr->in);
        addr->in.sin_port = htons((uint16_t)numbers[0]);
        return inet_pton(AF_INET, text, &addr->in.sin_addr) == 1;
    }
    addr->length = sizeof(addr->in6);
    addr->in6.sin6_port = htons((uint16_t)numbers[0]);
    addr->in6.sin6_flowinfo = htonl((uint32_t)numbers[1]);
    addr->in6.sin6_scope_id = (uint32_t)numbers[2];
    return family == AF_INET6 && inet_pton(AF_INET6, text, &addr->in6.sin6_addr) == 1;
}
