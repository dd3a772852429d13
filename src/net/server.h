/* server.h - accepting connections on a listening socket.
 *
 * An Acceptor is what loop._start_serving() makes for each socket of an asyncio.Server.
 * It does not own the listening socket: the Server does. */
#ifndef ASYNCLOOP_SERVER_H
#define ASYNCLOOP_SERVER_H

#include "base/state.h"

int server_type_init(PyObject *module, struct state *state);

#endif
