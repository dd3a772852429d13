/* stats.c - see stats.h. */
#include "stats.h"

#include <string.h>

#include "loop/activity.h"
#include "loop/loop.h"
#include "loop/owner.h"
#include "loop/timer.h"

PyObject *
delay_bounds(PyObject *module UNUSED, PyObject *ignored UNUSED)
{
    PyObject *tuple = PyTuple_New(DELAY_BUCKETS);
    for (unsigned int i = 0; tuple != NULL && i < DELAY_BUCKETS; i++) {
        PyObject *number = PyLong_FromLongLong(delay_bound(i));
        if (number == NULL) {
            Py_CLEAR(tuple);
        }
        else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, number);
        }
    }
    return tuple;
}

static PyObject *
delay_tuple(const struct counters *counters)
{
    PyObject *tuple = PyTuple_New(DELAY_BUCKETS);
    for (unsigned int i = 0; tuple != NULL && i < DELAY_BUCKETS; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(counters->delay[i]);
        if (number == NULL) {
            Py_CLEAR(tuple);
        }
        else {
            PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, number);
        }
    }
    return tuple;
}

/* What comes due in a turn that goes on still has to wait already. */
static void
count_turn_so_far(struct counters *counters, int64_t now)
{
    int64_t unlooked = now - counters->looked;
    if (counters->run >= 0 || counters->idle < 0) {
        return;
    }
    if (counters->unlooked > 0) {
        counters_note_delay(counters, unlooked, counters->unlooked);    /* what came then waits still */
    }
    if (unlooked >= DELAY_LEAST_NS) {
        counters_note_delay(counters, 0, unlooked);
    }
}

static uint64_t
at_least_zero(uint64_t number)
{
    return number > INT64_MAX ? 0 : number;    /* of counts that were read one after the other */
}

static PyObject *
counters_as_dict(struct counters *counters, int64_t now)
{
    count_turn_so_far(counters, now);
    PyObject *delay = delay_tuple(counters);
    if (delay == NULL) {
        return NULL;
    }
    uint64_t others = counters->turns + counters->task_steps;
    return Py_BuildValue(
        "{sK sK sL sL sO sO sK sK sK sL sL sK sK sK sK sK sK sK sK sK sK sK sN}",
        "number", (unsigned long long)counters->number,
        "native_thread", (unsigned long long)counters->native_thread,
        "now", (long long)now,
        "looked", (long long)counters->looked,
        "running", counters->run < 0 ? Py_True : Py_False,
        "asleep", counters->idle < 0 ? Py_True : Py_False,
        "turns", (unsigned long long)counters->turns,
        "callbacks", (unsigned long long)at_least_zero(counters->steps - others),
        "task_steps", (unsigned long long)(counters->task_steps + counters->eager_steps),
        "run", (long long)span_at(counters->run, now),
        "idle", (long long)span_at(counters->idle, now),
        "ready", (unsigned long long)counters->ready,
        "timers", (unsigned long long)counters->timers,
        "descriptors", (unsigned long long)at_least_zero(counters->descriptors),
        "transports", (unsigned long long)at_least_zero(counters->transports),
        "tasks", (unsigned long long)at_least_zero(counters->tasks),
        "bytes_in", (unsigned long long)counters->bytes_in,
        "bytes_out", (unsigned long long)counters->bytes_out,
        "from_threads", (unsigned long long)counters->from_threads,
        "stalls", (unsigned long long)counters->stalls,
        "spins", (unsigned long long)counters->spins,
        "delay_max", (unsigned long long)counters->delay_max,
        "delay", delay);
}

PyObject *
Loop__counters(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    struct counters counters;
    int64_t now;
    struct claim claim;
    activity_read(loop->activity, &counters, &now);
    if (loop_claim(&claim, loop) == 0) {
        counters.ready = ready_length(&loop->ready);
        counters.timers = timer_count(&loop->timers);
        loop_unclaim(&claim);
    }
    else {
        PyErr_Clear();    /* another thread runs it, and has counted when it last looked at the kernel */
        counters.ready = counters.idle < 0 ? 0 : counters.ready;
    }
    return counters_as_dict(&counters, now);
}

