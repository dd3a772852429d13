/* io.c - the system calls behind io.h. */
#include "net/io.h"

#include "base/tuning.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#if defined(__linux__) && !defined(TCP_ULP)
#define TCP_ULP 31
#endif
#ifndef MSG_MORE
#define MSG_MORE 0
#endif

/* The status of a call that returned -1. */
static enum io_status
io_failed(struct io *io, enum io_status would_block)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return would_block;
    }
    io->err = errno;
    return IO_ERROR;
}

static enum io_status
io_gone(struct io *io)
{
    io->err = EBADF;
    return IO_ERROR;
}

static enum io_status
plain_read(struct io *io, void *buffer, size_t capacity, size_t *n)
{
    if (io_is_gone(io)) {
        return io_gone(io);
    }
    ssize_t got;
    do {
        got = recv(io->fd, buffer, capacity, 0);
    } while (UNLIKELY(got < 0 && errno == EINTR));
    if (LIKELY(got > 0)) {
        *n = (size_t)got;
        return IO_OK;
    }
    return got == 0 ? IO_EOF : io_failed(io, IO_WANT_READ);
}

/* Pieces that are no longer than this together leave as one: each piece costs the kernel more than
 * a copy of so little (benchmark row: writelines, 16 pieces of 64 bytes, where it saves 6 %). */
#define JOIN_BYTES TUNED(JOIN_BYTES, 4096)

static bool
iov_is_short(const struct iovec *iov, int count)
{
    size_t length = 0;
    for (int i = 0; i < count && length <= JOIN_BYTES; i++) {
        length += iov[i].iov_len;
    }
    return length <= JOIN_BYTES;
}

/* Apart, because other calls need no such room on the stack. */
static __attribute__((noinline)) ssize_t
send_joined(int fd, const struct iovec *iov, int count, int flags)
{
    char joined[JOIN_BYTES];
    size_t length = 0;
    for (int i = 0; i < count; i++) {
        memcpy(joined + length, iov[i].iov_base, iov[i].iov_len);
        length += iov[i].iov_len;
    }
    return send(fd, joined, length, flags);
}

static __attribute__((noinline)) ssize_t
send_several(int fd, const struct iovec *iov, int count, int flags)
{
    if (iov_is_short(iov, count)) {
        return send_joined(fd, iov, count, flags);
    }
    struct msghdr message = {
        .msg_iov = (struct iovec *)iov,
        .msg_iovlen = count,
    };
    return sendmsg(fd, &message, flags);
}

/* A call that was interrupted is made again as soon as the descriptor is writable: so nothing has to be kept for
 * it across the call (guarded path: write-burst). */
static __attribute__((noinline)) enum io_status
send_failed(struct io *io, ssize_t sent)
{
    return sent == 0 || errno == EINTR ? IO_WANT_WRITE : io_failed(io, IO_WANT_WRITE);
}

static enum io_status
plain_writev(struct io *io, const struct iovec *iov, int count, bool more, size_t *n)
{
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    *n = 0;
    if (io_is_gone(io)) {
        return io_gone(io);
    }
    /* send() spares the kernel the copy of a message header */
    ssize_t sent = LIKELY(count == 1) ? send(io->fd, iov->iov_base, iov->iov_len, flags)
                                      : send_several(io->fd, iov, count, flags);
    if (UNLIKELY(sent <= 0)) {
        return send_failed(io, sent);
    }
    *n = (size_t)sent;
    return IO_OK;
}

static enum io_status
plain_shutdown(struct io *io)
{
    if (io_is_gone(io)) {
        return io_gone(io);
    }
    return shutdown(io->fd, SHUT_WR) == 0 ? IO_OK : io_failed(io, IO_WANT_WRITE);
}

static void
plain_close(struct io *io)
{
    io->fd = -1;
    io->owned = NULL;
}

const struct io_ops io_plain_ops = {
    .read = plain_read,
    .writev = plain_writev,
    .shutdown = plain_shutdown,
    .close = plain_close,
};

static enum io_status
pipe_read(struct io *io, void *buffer, size_t capacity, size_t *n)
{
    ssize_t got;
    do {
        got = read(io->fd, buffer, capacity);
    } while (UNLIKELY(got < 0 && errno == EINTR));
    if (LIKELY(got > 0)) {
        *n = (size_t)got;
        return IO_OK;
    }
    return got == 0 ? IO_EOF : io_failed(io, IO_WANT_READ);
}

