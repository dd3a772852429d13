/* executor.h - run_in_executor(): what an executor answers becomes a Future of the loop.
 *
 * asyncio does the same in Python (wrap_future() and _chain_future() of asyncio.futures), with a
 * dozen frames and five closures per call. Here is the usual case: an executor that gives exactly a
 * concurrent.futures.Future, and a Future of ours for it. Everything else is left to asyncio. */
#ifndef ASYNCLOOP_EXECUTOR_H
#define ASYNCLOOP_EXECUTOR_H

#include "loop/loop.h"

PyObject *Loop_run_in_executor(PyObject *loop, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);

#define EXECUTOR_METHODS                                                                       \
    {"run_in_executor", (PyCFunction)(void (*)(void))Loop_run_in_executor,                     \
     METH_FASTCALL | METH_KEYWORDS,                                                            \
     PyDoc_STR("run_in_executor($self, executor, func, *args)\n--\n\n"                         \
               "Calls func(*args) by the executor, None for the default one.\n\n"              \
               "Returns a Future for its result. RuntimeError if the loop is closed, or the\n" \
               "default executor is shut down. Follows asyncio.loop.run_in_executor.")}

#endif
