/* wqueue.c - see wqueue.h. */
#include "net/wqueue.h"

#include "base/checked.h"
#include "base/tuning.h"

#include <string.h>

static inline PyObject **
wqueue_items(struct wqueue *queue)
{
    return queue->has_pieces ? queue->pieces->items : &queue->only;
}

static inline PyObject *
wqueue_item(const struct wqueue *queue, uint32_t i)
{
    return queue->has_pieces ? queue->pieces->items[queue->head + i] : queue->only;
}

/* Room for one more item behind the last one. 0 / -1 with MemoryError. */
static int
wqueue_reserve(struct wqueue *queue)
{
    struct wqueue_pieces *pieces = queue->has_pieces ? queue->pieces : NULL;
    size_t capacity = pieces == NULL ? 1 : pieces->capacity;
    if (queue->head + (size_t)queue->length < capacity) {
        return 0;
    }
    if (queue->head > capacity / 2) {
        memmove(pieces->items, pieces->items + queue->head, queue->length * sizeof(*pieces->items));
        queue->head = 0;
        return 0;
    }
    capacity = pieces == NULL ? ARRAY_FIRST : capacity * 2;
    if (capacity <= INT32_MAX) {
        pieces = PyMem_Realloc(pieces, sizeof(*pieces) + capacity * sizeof(*pieces->items));
    }
    if (capacity > INT32_MAX || pieces == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (!queue->has_pieces) {
        pieces->items[0] = queue->only;
    }
    pieces->capacity = capacity;
    queue->pieces = pieces;
    queue->has_pieces = true;
    return 0;
}

int
wqueue_push(struct wqueue *queue, PyObject *bytes, size_t skip)
{
    assert(PyBytes_CheckExact(bytes));
    assert((size_t)PyBytes_GET_SIZE(bytes) > skip);
    assert(skip == 0 || queue->length == 0);

    if (wqueue_reserve(queue) < 0) {
        return -1;
    }
    wqueue_items(queue)[queue->head + queue->length++] = Py_NewRef(bytes);
    if (queue->length == 1) {
        queue->offset = skip;
    }
    queue->bytes += (size_t)PyBytes_GET_SIZE(bytes) - skip;
    return 0;
}

int
wqueue_push_front(struct wqueue *queue, PyObject *bytes, size_t skip)
{
    assert(queue->length == 0 || queue->offset == 0);
    assert((size_t)PyBytes_GET_SIZE(bytes) > skip);
    if (wqueue_push(queue, bytes, 0) < 0) {
        return -1;
    }
    PyObject **items = wqueue_items(queue) + queue->head;
    memmove(items + 1, items, (queue->length - 1) * sizeof(*items));
    items[0] = bytes;
    queue->offset = skip;
    queue->bytes -= skip;
    return 0;
}

int
wqueue_push_copy(struct wqueue *queue, const char *data, size_t length)
{
    PyObject *copy = PyBytes_FromStringAndSize(data, (Py_ssize_t)length);
    if (copy == NULL) {
        return -1;
    }
    int result = wqueue_push(queue, copy, 0);
    Py_DECREF(copy);
    return result;
}

int
wqueue_iov(const struct wqueue *queue, struct iovec *iov, int max)
{
    int count = queue->length < (size_t)max ? (int)queue->length : max;
    for (int i = 0; i < count; i++) {
        PyObject *item = wqueue_item(queue, (uint32_t)i);
        iov[i].iov_base = PyBytes_AS_STRING(item);
        iov[i].iov_len = (size_t)PyBytes_GET_SIZE(item);
    }
    if (count > 0) {
        iov[0].iov_base = (char *)iov[0].iov_base + queue->offset;
        iov[0].iov_len -= queue->offset;
    }
    return count;
}

static void
wqueue_free_items(struct wqueue *queue)
{
    if (queue->has_pieces) {
        PyMem_Free(queue->pieces);
    }
    *queue = (struct wqueue){0};
}

void
wqueue_consume(struct wqueue *queue, size_t n)
{
    assert(n <= queue->bytes);

    queue->bytes -= n;
    n += queue->offset;
    while (queue->length > 0) {
        PyObject *item = wqueue_first(queue);
        size_t size = (size_t)PyBytes_GET_SIZE(item);
        if (n < size) {
            break;
        }
        n -= size;
        queue->head++;
        queue->length--;
        Py_DECREF(item);
    }
    queue->offset = n;
    if (queue->length == 0) {
        wqueue_free_items(queue);
    }
}

void
wqueue_clear(struct wqueue *queue)
{
    for (uint32_t i = 0; i < queue->length; i++) {
        Py_DECREF(wqueue_item(queue, i));
    }
    wqueue_free_items(queue);
}

PyObject *
wqueue_as_list(const struct wqueue *queue)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < queue->length; i++) {
        PyObject *item = wqueue_item(queue, i);
        size_t skip = i == 0 ? queue->offset : 0;
        PyObject *rest = PyBytes_FromStringAndSize(PyBytes_AS_STRING(item) + skip,
                                                   PyBytes_GET_SIZE(item) - (Py_ssize_t)skip);
        if (rest == NULL || PyList_Append(list, rest) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(rest);
    }
    return list;
}

#ifdef ASYNCLOOP_DEBUG
void
wqueue_verify(const struct wqueue *queue, uint64_t turn)
{
    if (queue->length == 0) {
        VERIFY(!queue->has_pieces && queue->only == NULL && queue->head == 0);
        VERIFY(queue->offset == 0 && queue->bytes == 0);
        return;
    }
    VERIFY(queue->has_pieces ? queue->length <= queue->pieces->capacity - queue->head
                             : queue->length == 1 && queue->head == 0);
    bool whole = queue->length <= VERIFY_MOST || verify_most(turn) == SIZE_MAX;
    struct verify_part part = verify_part(queue->length, turn);
    size_t bytes = 0;
    for (size_t i = whole ? 0 : part.from; i < (whole ? queue->length : part.to); i++) {
        PyObject *item = wqueue_item(queue, (uint32_t)i);
        VERIFY(verify_lives(item) && PyBytes_CheckExact(item));
        VERIFY(i > 0 || queue->offset < (size_t)PyBytes_GET_SIZE(item));
        VERIFY(PyBytes_GET_SIZE(item) > 0);
        bytes += (size_t)PyBytes_GET_SIZE(item);
    }
    VERIFY(!whole || bytes - queue->offset == queue->bytes);
}
#endif
