/* life.h - a loop opens, closes, and goes on in a child of fork(). */
#ifndef ASYNCLOOP_LIFE_H
#define ASYNCLOOP_LIFE_H

#include "loop/poll.h"

int life_init(PyObject *module, struct state *state);

int loop_open(Loop *loop);            /* makes the libev loop; called by __init__ */
void loop_close(Loop *loop);          /* drops everything; safe to repeat */
void loop_close_kernel_side(Loop *loop);    /* the last part of it, which no poll survives */
void loop_free_buffers(Loop *loop);

/* poll_once(), and the end of a loop that another thread has closed meanwhile: 0, or -1 with an
 * exception. */
static inline int
loop_look(Loop *loop, int64_t wait_ns)
{
    if (LIKELY(poll_once(loop, wait_ns) == 0)) {
        return 0;
    }
    if (UNLIKELY(loop->left_to_poll)) {
        loop_close_kernel_side(loop);
        return loop_closed_error(loop);
    }
    return -1;
}

#endif
