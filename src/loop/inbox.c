/* inbox.c - call_soon_threadsafe(), and what threads outside of Python have finished.
 *
 * Owns: the queue of what other threads have sent.
 * Where there is a GIL, it already protects the ready ring: other threads push right
 * there, which keeps the order of call_soon() and call_soon_threadsafe(), and into the
 * queue only what exceeds DIRECT_MAX in one iteration. Without a GIL whatever comes from
 * another thread goes through the queue: Tasks that are woken as well.
 * The lock is held for a few instructions: see wake.h.
 * Threads that have no thread state (look_up.c) post: no reference, no memory, no GIL.
 * Rejected: libev's ev_async, which ends the process when no descriptor is left. */
#include "loop/inbox.h"

#include "base/checked.h"
#include "base/tuning.h"
#include "loop/current.h"
#include "loop/wake.h"

#include <string.h>

/* -- life ------------------------------------------------------------------------------ */

void
inbox_init(Loop *loop)
{
    pthread_mutex_init(&loop->inbox.lock, NULL);
    pthread_cond_init(&loop->inbox.released, NULL);
    loop->inbox.wake_fd = loop->inbox.wake_write_fd = -1;
    loop->inbox.posted_end = &loop->inbox.posted;
}

void
inbox_open(Loop *loop)
{
    loop->inbox.open = true;
}

/* with the lock held */
static void
inbox_set_count(struct inbox *inbox, size_t count)
{
    __atomic_store_n(&inbox->count, count, __ATOMIC_RELEASE);
    __atomic_store_n(&inbox->any, count > 0 || inbox->posted != NULL, __ATOMIC_SEQ_CST);
}

void
inbox_close(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    loop->inbox.open = false;
    pthread_mutex_unlock(&loop->inbox.lock);
    inbox_free(loop);
}

void
inbox_free(Loop *loop)
{
    struct inbox *inbox = &loop->inbox;
    pthread_mutex_lock(&inbox->lock);
    uintptr_t *items = inbox->items;
    size_t head = inbox->head;
    size_t count = inbox->count;
    inbox->items = NULL;
    inbox->capacity = inbox->head = 0;
    inbox_set_count(inbox, 0);
    pthread_mutex_unlock(&inbox->lock);
    for (size_t i = 0; i < count; i++) {
        ready_drop_item(items[head + i]);
    }
    PyMem_RawFree(items);
}

void
inbox_forked(Loop *loop)
{
    /* Another thread of the parent may have held the lock. Not later: without a GIL the first call
     * takes it before the loop runs, and then other threads of the child may hold it. */
    pthread_mutex_init(&loop->inbox.lock, NULL);
    pthread_cond_init(&loop->inbox.released, NULL);
    loop->inbox.waiters = 0;
    wake_set_asleep(&loop->inbox, false);
    /* Whoever has posted them does so again: see look_up.c. */
    loop->inbox.posted = NULL;
    loop->inbox.posted_end = &loop->inbox.posted;
    inbox_set_count(&loop->inbox, loop->inbox.count);
}

/* -- the list ----------------------------------------------------------------------------- */

static void
inbox_drain_at_most(Loop *loop, size_t most)
{
    struct inbox *inbox = &loop->inbox;
    /* The room first: a push that fails would drop the reference under the lock. What there is no
     * memory for stays for the next iteration, which comes without a sleep. */
    size_t hint = __atomic_load_n(&inbox->count, __ATOMIC_ACQUIRE);
    size_t room = ready_reserve(&loop->ready, hint < most ? hint : most);
    uintptr_t *emptied = NULL;
    pthread_mutex_lock(&inbox->lock);
    size_t count = inbox->count < most ? inbox->count : most;
    count = count < room ? count : room;
    for (size_t i = 0; i < count; i++) {
        uintptr_t item = inbox->items[inbox->head + i];
        ready_push_steal(&loop->ready, ready_object(item), item & READY_KIND_MASK);
    }
    inbox->head += count;
    inbox_set_count(inbox, inbox->count - count);
    if (inbox->count == 0) {
        inbox->head = 0;
        if (inbox->capacity > DRAIN_MAX) {
            /* A burst must not keep its peak for good. */
            emptied = inbox->items;
            inbox->items = NULL;
            inbox->capacity = 0;
        }
    }
    pthread_mutex_unlock(&inbox->lock);
    PyMem_RawFree(emptied);
}

