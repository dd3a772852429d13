/* stream_api.h - the methods of asyncio.StreamReader and StreamWriter that run once per
 * message, in C.
 *
 * A reader and a writer that are exactly the standard library's change, when their connection
 * is made, to subclasses that add nothing but these methods: read(), readexactly(),
 * readline(), readuntil(), write(), drain(). All state stays in the instance, under the names
 * that it has there, and everything unusual (an error, the end, a limit, odd arguments, a
 * replaced method) is left to the standard method, called at the point where nothing has
 * been done yet.
 *
 * A writer is found when the server's callback gets it; open_connection() makes one behind
 * our back, and it stays what it is. Benchmark row: streams. */
#ifndef ASYNCLOOP_STREAM_API_H
#define ASYNCLOOP_STREAM_API_H

#include "ops/operation.h"

int stream_api_init(PyObject *module, struct state *state);

#endif
