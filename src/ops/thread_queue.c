/* thread_queue.c - the inside of asyncloop.ThreadQueue.
 *
 * Items, and the futures of those who wait for an item or for room, in three rings. Each method
 * is one stroke: under the GIL because it calls nothing, and in the object's critical section
 * where there is no GIL. Nothing of a program runs inside, neither by the collector nor by a
 * signal, so a finalizer or a signal handler may use a queue that its thread is just using.
 * Whom a method has taken out of a ring it returns: asyncloop/_threads.py wakes it. */
#include "ops/ops_state.h"

struct ring {
    PyObject **slots;
    size_t first;
    size_t count;
    size_t capacity;    /* a power of two, or 0 */
};

typedef struct {
    PyObject_HEAD
    Py_ssize_t maxsize;         /* 0 or less: no bound */
    PyObject *shut_down_type;   /* the exception after the end */
    bool shut_down;
    struct ring items;
    struct ring getters;
    struct ring putters;
} ThreadQueue;

static PyObject **
ring_at(struct ring *ring, size_t index)
{
    return &ring->slots[(ring->first + index) & (ring->capacity - 1)];
}

/* Keeps its own reference. 0, or -1 with MemoryError. */
static int
ring_push(struct ring *ring, PyObject *object)
{
    if (ring->count == ring->capacity) {
        size_t capacity = ring->capacity != 0 ? ring->capacity * 2 : 8;
        PyObject **slots = PyMem_Calloc(capacity, sizeof *slots);
        if (slots == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < ring->count; i++) {
            slots[i] = *ring_at(ring, i);
        }
        PyMem_Free(ring->slots);
        ring->slots = slots;
        ring->first = 0;
        ring->capacity = capacity;
    }
    ring->count++;
    *ring_at(ring, ring->count - 1) = Py_NewRef(object);
    return 0;
}

/* The oldest one, whose reference is the caller's, or NULL. */
static PyObject *
ring_pop(struct ring *ring)
{
    if (ring->count == 0) {
        return NULL;
    }
    PyObject *object = *ring_at(ring, 0);
    ring->first = (ring->first + 1) & (ring->capacity - 1);
    ring->count--;
    return object;
}

/* Takes the object out. The reference is the caller's; NULL: it is not there. */
static PyObject *
ring_remove(struct ring *ring, PyObject *object)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (*ring_at(ring, i) == object) {
            for (; i + 1 < ring->count; i++) {
                *ring_at(ring, i) = *ring_at(ring, i + 1);
            }
            ring->count--;
            return object;
        }
    }
    return NULL;
}

static int
ring_traverse(struct ring *ring, visitproc visit, void *arg)
{
    for (size_t i = 0; i < ring->count; i++) {
        Py_VISIT(*ring_at(ring, i));
    }
    return 0;
}

/* The ring is empty before the first reference is dropped. */
static void
ring_drop(struct ring *ring)
{
    struct ring old = *ring;
    *ring = (struct ring){0};
    for (PyObject *object; (object = ring_pop(&old)) != NULL;) {
        Py_DECREF(object);
    }
    PyMem_Free(old.slots);
}

static bool
has_room(const ThreadQueue *self)
{
    return self->maxsize <= 0 || self->items.count < (size_t)self->maxsize;
}

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"maxsize", "shut_down_type", NULL};
    Py_ssize_t maxsize;
    PyObject *shut_down_type;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO", names, &maxsize, &shut_down_type)) {
        return NULL;
    }
    ThreadQueue *self = (ThreadQueue *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->maxsize = maxsize;
        self->shut_down_type = Py_NewRef(shut_down_type);
    }
    return (PyObject *)self;
}

static int
queue_traverse(PyObject *op, visitproc visit, void *arg)
{
    ThreadQueue *self = (ThreadQueue *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->shut_down_type);
    int status = ring_traverse(&self->items, visit, arg);
    status = status != 0 ? status : ring_traverse(&self->getters, visit, arg);
    return status != 0 ? status : ring_traverse(&self->putters, visit, arg);
}

static int
queue_clear(PyObject *op)
{
    ThreadQueue *self = (ThreadQueue *)op;
    ring_drop(&self->items);
    ring_drop(&self->getters);
    ring_drop(&self->putters);
    Py_CLEAR(self->shut_down_type);
    return 0;
}

static void
queue_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    queue_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

/* None: full. False: put, and nobody waits for it. Else the future of one who does. */
static PyObject *
queue_put(PyObject *op, PyObject *item)
{
    ThreadQueue *self = (ThreadQueue *)op;
    PyObject *result = NULL;
    {
        GUARD(op);
        if (!self->shut_down) {
            if (!has_room(self)) {
                result = Py_NewRef(Py_None);
            }
            else if (ring_push(&self->items, item) == 0) {
                result = ring_pop(&self->getters);
                result = result != NULL ? result : Py_NewRef(Py_False);
            }
        }
    }
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetNone(self->shut_down_type);
    }
    return result;
}

