/* inbox.c - call_soon_threadsafe().
 *
 * The lock is held for a few instructions, never across a call that may run Python or
 * wait for the GIL. The first call of a burst wakes the loop through ev_async, which
 * itself writes to its eventfd only when the loop sleeps. */
#include "inbox.h"

#define INBOX_INITIAL 64

static void
inbox_woken(struct ev_loop *ev UNUSED, ev_async *async UNUSED, int revents UNUSED)
{
    /* The iteration drains the inbox after each poll. */
}

void
inbox_init(Loop *loop)
{
    pthread_mutex_init(&loop->inbox.lock, NULL);
    ev_async_init(&loop->inbox.wake, inbox_woken);
}

void
inbox_open(Loop *loop)
{
    ev_async_start(loop->ev, &loop->inbox.wake);
}

/* Takes all items out; the caller frees the array. */
static Handle **
inbox_take(struct inbox *inbox, size_t *count)
{
    pthread_mutex_lock(&inbox->lock);
    Handle **items = inbox->items;
    *count = inbox->count;
    inbox->items = NULL;
    inbox->capacity = 0;
    __atomic_store_n(&inbox->count, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&inbox->lock);
    return items;
}

void
inbox_close(Loop *loop)
{
    ev_async_stop(loop->ev, &loop->inbox.wake);
    inbox_free(loop);
}

void
inbox_free(Loop *loop)
{
    size_t count;
    Handle **items = inbox_take(&loop->inbox, &count);
    for (size_t i = 0; i < count; i++) {
        Py_DECREF(items[i]);
    }
    PyMem_RawFree(items);
}

void
inbox_after_fork(Loop *loop)
{
    /* Another thread of the parent may have held it. */
    pthread_mutex_init(&loop->inbox.lock, NULL);
}

int
inbox_drain_some(Loop *loop)
{
    struct inbox *inbox = &loop->inbox;
    int result = 0;
    pthread_mutex_lock(&inbox->lock);
    size_t count = inbox->count;
    size_t i = 0;
    for (; i < count; i++) {
        /* The reserve first: a push that fails would drop the reference under the lock. */
        if (ready_length(&loop->ready) > loop->ready.mask && ready_grow(&loop->ready) < 0) {
            result = -1;
            break;
        }
        ready_push_steal(&loop->ready, (PyObject *)inbox->items[i], READY_HANDLE);
    }
    for (size_t rest = i; rest < count; rest++) {
        inbox->items[rest - i] = inbox->items[rest];
    }
    __atomic_store_n(&inbox->count, count - i, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&inbox->lock);
    return result;
}

static int
inbox_reserve(struct inbox *inbox)
{
    if (inbox->count < inbox->capacity) {
        return 0;
    }
    size_t capacity = inbox->capacity == 0 ? INBOX_INITIAL : inbox->capacity * 2;
    Handle **items = PyMem_RawRealloc(inbox->items, capacity * sizeof(*items));
    if (items == NULL) {
        return -1;
    }
    inbox->items = items;
    inbox->capacity = capacity;
    return 0;
}

void
loop_wake(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    if (loop->ev != NULL) {
        ev_async_send(loop->ev, &loop->inbox.wake);
    }
    pthread_mutex_unlock(&loop->inbox.lock);
}

int
loop_call_soon_threadsafe(Loop *loop, Handle *handle_steal)
{
    struct inbox *inbox = &loop->inbox;
    int result = 0;
    pthread_mutex_lock(&inbox->lock);
    if (loop->ev == NULL) {
        result = -2;
    }
    else if (inbox_reserve(inbox) < 0) {
        result = -1;
    }
    else {
        inbox->items[inbox->count] = handle_steal;
        __atomic_store_n(&inbox->count, inbox->count + 1, __ATOMIC_RELEASE);
        if (inbox->count == 1) {
            ev_async_send(loop->ev, &inbox->wake);
        }
    }
    pthread_mutex_unlock(&inbox->lock);
    if (result == 0) {
        return 0;
    }
    Py_DECREF(handle_steal);
    if (result == -1) {
        PyErr_NoMemory();
    }
    else {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    }
    return -1;
}

int
inbox_traverse(Loop *loop, visitproc visit, void *arg)
{
    for (size_t i = 0; i < loop->inbox.count; i++) {
        Py_VISIT(loop->inbox.items[i]);
    }
    return 0;
}
