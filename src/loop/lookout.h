/* lookout.h - what the threads that look at loops from outside share: watchdog.c, liveness.c.
 *
 * Promises: needs no GIL; waits for nothing but what is said here. */
#ifndef ASYNCLOOP_LOOKOUT_H
#define ASYNCLOOP_LOOKOUT_H

#include <stddef.h>
#include <stdint.h>

/* What of the time since a thread has last looked (0: never) nobody could have gone on in: it looks every
 * tick, so where it comes much later the process was stopped, or the machine. 0: none. */
int64_t pause_between(int64_t looked_ns, int64_t now_ns, int64_t tick_ns, int64_t threshold_ns);

/* The address of what a signal runs; NULL: nothing does, the system's own way with it. */
void *signal_handler(int number);

/* As much as goes at once: a pipe that is full, or a terminal that is stopped, holds up nothing. -1 is no
 * descriptor. */
void write_at_once(int fd, const char *text, size_t length);

/* What has been written to a non-blocking descriptor, until for a while there is no more of it: at most
 * size - 1 bytes, and a zero. The length. */
size_t read_all_for_a_while(int fd, char *text, size_t size);

void sleep_ns(int64_t ns);

#endif
