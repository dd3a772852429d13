/* resolve.h - loop.getaddrinfo(): numeric hosts and ports at once, names by a thread.
 *
 * Numeric is what the C library answers without looking anything up. Names are given to the
 * threads of look_up.h, the only ones that asyncloop has for that. Where Python has a part in it (a
 * socket.getaddrinfo() that somebody has replaced, debug mode, which logs, arguments that are
 * refused) asyncio's own method is called, which asks in the default executor. */
#ifndef ASYNCLOOP_RESOLVE_H
#define ASYNCLOOP_RESOLVE_H

#include "ops/operation.h"

PyObject *Loop_getaddrinfo(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);

PyObject *resolve_set_idle(PyObject *module, PyObject *milliseconds);

#define RESOLVE_FUNCTIONS                                                                     \
    {"_set_look_up_idle", resolve_set_idle, METH_O,                                           \
     INSIDE_DOC("_set_look_up_idle(milliseconds, /)\n--\n\n"                                   \
               "For tests: after which time without work a thread of a loop that has not\n"   \
               "looked up a name yet ends.")}

#define RESOLVE_METHODS                                                                        \
    {"getaddrinfo", (PyCFunction)(void (*)(void))Loop_getaddrinfo,                             \
     METH_FASTCALL | METH_KEYWORDS,                                                            \
     PyDoc_STR("getaddrinfo($self, host, port, *, family=0, type=0, proto=0, flags=0)\n--\n\n" \
               "What socket.getaddrinfo() gives, awaited. Names are looked up in a thread of\n" \
               "the loop's own, not in the default executor. Raises socket.gaierror for what\n" \
               "is not found.")}

#endif
