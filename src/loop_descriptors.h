/* loop_descriptors.h - add_reader() and its kin, public and private: what the user gave becomes a number,
 * with the errors of asyncio. */
#ifndef ASYNCLOOP_LOOP_DESCRIPTORS_H
#define ASYNCLOOP_LOOP_DESCRIPTORS_H

#include "base/state.h"

PyObject *Loop_add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop_add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop_remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *Loop_remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames);
PyObject *Loop__add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);
PyObject *Loop__add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);
PyObject *Loop__remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *Loop__remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);
PyObject *Loop__ensure_fd_no_transport(PyObject *op, PyObject *object);

#define LOOP_DESCRIPTOR_METHODS                                                                        \
    {"add_reader", FASTCALL(Loop_add_reader), METH_FASTCALL | METH_KEYWORDS,                           \
     PyDoc_STR("add_reader($self, fd, callback, *args)\n--\n\n"                                        \
               "Calls callback(*args) whenever the descriptor is readable, instead of an earlier\n"    \
               "reader of it. `fd` is a number or has fileno(); its blocking mode stays as it is.\n\n" \
               "ValueError for what is no descriptor, OSError for one that is closed, RuntimeError\n"  \
               "if a transport uses it or the loop is closed.")},                                      \
    {"add_writer", FASTCALL(Loop_add_writer), METH_FASTCALL | METH_KEYWORDS,                           \
     PyDoc_STR("add_writer($self, fd, callback, *args)\n--\n\n"                                        \
               "Calls callback(*args) whenever the descriptor is writable; otherwise as\n"             \
               "add_reader().")},                                                                      \
    {"remove_reader", FASTCALL(Loop_remove_reader), METH_FASTCALL | METH_KEYWORDS,                     \
     PyDoc_STR("remove_reader($self, fd)\n--\n\n"                                                      \
               "Ends add_reader(); True if there was a reader. ValueError for what is no\n"            \
               "descriptor, RuntimeError if a transport uses it.")},                                   \
    {"remove_writer", FASTCALL(Loop_remove_writer), METH_FASTCALL | METH_KEYWORDS,                     \
     PyDoc_STR("remove_writer($self, fd)\n--\n\n"                                                      \
               "Ends add_writer(); True if there was a writer. Otherwise as remove_reader().")},       \
    {"_add_reader", FASTCALL(Loop__add_reader), METH_FASTCALL | METH_KEYWORDS, NULL},                  \
    {"_add_writer", FASTCALL(Loop__add_writer), METH_FASTCALL | METH_KEYWORDS, NULL},                  \
    {"_remove_reader", FASTCALL(Loop__remove_reader), METH_FASTCALL | METH_KEYWORDS, NULL},            \
    {"_remove_writer", FASTCALL(Loop__remove_writer), METH_FASTCALL | METH_KEYWORDS, NULL},            \
    {"_ensure_fd_no_transport", Loop__ensure_fd_no_transport, METH_O, NULL}

#endif
