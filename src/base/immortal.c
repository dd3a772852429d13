/* immortal.c - what is not counted. */
#include "base/immortal.h"

#include <stdbool.h>

#ifndef Py_GIL_DISABLED

void
immortal_type(PyObject *type UNUSED)
{
}

int
immortal_init(PyObject *module UNUSED, struct state *state UNUSED)
{
    return 0;
}

#else

/* Two loops that make handles in two threads would write the count of the type by turns, which costs each
 * more than the handle does (call_soon() 330 ns in two threads, 180 in one). */
void
immortal_type(PyObject *type)
{
    PyObject_GC_UnTrack(type);
    Py_SET_REFCNT(type, (Py_ssize_t)UINT32_MAX + 1);
}

/* Other threads may count it meanwhile, in `ob_ref_shared`, which nobody looks at any more: `ob_ref_local` is
 * written by its owner alone, and says that the object is immortal. What another thread owns is left as it is:
 * false. */
static bool
make_immortal(PyObject *object)
{
    bool owned = _Py_IsOwnedByCurrentThread(object);
    if (owned) {
        __atomic_store_n(&object->ob_ref_local, UINT32_MAX, __ATOMIC_RELAXED);
    }
    return owned;
}

static int make_module_immortal(PyObject *module);

/* A step of a task takes references to it; a member of an enumeration is an object of the class that holds it. */
static bool
is_for_steps(PyObject *value, PyObject *holder)
{
    PyTypeObject *type = Py_TYPE(value);
    return PyType_Check(value) || PyCFunction_Check(value) || type->tp_descr_get != NULL || (PyObject *)type == holder;
}

/* Those in the dict of a module or a class. */
static int
make_values_immortal(PyObject *dict, PyObject *holder, bool of_asyncio)
{
    PyObject *copy = PyDict_Copy(dict), *name, *value;    /* others may write to it meanwhile */
    int status = copy == NULL ? -1 : 0;
    Py_ssize_t at = 0;
    while (status == 0 && PyDict_Next(copy, &at, &name, &value)) {
        if (PyModule_Check(value)) {
            status = of_asyncio ? make_module_immortal(value) : 0;
            continue;
        }
        if (is_for_steps(value, holder)) {
            (void)make_immortal(value);
        }
        PyTypeObject *class = PyModule_Check(holder) && PyType_Check(value) ? (PyTypeObject *)value : NULL;
        if (class != NULL && PyType_HasFeature(class, Py_TPFLAGS_HEAPTYPE)) {
            status = make_values_immortal(class->tp_dict, value, false);
        }
    }
    Py_XDECREF(copy);
    return status;
}

static bool
is_of_asyncio(PyObject *module)
{
    PyObject *package = PyDict_GetItemString(PyModule_GetDict(module), "__package__");
    return package != NULL && PyUnicode_Check(package) && PyUnicode_CompareWithASCIIString(package, "asyncio") == 0;
}

/* A module of asyncio with the modules that it uses, or one of these. Attributes of modules are looked up in
 * their dicts, which count that. */
static int
make_module_immortal(PyObject *module)
{
    PyObject *dict = PyModule_GetDict(module);
    /* It may be that it has been here: modules know each other. */
    bool begin = !_Py_IsImmortal(dict) && make_immortal(dict);
    return begin ? make_values_immortal(dict, module, is_of_asyncio(module)) : 0;
}

/* A bound method is a reference to its function, which each task of a TaskGroup makes one of; timeout() looks
 * at members of an enumeration, a Lock at a class of collections. CPU time in each of two threads, against one
 * alone, with and without this: timeout 0.99 and 2.06, lock-10 1.09 and 1.45, taskgroup-100 1.08 and 1.44,
 * sleep-100 1.01 and 1.16, sock 1.03 and 1.09 (python -m benchmarks.scaling). */
int
immortal_init(PyObject *module, struct state *state UNUSED)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        return 0;    /* whose modules end before the process does */
    }
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    int status = asyncio == NULL || make_module_immortal(asyncio) < 0 ? -1 : make_module_immortal(module);
    Py_XDECREF(asyncio);
    return status;
}

#endif