/* Without a GIL other threads count as well, and know the old place. */
PyObject *
Loop__move_counters(PyObject *op, PyObject *ignored UNUSED)
{
#ifndef Py_GIL_DISABLED
    Loop *loop = (Loop *)op;
    loop->counters = activity_move(loop->activity);
#else
    (void)op;
#endif
    Py_RETURN_NONE;
}

/* sys._current_frames() mixes up the interpreters that a thread has been in. */
PyObject *
core_frame_of(PyObject *module UNUSED, PyObject *thread)
{
    unsigned long number = PyLong_AsUnsignedLong(thread);
    if (number == (unsigned long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    PyFrameObject *frame = NULL;
#ifndef Py_GIL_DISABLED
    PyThreadState *tstate = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    while (tstate != NULL && tstate->thread_id != number) {
        tstate = PyThreadState_Next(tstate);
    }
    frame = tstate == NULL ? NULL : PyThreadState_GetFrame(tstate);
#endif
    return frame == NULL ? Py_NewRef(Py_None) : (PyObject *)frame;
}

/* -- the page ------------------------------------------------------------------------- */

PyObject *
core_page_open(PyObject *module, PyObject *args)
{
    struct state *state = PyModule_GetState(module);
    const char *asyncloop, *python, *socket;
    if (!PyArg_ParseTuple(args, "sss:_page_open", &asyncloop, &python, &socket)) {
        return NULL;
    }
    if (activities_open_page(loop_state(state)->loops.activities, asyncloop, python, socket) < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyObject *
core_page_close(PyObject *module, PyObject *ignored UNUSED)
{
    struct state *state = PyModule_GetState(module);
    activities_close_page(loop_state(state)->loops.activities);
    Py_RETURN_NONE;
}

PyObject *
core_page_note(PyObject *module, PyObject *args)
{
    struct state *state = PyModule_GetState(module);
    unsigned long long loop;
    double lasted;
    int goes_on;
    const char *text;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "Kdps#:_page_note", &loop, &lasted, &goes_on, &text, &length)) {
        return NULL;
    }
    activities_note_stall(loop_state(state)->loops.activities, loop, (int64_t)(lasted * 1e9),
                          goes_on, text, (size_t)length);
    Py_RETURN_NONE;
}

PyObject *
core_count_spin(PyObject *module, PyObject *number)
{
    struct state *state = PyModule_GetState(module);
    unsigned long long loop = PyLong_AsUnsignedLongLong(number);
    if (loop == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    activities_count_spin(loop_state(state)->loops.activities, loop);
    Py_RETURN_NONE;
}

PyObject *
core_page_layout(PyObject *module UNUSED, PyObject *ignored UNUSED)
{
    return Py_BuildValue("(iiiiii)", PAGE_VERSION, PAGE_HEADER_BYTES, PAGE_SLOT_BYTES, PAGE_SLOTS,
                         (int)sizeof(struct counters), DELAY_BUCKETS);
}

/* What another process's page has in a slot, as bytes. */
PyObject *
core_page_counters(PyObject *module UNUSED, PyObject *data)
{
    struct counters counters;
    if (!PyBytes_Check(data) || PyBytes_GET_SIZE(data) < (Py_ssize_t)sizeof(counters)) {
        PyErr_SetString(PyExc_ValueError, "these are not the bytes of a slot");
        return NULL;
    }
    memcpy(&counters, PyBytes_AS_STRING(data), sizeof(counters));
    counters.ready = counters.idle < 0 ? 0 : counters.ready;    /* it sleeps: what its last look has brought is done */
    if (counters.number == 0) {
        Py_RETURN_NONE;
    }
    return counters_as_dict(&counters, monotonic_ns());
}
