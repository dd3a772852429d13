/* clock.h - what time it is for a loop, whoever defines time(). */
#ifndef ASYNCLOOP_CLOCK_H
#define ASYNCLOOP_CLOCK_H

#include "loop/loop.h"

/* Nanoseconds of loop.time(). -1 with an exception. */
int loop_now_ns(Loop *loop, int64_t *now);
/* Seconds of it. 0 / -1 */
int loop_now_seconds(Loop *loop, double *now);

#endif
