/* stats.h - what a loop has counted, for Python: see loop/counters.h.
 *
 * Promises: works from any thread, on a loop that runs, is blocked or was closed. */
#ifndef ASYNCLOOP_STATS_H
#define ASYNCLOOP_STATS_H

#include "base/compat.h"

PyObject *Loop__counters(PyObject *op, PyObject *ignored);
PyObject *Loop__move_counters(PyObject *op, PyObject *ignored);
PyObject *core_frame_of(PyObject *module, PyObject *thread);
PyObject *core_page_open(PyObject *module, PyObject *args);
PyObject *core_page_close(PyObject *module, PyObject *ignored);
PyObject *core_page_note(PyObject *module, PyObject *args);
PyObject *core_count_spin(PyObject *module, PyObject *number);
PyObject *core_page_layout(PyObject *module, PyObject *ignored);
PyObject *core_page_counters(PyObject *module, PyObject *data);
PyObject *delay_bounds(PyObject *module, PyObject *ignored);

#define STATS_METHODS \
    {"_counters", Loop__counters, METH_NOARGS, \
     INSIDE_DOC("_counters($self, /)\n--\n\n" \
               "A dict of the loop's counters, times in nanoseconds: see asyncloop.Loop.stats().")}, \
    {"_move_counters", Loop__move_counters, METH_NOARGS, \
     INSIDE_DOC("_move_counters($self, /)\n--\n\n" \
               "Into the page, from wherever they are; in the thread that runs the loop.")}

#define STATS_FUNCTIONS \
    {"_delay_bounds", delay_bounds, METH_NOARGS, \
     INSIDE_DOC("_delay_bounds()\n--\n\n" \
               "The lower ends of the buckets of a delay, in nanoseconds.")}, \
    {"_frame_of", core_frame_of, METH_O, \
     INSIDE_DOC("_frame_of(thread, /)\n--\n\n" \
               "What the thread runs in this interpreter, or None; without a GIL None.")}, \
    {"_page_open", core_page_open, METH_VARARGS, \
     INSIDE_DOC("_page_open(asyncloop, python, socket, /)\n--\n\n" \
               "Counters of loops that are made from now on may be read by other processes: see\n" \
               "page.h. OSError where the system has nothing for it.")}, \
    {"_page_close", core_page_close, METH_NOARGS, \
     INSIDE_DOC("_page_close()\n--\n\nThe end of that. Idempotent.")}, \
    {"_page_note", core_page_note, METH_VARARGS, \
     INSIDE_DOC("_page_note(loop, lasted, goes_on, text, /)\n--\n\n" \
               "Write a stall into the page, if there is one.")}, \
    {"_count_spin", core_count_spin, METH_O, \
     INSIDE_DOC("_count_spin(number, /)\n--\n\nThe loop of that number spins; none: nothing.")}, \
    {"_page_layout", core_page_layout, METH_NOARGS, \
     INSIDE_DOC("_page_layout()\n--\n\n" \
               "Version, bytes of the header and of a slot, slots, bytes of the counters, buckets.")}, \
    {"_page_counters", core_page_counters, METH_O, \
     INSIDE_DOC("_page_counters(data, /)\n--\n\n" \
               "What Loop._counters() gives, of the bytes of a slot; None: nobody's.")}

#endif
