/* resolve.h - loop.getaddrinfo(): numeric hosts and ports at once, names by a thread.
 *
 * Numeric is what the C library answers without looking anything up. Everything else is
 * given to `Loop._getaddrinfo_by_thread()`, in Python, whose thread calls resolve_look_up(). */
#ifndef ASYNCLOOP_RESOLVE_H
#define ASYNCLOOP_RESOLVE_H

#include "operation.h"

int resolve_init(PyObject *module, struct state *state);

PyObject *Loop_getaddrinfo(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);

/* What socket.getaddrinfo() gives for these six arguments. */
PyObject *resolve_look_up(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#define RESOLVE_FUNCTIONS                                                                      \
    {"_look_up", (PyCFunction)(void (*)(void))resolve_look_up, METH_FASTCALL,                  \
     PyDoc_STR("_look_up(host, port, family, type, proto, flags, /)\n--\n\n"                   \
               "What socket.getaddrinfo() gives, which blocks.")}

#define RESOLVE_METHODS                                                                        \
    {"getaddrinfo", (PyCFunction)(void (*)(void))Loop_getaddrinfo,                             \
     METH_FASTCALL | METH_KEYWORDS,                                                            \
     PyDoc_STR("getaddrinfo($self, host, port, *, family=0, type=0, proto=0, flags=0)\n--\n\n" \
               "What socket.getaddrinfo() gives, awaited. Names are looked up in a thread of\n" \
               "the loop's own, not in the default executor. Raises socket.gaierror for what\n" \
               "is not found.")}

#endif
