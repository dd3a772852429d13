/* turns.h - whether a loop turns so often, and hardly sleeps in between, that it may spin.
 *
 * Promises: it looks at what the loop counts alone. One that has work is told apart by what it runs:
 *           trace.h. */
#ifndef ASYNCLOOP_TURNS_H
#define ASYNCLOOP_TURNS_H

#include "loop/activity.h"

/* What it has counted when it was last looked at. */
struct window {
    int64_t began_ns;            /* 0: nothing is known yet */
    uint64_t turns;
    int64_t idle;
    uint64_t from_threads;
    int64_t told_ns;             /* when it was told of */
    uint32_t busy;               /* windows in a row in which it was */
};

/* Looks again, if it is time. True: there is something to tell: turns per second, or 0, if it was busy the
 * last time and is not now. With the lock of the activities. */
bool turns_look(struct window *window, const struct activity *activity, int64_t now, double *told);

#endif
