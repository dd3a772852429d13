/* sockop.h - loop.sock_recv() and its kin: methods of Loop that give an Operation. */
#ifndef ASYNCLOOP_SOCKOP_H
#define ASYNCLOOP_SOCKOP_H

#include "ops/operation.h"

typedef PyObject *sockop_method(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);
sockop_method Loop_sock_recv, Loop_sock_recv_into, Loop_sock_recvfrom, Loop_sock_recvfrom_into,
    Loop_sock_sendall, Loop_sock_sendto, Loop_sock_connect, Loop_sock_accept,
    Loop_sock_recvmsg, Loop_sock_sendmsg;
PyObject *Loop__wait_writable(PyObject *loop, PyObject *sock);

#define SOCKOP_METHOD(name, signature, doc)                                       \
    {#name, (PyCFunction)(void (*)(void))Loop_##name, METH_FASTCALL | METH_KEYWORDS, \
     PyDoc_STR(#name "($self, " signature ")\n--\n\n" doc)}

#define SOCKOP_METHODS                                                                        \
    SOCKOP_METHOD(sock_recv, "sock, n",                                                       \
                  "Up to n bytes from a non-blocking socket; b'' when the peer has ended."),  \
    SOCKOP_METHOD(sock_recv_into, "sock, buf",                                                \
                  "Receives into a writable buffer; returns the number of bytes."),           \
    SOCKOP_METHOD(sock_recvfrom, "sock, bufsize",                                             \
                  "One datagram of up to bufsize bytes: (bytes, address)."),                  \
    SOCKOP_METHOD(sock_recvfrom_into, "sock, buf, nbytes=0",                                  \
                  "One datagram into a writable buffer: (number of bytes, address)."),        \
    SOCKOP_METHOD(sock_sendall, "sock, data",                                                 \
                  "Sends all of a bytes-like object; returns None."),                         \
    SOCKOP_METHOD(sock_sendto, "sock, data, address",                                         \
                  "Sends one datagram; returns the number of bytes."),                        \
    SOCKOP_METHOD(sock_connect, "sock, address",                                              \
                  "Connects the socket; a host name is resolved first. Returns None."),       \
    SOCKOP_METHOD(sock_accept, "sock",                                                        \
                  "The next connection of a listening socket: (socket, address)."),           \
    SOCKOP_METHOD(sock_recvmsg, "sock, bufsize, ancbufsize=0, flags=0",                       \
                  "What socket.recvmsg() gives, awaited. asyncio does not have it."),         \
    SOCKOP_METHOD(sock_sendmsg, "sock, buffers, ancdata=(), flags=0, address=None",           \
                  "What socket.sendmsg() gives, awaited: the number of bytes that were\n"     \
                  "sent, which may be fewer than there are. asyncio does not have it."),   \
    {"_wait_writable", Loop__wait_writable, METH_O, NULL}

#endif
