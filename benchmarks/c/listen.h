/* listen.h - what the servers written in C over libev share: a socket on a free port of 127.0.0.1
 * that is announced as {"port": N}, the loop, and how a connection is accepted. */
#ifndef BENCHMARKS_LISTEN_H
#define BENCHMARKS_LISTEN_H

#include <arpa/inet.h>
#include <ev.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

typedef void (*on_readable_fn)(struct ev_loop *loop, ev_io *w, int revents);

/* Serve for ever: `on_readable` hears of new connections or datagrams, after `type`. Returns the
 * status to exit with, and complains as `name`. */
static inline int
serve(const char *name, int type, on_readable_fn on_readable)
{
    int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0
        || (type == SOCK_STREAM && listen(fd, 1024) < 0)
        || getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        perror(name);
        return 1;
    }
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (loop == NULL) {
        fprintf(stderr, "%s: no event loop\n", name);
        return 1;
    }
    ev_io listener;
    ev_io_init(&listener, on_readable, fd, EV_READ);
    ev_io_start(loop, &listener);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    ev_run(loop, 0);
    return 0;
}

/* The descriptor of the next connection that waits, or -1. */
static inline int
accept_next(ev_io *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return fd;
}

#endif
