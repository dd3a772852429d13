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

/* Those values in the dict of a module or a class, `inside`, that a step of a task takes references to. */
static int
make_values_immortal(PyObject *dict, PyObject *inside, bool of_asyncio)
{
    PyObject *copy = PyDict_Copy(dict), *name, *value;    /* others may write to it meanwhile */
    int status = copy == NULL ? -1 : 0;
    Py_ssize_t at = 0;
    while (status == 0 && PyDict_Next(copy, &at, &name, &value)) {
        if (PyModule_Check(value)) {
            status = of_asyncio ? make_module_immortal(value) : 0;
        }
        /* A member of an enumeration is an object of the class that holds it. */
        else if (PyType_Check(value) || PyCFunction_Check(value) || Py_TYPE(value)->tp_descr_get != NULL ||
                 (PyObject *)Py_TYPE(value) == inside) {
            (void)make_immortal(value);
        }
        if (PyModule_Check(inside) && PyType_Check(value) &&
            PyType_HasFeature((PyTypeObject *)value, Py_TPFLAGS_HEAPTYPE)) {
            status = make_values_immortal(((PyTypeObject *)value)->tp_dict, value, false);
        }
    }
    Py_XDECREF(copy);
    return status;
}

/* A module of asyncio with the modules that it uses, or one of these. Attributes of modules are looked up in
 * their dicts, which count that. */
static int
make_module_immortal(PyObject *module)
{
    PyObject *dict = PyModule_GetDict(module), *package = PyDict_GetItemString(dict, "__package__");
    bool of_asyncio = package != NULL && PyUnicode_Check(package) &&
                      PyUnicode_CompareWithASCIIString(package, "asyncio") == 0;
    /* It may be that it has been here: modules know each other. */
    return _Py_IsImmortal(dict) || !make_immortal(dict) ? 0 : make_values_immortal(dict, module, of_asyncio);
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
