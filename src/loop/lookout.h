/* lookout.h - what the threads that look at loops from outside share: watchdog.c, liveness.c. Their life, and
 * what they know of each loop.
 *
 * A struct lookout begins the struct of such a thread, which two hold: the object of Python's that has started
 * it, and the thread. The last one frees it. A child of fork() has no such thread: there it is left alone,
 * since a thread that is gone may hold any lock in it.
 *
 * Promises: needs no GIL and sets no exception; waits for nothing but what is said here. */
#ifndef ASYNCLOOP_LOOKOUT_H
#define ASYNCLOOP_LOOKOUT_H

#include "loop/activity.h"

#include <pthread.h>
#include <sys/types.h>

/* What is known of one loop; the list's items begin with this. */
struct seen_loop {
    uint64_t number;             /* see activity.h */
    uint64_t pulse;
    int64_t since_ns;            /* the pulse has been this one since; 0: not looked at yet */
    bool there;                  /* in this look */
};

struct seen_list {
    size_t item_bytes;
    char *items;
    size_t length;
    size_t capacity;
};

/* The item of that number; a new one is zero but for the number. NULL: there is no memory for one now. */
void *seen_find(struct seen_list *list, uint64_t number);
/* Item i goes; another one takes its place. */
void seen_remove(struct seen_list *list, size_t i);

static inline void *
seen_at(const struct seen_list *list, size_t i)
{
    return list->items + i * list->item_bytes;
}

struct lookout {
    pthread_mutex_t lock;        /* for these: */
    pthread_cond_t changed;      /* stopped, ended, or what the embedding struct says */
    unsigned int holders;
    bool stopped;
    bool ended;                  /* the thread touches nothing of the process any more, or was not started */
    pid_t pid;                   /* whose thread it is */

    /* set before the thread starts */
    struct activities *all;
    int64_t threshold_ns;
    int64_t tick_ns;             /* it looks so often */
    int signal;                  /* what asks a thread of Python's for its stack; 0: there is no way to it */
    void *handler;               /* of the signal: faulthandler's, as long as it is this one */
    int dump_fd;                 /* where that writes to; read by the thread, non-blocking */

    /* the thread's */
    int64_t looked_ns;           /* when it has last looked; 0: never */
    struct seen_list seen;
};

/* Of memory that is zero: its one holder is the caller's. A tick is a part of the threshold, and
 * `tick_min_ns` at least. */
void lookout_init(struct lookout *lookout, struct activities *all, double threshold, int64_t tick_min_ns,
                  size_t seen_bytes);
/* Starts the thread, which runs body(lookout) and ends it by lookout_end(). 0, or -1 with errno. */
int lookout_start(struct lookout *lookout, void *(*body)(void *lookout));
/* Until the next tick, or until it is stopped. With the lock. */
void lookout_wait_tick(struct lookout *lookout);
/* The thread's last act but lookout_leave(). With the lock, which is given up. */
void lookout_end(struct lookout *lookout);
/* Waits for that. Nothing in a child of fork(). */
void lookout_stop(struct lookout *lookout);
/* A holder goes. True: it was the last one, and frees the memory. */
bool lookout_leave(struct lookout *lookout);

/* May the signal be sent? Not any more, once somebody else has put a handler there, or none. */
bool lookout_may_signal(struct lookout *lookout);

/* What of the time since a thread has last looked (0: never) nobody could have gone on in: it looks every
 * tick, so where it comes much later the process was stopped, or the machine. 0: none. */
int64_t pause_between(int64_t looked_ns, int64_t now_ns, int64_t tick_ns, int64_t threshold_ns);

/* The address of what a signal runs; NULL: nothing does, the system's own way with it. */
void *signal_handler(int number);

/* As much as goes at once: a pipe that is full, or a terminal that is stopped, holds up nothing. -1 is no
 * descriptor. */
void write_at_once(int fd, const char *text, size_t length);

/* What has been written to a non-blocking descriptor, until for a while there is no more of it: at most
 * size - 1 bytes, and a zero. The length. */
size_t read_all_for_a_while(int fd, char *text, size_t size);

void sleep_ns(int64_t ns);

#endif
