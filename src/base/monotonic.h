/* monotonic.h - the clock that all else is compared with. */
#ifndef ASYNCLOOP_MONOTONIC_H
#define ASYNCLOOP_MONOTONIC_H

#include <stdint.h>
#include <time.h>

/* Nanoseconds. Inlined: asked several times in each iteration (guarded path: protocol). */
static inline int64_t
monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
