/* clients.h - the asyncio.Server of a transport, which hears when the transport comes and goes.
 *
 * From CPython 3.13 on a server keeps its connections in a WeakSet. For a server of exactly
 * asyncio's class the loop puts a Clients object in its place: a list through the transports
 * themselves, which costs no weak reference and no Python call per connection (benchmark rows
 * "accept" and "idle connection"). One that stops to read is held by its loop no more, and goes into
 * a WeakSet: it may be found to be garbage, and is not to be seen then.
 *
 * Owns:     nothing. A transport leaves the list before it dies, and holds the server.
 * Ignores:  free-threaded builds, where a transport may die in another thread: they keep the
 *           WeakSet. */
#ifndef ASYNCLOOP_CLIENTS_H
#define ASYNCLOOP_CLIENTS_H

#include "net/transport.h"

/* The transport is the server's from now on, and holds it. 0, or -1 with what _attach() raised. */
int server_attach(Transport *tr, PyObject *server);

/* Idempotent. 0, or -1 with what _detach() raised. */
int server_detach(Transport *tr);

/* The same for a transport that nobody has any more: it may find a server that has stopped waiting for it, and then
 * Server._detach() fails, which is kept quiet. Keeps the current exception. */
void server_abandon(Transport *tr);

void server_client_is_free(Transport *tr);    /* for the next one */

/* The transport has stopped to read. May run Python; keeps the current exception. */
static inline void
server_stops_reading(Transport *tr)
{
    if (UNLIKELY(!list_empty(&tr->client))) {
        server_client_is_free(tr);
    }
}

/* For tp_clear: runs no code of the server's. */
void server_forget(Transport *tr);

/* For tp_dealloc, before weak references are cleared: whoever hears of that does not find it. */
void server_leave(Transport *tr);

#endif
