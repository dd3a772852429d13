/* selector.h - the poll by whatever is the loop's _selector, once somebody has a view of the insides. */
#ifndef ASYNCLOOP_SELECTOR_H
#define ASYNCLOOP_SELECTOR_H

#include "loop/loop.h"

/* At the beginning of an iteration while loop->looked_at: what was done to the views is carried out.
 * 1 if the poll is to be made by select() and _process_events(), because somebody has replaced one of
 * them; 0 if not; -1 with an exception. */
int selector_look(Loop *loop);
/* That poll. 0, or -1 with an exception. */
int selector_poll(Loop *loop, int64_t wait_ns);

#endif
