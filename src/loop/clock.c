/* clock.c - see clock.h. */
#include "loop/clock.h"

#include "loop/overrides.h"
#include "loop/timer.h"

/* What time() says, where it is somebody else's: 0 / -1 */
static int
loop_ask_clock(Loop *loop, double *now)
{
    PyObject *value = PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.time);
    if (value == NULL) {
        return -1;
    }
    *now = PyFloat_AsDouble(value);
    Py_DECREF(value);
    return *now == -1. && PyErr_Occurred() ? -1 : 0;
}

int
loop_now_ns(Loop *loop, int64_t *now)
{
    if (LIKELY(!loop_has_custom_clock(loop))) {
        *now = monotonic_ns();
        return 0;
    }
    double seconds;
    if (loop_ask_clock(loop, &seconds) < 0) {
        return -1;
    }
    *now = timer_deadline(seconds);
    return 0;
}

int
loop_now_seconds(Loop *loop, double *now)
{
    if (LIKELY(!loop_has_custom_clock(loop))) {
        *now = loop_time(loop);
        return 0;
    }
    return loop_ask_clock(loop, now);
}
