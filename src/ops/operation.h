/* operation.h - Operation: a coroutine in C, for loop.sock_recv() and its kin, and for the
 * methods of stream_api.h.
 *
 * Nothing happens before it is awaited. Its kind's attempt() is then called, and again each
 * time that what it asked for is there: a ready descriptor, or the result of an awaitable.
 * An attempt that succeeds at once costs no future and no trip through the loop.
 *
 * Owns:     what it works on, while it is not done; one watch and one future while it waits.
 * Promises: cancel() of the awaiting Task stops the watch in the same instant. What was not
 *           returned was not taken either: bytes, connections and datagrams stay in the
 *           kernel until the step that hands them over.
 * Python:   passes for a collections.abc.Coroutine. Never awaited, it warns where its kind is of a method
 *           that does so on asyncio. */
#ifndef ASYNCLOOP_OPERATION_H
#define ASYNCLOOP_OPERATION_H

#include "loop/watch.h"
#include "ops/ops_loop.h"
#include "ops/ops_state.h"

#define OPERATION_MAX_ARGS 6

typedef struct Operation Operation;

enum attempt {
    ATTEMPT_FAILED = -1,    /* with an exception */
    ATTEMPT_DONE,           /* *result: new reference */
    ATTEMPT_WAIT_READ,      /* again when op->fd is readable */
    ATTEMPT_WAIT_WRITE,
    ATTEMPT_WAIT_RETRY,     /* again after a short while */
    ATTEMPT_WAIT_FUTURE,    /* op->future is set: again when somebody has given it a result */
    ATTEMPT_AWAIT,          /* op->inner is set: again when it is done, with op->value */
};

/* Between attempts where the kernel cannot tell when there is room in a queue: the first
 * wait, and how often it doubles at most. */
#define OPERATION_RETRY_SECONDS 0.005
#define OPERATION_RETRY_DOUBLINGS 4

struct operation_kind {
    const char *name;       /* of the method */
    enum attempt (*attempt)(Operation *op, PyObject **result);
    bool beside_transport;  /* may wait for a descriptor that a transport uses */
    bool warns;             /* when it was never awaited, as other coroutines do */
    bool counts;            /* op->count: so long a buffer of the reader is waited for */
    const char *owner;      /* the class that has the method; NULL: Loop */
    void (*leave)(Operation *op);    /* the waiting is over, or given up; op->future is still set */
};

struct Operation {
    PyObject_HEAD
    struct state *state;                    /* borrowed: the type keeps the module alive */
    const struct operation_kind *kind;
    Loop *loop;                             /* strong; NULL when done */
    PyObject *sock;                         /* or NULL */
    PyObject *args[OPERATION_MAX_ARGS];     /* new references; NULL where not given */
    union {                                 /* the kind's own */
        Py_ssize_t count;                   /* bytes wanted, or sent */
        struct look_up *look_up;            /* look_up.c: under way, or NULL */
    };
    PyObject *inner;                        /* iterator that the awaiting Task drives for us */
    PyObject *value;                        /* what it returned, or NULL */
    Future *future;                         /* while waiting: done when ready */
    TimerHandle *timer;                     /* while waiting to retry */
    struct watch watch;
    PyObject *handle;                       /* what a program's _add_reader() gave for the watch, or NULL */
    struct list_node waiting;               /* in ops_loop(loop)->waiting_operations, with a watch */
    PyObject *number;                       /* what fileno() of a socket of another kind gave, or NULL */
    PyObject *weakrefs;
    int fd;                                 /* what to watch; -1: not known */
    uint8_t nargs;
    uint8_t retries;
    uint8_t phase;                          /* the kind's own; 0 at first */
    bool started;                           /* the first attempt was made */
    bool running;
    bool descriptor_gone;                   /* closed by somebody else while we waited */
};

/* A new Operation; sock and args are borrowed and may be NULL. New reference or NULL. */
PyObject *operation_new(Loop *loop, const struct operation_kind *kind, PyObject *sock,
                        PyObject *const *args, Py_ssize_t nargs);

/* Asks the socket for its number, before what needs it: op->number. asyncio asks once, and checks when
 * it has to wait. 0 / -1 */
int operation_ask_fileno(Operation *op);

/* Makes `awaitable` (stolen; NULL: an exception is set) the inner one: ATTEMPT_AWAIT, or
 * ATTEMPT_FAILED. */
enum attempt operation_await_steal(Operation *op, PyObject *awaitable);

/* Before a poll, while an Operation waits: how long it may last. */
int64_t operation_check_waiting(Loop *loop, int64_t now, int64_t wait_ns);

#endif
