/* loop_schedule.h - methods of the loop that schedule: call_soon() and its kin, create_future() and
 * create_task(). Each is a parse and a call. */
#ifndef ASYNCLOOP_LOOP_SCHEDULE_H
#define ASYNCLOOP_LOOP_SCHEDULE_H

#include "base/state.h"

PyObject *Loop_call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop_call_soon_threadsafe(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames);
PyObject *Loop_call_later(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop_call_at(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *Loop_time(PyObject *op, PyObject *ignored);
PyObject *Loop_create_future(PyObject *op, PyObject *ignored);
PyObject *Loop_create_task(PyObject *op, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *kwnames);
PyObject *Loop__add_callback(PyObject *op, PyObject *item);
PyObject *Loop__timer_handle_cancelled(PyObject *op, PyObject *handle);
PyObject *Loop__call_soon(PyObject *op, PyObject *const *args, Py_ssize_t nargs);

#define LOOP_SCHEDULE_METHODS                                                                         \
    {"call_soon", FASTCALL(Loop_call_soon), METH_FASTCALL | METH_KEYWORDS,                            \
     PyDoc_STR("call_soon($self, callback, *args, context=None)\n--\n\n"                              \
               "Schedules callback(*args) for the next iteration of the loop, in order of calls.\n\n" \
               "It runs in `context`, a copy of the current one by default. Returns a Handle.\n"      \
               "RuntimeError if the loop is closed. Follows asyncio.loop.call_soon.")},               \
    {"call_soon_threadsafe", FASTCALL(Loop_call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,      \
     PyDoc_STR("call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"                   \
               "call_soon() from any thread or signal handler: wakes the loop. Returns a Handle.\n"   \
               "RuntimeError if the loop is closed.")},                                               \
    {"call_later", FASTCALL(Loop_call_later), METH_FASTCALL | METH_KEYWORDS,                          \
     PyDoc_STR("call_later($self, delay, callback, *args, context=None)\n--\n\n"                      \
               "Schedules callback(*args) after `delay` seconds, never earlier.\n\n"                  \
               "Returns a TimerHandle. RuntimeError if the loop is closed. Follows\n"                 \
               "asyncio.loop.call_later.")},                                                          \
    {"call_at", FASTCALL(Loop_call_at), METH_FASTCALL | METH_KEYWORDS,                                \
     PyDoc_STR("call_at($self, when, callback, *args, context=None)\n--\n\n"                          \
               "Schedules callback(*args) for the moment `when`, in seconds of time().\n\n"           \
               "Returns a TimerHandle. RuntimeError if the loop is closed. Follows\n"                 \
               "asyncio.loop.call_at.")},                                                             \
    {"time", Loop_time, METH_NOARGS,                                                                  \
     PyDoc_STR("time($self, /)\n--\n\nThe monotonic clock of the loop, in seconds.")},                \
    {"create_future", Loop_create_future, METH_NOARGS,                                                \
     PyDoc_STR("create_future($self, /)\n--\n\nA new Future of this loop.")},                         \
    {"create_task", FASTCALL(Loop_create_task), METH_FASTCALL | METH_KEYWORDS,                        \
     PyDoc_STR("create_task($self, coro, " CREATE_TASK_KEYWORDS ")\n--\n\n"                           \
               "A new Task that runs the coroutine on this loop.\n\n"                                 \
               "Keywords as the running Python has them: name, context, and eager_start.\n"           \
               "TypeError for what is no coroutine, RuntimeError if the loop is closed.\n"            \
               "Follows asyncio.loop.create_task.")},                                                 \
    {"_add_callback", Loop__add_callback, METH_O, NULL},                                              \
    {"_timer_handle_cancelled", Loop__timer_handle_cancelled, METH_O, NULL},                          \
    {"_call_soon", (PyCFunction)(void (*)(void))Loop__call_soon, METH_FASTCALL, NULL}

#endif
