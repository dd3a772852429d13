/* hold.h - output that the kernel is told to hold, because more is to come in this step or turn.
 *
 * Owns: net_loop(loop)->unpushed, the streams with such output. */
#ifndef ASYNCLOOP_HOLD_H
#define ASYNCLOOP_HOLD_H

#include "loop/loop.h"
#include "net/net_loop.h"

/* What the kernel holds leaves; the second one may put it off to the turn's end.
 * The third is for a child of fork(): its parent does it. */
void hold_release(Loop *loop);
void hold_release_after_step(Loop *loop);
void hold_forget(Loop *loop);

#ifdef ASYNCLOOP_DEBUG
void unpushed_verify(Loop *loop);    /* checked.h */
#endif

/* After each callback and each part of a task. */
static inline void
loop_step_done(Loop *loop)
{
    COUNT(loop->counters->steps, 1);
    if (UNLIKELY(net_loop(loop)->unpushed.length > 0)) {
        hold_release_after_step(loop);
    }
}

#endif
