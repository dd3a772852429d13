/* reserve.h - memory for libev, which ends the process when it gets none.
 *
 * libev's tables grow in the middle of a poll, where nobody could be told. So each loop keeps a
 * block for every table, large enough for as many watchers as it has: what the system refuses is
 * taken from there. The blocks are got before a watcher is started; if they cannot be had, that
 * fails with MemoryError and nothing has changed. They are not touched, so they are address space
 * rather than memory.
 *
 * Owns:     the blocks. One that libev was given is libev's: all are plain malloc() memory, as its
 *           own, and any free() will do.
 * Threads:  the reserve of a call into libev is the thread's. The loop that a thread runs knows where that is, since
 *           a thread's own variables are dear to find from a shared library (guarded path: protocol).
 * Shared:   where libev is the system's library its allocator is one per process. Ours does what
 *           libev's own does for everybody else's loops. It must not meet memory of a third one: no
 *           other module of the process may call ev_set_allocator(). */
#ifndef ASYNCLOOP_RESERVE_H
#define ASYNCLOOP_RESERVE_H

#include "base/compat.h"

/* libev 4.33 and the kinds of watcher that we use: the loop itself, or what has changed, what is
 * pending, what is to be fed in reverse, timers; epoll's events and refused files, or kqueue's events
 * and changes. The table by descriptor grows in ev_io_start() alone and is made room for apart. */
#define RESERVE_BLOCKS 8

struct reserve {
    void *blocks[RESERVE_BLOCKS];    /* NULL: libev has it */
    void *table;                     /* while ev_io_start() is called: for the table by descriptor */
    size_t size;                     /* of each block */
    size_t covered;                  /* so many watchers they are for */
    size_t watchers;                 /* started */
    size_t numbers;                  /* the table by descriptor has room for those below this */
};

/* What libev does for a thread just now. */
struct libev_call {
    struct reserve *reserve;         /* whose memory it may take; NULL: no loop of ours */
    int error;                       /* what it would end the process for: poll.c */
};

struct libev_call *libev_call(void);    /* of this thread */

void reserve_install(void);    /* makes the allocator libev's, once per process */

/* Before the first watcher. 0, or -1 with MemoryError. */
int reserve_open(struct reserve *reserve);
void reserve_close(struct reserve *reserve);

/* For the next one: 0, or -1 with MemoryError. */
int reserve_grow(struct reserve *reserve);
int reserve_make_table(struct reserve *reserve, int fd);

/* Before one more watcher, of fd. 0, or -1 with MemoryError. */
static inline int
reserve_for_one_more(struct reserve *reserve, int fd)
{
    if (UNLIKELY(reserve->watchers >= reserve->covered) && reserve_grow(reserve) < 0) {
        return -1;
    }
    if (UNLIKELY((size_t)fd >= reserve->numbers) && reserve_make_table(reserve, fd) < 0) {
        return -1;
    }
    reserve->watchers++;
    return 0;
}

/* Around each call of libev that may want memory; the value is to be given back. `call` is the
 * thread's. */
static inline struct reserve *
reserve_enter(struct libev_call *call, struct reserve *reserve)
{
    struct reserve *outer = call->reserve;
    call->reserve = reserve;
    return outer;
}

void reserve_drop_table(struct reserve *reserve);

static inline void
reserve_leave(struct libev_call *call, struct reserve *reserve, struct reserve *outer)
{
    if (UNLIKELY(reserve->table != NULL)) {
        reserve_drop_table(reserve);
    }
    call->reserve = outer;
}

/* For tests: what the system and the reserve are refused from now on. */
void reserve_set_failing(bool system, bool blocks);

#endif
