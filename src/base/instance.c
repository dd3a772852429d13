/* instance.c - see instance.h. */
#include "base/instance.h"

#include <string.h>

#if INSTANCE_KNOWN

/* Of the tables whose names are all strings. */
enum {
    KIND_UNICODE = 1,
    KIND_SPLIT = 2,
};

struct entry {
    PyObject *name;      /* NULL: deleted */
    PyObject *value;     /* unused where several objects share the table */
};

static const struct entry *
first_entry(const struct instance_names *names)
{
    return (const void *)((const char *)(names + 1) + ((size_t)1 << names->log2_index_bytes));
}

/* Has an object of this class its attributes where instance_names() looks for them? */
static bool
class_is_usual(PyTypeObject *type)
{
    unsigned long flags = Py_TPFLAGS_HEAPTYPE | Py_TPFLAGS_MANAGED_DICT;
#ifdef Py_TPFLAGS_INLINE_VALUES
    flags |= Py_TPFLAGS_INLINE_VALUES;
#endif
    return (type->tp_flags & flags) == flags && type->tp_getattro == PyObject_GenericGetAttr
           && SHARED_LOAD(type->tp_version_tag) != 0;
}

static bool
names_are_usual(const struct instance_names *names)
{
    return names != NULL && (names->kind == KIND_UNICODE || names->kind == KIND_SPLIT);
}

/* The table that objects of a class share lives as long as the class, and only grows. One of the
 * object's own is nothing to hold on to: it may be emptied, and the next one be in its place. */
static bool
names_are_shared(PyObject *op, const struct instance_names *names)
{
    return (const void *)names == ((PyHeapTypeObject *)Py_TYPE(op))->ht_cached_keys;
}

bool
instance_see(struct state *state, PyObject *op, struct instance_seen *seen, PyObject *const *names,
             size_t count)
{
    *seen = (struct instance_seen)INSTANCE_UNSEEN;
    if (!state->instances_known || !class_is_usual(Py_TYPE(op))) {
        return false;
    }
    const struct instance_names *table = instance_names(op);
    if (!names_are_usual(table) || !names_are_shared(op, table)) {
        return false;
    }
    const struct entry *entries = first_entry(table);
    Py_ssize_t length = SHARED_LOAD(table->count);
    for (Py_ssize_t i = 0; i < length; i++) {
        for (size_t j = 0; j < count; j++) {
            /* Where the table is shared, another object has the name, and this one may get it unseen. */
            if (entries[i].name == names[j]
                || (entries[i].name != NULL && PyUnicode_Compare(entries[i].name, names[j]) == 0)) {
                return false;
            }
        }
    }
    *seen = (struct instance_seen){
        .version = SHARED_LOAD(Py_TYPE(op)->tp_version_tag),
        .names = table,
        .count = (uint32_t)length,
    };
    return true;
}

/* Are exactly the names "first" and, with two of them, "second" in the table of the object? */
static bool
names_are(PyObject *op, bool shared, Py_ssize_t count)
{
    static const char *const expected[] = {"first", "second"};
    const struct instance_names *table = instance_names(op);
    if (!names_are_usual(table) || table->count != count
        || shared != names_are_shared(op, table)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = first_entry(table)[i].name;
        if (name == NULL || !PyUnicode_Check(name)
            || PyUnicode_CompareWithASCIIString(name, expected[i]) != 0) {
            return false;
        }
    }
    return true;
}

/* Does an object have its names where they are looked for, while it shares them with others of its
 * class, and when it has a dict of its own? -1 with an exception. */
static int
try_out(PyObject *class)
{
    PyObject *op = PyObject_CallNoArgs(class);
    PyObject *dict = NULL;
    int known = -1;
    if (op == NULL || PyObject_SetAttrString(op, "first", Py_None) < 0) {
        goto done;
    }
    known = class_is_usual((PyTypeObject *)class) && names_are(op, true, 1);
    if (PyObject_SetAttrString(op, "second", Py_None) < 0) {
        known = -1;
        goto done;
    }
    known = known && names_are(op, true, 2);
    dict = PyDict_New();
    if (dict == NULL || PyDict_SetItemString(dict, "first", Py_None) < 0
        || PyObject_SetAttrString(op, "__dict__", dict) < 0) {
        known = -1;
        goto done;
    }
#ifdef Py_GIL_DISABLED
    known = known && instance_names(op) == NULL;
#else
    known = known && names_are(op, false, 1);
#endif
done:
    Py_XDECREF(dict);
    Py_XDECREF(op);
    return known;
}

int
instance_init(PyObject *module UNUSED, struct state *state)
{
    PyObject *class = PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "tried_out");
    PyObject *found = class == NULL ? NULL : PyObject_GetAttrString(class, "__name__");
    int known = found == NULL ? -1 : try_out(class);    /* the look gives the class its version */
    Py_XDECREF(found);
    Py_XDECREF(class);
    state->instances_known = known > 0;
    return known < 0 ? -1 : 0;
}

#else

bool
instance_see(struct state *state UNUSED, PyObject *op UNUSED, struct instance_seen *seen,
             PyObject *const *names UNUSED, size_t count UNUSED)
{
    *seen = (struct instance_seen)INSTANCE_UNSEEN;
    return false;
}

int
instance_init(PyObject *module UNUSED, struct state *state UNUSED)
{
    return 0;
}

#endif
