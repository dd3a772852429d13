/* echo_udp.c - the limit of the datagram rows: a UDP echo server of plain C over libev.
 *
 * One thread, one recvfrom and one sendto per datagram. Binds a free port of 127.0.0.1
 * and prints {"port": N}. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ev.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

static char buffer[64 * 1024];

static void
on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)revents;
    for (;;) {
        struct sockaddr_in peer;
        socklen_t length = sizeof peer;
        ssize_t n = recvfrom(w->fd, buffer, sizeof buffer, MSG_DONTWAIT,
                             (struct sockaddr *)&peer, &length);
        if (n < 0) {
            return;
        }
        sendto(w->fd, buffer, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&peer, length);
    }
}

int
main(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0
        || getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        perror("echo_udp");
        return 1;
    }
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (loop == NULL) {
        fputs("echo_udp: no event loop\n", stderr);
        return 1;
    }
    ev_io reader;
    ev_io_init(&reader, on_readable, fd, EV_READ);
    ev_io_start(loop, &reader);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    ev_run(loop, 0);
    return 0;
}
