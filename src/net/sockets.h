/* sockets.h - socket objects of the loop's own making, which do not block.
 *
 * asyncio makes one by socket.socket() and setblocking(False), for each connection. The flag that
 * the kernel has for it does the same, and can be told by what is put in the place of the class or
 * its methods, and by a hook of sys.addaudithook(), which sees the type with that flag: then, and
 * only then, it is asyncio's two calls. */
#ifndef ASYNCLOOP_SOCKETS_H
#define ASYNCLOOP_SOCKETS_H

#include "loop/loop.h"

/* Would an audit hook be called? */
bool sockets_are_audited(void);

/* Is a new socket object the standard library's, and made without anybody looking? */
bool sockets_are_plain(struct state *state);

/* A socket object over fd, which accept() has given and which does not block: new reference. The
 * caller has found that nobody has replaced accept(). On failure fd is closed. */
PyObject *sockets_accepted(struct state *state, PyObject *family, int type, PyObject *proto, int fd);

/* TCP_NODELAY of a new connection: by setsockopt(), as asyncio does it, where that is somebody else's. 0 / -1 */
int socket_set_nodelay(struct state *state, PyObject *sock, int fd);

#endif
