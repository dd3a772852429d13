/* echo_tls.c - the limit of the TLS rows: an echo server of plain C over libev and OpenSSL.
 *
 *   echo_tls --certificate FILE --key FILE
 *
 * As a C program is written that wants to be fast: OpenSSL on the socket itself, which reads ahead
 * (one recv() for head and body of a record), one SSL_read() and SSL_write() after the other until
 * nothing is left in OpenSSL. Where the kernel takes no more, reading stops until it does. Listens
 * on a free port of 127.0.0.1 and prints {"port": N}. */
#define _GNU_SOURCE
#include "listen.h"

#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK (64 * 1024)

struct peer {
    ev_io reader;
    ev_io writer;
    SSL *ssl;
    char *pending;    /* bytes that were not taken yet, or NULL */
    int size;
    int accepted;
};

static char buffer[CHUNK];
static SSL_CTX *context;

static void
peer_close(struct ev_loop *loop, struct peer *peer)
{
    ev_io_stop(loop, &peer->reader);
    ev_io_stop(loop, &peer->writer);
    SSL_free(peer->ssl);
    close(peer->reader.fd);
    free(peer->pending);
    free(peer);
}

/* 1: sent, 0: the rest waits, -1: the connection is gone */
static int
peer_write(struct ev_loop *loop, struct peer *peer, const char *data, int size)
{
    while (size > 0) {
        int sent = SSL_write(peer->ssl, data, size);
        if (sent <= 0) {
            int error = SSL_get_error(peer->ssl, sent);
            if (error != SSL_ERROR_WANT_WRITE && error != SSL_ERROR_WANT_READ) {
                peer_close(loop, peer);
                return -1;
            }
            char *rest = malloc((size_t)size);
            if (rest == NULL) {
                peer_close(loop, peer);
                return -1;
            }
            memcpy(rest, data, (size_t)size);
            free(peer->pending);
            peer->pending = rest;
            peer->size = size;
            ev_io_stop(loop, &peer->reader);
            ev_io_start(loop, &peer->writer);
            return 0;
        }
        data += sent;
        size -= sent;
    }
    return 1;
}

static void
peer_read(struct ev_loop *loop, struct peer *peer)
{
    if (!peer->accepted) {
        int done = SSL_accept(peer->ssl);
        if (done <= 0) {
            int error = SSL_get_error(peer->ssl, done);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
                peer_close(loop, peer);
            }
            return;
        }
        peer->accepted = 1;
    }
    for (;;) {
        int got = SSL_read(peer->ssl, buffer, sizeof buffer);
        if (got <= 0) {
            if (SSL_get_error(peer->ssl, got) != SSL_ERROR_WANT_READ) {
                peer_close(loop, peer);
            }
            return;
        }
        if (peer_write(loop, peer, buffer, got) <= 0 || !SSL_has_pending(peer->ssl)) {
            return;
        }
    }
}

static void
peer_on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)revents;
    peer_read(loop, w->data);
}

static void
peer_on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct peer *peer = w->data;
    (void)revents;
    char *pending = peer->pending;
    peer->pending = NULL;
    ev_io_stop(loop, &peer->writer);
    int result = peer_write(loop, peer, pending, peer->size);
    free(pending);
    if (result > 0) {
        ev_io_start(loop, &peer->reader);
        peer_read(loop, peer);
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
        SSL *ssl = SSL_new(context);
        if (peer == NULL || ssl == NULL || !SSL_set_fd(ssl, fd)) {
            SSL_free(ssl);
            free(peer);
            close(fd);
            return;
        }
        peer->ssl = ssl;
        ev_io_init(&peer->reader, peer_on_readable, fd, EV_READ);
        ev_io_init(&peer->writer, peer_on_writable, fd, EV_WRITE);
        peer->reader.data = peer->writer.data = peer;
        ev_io_start(loop, &peer->reader);
    }
}

int
main(int argc, char **argv)
{
    const char *certificate = NULL, *key = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--certificate") == 0) {
            certificate = argv[i + 1];
        }
        else if (strcmp(argv[i], "--key") == 0) {
            key = argv[i + 1];
        }
    }
    signal(SIGPIPE, SIG_IGN);
    context = SSL_CTX_new(TLS_server_method());
    if (certificate == NULL || key == NULL || context == NULL
        || SSL_CTX_use_certificate_chain_file(context, certificate) <= 0
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) <= 0) {
        fputs("echo_tls: --certificate FILE --key FILE are needed\n", stderr);
        return 1;
    }
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE
                                  | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, CHUNK);
    return serve("echo_tls", SOCK_STREAM, listener_on_readable);
}
