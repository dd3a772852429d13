/* stats.c - see stats.h. */
#include "stats.h"

#include "loop/activity.h"
#include "loop/loop.h"

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

PyObject *
Loop__counters(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    struct counters now_counters, *counters = &now_counters;
    int64_t now;
    counters_read(loop->counters, counters, &now);
    if (loop_is_mine(loop)) {
        counters->ready = ready_length(&loop->ready);
        counters->timers = loop->timers.length;
    }
    count_turn_so_far(counters, now);
    PyObject *delay = delay_tuple(counters);
    if (delay == NULL) {
        return NULL;
    }
    uint64_t others = counters->turns + counters->task_steps;
    return Py_BuildValue(
        "{sK sL sO sO sK sK sK sL sL sK sK sK sK sK sK sK sK sK sN}",
        "number", (unsigned long long)counters->number,
        "now", (long long)now,
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
        "delay_max", (unsigned long long)counters->delay_max,
        "delay", delay);
}
