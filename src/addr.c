/* addr.c - see addr.h. */
#include "addr.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

static PyObject *
build_in(const struct sockaddr_in *address)
{
    char host[INET_ADDRSTRLEN];
    if (inet_ntop(AF_INET, &address->sin_addr, host, sizeof(host)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("si", host, (int)ntohs(address->sin_port));
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
