/* iteration.h - runs: the iteration of a loop, or parts of one by hand. What runs, in which order, until
 * when. */
#ifndef ASYNCLOOP_ITERATION_H
#define ASYNCLOOP_ITERATION_H

#include "loop/loop.h"

int iteration_init(PyObject *module, struct state *state);

int loop_run(Loop *loop);             /* until stop(): 0, or -1 with what has to leave */
int loop_turn(Loop *loop);            /* one iteration: the same */

/* The end of an iteration, for a handle or a poll that nobody makes part of one: nothing inside a run. */
void loop_end_turn_by_hand(Loop *loop, struct run *run);
int loop_begin_by_hand(Loop *loop, struct hand *hand);    /* 0, or -1: another thread runs it */
int loop_end_by_hand(Loop *loop, struct hand *hand);    /* 0, or -1 with what has to leave */

#endif