void
inbox_post(Loop *loop, struct posted *posted)
{
    struct inbox *inbox = &loop->inbox;
    VERIFY(posted->run != NULL);
    posted->next = NULL;
    pthread_mutex_lock(&inbox->lock);
    *inbox->posted_end = posted;
    inbox->posted_end = &posted->next;
    inbox_set_count(inbox, inbox->count);
    bool asleep = wake_is_asleep(inbox) && inbox->wake_write_fd >= 0;
    wake_set_asleep(inbox, false);
    pthread_mutex_unlock(&inbox->lock);
    if (asleep) {
        wake_write(inbox);    /* after the lock, which the loop wants as soon as it is awake */
    }
}

void
inbox_run_posted(Loop *loop)
{
    struct inbox *inbox = &loop->inbox;
    pthread_mutex_lock(&inbox->lock);
    struct posted *posted = inbox->posted;
    inbox->posted = NULL;
    inbox->posted_end = &inbox->posted;
    inbox_set_count(inbox, inbox->count);
    pthread_mutex_unlock(&inbox->lock);
    if (posted != NULL) {
        current_leave(loop);    /* it may run Python */
    }
    while (posted != NULL) {
        struct posted *next = posted->next;    /* it frees itself */
        posted->run(posted, loop);
        VERIFY(!PyErr_Occurred());
        posted = next;
    }
}

void
inbox_drain_some(Loop *loop)
{
    if (__atomic_load_n(&loop->inbox.count, __ATOMIC_RELAXED) > 0) {
        inbox_drain_at_most(loop, DRAIN_MAX);
    }
    inbox_run_posted(loop);
}

void
inbox_drain_all(Loop *loop)
{
    inbox_drain_at_most(loop, SIZE_MAX);
}

/* Room for one more behind the last: 0 / -1, with the lock held. */
static int
inbox_reserve(struct inbox *inbox)
{
    if (inbox->head + inbox->count < inbox->capacity) {
        return 0;
    }
    if (inbox->head > inbox->capacity / 2) {
        memmove(inbox->items, inbox->items + inbox->head, inbox->count * sizeof(*inbox->items));
        inbox->head = 0;
        return 0;
    }
    size_t capacity = inbox->capacity == 0 ? ARRAY_FIRST : inbox->capacity * 2;
    uintptr_t *items = PyMem_RawRealloc(inbox->items, capacity * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    inbox->items = items;
    inbox->capacity = capacity;
    return 0;
}

int
inbox_push_steal(Loop *loop, PyObject *op, enum ready_kind kind)
{
    struct inbox *inbox = &loop->inbox;
    bool closed = false, full = false;
    pthread_mutex_lock(&inbox->lock);
    if (!inbox->open) {
        closed = true;
    }
    else if (inbox_reserve(inbox) < 0) {
        full = true;
    }
    else {
        inbox->items[inbox->head + inbox->count] = (uintptr_t)op | (uintptr_t)kind;
        inbox_set_count(inbox, inbox->count + 1);
        wake_locked(inbox);
        COUNT(loop->counters->from_threads, 1);    /* by one thread at a time */
    }
    pthread_mutex_unlock(&inbox->lock);
    if (LIKELY(!closed && !full)) {
        return 0;
    }
    Py_DECREF(op);
    if (closed) {
        return loop_closed_error(loop);
    }
    PyErr_NoMemory();
    return -1;
}

int
inbox_traverse(Loop *loop, visitproc visit, void *arg)
{
    struct inbox *inbox = &loop->inbox;
    for (size_t i = 0; i < inbox->count; i++) {
        int result = ready_traverse_item(inbox->items[inbox->head + i], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

#ifdef ASYNCLOOP_DEBUG
/* In the loop's thread, which is awake. */
void
inbox_verify(Loop *loop, uint64_t turn)
{
    struct inbox *inbox = &loop->inbox;
    pthread_mutex_lock(&inbox->lock);
    VERIFY((inbox->items == NULL) == (inbox->capacity == 0));
    VERIFY(inbox->head <= inbox->capacity && inbox->count <= inbox->capacity - inbox->head);
    VERIFY(inbox->any == (inbox->count > 0 || inbox->posted != NULL));
    VERIFY(!wake_is_asleep(inbox));
    VERIFY(inbox->waiters >= 0);
    VERIFY(inbox->open != FLAG(loop->closed));
    struct posted **end = &inbox->posted;
    while (*end != NULL) {
        VERIFY((*end)->run != NULL);
        end = &(*end)->next;
    }
    VERIFY(inbox->posted_end == end);
    struct verify_part part = verify_part(inbox->count, turn);
    for (size_t i = part.from; i < part.to; i++) {
        VERIFY(verify_lives(ready_object(inbox->items[inbox->head + i])));
    }
    pthread_mutex_unlock(&inbox->lock);
}
#endif
