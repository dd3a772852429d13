/* ready.h - the queue of what runs next: a ring of tagged object pointers.
 *
 * Owns:     one strong reference per item. The low bits of the pointer, which are free in whatever
 *           has a reference count, tell what the item is without touching it.
 * Promises: items leave in the order in which they came. Runs no Python. */
#ifndef ASYNCLOOP_READY_H
#define ASYNCLOOP_READY_H

#include "base/checked.h"
#include "base/state.h"

enum ready_kind {
    READY_HANDLE = 0,     /* a Handle or TimerHandle: call it unless cancelled */
    READY_TASK = 1,       /* a Task: make one step */
    READY_FOREIGN = 2,    /* anything with _run() and _cancelled, given to _add_callback() */
    READY_DONE = 3,       /* a Future or Task whose callbacks there was no memory to queue */
};
#define READY_KIND_MASK ((uintptr_t)3)    /* what the interpreter has in itself is aligned to 8 only */

struct ready {
    uintptr_t *items;
    size_t mask;          /* capacity - 1; the capacity is a power of two */
    size_t head;          /* both run freely and are masked on use */
    size_t tail;
};

int ready_init(struct ready *ready);
bool ready_try_grow(struct ready *ready);   /* false without memory; sets no exception */
int ready_grow(struct ready *ready);        /* -1 with MemoryError */
/* Room for so many more, as far as memory goes: how many a push takes now. */
size_t ready_reserve(struct ready *ready, size_t count);
void ready_clear(struct ready *ready);      /* drops every item and what it holds; may run Python */
void ready_free(struct ready *ready);
int ready_traverse(struct ready *ready, visitproc visit, void *arg);
int ready_traverse_item(uintptr_t item, visitproc visit, void *arg);
void ready_drop_item(uintptr_t item);       /* the item will not run; may run Python */

static inline size_t
ready_length(const struct ready *ready)
{
    return ready->tail - ready->head;
}

/* what a push takes without growing */
static inline size_t
ready_room(const struct ready *ready)
{
    return ready->items == NULL ? 0 : ready->mask + 1 - ready_length(ready);
}

/* Is there room for one more? */
static inline bool
ready_has_space(const struct ready *ready)
{
    return LIKELY(ready->tail - ready->head <= ready->mask);
}

/* The same, or is it to be had? Sets no exception. */
static inline bool
ready_has_room(struct ready *ready)
{
    return ready_has_space(ready) || ready_try_grow(ready);
}

/* steals op, for which there is room */
static inline void
ready_put_steal(struct ready *ready, PyObject *op, enum ready_kind kind)
{
    VERIFY(ready->items != NULL && verify_lives(op) && ready_has_space(ready));
    ready->items[ready->tail++ & ready->mask] = (uintptr_t)op | (uintptr_t)kind;
}

/* The same; on failure (-1, MemoryError) the reference is dropped. */
static inline int
ready_push_steal(struct ready *ready, PyObject *op, enum ready_kind kind)
{
    if (!ready_has_space(ready) && ready_grow(ready) < 0) {
        Py_DECREF(op);
        return -1;
    }
    ready_put_steal(ready, op, kind);
    return 0;
}

/* the caller owns the item's reference; the ring must not be empty */
static inline uintptr_t
ready_pop(struct ready *ready)
{
    VERIFY(ready_length(ready) > 0);
    return ready->items[ready->head++ & ready->mask];
}

/* The youngest `count` items go before all others, in their order. */
void ready_put_first(struct ready *ready, size_t count);

static inline PyObject *
ready_object(uintptr_t item)
{
    return (PyObject *)(item & ~READY_KIND_MASK);
}

#ifdef ASYNCLOOP_DEBUG
void ready_verify(const struct ready *ready, uint64_t turn);    /* checked.h */
#endif

#endif
