/* selector.c - see selector.h. */
#include "selector.h"

#include "loop/current.h"
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

int
selector_poll(Loop *loop, int64_t wait_ns)
{
    PyObject *timeout = wait_ns == TIMER_NEVER ? Py_NewRef(Py_None)
                        : wait_ns > 0          ? PyFloat_FromDouble((double)wait_ns * 1e-9)
                                               : PyLong_FromLong(0);
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
