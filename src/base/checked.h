/* checked.h - what a build with ASYNCLOOP_DEBUG=1 checks, and no other.
 *
 * Each structure has a function xxx_verify() in the file that owns it. verify.c calls all of them after
 * every turn of a loop; the first thing that is not as the structure's header promises ends the process, with the
 * condition and where it stands. Without the macro nothing of it is compiled.
 *
 * Of a structure that is large a part is looked at in each turn, the next one in the next turn, so
 * that a turn takes about as long as before. */
#ifndef ASYNCLOOP_CHECKED_H
#define ASYNCLOOP_CHECKED_H

#include "base/compat.h"

#ifdef ASYNCLOOP_DEBUG

struct state;

#define VERIFY(condition) \
    (LIKELY(condition) ? (void)0 : verify_failed(#condition, __func__, __FILE__, __LINE__))

_Noreturn void verify_failed(const char *condition, const char *function, const char *file, int line);

#define VERIFY_MOST 64            /* things of one structure, in a turn */
#define VERIFY_WHOLE_TURNS 256    /* so often a list is looked at as a whole, which has no middle to begin in */

/* Of `length` things: those from `from` on, up to `to`. */
struct verify_part {
    size_t from;
    size_t to;
};

static inline struct verify_part
verify_part(size_t length, uint64_t turn)
{
    struct verify_part part = {0, length};
    if (length > VERIFY_MOST) {
        part.from = (size_t)(turn * VERIFY_MOST % length);
        part.to = length - part.from < VERIFY_MOST ? length : part.from + VERIFY_MOST;
    }
    return part;
}

/* So many nodes of a list, from its head on. */
static inline size_t
verify_most(uint64_t turn)
{
    return turn % VERIFY_WHOLE_TURNS == 0 ? SIZE_MAX : VERIFY_MOST;
}

/* An object that lives, as far as that shows. */
static inline bool
verify_lives(const void *op)
{
    return op != NULL && ((uintptr_t)op & (sizeof(void *) - 1)) == 0 && Py_REFCNT((PyObject *)op) > 0
           && Py_TYPE((PyObject *)op) != NULL;
}

/* The links of a list node. */
static inline bool
verify_node(const struct list_node *node)
{
    return node->next != NULL && node->prev != NULL && node->next->prev == node && node->prev->next == node;
}

/* Around a call of what returns 0 or -1 (or 1), and an exception exactly with -1. */
int verify_status(int result, const char *call, const char *file, int line);
#define CHECKED_STATUS(call) verify_status((call), #call, __FILE__, __LINE__)

/* False: no structure is looked at after a turn (ASYNCLOOP_VERIFY=0 in the environment), for programs that
 * do to objects what nothing promises to survive as more than a process: a second __init__(), say. */
extern bool verifies_turns;

/* Ways that only save time, and that asyncio does otherwise: ASYNCLOOP_LONG_WAYS=all in the environment, or
 * some of the names with commas between, switches them off in this build. */
#define SHORT_WAYS(X)                                                                            \
    X(push)         /* tasks and futures into the ring, without call_soon() */                   \
    X(watch)        /* transports to libev, without _add_reader() and its kin */                 \
    X(sockets)      /* system calls, without the methods of sockets and of os */                 \
    X(writes)       /* StreamWriter and TLS to the transport, without its write() */             \
    X(streams)      /* StreamReader and StreamWriter in C */                                     \
    X(packets)      /* bytes objects kept for the next packet, or made before it comes */        \
    X(hold)         /* output that the kernel holds until more comes */                          \
    X(datagrams)    /* several in an event */                                                    \
    X(names)        /* looked up by threads outside of Python */                                 \
    X(brief)        /* sections of the loop's thread without a lock; nothing with a GIL */       \
    X(tls)          /* libssl called from C */

/* clang-format off */
enum short_way {
#define X(name) SHORT_WAY_##name,
    SHORT_WAYS(X)
#undef X
};
/* clang-format on */

/* The same for all interpreters, as the environment is: bits, from the first import on. */
extern unsigned int long_ways;
int checked_init(PyObject *module, struct state *state);
#define SHORT_WAY(name) ((long_ways & (1u << SHORT_WAY_##name)) == 0)

#else

#define SHORT_WAY(name) true
#define VERIFY(condition) ((void)0)
#define CHECKED_STATUS(call) (call)

#endif

#endif
