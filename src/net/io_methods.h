/* io_methods.h - bytes in and out by calling what asyncio calls: the methods of a socket, os.read()
 * and os.write().
 *
 * For a socket that is not exactly a socket.socket, or whose class somebody has given other methods,
 * and for pipes where os.read() or os.write() is another function. These run Python: whatever is
 * used after such a call is looked at again. IO_ERROR with io->err 0 leaves an exception set, which
 * transport_fatal_errno() takes. */
#ifndef ASYNCLOOP_IO_METHODS_H
#define ASYNCLOOP_IO_METHODS_H

#include "base/standard.h"
#include "net/transport.h"

/* Of a Transport, by container_of(). */
extern const struct io_ops io_socket_methods;
extern const struct io_ops io_os_functions;

void io_choose_slowly(Transport *tr);

/* Was nothing replaced since io_choose()? */
static inline bool
io_is_chosen(const Transport *tr)
{
    return LIKELY(SHARED_LOAD(*tr->io.class_version) == tr->io.seen_version);
}

/* Before each reading and writing: does it still go by system calls? What went by methods once, goes
 * on so. */
static inline void
io_choose(Transport *tr)
{
    if (UNLIKELY(!io_is_chosen(tr))) {
        io_choose_slowly(tr);
    }
}

/* sock.send(data) or os.write(fd, data) with the user's own object. *rest, with IO_OK: what is left of it by
 * what the call has returned, a slice as asyncio takes it, or NULL with the exception of that. */
enum io_status io_send(Transport *tr, PyObject *data, PyObject **rest);
/* sock.recv_into(buffer), for a BufferedProtocol. */
enum io_status io_recv_into(Transport *tr, PyObject *buffer, size_t *n);

static inline bool
io_is_by_method(const Transport *tr)
{
    return UNLIKELY(tr->io.ops == &io_socket_methods);
}

static inline bool
io_calls_python(const Transport *tr)
{
    return UNLIKELY(tr->io.ops->calls_python);
}

#endif
