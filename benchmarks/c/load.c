/* load.c - load generator of the benchmarks: echo, HTTP/1.1 keep-alive, WebSocket echo, connections.
 *
 *   load --port N [--connections 50] [--size 1024] [--seconds 2] [--udp 1]
 *        [--http PATH | --websocket PATH | --connect 1]
 *
 * Each connection has one request under way: it sends, waits for the whole answer, checks
 * it, and sends the next. Every echoed byte is compared, and every connection sends other
 * bytes, so bytes that reach the wrong connection are found. HTTP answers must have status
 * 200 and a Content-Length. A WebSocket message is one binary frame. With --connect a request is a
 * whole connection: connect, wait for the first byte, close. Loopback only.
 *
 * Prints one line of JSON: requests, seconds, rate (per second), p50_us, p99_us and max_us
 * (time from sending a request to its whole answer), cpu_us (the generator's own CPU time
 * per request). On a wrong answer or a lost connection: {"error": "..."}, exit status 1. */
#define _GNU_SOURCE
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 8192      /* longest HTTP response head that is understood */

struct connection {
    int fd;
    const char *request;   /* borrowed from `pattern` or `http_request`; a frame is owned */
    const char *answer;    /* echo: the bytes that have to come back */
    size_t sent;           /* bytes of the request that are sent */
    size_t received;       /* bytes of the answer that are here */
    size_t expected;       /* bytes of the whole answer; 0: not known yet */
    size_t head_length;    /* HTTP: bytes kept in `head` */
    int wants_write;       /* EPOLLOUT is set */
    uint64_t started_ns;
    char *head;            /* HTTP: the response head while it is incomplete */
};

static int epoll_fd;
static int is_http;
static int is_udp;
static int is_connect;
static const char *websocket_path;
static int server_port;
static size_t request_size;
static size_t answer_size;   /* echo */
static char *pattern;
static char http_request[1024];
static char input[256 * 1024];

static void
connection_watch(struct connection *c, int op, int wants_write)
{
    struct epoll_event event = {
        .events = EPOLLIN | (wants_write ? EPOLLOUT : 0),
        .data.ptr = c,
    };
    if (epoll_ctl(epoll_fd, op, c->fd, &event) < 0) {
        die("epoll_ctl: %s", strerror(errno));
    }
    c->wants_write = wants_write;
}

static void
connection_send(struct connection *c)
{
    ssize_t n = send(c->fd, c->request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) {
            die("send: %s", strerror(errno));
        }
        n = 0;
    }
    c->sent += (size_t)n;
    int left = c->sent < request_size;
    if (left != c->wants_write) {
        connection_watch(c, EPOLL_CTL_MOD, left);
    }
}

static struct sockaddr_in
server_address(void)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)server_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

/* --connect: closing takes the old descriptor out of epoll by itself. */
static void
connection_renew(struct connection *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = server_address();
    if (c->fd < 0
        || (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0
            && errno != EINPROGRESS)) {
        die("connect: %s", strerror(errno));
    }
    connection_watch(c, EPOLL_CTL_ADD, 0);
}

static void
connection_begin(struct connection *c)
{
    c->sent = c->received = c->head_length = 0;
    c->expected = is_http ? 0 : answer_size;
    c->started_ns = now_ns();
    if (is_connect) {
        connection_renew(c);
        return;
    }
    connection_send(c);
}

/* Find the length of an HTTP answer from its first `n` bytes: 0 if the head is not whole. */
static size_t
http_length(const char *head, size_t n)
{
    const char *end = memmem(head, n, "\r\n\r\n", 4);
    if (end == NULL) {
        return 0;
    }
    size_t head_size = (size_t)(end - head) + 4;
    if (n < 12 || memcmp(head, "HTTP/1.1 200", 12) != 0) {
        die("answer is not HTTP/1.1 200 but %.12s", head);
    }
    static const char name[] = "\r\ncontent-length:";
    for (const char *at = head; at + sizeof name - 1 < end; at++) {
        if (*at == '\r' && strncasecmp(at, name, sizeof name - 1) == 0) {
            return head_size + strtoul(at + sizeof name - 1, NULL, 10);
        }
    }
    die("answer without Content-Length");
}

/* Take `n` new bytes of the answer to `c`. */
static void
connection_feed(struct connection *c, const char *data, size_t n)
{
    if (!is_http) {
        if (c->received + n > answer_size) {
            die("more bytes came back than were sent");
        }
        if (memcmp(data, c->answer + c->received, n) != 0) {
            die("wrong bytes came back");
        }
    }
    else if (c->expected == 0) {
        if (c->head_length + n <= HEAD_MAX) {
            memcpy(c->head + c->head_length, data, n);
            c->head_length += n;
        }
        else {
            size_t room = HEAD_MAX - c->head_length;
            memcpy(c->head + c->head_length, data, room);
            c->head_length = HEAD_MAX;
        }
        c->expected = http_length(c->head, c->head_length);
        if (c->expected == 0 && c->head_length == HEAD_MAX) {
            die("answer with a head longer than %d bytes", HEAD_MAX);
        }
    }
    c->received += n;
    if (c->expected != 0 && c->received > c->expected) {
        die("answer is longer than it says");
    }
}

static void
connection_on_readable(struct connection *c)
{
    ssize_t n = recv(c->fd, input, sizeof input, 0);
    if (n == 0) {
        die("server closed a connection");
    }
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) {
            return;
        }
        die("recv: %s", strerror(errno));
    }
    connection_feed(c, input, (size_t)n);
    if (c->expected != 0 && c->received == c->expected) {
        request_done(now_ns() - c->started_ns);
        connection_begin(c);
    }
}

