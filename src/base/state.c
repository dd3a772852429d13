/* state.c - what is common to all parts of the module's state. */
#include "base/state.h"

#include "base/immortal.h"

/* By its address Python finds the module of a type: constant once it is set, for all interpreters. */
static struct PyModuleDef *module_definition;

void
state_set_definition(struct PyModuleDef *definition)
{
    __atomic_store_n(&module_definition, definition, __ATOMIC_RELEASE);
}

struct state *
state_of_type(PyTypeObject *type)
{
    struct PyModuleDef *definition = __atomic_load_n(&module_definition, __ATOMIC_ACQUIRE);
    PyObject *module = PyType_GetModuleByDef(type, definition);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* -- types ------------------------------------------------------------------------ */

int
state_check_base(PyTypeObject *base, Py_ssize_t room)
{
    if (base->tp_basicsize > room) {
        PyErr_Format(PyExc_ImportError,
                     "asyncloop was built for another build of CPython: %s has %zd bytes, "
                     "there is room for %zd; build asyncloop again with this interpreter",
                     base->tp_name, base->tp_basicsize, room);
        return -1;
    }
    return 0;
}

int
state_add_type_with_bases(PyObject *module, PyType_Spec *spec, PyObject *bases, PyTypeObject **slot)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, bases);
    if (type == NULL) {
        return -1;
    }
    *slot = (PyTypeObject *)type;
    int status = PyModule_AddType(module, (PyTypeObject *)type);
    immortal_type(type);
    return status;
}

int
state_add_type(PyObject *module, PyType_Spec *spec, PyObject *base,
               Py_ssize_t base_size, PyTypeObject **slot)
{
    if (base == NULL) {
        return state_add_type_with_bases(module, spec, NULL, slot);
    }
    PyObject *bases = state_check_base((PyTypeObject *)base, base_size) < 0 ? NULL
                                                                            : PyTuple_Pack(1, base);
    int result = bases == NULL ? -1 : state_add_type_with_bases(module, spec, bases, slot);
    Py_XDECREF(bases);
    return result;
}

/* -- objects of other modules ------------------------------------------------------- */

static int
import_name(const struct state_import *wanted)
{
    PyObject **slot = wanted->slot;
    PyObject *module = PyImport_ImportModule(wanted->module);
    if (module == NULL) {
        return -1;
    }
    *slot = PyObject_GetAttrString(module, wanted->name);
    Py_DECREF(module);
    if (*slot == NULL && wanted->optional && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        return 0;
    }
    return *slot == NULL ? -1 : 0;
}

int
state_import(const struct state_import *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (import_name(&wanted[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* -- life --------------------------------------------------------------------------- */

void
state_own(struct state *state, void *first, size_t count)
{
    if (state->owned_count == STATE_OWNED_MAX) {
        Py_FatalError("asyncloop: STATE_OWNED_MAX is too small");
    }
    state->owned[state->owned_count].first = first;
    state->owned[state->owned_count].count = count;
    state->owned_count++;
}

/* One string of all of them: a statement for each would take twenty times the room. */
static const char all_names[] =
#define X(identifier) #identifier "\0"
    STATE_NAMES(X)
#undef X
    ;

static int
intern_names(PyObject **slots)
{
    for (const char *name = all_names; *name != '\0'; name += strlen(name) + 1) {
        PyObject *interned = PyUnicode_InternFromString(name);
        if (interned == NULL) {
            return -1;
        }
        *slots++ = interned;
    }
    return 0;
}

static int
make_keywords(struct state *state)
{
    state->keywords.context = PyTuple_Pack(1, state->names.context);
    state->keywords.debug = PyTuple_Pack(1, state->names.debug);
    state->keywords.loop = PyTuple_Pack(1, state->names.loop);
    state->empty_tuple = PyTuple_New(0);
    return state->keywords.context == NULL || state->keywords.debug == NULL || state->keywords.loop == NULL
                   || state->empty_tuple == NULL
               ? -1
               : 0;
}

int
state_init(PyObject *module UNUSED, struct state *state)
{
    STATE_OWN(state, &state->names);
    STATE_OWN(state, &state->keywords);
    state_own(state, &state->empty_tuple, 1);
    return intern_names((PyObject **)&state->names) < 0 ? -1 : make_keywords(state);
}

int
state_traverse(struct state *state, visitproc visit, void *arg)
{
    for (size_t i = 0; i < state->owned_count; i++) {
        for (size_t j = 0; j < state->owned[i].count; j++) {
            Py_VISIT(state->owned[i].first[j]);
        }
    }
    return 0;
}

void
state_clear(struct state *state)
{
    /* What came last goes first; the fields stay known, and NULL. */
    for (size_t i = state->owned_count; i-- > 0;) {
        for (size_t j = 0; j < state->owned[i].count; j++) {
            Py_CLEAR(state->owned[i].first[j]);
        }
    }
}
