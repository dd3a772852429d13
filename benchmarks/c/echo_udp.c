/* echo_udp.c - the limit of the datagram rows: a UDP echo server of plain C over libev.
 *
 * One thread, one recvfrom and one sendto per datagram. Binds a free port of 127.0.0.1
 * and prints {"port": N}. */
#define _GNU_SOURCE
#include "listen.h"

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
    return serve("echo_udp", SOCK_DGRAM, on_readable);
}
