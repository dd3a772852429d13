/* ready.c - the cold paths of the ready ring. */
#include "loop/ready.h"

#include "base/tuning.h"
#include "loop/handle.h"

int
ready_init(struct ready *ready)
{
    ready->items = PyMem_New(uintptr_t, ARRAY_FIRST);
    if (ready->items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ready->mask = ARRAY_FIRST - 1;
    ready->head = ready->tail = 0;
    return 0;
}

bool
ready_try_grow(struct ready *ready)
{
    size_t capacity = ready->mask + 1;
    if (ready->items == NULL || capacity > PY_SSIZE_T_MAX / (2 * sizeof(uintptr_t))) {
        return false;
    }
    uintptr_t *items = PyMem_New(uintptr_t, capacity * 2);
    if (items == NULL) {
        return false;
    }
    size_t length = ready_length(ready);
    for (size_t i = 0; i < length; i++) {
        items[i] = ready->items[(ready->head + i) & ready->mask];
    }
    PyMem_Free(ready->items);
    ready->items = items;
    ready->mask = capacity * 2 - 1;
    ready->head = 0;
    ready->tail = length;
    return true;
}

int
ready_grow(struct ready *ready)
{
    if (!ready_try_grow(ready)) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

size_t
ready_reserve(struct ready *ready, size_t count)
{
    while (ready_room(ready) < count && ready_try_grow(ready)) {
    }
    return ready_room(ready);
}

void
ready_put_first(struct ready *ready, size_t count)
{
    VERIFY(count <= ready_length(ready));
    while (count-- > 0) {
        uintptr_t item = ready->items[--ready->tail & ready->mask];
        ready->items[--ready->head & ready->mask] = item;
    }
}

void
ready_drop_item(uintptr_t item)
{
    if ((item & READY_KIND_MASK) == READY_HANDLE) {
        handle_drop_steal((Handle *)ready_object(item));
        return;
    }
    Py_DECREF(ready_object(item));
}

void
ready_clear(struct ready *ready)
{
    while (ready_length(ready) > 0) {
        ready_drop_item(ready_pop(ready));
    }
}

void
ready_free(struct ready *ready)
{
    ready_clear(ready);
    PyMem_Free(ready->items);
    ready->items = NULL;
    ready->mask = 0;
    ready->head = ready->tail = 0;
}

int
ready_traverse_item(uintptr_t item, visitproc visit, void *arg)
{
    PyObject *op = ready_object(item);
    if ((item & READY_KIND_MASK) == READY_HANDLE) {
        return handle_traverse((Handle *)op, false, visit, arg);
    }
    Py_VISIT(op);
    return 0;
}

int
ready_traverse(struct ready *ready, visitproc visit, void *arg)
{
    for (size_t i = ready->head; i != ready->tail; i++) {
        int result = ready_traverse_item(ready->items[i & ready->mask], visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

#ifdef ASYNCLOOP_DEBUG
void
ready_verify(const struct ready *ready, uint64_t turn)
{
    size_t length = ready_length(ready), capacity = ready->mask + 1;
    if (ready->items == NULL) {
        VERIFY(ready->mask == 0 && length == 0);
        return;
    }
    VERIFY((capacity & ready->mask) == 0);
    VERIFY(length <= capacity);
    struct verify_part part = verify_part(length, turn);
    for (size_t i = part.from; i < part.to; i++) {
        uintptr_t item = ready->items[(ready->head + i) & ready->mask];
        VERIFY(verify_lives(ready_object(item)));
        if ((item & READY_KIND_MASK) == READY_HANDLE) {
            handle_verify((Handle *)ready_object(item));
        }
    }
}
#endif
