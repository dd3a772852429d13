/* pipe.h - one-way transports: pipes, FIFOs, terminals, sockets and other character devices.
 *
 * Both read and write as a stream does (stream_read.c, stream_write.c); what differs is in
 * their kinds: how they end, and which errors are worth a report. */
#ifndef ASYNCLOOP_PIPE_H
#define ASYNCLOOP_PIPE_H

#include "base/state.h"

int pipe_types_init(PyObject *module, struct state *state);

#endif
