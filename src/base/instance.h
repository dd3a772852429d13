/* instance.h - has an object got other attributes since it was looked at?
 *
 * What a class gives may be kept (a method that is called for each packet) as long as the class is
 * the same and the object itself has nothing of that name. The class has a version; for the object
 * there is the table of the names that the objects of its class have or may have, which only grows.
 * To compare both costs a tenth of a look-up (benchmark rows: Protocol echo, streams). An object with a
 * table of its own (a dict that was given to it, or emptied) is looked at each time.
 *
 * Where CPython keeps that table no public header says. So it is tried out at import, with objects
 * whose names are known; where it is not as expected nothing is ever kept, and each call is looked up.
 *
 * Without a GIL only the table that the objects of a class share is looked at: it lives as long as the
 * class, whatever other threads do, and its length is published after its entries. The table of a dict
 * another thread may free meanwhile; an object that has one is looked at each time. */
#ifndef ASYNCLOOP_INSTANCE_H
#define ASYNCLOOP_INSTANCE_H

#include "base/state.h"

#if PY_VERSION_HEX < 0x03100000
#define INSTANCE_KNOWN 1
#else
#define INSTANCE_KNOWN 0
#endif

/* No class has this version. */
#define INSTANCE_NEVER UINT_MAX

struct instance_seen {
    unsigned int version;     /* tp_version_tag of the class, or INSTANCE_NEVER */
    uint32_t count;           /* names in the table */
    const void *names;        /* the table */
};

#define INSTANCE_UNSEEN {.version = INSTANCE_NEVER}

int instance_init(PyObject *module, struct state *state);

/* Looks at the object, of which the class is known to be as wanted. True: it has none of the given
 * names of its own, and instance_is_as_seen() says so until it may have one, or its class changes. */
bool instance_see(struct state *state, PyObject *op, struct instance_seen *seen, PyObject *const *names,
                  size_t count);

#if INSTANCE_KNOWN

/* The beginning of PyDictKeysObject. */
struct instance_names {
    Py_ssize_t references;
    uint8_t log2_size;
    uint8_t log2_index_bytes;
    uint8_t kind;
    uint32_t version;
    Py_ssize_t usable;
    Py_ssize_t count;
};

/* Of an object whose class has a version for which instance_see() has found it; may be NULL. */
static inline const struct instance_names *
instance_names(PyObject *op)
{
    const void *shared = ((PyHeapTypeObject *)Py_TYPE(op))->ht_cached_keys;
#ifdef Py_GIL_DISABLED
    return LIKELY(SHARED_LOAD(((PyObject **)(void *)op)[-1]) == NULL) ? shared : NULL;
#else
    PyObject *dict = ((PyObject **)(void *)op)[-3];
#if PY_VERSION_HEX < 0x030C0000
    if (LIKELY(((void **)(void *)op)[-4] != NULL)) {
        return shared;
    }
#elif PY_VERSION_HEX < 0x030D0000
    if (LIKELY((uintptr_t)dict & 1)) {
        return shared;
    }
#else
    if (LIKELY(dict == NULL)) {
        return shared;
    }
#endif
    return dict == NULL ? NULL : (const void *)((PyDictObject *)dict)->ma_keys;
#endif
}

static inline bool
instance_is_as_seen(PyObject *op, const struct instance_seen *seen)
{
    if (UNLIKELY(SHARED_LOAD(Py_TYPE(op)->tp_version_tag) != seen->version)) {
        return false;
    }
    const struct instance_names *names = instance_names(op);
    return LIKELY(names == seen->names && SHARED_LOAD(names->count) == (Py_ssize_t)seen->count);
}

#else

static inline bool
instance_is_as_seen(PyObject *op UNUSED, const struct instance_seen *seen UNUSED)
{
    return false;
}

#endif
#endif
