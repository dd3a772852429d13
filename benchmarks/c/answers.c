/* answers.c - the other side of rows whose measured process is a client: plain C over libev.
 *
 *   answers sink     takes all bytes and says nothing
 *   answers greet    sends one byte to each new connection; also the limit of the accept rows
 *   answers http     answers each request, the end of whose head it sees, with 200 and a JSON body
 *
 * A connection ends when the other side ends it. Listens on a free port of 127.0.0.1 and prints
 * {"port": N}. */
#define _GNU_SOURCE
#include "listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum mode { SINK, GREET, HTTP };

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                             "Content-Length: 20\r\n\r\n{\"message\": \"hello\"}";

static enum mode mode;
static char buffer[256 * 1024];

static void
peer_close(struct ev_loop *loop, ev_io *peer)
{
    ev_io_stop(loop, peer);
    close(peer->fd);
    free(peer);
}

/* How many ends of a request's head are in the bytes. A head in pieces is not understood: none of
 * the clients sends its hundred bytes so. */
static int
requests_in(const char *data, size_t size)
{
    int count = 0;
    const char *at = data, *end;
    while ((end = memmem(at, size - (size_t)(at - data), "\r\n\r\n", 4)) != NULL) {
        count++;
        at = end + 4;
    }
    return count;
}

static void
peer_on_readable(struct ev_loop *loop, ev_io *peer, int revents)
{
    (void)revents;
    ssize_t got = recv(peer->fd, buffer, sizeof buffer, 0);
    if (got <= 0) {
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            peer_close(loop, peer);
        }
        return;
    }
    if (mode == HTTP) {
        for (int left = requests_in(buffer, (size_t)got); left > 0; left--) {
            if (send(peer->fd, answer, sizeof answer - 1, MSG_NOSIGNAL)
                != (ssize_t)sizeof answer - 1) {
                peer_close(loop, peer);
                return;
            }
        }
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
        ev_io *peer = malloc(sizeof *peer);
        if (peer == NULL) {
            close(fd);
            return;
        }
        ev_io_init(peer, peer_on_readable, fd, EV_READ);
        ev_io_start(loop, peer);
        if (mode == GREET && send(fd, "x", 1, MSG_NOSIGNAL) != 1) {
            peer_close(loop, peer);
        }
    }
}

int
main(int argc, char **argv)
{
    const char *wanted = argc == 2 ? argv[1] : "";
    if (strcmp(wanted, "sink") != 0 && strcmp(wanted, "greet") != 0
        && strcmp(wanted, "http") != 0) {
        fputs("usage: answers sink|greet|http\n", stderr);
        return 1;
    }
    mode = *wanted == 's' ? SINK : *wanted == 'g' ? GREET : HTTP;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    return serve("answers", SOCK_STREAM, listener_on_readable);
}
