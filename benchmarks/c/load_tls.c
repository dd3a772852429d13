/* load_tls.c - load generator of the TLS rows: as load.c's echo, over TLS.
 *
 *   load_tls --port N [--connections 50] [--size 1024] [--seconds 2] [--idle 1]
 *
 * Each connection has one message under way: it sends, waits for the whole echo, compares
 * it, and sends the next. Every connection sends other bytes. The server's certificate is
 * not checked. With --idle it only connects, prints {"connections": N} and waits for the end of
 * its standard input. Prints one line of JSON as load.c does, or {"error": "..."} with status 1.
 *
 * Fair: each connection has TURN_BYTES of answers per turn, then the others have theirs. Without
 * that a server that answers as quickly as this program reads keeps it at one connection, and the
 * times of all the others are those of the generator. */
#define _GNU_SOURCE
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN_BYTES (256 * 1024)    /* of one connection's answers, as in load.c */
#define AHEAD_BYTES (64 * 1024)    /* that one recv() brings, for several records */

struct connection {
    int fd;
    SSL *ssl;
    const char *message;
    size_t sent;
    size_t received;
    int wants_write;
    int waits;             /* in the queue of those with more to read than one turn takes */
    BIO *ahead;            /* what has arrived and OpenSSL has not asked for yet */
    uint64_t started_ns;
    struct connection *next;
};

static int epoll_fd;
static size_t message_size = 1024;
static char *pattern;
static char input[256 * 1024];

static void
watch(struct connection *conn, int wants_write)
{
    if (conn->wants_write == wants_write) {
        return;
    }
    struct epoll_event event = {
        .events = EPOLLIN | (wants_write ? EPOLLOUT : 0),
        .data.ptr = conn,
    };
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, conn->fd, &event);
    conn->wants_write = wants_write;
}

static void
send_message(struct connection *conn)
{
    while (conn->sent < message_size) {
        int n = SSL_write(conn->ssl, conn->message + conn->sent,
                          (int)(message_size - conn->sent));
        if (n <= 0) {
            int error = SSL_get_error(conn->ssl, n);
            if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ) {
                watch(conn, error == SSL_ERROR_WANT_WRITE);
                return;
            }
            die("writing failed: %d", error);
        }
        conn->sent += (size_t)n;
    }
    watch(conn, 0);
}

/* A turn's worth of answers. Is there more, of which epoll will not tell? */
static int
receive(struct connection *conn, int stopping)
{
    for (size_t turn = 0; turn < TURN_BYTES;) {
        int n = SSL_read(conn->ssl, input, sizeof input);
        if (n <= 0) {
            int error = SSL_get_error(conn->ssl, n);
            if (error == SSL_ERROR_WANT_READ) {
                return 0;
            }
            die("reading failed: %d", error);
        }
        if (conn->received + (size_t)n > conn->sent
            || memcmp(input, conn->message + conn->received, (size_t)n) != 0) {
            die("wrong bytes came back");
        }
        conn->received += (size_t)n;
        turn += (size_t)n;
        if (conn->received < message_size) {
            continue;
        }
        uint64_t now = now_ns();
        request_done(now - conn->started_ns);
        if (stopping) {
            return 0;
        }
        conn->sent = conn->received = 0;
        conn->started_ns = now;
        send_message(conn);
        break;
    }
    return SSL_pending(conn->ssl) > 0 || BIO_pending(conn->ahead) > 0;
}

static void
connect_one(struct connection *conn, SSL_CTX *context, int port, size_t offset)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (conn->fd < 0 || connect(conn->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        die("connect: %s", strerror(errno));
    }
    conn->ssl = SSL_new(context);
    if (conn->ssl == NULL || !SSL_set_fd(conn->ssl, conn->fd) || SSL_connect(conn->ssl) != 1) {
        die("the handshake failed");
    }
    fcntl(conn->fd, F_SETFL, O_NONBLOCK);
    /* A buffer before the socket, for reading only: OpenSSL itself would make two calls of the
     * kernel for each record. */
    conn->ahead = BIO_new(BIO_f_buffer());
    if (conn->ahead == NULL || BIO_set_read_buffer_size(conn->ahead, AHEAD_BYTES) <= 0) {
        die("no memory");
    }
    BIO_up_ref(SSL_get_rbio(conn->ssl));
    BIO_push(conn->ahead, SSL_get_rbio(conn->ssl));
    SSL_set0_rbio(conn->ssl, conn->ahead);
    conn->message = pattern + offset;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event);
}

int
main(int argc, char **argv)
{
    int port = 0, connections = 50;
    int idle = 0;
    double seconds = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--port") == 0) {
            port = atoi(value);
        }
        else if (strcmp(argv[i], "--connections") == 0) {
            connections = atoi(value);
        }
        else if (strcmp(argv[i], "--size") == 0) {
            message_size = (size_t)atol(value);
        }
        else if (strcmp(argv[i], "--seconds") == 0) {
            seconds = atof(value);
        }
        else if (strcmp(argv[i], "--idle") == 0) {
            idle = atoi(value);
        }
    }
    if (port <= 0 || connections <= 0 || connections > 10000 || message_size == 0) {
        die("usage: load_tls --port N [--connections N] [--size N] [--seconds N]");
    }
    signal(SIGPIPE, SIG_IGN);
    pattern = random_bytes(message_size + (size_t)connections);
    struct connection *all = calloc((size_t)connections, sizeof *all);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (all == NULL || context == NULL || epoll_fd < 0) {
        die("no memory");
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE
                                  | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    for (int i = 0; i < connections; i++) {
        connect_one(&all[i], context, port, (size_t)i);
    }
    if (idle) {
        printf("{\"connections\": %d}\n", connections);
        fflush(stdout);
        while (read(STDIN_FILENO, input, sizeof input) > 0) {
        }
        return 0;
    }
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) {
        all[i].started_ns = now_ns();
        send_message(&all[i]);
    }
    struct connection *first = NULL, **last = &first;
    int left = connections;
    while (left > 0) {
        struct epoll_event events[1024];
        struct connection *turn = first;
        int count = epoll_wait(epoll_fd, events, 1024, first == NULL ? STALL_MS : 0);
        if (count == 0 && first == NULL) {
            die("no answer for %d ms", STALL_MS);
        }
        first = NULL;
        last = &first;
        for (int i = 0; i < count; i++) {
            struct connection *conn = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                send_message(conn);
            }
            if (!conn->waits) {
                conn->next = turn;
                turn = conn;
            }
        }
        while (turn != NULL) {
            struct connection *conn = turn;
            int stopping = now_ns() >= end;
            turn = conn->next;
            conn->waits = receive(conn, stopping);
            if (conn->waits) {
                conn->next = NULL;
                *last = conn;
                last = &conn->next;
            }
            if (stopping && conn->received == message_size && conn->sent == message_size) {
                epoll_ctl(epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
                left--;
            }
        }
    }
    print_result(now_ns() - start);
    return 0;
}
