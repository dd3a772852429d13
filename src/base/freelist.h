/* freelist.h - memory of dead objects, kept for the next one of the same type.
 *
 * Only for objects of exactly our types, never for subclasses; the object is
 * untracked and every field that owns something is already cleared. The link is
 * kept in the object's own type slot, which a dead object does not need.
 * Free-threaded builds have no free lists: the allocator there is per thread.
 * Benchmark rows: call_soon chain, create_future. */
#ifndef ASYNCLOOP_FREELIST_H
#define ASYNCLOOP_FREELIST_H

#include "base/checked.h"
#include "base/state.h"
#include "base/tuning.h"

/* Objects kept of one type: about 80 KiB in all. (Guarded paths: without them call-soon takes 6 % more
 * instructions, timers-fire 5 %, future 12 %.) */
#define FREELIST_MAX TUNED(FREELIST_MAX, 256)

/* With a GIL: what the collector has before each object of its types. */
#define GC_LINKS_SIZE (2 * sizeof(uintptr_t))

/* PyObject_Init() without the call. */
static inline void
freelist_revive(PyObject *op, PyTypeObject *type)
{
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
    PyObject_Init(op, type);
#else
    Py_SET_TYPE(op, type);
    Py_SET_REFCNT(op, 1);
    Py_INCREF(type);
#endif
}

/* A kept object with a reference to its type, or NULL where there is none. */
static inline PyObject *
freelist_pop(struct freelist *list, PyTypeObject *type)
{
#ifndef Py_GIL_DISABLED
    PyObject *op = list->head;
    if (op != NULL) {
        list->head = (PyObject *)op->ob_type;
        list->length--;
        freelist_revive(op, type);
    }
    return op;
#else
    (void)list;
    (void)type;
    return NULL;
#endif
}

static inline PyObject *
freelist_take(struct freelist *list, PyTypeObject *type)
{
    PyObject *op = freelist_pop(list, type);
    if (op == NULL) {
        return type->tp_alloc(type, 0);
    }
    PyObject_GC_Track(op);             /* as tp_alloc does */
    return op;
}

/* What PyObject_GC_New() gives, without bringing the next collection nearer. Untracked, with only its head. */
static inline PyObject *
untracked_new(PyTypeObject *type)
{
#ifdef Py_GIL_DISABLED
    return PyObject_GC_New(PyObject, type);    /* the collector finds objects by what the allocator has */
#else
    uintptr_t *links = PyObject_Malloc(GC_LINKS_SIZE + (size_t)type->tp_basicsize);
    if (links == NULL) {
        return PyErr_NoMemory();
    }
    links[0] = links[1] = 0;
    return PyObject_Init((PyObject *)(void *)((char *)links + GC_LINKS_SIZE), type);
#endif
}

static inline void
untracked_free(PyObject *op)
{
#ifdef Py_GIL_DISABLED
    PyObject_GC_Del(op);
#else
    PyObject_Free((char *)op - GC_LINKS_SIZE);
#endif
}

/* The same of types that the collector knows, but whose objects it seldom is told of. What is taken has only
 * its head: the caller fills the rest. */
static inline PyObject *
freelist_take_untracked(struct freelist *list, PyTypeObject *type)
{
    PyObject *op = freelist_pop(list, type);
    return op != NULL ? op : untracked_new(type);
}

/* true: the memory is kept, and the caller drops the reference to the type;
 * false: the caller frees. */
static inline bool
freelist_keep_plain(struct freelist *list, PyObject *op)
{
    VERIFY(Py_REFCNT(op) == 0 && Py_TYPE(op) == list->type);
#ifndef Py_GIL_DISABLED
    if (list->length < FREELIST_MAX) {
        op->ob_type = (PyTypeObject *)list->head;
        list->head = op;
        list->length++;
        return true;
    }
#else
    (void)list;
    (void)op;
#endif
    return false;
}

/* The same for types that the collector tracks. */
static inline bool
freelist_keep(struct freelist *list, PyObject *op)
{
    return !PyObject_GC_IsFinalized(op) && freelist_keep_plain(list, op);
}

/* A list of the state's that is empty yet. */
void freelist_init(struct state *state, struct freelist *list, PyTypeObject *type);

/* For good: what dies after this, while the interpreter ends, is freed at once, because
 * its type may be gone when the module's memory is. */
void freelist_drain_all(struct state *state);

#endif
