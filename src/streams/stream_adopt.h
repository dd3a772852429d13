/* stream_adopt.h - readers and writers of a StreamReaderProtocol become ours as their connection is made. */
#ifndef ASYNCLOOP_STREAM_ADOPT_H
#define ASYNCLOOP_STREAM_ADOPT_H

#include "net/proto.h"

/* In place of the protocol's connection_made(), where that is asyncio's own. New reference or NULL. */
PyObject *stream_adopt_connection_made(struct state *state, struct proto *proto, PyObject *transport);

#endif
