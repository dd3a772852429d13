/* freelist.h - memory of dead objects, kept for the next one of the same type.
 *
 * Only for objects of exactly our types, never for subclasses; the object is
 * untracked and every field that owns something is already cleared. The link is
 * kept in the object's own type slot, which a dead object does not need.
 * Benchmark rows: call_soon chain, create_future.
 *
 * Without a GIL each loop has lists of its own, and only the thread that makes a turn of it takes from them
 * or gives to them (kept_here); an object that dies elsewhere goes to the allocator. Another thread may
 * still have a pointer to a dead object: it has read an item of a list or a dict, say, which was replaced before
 * it could count its reference. It only counts one where the count that is shared says that there are
 * others, and then looks whether the item is still there. So what CPython asks of memory like this, and
 * its own free lists and its allocator keep, is kept here as well:
 *   - the memory stays an object, with its head in the same place, until the allocator gives the whole page
 *     back, for which that waits until no thread is in the middle of such a look (QSBR);
 *   - a dead object's shared count stays as it was, which says that there is nothing to count, and the link
 *     takes the place of the owner's number, which it never equals;
 *   - a new one begins as in _Py_NewReference(): owned by this thread, counted by it alone.
 * The collector looks at objects that are tracked only, while all threads stand still. */
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

/* References to a type of ours that its objects have. Without a GIL such a type lives for ever: state_add_type(). */
#ifdef Py_GIL_DISABLED
#define own_type_take(type) ((void)(type))
#define own_type_drop(type) ((void)(type))
#else
#define own_type_take(type) Py_INCREF(type)
#define own_type_drop(type) Py_DECREF(type)
#endif

/* CPython's mark of an object that the collector is to look at. (Guarded path future on 3.14t: 30 instructions.) */
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX < 0x03100000
#define GC_TRACKED 1
#else
#define GC_TRACKED 0    /* functions set it, and take it away */
#endif

/* PyObject_GC_UnTrack() of an object that dies. */
static inline void
untrack_dying(PyObject *op)
{
#ifdef Py_GIL_DISABLED
    if (GC_TRACKED != 0) {
        __atomic_store_n(&op->ob_gc_bits, (uint8_t)(op->ob_gc_bits & ~GC_TRACKED), __ATOMIC_RELAXED);
        VERIFY(!PyObject_GC_IsTracked(op));
        return;
    }
#endif
    PyObject_GC_UnTrack(op);
}

/* PyObject_Init() without the call. */
static inline void
freelist_revive(PyObject *op, PyTypeObject *type, uint8_t gc_bits UNUSED)
{
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS)
    PyObject_Init(op, type);
#elif defined(Py_GIL_DISABLED)
    own_type_take(type);
#if PY_VERSION_HEX >= 0x030E0000
    op->ob_flags = 0;
#endif
    op->ob_mutex = (PyMutex){0};
    __atomic_store_n(&op->ob_gc_bits, gc_bits, __ATOMIC_RELAXED);
    __atomic_store_n(&op->ob_tid, _Py_ThreadId(), __ATOMIC_RELAXED);
    __atomic_store_n(&op->ob_ref_local, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&op->ob_ref_shared, 0, __ATOMIC_RELAXED);
#else
    Py_SET_TYPE(op, type);
    Py_SET_REFCNT(op, 1);
    Py_INCREF(type);
#endif
}

#ifdef Py_GIL_DISABLED
/* Of the loop that this thread makes a turn of, which lives as long; or one for no type at all. */
extern __thread struct kept *kept_here THREAD_STORAGE;
extern const struct kept kept_nowhere __attribute__((visibility("hidden")));

/* The lists of this thread, and whether they are for the type: they may be another interpreter's. */
static inline struct kept_list *
freelist_here(const struct freelist *list)
{
    return (struct kept_list *)(void *)((char *)kept_here + list->place);
}
#define freelist_fits(here, op_type) LIKELY((here)->type == (op_type))

static inline PyObject *
freelist_link(PyObject *op)
{
    return (PyObject *)__atomic_load_n(&op->ob_tid, __ATOMIC_RELAXED);
}
#else
#define kept_list freelist
#define freelist_here(list) (list)
#define freelist_fits(here, op_type) true
#define freelist_link(op) ((PyObject *)(op)->ob_type)
#endif

/* A kept object with a reference to its type, or NULL where there is none. */
static inline PyObject *
freelist_pop(struct freelist *list, PyTypeObject *type, uint8_t gc_bits)
{
    struct kept_list *here = freelist_here(list);
    PyObject *op = freelist_fits(here, type) ? here->head : NULL;
    if (op != NULL) {
        here->head = freelist_link(op);
        here->length--;
        freelist_revive(op, type, gc_bits);
    }
    return op;
}

static inline PyObject *
freelist_take(struct freelist *list, PyTypeObject *type)
{
    PyObject *op = freelist_pop(list, type, GC_TRACKED);
    if (op == NULL) {
        return type->tp_alloc(type, 0);
    }
    if (GC_TRACKED == 0) {
        PyObject_GC_Track(op);         /* as tp_alloc does */
    }
    VERIFY(PyObject_GC_IsTracked(op));
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
    PyObject *op = freelist_pop(list, type, 0);
    return op != NULL ? op : untracked_new(type);
}

/* true: the memory is kept, and the caller drops the reference to the type;
 * false: the caller frees. */
static inline bool
freelist_keep_plain(struct freelist *list, PyObject *op)
{
    VERIFY(Py_REFCNT(op) == 0 && Py_TYPE(op) == list->type);
    struct kept_list *here = freelist_here(list);
    if (!freelist_fits(here, Py_TYPE(op)) || here->length >= FREELIST_MAX) {
        return false;
    }
#ifdef Py_GIL_DISABLED
    __atomic_store_n(&op->ob_tid, (uintptr_t)here->head, __ATOMIC_RELAXED);
#else
    op->ob_type = (PyTypeObject *)here->head;
#endif
    here->head = op;
    here->length++;
    return true;
}

/* The same for types that the collector tracks. */
static inline bool
freelist_keep(struct freelist *list, PyObject *op)
{
#ifndef Py_GIL_DISABLED    /* there the mark is among what a new object gets */
    if (PyObject_GC_IsFinalized(op)) {
        return false;
    }
#endif
    return freelist_keep_plain(list, op);
}

/* A list of the state's that is empty yet. */
void freelist_init(struct state *state, struct freelist *list, PyTypeObject *type);

/* Is tracemalloc on? It notes where memory was asked for, and would miss what comes from a list. */
bool freelist_is_traced(void);

#ifdef Py_GIL_DISABLED
void kept_init(struct kept *kept, const struct state *state);    /* before the loop's first turn */
void kept_free(struct kept *kept);    /* what there is; runs no Python */
void kept_end(struct kept *kept);     /* likewise, for good */
#define freelist_drain_all(state) ((void)(state))
#else
/* For good: what dies after this, while the interpreter ends, is freed at once, because
 * its type may be gone when the module's memory is. */
void freelist_drain_all(struct state *state);
#endif

#endif
