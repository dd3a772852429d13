/* future_methods.h - methods and attributes that Future and Task share. */
#ifndef ASYNCLOOP_FUTURE_METHODS_H
#define ASYNCLOOP_FUTURE_METHODS_H

#include "tasks/future.h"

PyObject *Future_result(PyObject *op, PyObject *ignored);
PyObject *Future_exception(PyObject *op, PyObject *ignored);
PyObject *Future_set_result(PyObject *op, PyObject *value);           /* of a Future alone */
PyObject *Future_set_exception(PyObject *op, PyObject *exception);
PyObject *Future_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames);
PyObject *Future_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                   PyObject *kwnames);
PyObject *Future_remove_done_callback(PyObject *op, PyObject *callback);
PyObject *Future_cancelled(PyObject *op, PyObject *ignored);
PyObject *Future_done(PyObject *op, PyObject *ignored);
PyObject *Future_get_loop(PyObject *op, PyObject *ignored);
PyObject *Future__make_cancelled_error(PyObject *op, PyObject *ignored);

PyObject *Future_get__state(PyObject *op, void *closure);
PyObject *Future_get_blocking(PyObject *op, void *closure);
int Future_set_blocking(PyObject *op, PyObject *value, void *closure);
PyObject *Future_get__loop(PyObject *op, void *closure);
PyObject *Future_get__callbacks(PyObject *op, void *closure);
PyObject *Future_get__result(PyObject *op, void *closure);
PyObject *Future_get__exception(PyObject *op, void *closure);
PyObject *Future_get__log_traceback(PyObject *op, void *closure);
int Future_set__log_traceback(PyObject *op, PyObject *value, void *closure);
PyObject *Future_get__source_traceback(PyObject *op, void *closure);
PyObject *Future_get__cancel_message(PyObject *op, void *closure);
int Future_set__cancel_message(PyObject *op, PyObject *value, void *closure);
PyObject *Future_get__awaited_by(PyObject *op, void *closure);

/* value is NULL: "cannot delete attribute". The new truth value, or -1. */
int future_attribute_bool(PyObject *value);

#define FUTURE_METHODS                                                                        \
    {"result", Future_result, METH_NOARGS,                                                    \
     PyDoc_STR("result($self, /)\n--\n\n"                                                     \
               "The result; raises the exception where one was set, CancelledError if\n"      \
               "cancelled, and InvalidStateError if it is not done yet.")},                   \
    {"exception", Future_exception, METH_NOARGS,                                              \
     PyDoc_STR("exception($self, /)\n--\n\n"                                                  \
               "The exception that was set, or None; raises CancelledError if cancelled,\n"   \
               "and InvalidStateError if it is not done yet.")},                              \
    {"add_done_callback", (PyCFunction)(void (*)(void))Future_add_done_callback,              \
     METH_FASTCALL | METH_KEYWORDS,                                                           \
     PyDoc_STR("add_done_callback($self, fn, /, *, context=None)\n--\n\n"                     \
               "Call fn(self) by way of the loop's call_soon() once this is done, in the\n"   \
               "given context, by default a copy of the current one.")},                      \
    {"remove_done_callback", Future_remove_done_callback, METH_O,                             \
     PyDoc_STR("remove_done_callback($self, fn, /)\n--\n\n"                                   \
               "Forget every callback that is equal to fn; returns how many there were.")},   \
    {"cancelled", Future_cancelled, METH_NOARGS,                                              \
     PyDoc_STR("cancelled($self, /)\n--\n\nTrue if it was cancelled.")},                      \
    {"done", Future_done, METH_NOARGS,                                                        \
     PyDoc_STR("done($self, /)\n--\n\n"                                                       \
               "True if a result or an exception is set, or it was cancelled.")},             \
    {"get_loop", Future_get_loop, METH_NOARGS,                                                \
     PyDoc_STR("get_loop($self, /)\n--\n\nThe loop it belongs to.")},                         \
    {"_make_cancelled_error", Future__make_cancelled_error, METH_NOARGS,                      \
     PyDoc_STR("_make_cancelled_error($self, /)\n--\n\n"                                      \
               "The CancelledError to raise: the one that ended it, the first time.")},       \
    {"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL}

#if PY_VERSION_HEX >= 0x030E0000
#define FUTURE_AWAITED_BY {"_asyncio_awaited_by", Future_get__awaited_by, NULL, NULL, NULL},
#else
#define FUTURE_AWAITED_BY
#endif

#define FUTURE_GETSETS                                                                       \
    FUTURE_AWAITED_BY                                                                        \
    {"_state", Future_get__state, NULL, NULL, NULL},                                         \
    {"_asyncio_future_blocking", Future_get_blocking, Future_set_blocking, NULL, NULL},      \
    {"_loop", Future_get__loop, NULL, NULL, NULL},                                           \
    {"_callbacks", Future_get__callbacks, NULL, NULL, NULL},                                 \
    {"_result", Future_get__result, NULL, NULL, NULL},                                       \
    {"_exception", Future_get__exception, NULL, NULL, NULL},                                 \
    {"_log_traceback", Future_get__log_traceback, Future_set__log_traceback, NULL, NULL},    \
    {"_source_traceback", Future_get__source_traceback, NULL, NULL, NULL},                   \
    {"_cancel_message", Future_get__cancel_message, Future_set__cancel_message, NULL, NULL}

#endif