/* Ask for the change to WebSocket and read the answer, and make the frames: those of a client are
 * masked, by zeros here, so that the bytes stay what they are. */
static void
connection_upgrade(struct connection *c)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n",
                     websocket_path);
    if (n < 0 || (size_t)n >= sizeof text || send(c->fd, text, (size_t)n, 0) != n) {
        die("cannot ask for WebSocket");
    }
    size_t got = 0;
    while (memmem(text, got, "\r\n\r\n", 4) == NULL) {
        ssize_t more = got < sizeof text ? recv(c->fd, text + got, sizeof text - got, 0) : 0;
        if (more <= 0) {
            die("no whole answer to the WebSocket handshake");
        }
        got += (size_t)more;
    }
    if (memcmp(text, "HTTP/1.1 101", 12) != 0) {
        die("answer is not HTTP/1.1 101 but %.12s", text);
    }
    size_t size = request_size - 8;
    char *request = malloc(request_size), *expected = malloc(answer_size);
    if (request == NULL || expected == NULL) {
        die("out of memory");
    }
    const unsigned char length[] = {(unsigned char)(size >> 8), (unsigned char)size};
    memcpy(request, "\x82\xfe", 2);
    memcpy(request + 2, length, 2);
    memset(request + 4, 0, 4);
    memcpy(request + 8, c->answer, size);
    memcpy(expected, "\x82\x7e", 2);
    memcpy(expected + 2, length, 2);
    memcpy(expected + 4, c->answer, size);
    c->request = request;
    c->answer = expected;
}

static void
connection_open(struct connection *c)
{
    /* Connecting blocks: the kernel completes it as soon as there is room in the backlog. */
    struct sockaddr_in address = server_address();
    c->fd = socket(AF_INET, (is_udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        die("connect: %s", strerror(errno));
    }
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->head = is_http ? malloc(HEAD_MAX) : NULL;
    if (is_http && c->head == NULL) {
        die("out of memory");
    }
    if (websocket_path != NULL) {
        connection_upgrade(c);
    }
}

int
main(int argc, char **argv)
{
    int count = 50;
    double seconds = 2.0;
    request_size = 1024;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (strcmp(name, "--port") == 0) {
            server_port = atoi(value);
        }
        else if (strcmp(name, "--connections") == 0) {
            count = atoi(value);
        }
        else if (strcmp(name, "--size") == 0) {
            request_size = (size_t)atol(value);
        }
        else if (strcmp(name, "--seconds") == 0) {
            seconds = atof(value);
        }
        else if (strcmp(name, "--udp") == 0) {
            is_udp = atoi(value);
        }
        else if (strcmp(name, "--connect") == 0) {
            is_connect = atoi(value);
        }
        else if (strcmp(name, "--websocket") == 0) {
            websocket_path = value;
        }
        else if (strcmp(name, "--http") == 0) {
            is_http = 1;
            int n = snprintf(http_request, sizeof http_request,
                             "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", value);
            if (n < 0 || (size_t)n >= sizeof http_request) {
                die("path is too long");
            }
        }
        else {
            die("unknown option %s", name);
        }
    }
    if (server_port <= 0 || count <= 0 || request_size == 0) {
        die("usage: load --port N [--connections N] [--size N] [--seconds S] [--udp 1] "
            "[--http PATH | --websocket PATH | --connect 1]");
    }

    /* Each connection sends another window of bytes that never repeat within its length. */
    pattern = random_bytes(request_size + 256);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    answer_size = is_connect ? 1 : request_size;
    if (is_http) {
        request_size = strlen(http_request);
    }
    else if (websocket_path != NULL) {
        if (request_size < 126 || request_size > 65535) {
            die("WebSocket messages have 126 to 65535 bytes");
        }
        answer_size = request_size + 4;   /* with the server's frame head, and the client's: */
        request_size += 8;
    }

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    struct epoll_event *events = calloc((size_t)count, sizeof *events);
    if (epoll_fd < 0 || connections == NULL || events == NULL) {
        die("cannot set up: %s", strerror(errno));
    }
    for (int i = 0; i < count; i++) {
        struct connection *c = &connections[i];
        c->request = is_http ? http_request : pattern + (i & 255);
        c->answer = is_connect ? "x" : pattern + (i & 255);
        c->fd = -1;
        if (is_connect) {
            continue;
        }
        connection_open(c);
        if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) {
            die("fcntl: %s", strerror(errno));
        }
        connection_watch(c, EPOLL_CTL_ADD, 0);
    }

    uint64_t start = now_ns();
    uint64_t stop = start + (uint64_t)(seconds * 1e9);
    uint64_t now = start;
    for (int i = 0; i < count; i++) {
        connection_begin(&connections[i]);
    }
    while (now < stop) {
        int n = epoll_wait(epoll_fd, events, count, STALL_MS);
        if (n < 0 && errno != EINTR) {
            die("epoll_wait: %s", strerror(errno));
        }
        if (n == 0) {
            die("no answer within %d s", STALL_MS / 1000);
        }
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                connection_send(c);
            }
            if (events[i].events & ~(uint32_t)EPOLLOUT) {
                connection_on_readable(c);
            }
        }
        now = now_ns();
    }
    print_result(now - start);
    return 0;
}
