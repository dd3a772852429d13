/* nested.h - a run inside of another one (asyncloop.allow_nested()): what has to wait for its end. */
#ifndef ASYNCLOOP_NESTED_H
#define ASYNCLOOP_NESTED_H

#include "loop/loop.h"

/* Around a nested run. At its end what it had to leave goes before all that is ready: 0, or -1 with
 * MemoryError. */
void loop_enter_nested(Loop *loop);
int loop_leave_nested(Loop *loop);

/* In a nested run: the oldest item waits for its end if it has to run in a context that is entered
 * further up the stack, as in a program whose callbacks share one context. */
bool loop_defer(Loop *loop);

#endif
