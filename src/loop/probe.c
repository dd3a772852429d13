/* probe.c - see probe.h. */
#include "loop/probe.h"

#include "base/base.h"
#include "base/monotonic.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_NS INT64_C(1000000000)    /* for the head of a request to come */
#define REQUEST_MAX 2048                  /* its bytes */
#define BODY_MAX 712
#define RESTS 16                          /* reads of what follows a request */
#define ACCEPTS 64                        /* in a row, before anything else is looked at */
#define REST_NS INT64_C(500000000)        /* where the system gives no descriptor, before it is asked again */

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static void
close_if_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void
probe_init(struct probe *probe)
{
    probe->listen_fd = -1;
    for (size_t i = 0; i < PROBE_CLIENTS; i++) {
        probe->clients[i].fd = -1;
    }
}

void
probe_close(struct probe *probe)
{
    close_if_open(&probe->listen_fd);
    for (size_t i = 0; i < PROBE_CLIENTS; i++) {
        close_if_open(&probe->clients[i].fd);
    }
}

/* What has come. True: there is no more to wait for. */
static bool
client_read(struct probe_client *client)
{
    static const char end[] = "\r\n\r\n";
    char bytes[512];
    ssize_t got;
    while ((got = recv(client->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
        for (ssize_t i = 0; i < got && client->matched < strlen(end); i++) {
            if (client->length < sizeof(client->method)) {
                client->method[client->length] = bytes[i];
            }
            client->length++;
            client->matched = bytes[i] == end[client->matched] ? client->matched + 1
                              : bytes[i] == '\r'               ? 1
                                                               : 0;
        }
        if (client->matched == strlen(end) || client->length >= REQUEST_MAX) {
            return true;
        }
    }
    return got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

static void
client_answer(const struct probe_client *client, probe_answer *answer, void *arg)
{
    char body[BODY_MAX] = "GET or HEAD", text[BODY_MAX + 400], rest[REQUEST_MAX];
    bool head = strncmp(client->method, "HEAD ", 5) == 0;
    const char *status = "405 Method Not Allowed";
    if (head || strncmp(client->method, "GET ", 4) == 0) {
        status = answer(arg, body, sizeof(body) - 1) ? "200 OK" : "503 Service Unavailable";
    }
    strcat(body, "\n");
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
                     "Content-Length: %zu\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n%s",
                     status, strlen(body), head ? "" : body);
    (void)!send(client->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    /* What is not read would make the kernel reset the connection, with the answer in it. */
    shutdown(client->fd, SHUT_WR);
    for (int i = 0; i < RESTS && recv(client->fd, rest, sizeof(rest), MSG_DONTWAIT) > 0; i++) {
    }
}

/* Reads, and answers if it is time. True: it is closed. */
static bool
client_serve(struct probe_client *client, int64_t now, probe_answer *answer, void *arg)
{
    if (!client_read(client) && now < client->until_ns) {
        return false;
    }
    if (client->length > 0) {
        client_answer(client, answer, arg);
    }
    close_if_open(&client->fd);
    return true;
}

/* Where there is no room for it, who has waited for longest goes. */
static struct probe_client *
probe_room(struct probe *probe)
{
    struct probe_client *room = probe->clients;
    for (struct probe_client *each = room; each < probe->clients + PROBE_CLIENTS; each++) {
        if (room->fd >= 0 && (each->fd < 0 || each->until_ns < room->until_ns)) {
            room = each;
        }
    }
    close_if_open(&room->fd);
    return room;
}

static void
probe_accept_all(struct probe *probe, int64_t now, probe_answer *answer, void *arg)
{
    for (int i = 0; i < ACCEPTS; i++) {
        struct probe_client client = {
            .fd = accept(probe->listen_fd, NULL, NULL),
            .until_ns = now + REQUEST_NS,
        };
        if (client.fd < 0) {
            bool none = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR
                        || errno == ECONNABORTED;
            probe->next_accept_ns = none ? 0 : now + REST_NS;
            return;
        }
        fcntl(client.fd, F_SETFD, FD_CLOEXEC);
#ifdef SO_NOSIGPIPE
        int on = 1;
        setsockopt(client.fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
        if (!client_serve(&client, now, answer, arg)) {
            *probe_room(probe) = client;
        }
    }
}

void
probe_serve(struct probe *probe, int64_t wait_ns, probe_answer *answer, void *arg)
{
    bool accepts = monotonic_ns() >= probe->next_accept_ns;
    struct pollfd looks[PROBE_CLIENTS + 1] = {{.fd = accepts ? probe->listen_fd : -1, .events = POLLIN}};
    for (size_t i = 0; i < PROBE_CLIENTS; i++) {
        looks[i + 1] = (struct pollfd){.fd = probe->clients[i].fd, .events = POLLIN};
    }
    poll(looks, ARRAY_LEN(looks), (int)(wait_ns / 1000000));
    int64_t now = monotonic_ns();
    for (size_t i = 0; i < PROBE_CLIENTS; i++) {
        if (probe->clients[i].fd >= 0) {
            client_serve(&probe->clients[i], now, answer, arg);
        }
    }
    if (looks[0].revents != 0) {
        probe_accept_all(probe, now, answer, arg);
    }
}
