/* insides.h - what asyncio's loop has as plain Python objects, for whoever looks at it or takes it
 * apart: _ready, _scheduled, _selector, _run_once(). The views themselves are Python
 * (asyncloop/_views.py); here is what they ask of the core.
 *
 * Owns:     nothing. Who looks gets the handles that are in the ring and the heap, the same ones each
 *           time: a Task that is in the ring without a Handle gets one.
 * Promises: no cost to a loop that nobody looks at. */
#ifndef ASYNCLOOP_INSIDES_H
#define ASYNCLOOP_INSIDES_H

#include "loop/loop.h"

/* A TimerHandle of asyncio's own was cancelled; it is borrowed. */
void insides_timer_cancelled(Loop *loop, PyObject *handle);

PyObject *Loop__ready_length(PyObject *op, PyObject *ignored);
PyObject *Loop__ready_list(PyObject *op, PyObject *ignored);
PyObject *Loop__ready_replace(PyObject *op, PyObject *items);
PyObject *Loop__ready_push(PyObject *op, PyObject *item);
PyObject *Loop__ready_pop(PyObject *op, PyObject *ignored);
PyObject *Loop__timer_list(PyObject *op, PyObject *ignored);
PyObject *Loop__timer_put(PyObject *op, PyObject *handle);
PyObject *Loop__timer_take(PyObject *op, PyObject *handle);
PyObject *Loop__select(PyObject *op, PyObject *timeout);
PyObject *Loop__watched(PyObject *op, PyObject *ignored);
PyObject *Loop__transport_dict(PyObject *op, PyObject *ignored);
PyObject *Loop__post_event(PyObject *op, PyObject *event);

/* Entries of the loop's method table: private, each for one method of a view. */
#define INSIDES_METHODS                                                \
    {"_ready_length", Loop__ready_length, METH_NOARGS, NULL},   \
    {"_ready_list", Loop__ready_list, METH_NOARGS, NULL},       \
    {"_ready_replace", Loop__ready_replace, METH_O, NULL},      \
    {"_ready_push", Loop__ready_push, METH_O, NULL},            \
    {"_ready_pop", Loop__ready_pop, METH_NOARGS, NULL},         \
    {"_timer_list", Loop__timer_list, METH_NOARGS, NULL},       \
    {"_timer_put", Loop__timer_put, METH_O, NULL},              \
    {"_timer_take", Loop__timer_take, METH_O, NULL},            \
    {"_select", Loop__select, METH_O, NULL},                    \
    {"_watched", Loop__watched, METH_NOARGS, NULL},             \
    {"_transport_dict", Loop__transport_dict, METH_NOARGS, NULL}, \
    {"_post_event", Loop__post_event, METH_O, NULL}

#endif