static enum io_status
pipe_writev(struct io *io, const struct iovec *iov, int count, bool more UNUSED, size_t *n)
{
    ssize_t sent;
    do {
        sent = count == 1 ? write(io->fd, iov->iov_base, iov->iov_len)
                          : writev(io->fd, iov, count);
    } while (UNLIKELY(sent < 0 && errno == EINTR));
    if (LIKELY(sent > 0)) {
        *n = (size_t)sent;
        return IO_OK;
    }
    *n = 0;
    return sent == 0 ? IO_WANT_WRITE : io_failed(io, IO_WANT_WRITE);
}

/* Only close() ends the output of a pipe. */
static enum io_status
pipe_shutdown(struct io *io UNUSED)
{
    return IO_OK;
}

const struct io_ops io_pipe_ops = {
    .read = pipe_read,
    .writev = pipe_writev,
    .shutdown = pipe_shutdown,
    .close = plain_close,
};

/* -- a child of fork() -------------------------------------------------------- */

static enum io_status
dropping_writev(struct io *io UNUSED, const struct iovec *iov, int count, bool more UNUSED, size_t *n)
{
    *n = 0;
    for (int i = 0; i < count; i++) {
        *n += iov[i].iov_len;
    }
    return IO_OK;
}

static enum io_status
dropping_shutdown(struct io *io UNUSED)
{
    return IO_OK;
}

static const struct io_ops io_dropping_plain_ops = {
    .read = plain_read,
    .writev = dropping_writev,
    .shutdown = dropping_shutdown,
    .close = plain_close,
};

static const struct io_ops io_dropping_pipe_ops = {
    .read = pipe_read,
    .writev = dropping_writev,
    .shutdown = dropping_shutdown,
    .close = plain_close,
};

void
io_drop_output(struct io *io, bool is_socket)
{
    io->ops = is_socket ? &io_dropping_plain_ops : &io_dropping_pipe_ops;
}

bool
io_drops_output(const struct io *io)
{
    return io->ops == &io_dropping_plain_ops || io->ops == &io_dropping_pipe_ops;
}

/* -- flaky ------------------------------------------------------------------- */

#ifndef ASYNCLOOP_SMALL    /* a wheel has no switches of tests */

static uint64_t flaky_seed;

void
io_set_flaky(uint64_t seed)
{
    __atomic_store_n(&flaky_seed, seed, __ATOMIC_RELAXED);
}

/* What the flaky implementation stands before. */
static const struct io_ops *
flaky_real(struct io *io)
{
    return io->ops == &io_flaky_pipe_ops ? &io_pipe_ops : &io_plain_ops;
}

static uint32_t
flaky_random(struct io *io)
{
    io->random = io->random * 1664525 + 1013904223;    /* small, and the same on every machine */
    return io->random >> 16;
}

/* A length from 1 to `wanted`: mostly a few bytes, now and then all of it. */
static size_t
flaky_length(struct io *io, size_t wanted)
{
    size_t limit = flaky_random(io) % 8 == 0 ? wanted : 1 + flaky_random(io) % 97;
    return limit < wanted ? limit : wanted;
}

static enum io_status
flaky_read(struct io *io, void *buffer, size_t capacity, size_t *n)
{
    if (flaky_random(io) % 4 == 0) {
        return IO_WANT_READ;
    }
    return flaky_real(io)->read(io, buffer, flaky_length(io, capacity), n);
}

static enum io_status
flaky_writev(struct io *io, const struct iovec *iov, int count, bool more, size_t *n)
{
    *n = 0;
    if (flaky_random(io) % 4 == 0) {
        return IO_WANT_WRITE;
    }
    struct iovec part[4];
    int used = 0;
    size_t room = flaky_length(io, SIZE_MAX);
    while (used < count && used < (int)ARRAY_LEN(part) && room > 0) {
        part[used] = iov[used];
        if (part[used].iov_len > room) {
            part[used].iov_len = room;
        }
        room -= part[used].iov_len;
        used++;
    }
    return flaky_real(io)->writev(io, part, used, more, n);
}

