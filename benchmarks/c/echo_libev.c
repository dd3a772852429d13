/* echo_libev.c - the limit of the echo rows: an echo server of plain C over libev.
 *
 * One thread, one read and one write per message when the kernel takes it whole; what it
 * does not take is copied and sent when the socket is writable again, with reading stopped
 * until then. Listens on a free port of 127.0.0.1 and prints {"port": N}. */
#define _GNU_SOURCE
#include "listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct peer {
    ev_io reader;
    ev_io writer;
    char *pending;   /* bytes the kernel did not take yet, or NULL */
    size_t size;
    size_t sent;
};

static char buffer[256 * 1024];

static void
peer_close(struct ev_loop *loop, struct peer *peer)
{
    ev_io_stop(loop, &peer->reader);
    ev_io_stop(loop, &peer->writer);
    close(peer->reader.fd);
    free(peer->pending);
    free(peer);
}

static void
peer_on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct peer *peer = w->data;
    (void)revents;
    ssize_t n = send(w->fd, peer->pending + peer->sent, peer->size - peer->sent,
                     MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            peer_close(loop, peer);
        }
        return;
    }
    peer->sent += (size_t)n;
    if (peer->sent == peer->size) {
        free(peer->pending);
        peer->pending = NULL;
        ev_io_stop(loop, &peer->writer);
        ev_io_start(loop, &peer->reader);
    }
}

static void
peer_on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct peer *peer = w->data;
    (void)revents;
    ssize_t got = recv(w->fd, buffer, sizeof buffer, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            peer_close(loop, peer);
        }
        return;
    }
    ssize_t sent = send(w->fd, buffer, (size_t)got, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            peer_close(loop, peer);
            return;
        }
        sent = 0;
    }
    if (sent < got) {
        peer->size = (size_t)(got - sent);
        peer->sent = 0;
        peer->pending = malloc(peer->size);
        if (peer->pending == NULL) {
            peer_close(loop, peer);
            return;
        }
        memcpy(peer->pending, buffer + sent, peer->size);
        ev_io_stop(loop, &peer->reader);
        ev_io_start(loop, &peer->writer);
    }
}

static void
listener_on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)revents;
    for (;;) {
        int fd = accept_next(w);
        if (fd < 0) {
            return;
        }
        struct peer *peer = calloc(1, sizeof *peer);
        if (peer == NULL) {
            close(fd);
            return;
        }
        ev_io_init(&peer->reader, peer_on_readable, fd, EV_READ);
        ev_io_init(&peer->writer, peer_on_writable, fd, EV_WRITE);
        peer->reader.data = peer->writer.data = peer;
        ev_io_start(loop, &peer->reader);
    }
}

int
main(void)
{
    return serve("echo_libev", SOCK_STREAM, listener_on_readable);
}
