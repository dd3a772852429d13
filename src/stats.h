/* stats.h - what a loop has counted, for Python: see loop/counters.h.
 *
 * Promises: works from any thread, on a loop that runs, is blocked or was closed. */
#ifndef ASYNCLOOP_STATS_H
#define ASYNCLOOP_STATS_H

#include "base/compat.h"

PyObject *Loop__counters(PyObject *op, PyObject *ignored);
PyObject *delay_bounds(PyObject *module, PyObject *ignored);

#define STATS_METHODS \
    {"_counters", Loop__counters, METH_NOARGS, \
     PyDoc_STR("_counters($self, /)\n--\n\n" \
               "A dict of the loop's counters, times in nanoseconds: see asyncloop.Loop.stats().")}

#endif