static enum io_status
flaky_shutdown(struct io *io)
{
    return flaky_real(io)->shutdown(io);
}

#define FLAKY_OPS {flaky_read, flaky_writev, flaky_shutdown, plain_close, false}

const struct io_ops io_flaky_plain_ops = FLAKY_OPS;
const struct io_ops io_flaky_pipe_ops = FLAKY_OPS;

static void
io_init_flaky(struct io *io)
{
    uint64_t seed = __atomic_load_n(&flaky_seed, __ATOMIC_RELAXED);
    if (UNLIKELY(seed != 0)) {
        io->ops = io->ops == &io_pipe_ops ? &io_flaky_pipe_ops : &io_flaky_plain_ops;
        /* neighbouring descriptors must not have neighbouring states */
        io->random = (uint32_t)((seed + (uint64_t)io->fd) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
    }
}

#else
#define io_init_flaky(io) ((void)(io))
#endif

/* No class has this version, so that whoever looks at it looks further. */
static const unsigned int no_version = UINT_MAX;

void
io_forget_class(struct io *io)
{
    io->class_version = &no_version;
    io->seen_version = 0;
}

static void
io_init(struct io *io, int fd, const int *owned, const struct io_ops *ops)
{
    io_forget_class(io);
    io->ops = ops;
    io->fd = fd;
    io->owned = owned;
    io->err = 0;
    io->random = 0;
    io_init_flaky(io);
}

void
io_init_socket(struct io *io, int fd, const int *owned)
{
    io_init(io, fd, owned, &io_plain_ops);
}

void
io_init_pipe(struct io *io, int fd)
{
    io_init(io, fd, NULL, &io_pipe_ops);
}

/* -- listening --------------------------------------------------------------- */

enum io_status
io_accept(struct io *io, int *fd, struct sockaddr_storage *peer, socklen_t *peer_length)
{
    int conn;
    if (io_is_gone(io)) {
        return io_gone(io);
    }
    do {
        *peer_length = sizeof(*peer);
#ifdef __linux__
        conn = accept4(io->fd, (struct sockaddr *)peer, peer_length,
                       SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
        conn = accept(io->fd, (struct sockaddr *)peer, peer_length);
        if (conn >= 0
            && (fcntl(conn, F_SETFD, FD_CLOEXEC) < 0
                || fcntl(conn, F_SETFL, fcntl(conn, F_GETFL) | O_NONBLOCK) < 0)) {
            int err = errno;
            close(conn);
            errno = err;
            conn = -1;
        }
#endif
    } while (conn < 0 && errno == EINTR);
    if (conn < 0) {
        return io_failed(io, IO_WANT_READ);
    }
    if (*peer_length > sizeof(*peer)) {
        *peer_length = sizeof(*peer);
    }
    *fd = conn;
    return IO_OK;
}

bool
io_is_shortage(int err)
{
    return err == EMFILE || err == ENFILE || err == ENOBUFS || err == ENOMEM;
}

bool
io_is_of_connection(int err)
{
    switch (err) {
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPERM:
#ifdef ENONET
    case ENONET:
#endif
        return true;
    default:
        return false;
    }
}

void
io_set_nodelay(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* -- output that the kernel holds -------------------------------------------- */

#ifdef __linux__
/* Something between the socket and TCP (TLS in the kernel) may hold in another way. */
bool
io_holds(const struct io *io)
{
    char layer[16];
    socklen_t length = sizeof(layer);
    return !io_is_gone(io) && getsockopt(io->fd, IPPROTO_TCP, TCP_ULP, layer, &length) == 0
           && length == 0;
}

/* To end a cork pushes whether there was one or not; a user who has one wants the output held. */
void
io_push(const struct io *io)
{
    int corked = 0;
    socklen_t length = sizeof(corked);
    if (!io_is_gone(io) && getsockopt(io->fd, IPPROTO_TCP, TCP_CORK, &corked, &length) == 0
        && !corked) {
        (void)setsockopt(io->fd, IPPROTO_TCP, TCP_CORK, &corked, sizeof(corked));
    }
}
#else
bool
io_holds(const struct io *io UNUSED)
{
    return false;
}

void
io_push(const struct io *io UNUSED)
{
}
#endif
