/* probe.h - answers over HTTP for a thread that looks at loops from outside: liveness.c.
 *
 * Owns:     the listening socket, and the connections whose requests have not come yet.
 * Promises: who says nothing, or slowly, keeps nobody from an answer. Needs no GIL and no memory.
 * Ignores:  what is answered; all of a request but whether it is GET or HEAD. */
#ifndef ASYNCLOOP_PROBE_H
#define ASYNCLOOP_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROBE_CLIENTS 16

struct probe_client {
    int fd;                  /* -1: nobody */
    int64_t until_ns;        /* then it is answered, or closed if it has said nothing */
    size_t length;           /* of what has come */
    unsigned int matched;    /* bytes of an empty line, at its end */
    char method[8];          /* its beginning */
};

struct probe {
    int listen_fd;           /* non-blocking; -1: nobody asks */
    int64_t next_accept_ns;
    struct probe_client clients[PROBE_CLIENTS];
};

/* Writes one line without its end; is all well? */
typedef bool probe_answer(void *arg, char *line, size_t size);

void probe_init(struct probe *probe);
void probe_close(struct probe *probe);

/* Serves for so long, or until something has come. */
void probe_serve(struct probe *probe, int64_t wait_ns, probe_answer *answer, void *arg);

#endif