/* None: empty. Else (item, the future of one who waits for room, or None). */
static PyObject *
queue_get(PyObject *op, PyObject *Py_UNUSED(arg))
{
    ThreadQueue *self = (ThreadQueue *)op;
    PyObject *item = NULL, *putter = NULL;
    bool shut_down;
    PyObject *result = PyTuple_New(2);    /* first: after this nothing fails */
    if (result == NULL) {
        return NULL;
    }
    {
        GUARD(op);
        item = ring_pop(&self->items);
        putter = item != NULL ? ring_pop(&self->putters) : NULL;
        shut_down = self->shut_down;
    }
    if (item == NULL) {
        Py_DECREF(result);
        if (shut_down) {
            PyErr_SetNone(self->shut_down_type);
            return NULL;
        }
        Py_RETURN_NONE;
    }
    PyTuple_SET_ITEM(result, 0, item);
    PyTuple_SET_ITEM(result, 1, putter != NULL ? putter : Py_NewRef(Py_None));
    return result;
}

/* True: the future waits. False: there is no need to. */
static PyObject *
queue_wait(PyObject *op, PyObject *waiter, struct ring *ring, bool for_item)
{
    ThreadQueue *self = (ThreadQueue *)op;
    bool waits = false;
    int status = 0;
    {
        GUARD(op);
        waits = !self->shut_down && !(for_item ? self->items.count > 0 : has_room(self));
        status = waits ? ring_push(ring, waiter) : 0;
    }
    return status < 0 ? NULL : PyBool_FromLong(waits);
}

static PyObject *
queue_wait_to_get(PyObject *op, PyObject *waiter)
{
    return queue_wait(op, waiter, &((ThreadQueue *)op)->getters, true);
}

static PyObject *
queue_wait_to_put(PyObject *op, PyObject *waiter)
{
    return queue_wait(op, waiter, &((ThreadQueue *)op)->putters, false);
}

/* The future waits no longer, or is None. Where it was not there, because it had been woken for what
 * it does not take: the next one to wake, or None. */
static PyObject *
queue_forget(PyObject *op, PyObject *waiter, struct ring *ring, bool for_item)
{
    ThreadQueue *self = (ThreadQueue *)op;
    PyObject *removed = NULL, *next = NULL;
    {
        GUARD(op);
        removed = ring_remove(ring, waiter);
        if (removed == NULL
            && (self->shut_down || (for_item ? self->items.count > 0 : has_room(self)))) {
            next = ring_pop(ring);
        }
    }
    Py_XDECREF(removed);
    return next != NULL ? next : Py_NewRef(Py_None);
}

static PyObject *
queue_forget_getter(PyObject *op, PyObject *waiter)
{
    return queue_forget(op, waiter, &((ThreadQueue *)op)->getters, true);
}

static PyObject *
queue_forget_putter(PyObject *op, PyObject *waiter)
{
    return queue_forget(op, waiter, &((ThreadQueue *)op)->putters, false);
}

/* Ends the queue. Those who wait the caller takes out and wakes, one by one: forget(None). */
static PyObject *
queue_shutdown(PyObject *op, PyObject *immediate)
{
    ThreadQueue *self = (ThreadQueue *)op;
    struct ring dropped = {0};
    int drop = PyObject_IsTrue(immediate);
    if (drop < 0) {
        return NULL;
    }
    {
        GUARD(op);
        self->shut_down = true;
        if (drop) {
            dropped = self->items;
            self->items = (struct ring){0};
        }
    }
    ring_drop(&dropped);
    Py_RETURN_NONE;
}

/* (items, getters, putters, shut down), as they were at one moment */
static PyObject *
queue_counts(PyObject *op, PyObject *Py_UNUSED(arg))
{
    ThreadQueue *self = (ThreadQueue *)op;
    size_t items, getters, putters;
    bool shut_down;
    {
        GUARD(op);
        items = self->items.count;
        getters = self->getters.count;
        putters = self->putters.count;
        shut_down = self->shut_down;
    }
    return Py_BuildValue("nnnO", (Py_ssize_t)items, (Py_ssize_t)getters, (Py_ssize_t)putters,
                         shut_down ? Py_True : Py_False);
}

static PyMethodDef queue_methods[] = {
    {"put", queue_put, METH_O, NULL},
    {"get", queue_get, METH_NOARGS, NULL},
    {"wait_to_get", queue_wait_to_get, METH_O, NULL},
    {"wait_to_put", queue_wait_to_put, METH_O, NULL},
    {"forget_getter", queue_forget_getter, METH_O, NULL},
    {"forget_putter", queue_forget_putter, METH_O, NULL},
    {"shutdown", queue_shutdown, METH_O, NULL},
    {"counts", queue_counts, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, INSIDE_DOC("The inside of asyncloop.ThreadQueue: see asyncloop/_threads.py.")},
    {Py_tp_new, queue_new},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear},
    {Py_tp_methods, queue_methods},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "asyncloop._core._ThreadQueue",
    .basicsize = sizeof(ThreadQueue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

int
thread_queue_init(PyObject *module, struct state *Py_UNUSED(state))
{
    PyObject *type = PyType_FromModuleAndSpec(module, &queue_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int status = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return status;
}
