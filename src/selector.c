/* selector.c - see selector.h. */
#include "selector.h"

#include "loop/activity.h"
#include "loop/current.h"
#include "loop/overrides.h"
#include "loop/timer.h"
#include "loop/wake.h"

int
selector_look(Loop *loop)
{
    current_leave(loop);
    PyObject *answer = PyObject_CallMethod((PyObject *)loop, "_look_at_insides", NULL);
    int result = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return result;
}

/* Until the next timer is due, in the numbers of the program's own clock: a clock of integers goes on in
 * integers. New reference; NULL, without an exception, where it is something else that is waited for. */
static PyObject *
wait_by_clock(Loop *loop, double seconds)
{
    if (LIKELY(!loop_has_custom_clock(loop))) {
        return NULL;
    }
    PyObject *timer = timer_first(loop);
    if (timer == NULL) {
        return NULL;
    }
    PyObject *when = PyObject_GetAttrString(timer, "_when");
    PyObject *now = when == NULL ? NULL : PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.time);
    PyObject *wait = now == NULL ? NULL : PyNumber_Subtract(when, now);
    double same = wait == NULL ? -1. : PyFloat_AsDouble(wait);
    if (same <= 0. || same > seconds + 1e-6 || same < seconds - 1e-6) {
        PyErr_Clear();
        Py_CLEAR(wait);
    }
    Py_XDECREF(now);
    Py_XDECREF(when);
    Py_DECREF(timer);
    return wait;
}

static PyObject *
timeout_of(Loop *loop, int64_t wait_ns)
{
    if (wait_ns == TIMER_NEVER) {
        return Py_NewRef(Py_None);
    }
    if (wait_ns <= 0) {
        return PyLong_FromLong(0);
    }
    double seconds = (double)wait_ns * 1e-9;
    PyObject *wait = wait_by_clock(loop, seconds);
    return wait != NULL ? wait : PyFloat_FromDouble(seconds);
}

static int
poll_by_method(Loop *loop, int64_t wait_ns)
{
    PyObject *timeout = timeout_of(loop, wait_ns);
    /* As before any poll that sleeps, for a select() that does not come to poll_once(). */
    loop->fds.events = 0;
    bool asleep = wait_ns > 0 && loop_may_sleep(loop);
    if (wait_ns > 0 && !asleep) {
        Py_XSETREF(timeout, PyLong_FromLong(0));
    }
    PyObject *result = timeout == NULL ? NULL
                                       : PyObject_CallMethod((PyObject *)loop, "_poll_by_selector",
                                                             "O", timeout);
    if (asleep) {
        loop_awake(loop);
        if (LIKELY(loop->ev != NULL)) {
            wake_empty(loop);
        }
    }
    Py_XDECREF(result);
    Py_XDECREF(timeout);
    return result == NULL ? -1 : 0;
}

int
selector_poll(Loop *loop, int64_t wait_ns)
{
    if (wait_ns <= 0) {
        return poll_by_method(loop, wait_ns);
    }
    /* what others see of a poll that may sleep */
    loop->slept_ns = monotonic_ns();
    counters_fall_asleep(loop->counters, loop->slept_ns);
    int result = poll_by_method(loop, wait_ns);
    loop->woke_ns = monotonic_ns();
    span_end(&loop->counters->idle, loop->woke_ns);
    counters_begin_turn(loop->counters);
    loop->profiled_sleep = PyThreadState_Get()->c_profilefunc != NULL;
    return result;
}
