/* io.h - bytes in and out of one descriptor; no Python.
 *
 * Plain sockets stand behind `struct io_ops`; a TLS layer is another implementation of
 * the same table, and the code above never asks which one it has.
 *
 * Owns:     nothing. The descriptor belongs to whoever made it; ops->close() only ends
 *           what the implementation itself keeps.
 * Promises: no call blocks (the descriptor is non-blocking), EINTR is never seen, no
 *           SIGPIPE is raised by sockets (for pipes the kernel has no such flag; Python
 *           ignores the signal unless told otherwise).
 * Ignores:  queues, protocols, who waits. */
#ifndef ASYNCLOOP_IO_H
#define ASYNCLOOP_IO_H

#include <limits.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/base.h"
#include "base/tuning.h"

/* What a call did, and what to wait for before it makes sense to call again. */
enum io_status {
    IO_OK,            /* *n bytes were moved, at least one */
    IO_EOF,           /* the peer sends no more (only from read) */
    IO_WANT_READ,     /* nothing moved: wait until the descriptor is readable */
    IO_WANT_WRITE,    /* nothing moved: wait until the descriptor is writable */
    IO_ERROR,         /* io->err holds the errno */
};

struct io;

struct io_ops {
    enum io_status (*read)(struct io *io, void *buffer, size_t capacity, size_t *n);
    /* `more`: the caller goes on at once, or calls io_push(). For io_holds() descriptors only. */
    enum io_status (*writev)(struct io *io, const struct iovec *iov, int count, bool more,
                             size_t *n);
    enum io_status (*shutdown)(struct io *io);    /* no more output follows */
    void (*close)(struct io *io);                 /* before the owner closes the descriptor */
    bool calls_python;    /* read and writev call what a program has put in the place of ours: io_methods.h */
};

struct io {
    const struct io_ops *ops;
    int fd;               /* borrowed; -1 once closed */
    int err;              /* errno of the last IO_ERROR */
    const unsigned int *class_version;    /* tp_version_tag of the owner's class, as it is now */
    unsigned int seen_version;            /* the same when `ops` was chosen: io_methods.h */
    uint32_t random;      /* state of the flaky implementation; unused otherwise */
    const int *owned;     /* where its owner keeps the number; NULL: not known */
};

/* Buffers of one writev(). The kernel refuses more than IOV_MAX. */
#if defined(IOV_MAX) && IOV_MAX < 1024
#define IO_IOV_MAX TUNED(IO_IOV_MAX, IOV_MAX)
#else
#define IO_IOV_MAX TUNED(IO_IOV_MAX, 1024)
#endif

/* What one writable event may give to the kernel before the others get their turn (a write() gives what
 * the kernel takes, so that it has all of it when the process ends):
 * 1 MiB takes about 200 µs. A peer that reads as quickly as the kernel copies would keep the loop
 * at its connection otherwise. That is for the others alone: in pieces of 64 KiB it takes as long (benchmark
 * row: write 1 MiB, where they take 3 % less, with 16 % between runs; 2026-11-30). */
#define WRITE_BUDGET_BYTES TUNED(WRITE_BUDGET_BYTES, (size_t)1024 * 1024)

extern const struct io_ops io_plain_ops;    /* stream sockets */
extern const struct io_ops io_pipe_ops;     /* whatever read() and write() take */
extern const struct io_ops io_flaky_plain_ops;    /* the same with short and refused transfers */
extern const struct io_ops io_flaky_pipe_ops;

/* For a socket or a pipe: the plain implementation, or the flaky one before it while
 * io_set_flaky() is on. `owned` may be NULL. */
void io_init_socket(struct io *io, int fd, const int *owned);
void io_init_pipe(struct io *io, int fd);

/* From now on output goes nowhere, and its end is not told: for a child of fork(), whose bytes would
 * come in the middle of what the parent has yet to send. */
void io_drop_output(struct io *io, bool is_socket);
bool io_drops_output(const struct io *io);

/* Has the owner closed the descriptor? Its number may be another connection's by now, so no
 * call may use it: read, writev and shutdown of a socket fail with EBADF by themselves. */
static inline bool
io_is_gone(const struct io *io)
{
    return UNLIKELY(io->owned != NULL && *io->owned != io->fd);
}

/* The owner goes: system calls fail with EBADF from now on. */
static inline void
io_forget_number(struct io *io)
{
    io->fd = -1;
    io->owned = NULL;
}

/* The next io_choose() looks at everything. */
void io_forget_class(struct io *io);

/* A test's switch for the whole process: from now on new sockets and pipes get the flaky
 * implementation, whose whims are a function of the seed. 0 switches it off. Wheels do without. */
void io_set_flaky(uint64_t seed);

/* Next connection of a listening socket, close-on-exec and non-blocking: IO_OK with *fd
 * (the caller owns it) and the peer's address, IO_WANT_READ, or IO_ERROR. */
enum io_status io_accept(struct io *io, int *fd, struct sockaddr_storage *peer,
                         socklen_t *peer_length);
/* What its error means: nothing to make a connection of; or the connection is gone with it, and accept(2) says to
 * go on. */
bool io_is_shortage(int err);
bool io_is_of_connection(int err);

void io_set_nodelay(int fd);    /* best effort: no TCP, no effect */

/* Output that the kernel holds because more of it is to come: it leaves with that, with the end of
 * the connection, when io_push() says so, or by itself, after the kernel's 200 ms. So it is in order
 * with whatever else is done to the socket, and the process may end. Linux and TCP have this. */
bool io_holds(const struct io *io);
void io_push(const struct io *io);    /* as if a last piece had come; subject to the user's TCP_CORK */

#endif
