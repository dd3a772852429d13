/* standard.c - see standard.h.
 *
 * From 3.12 on a watcher of dicts (an interpreter has eight for everybody) tells of changes; before
 * that each dict has a version. Where no watcher is left, each use looks. */
#include "base/standard.h"

#include <string.h>

enum kind {
    KIND_BUILTIN,     /* a function of C of that name */
    KIND_FUNCTION,    /* a function of the module */
    KIND_CLASS,       /* a class of the module */
    KIND_ASYNCIO,     /* the class of the C module _asyncio, or ours in its place */
    KIND_MODULE,      /* the module of that name */
};

static const struct {
    const char *attribute;
    enum standard_module module;
    enum kind kind;
} globals[] = {
#define X(name, module, attribute, kind) {attribute, MODULE_##module, KIND_##kind},
    STANDARD_GLOBALS(X)
#undef X
};

static const char *const module_names[] = {
#define X(name, module) module,
    STANDARD_MODULES(X)
#undef X
};

/* -- what is the standard library's own? ----------------------------------------------- */

static bool
string_is(PyObject *text, const char *expected)
{
    return text != NULL && PyUnicode_Check(text)
           && PyUnicode_CompareWithASCIIString(text, expected) == 0;
}

/* Is op.name that string? */
static bool
attribute_is(PyObject *op, const char *name, const char *expected)
{
    PyObject *value = PyObject_GetAttrString(op, name);
    bool same = string_is(value, expected);
    if (value == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(value);
    return same;
}

bool
standard_function(PyObject *function, PyObject *namespace, const char *qualname)
{
    if (!PyFunction_Check(function) || PyFunction_GET_GLOBALS(function) != namespace) {
        return false;
    }
    return attribute_is(PyFunction_GET_CODE(function), "co_qualname", qualname);
}

static bool
global_is_own(struct state *state, int i, PyObject *value)
{
    const char *name = globals[i].attribute;
    PyObject *namespace = state->standard.modules[globals[i].module].dict;
    switch (globals[i].kind) {
    case KIND_BUILTIN:
        return PyCFunction_CheckExact(value) && attribute_is(value, "__name__", name);
    case KIND_FUNCTION:
        return standard_function(value, namespace, name);
    case KIND_CLASS:
        return PyType_Check(value) && attribute_is(value, "__qualname__", name)
               && attribute_is(value, "__module__", module_names[globals[i].module]);
    case KIND_ASYNCIO:
        return value == (PyObject *)state->standard.classes[i][0]
               || value == (PyObject *)state->standard.classes[i][1];
    case KIND_MODULE:
        for (int module = 0; PyModule_Check(value) && module < STANDARD_MODULE_COUNT; module++) {
            const char *dot = strrchr(module_names[module], '.');
            if (strcmp(dot == NULL ? module_names[module] : dot + 1, name) == 0) {
                return PyModule_GetDict(value) == state->standard.modules[module].dict;
            }
        }
        return false;
    }
    return false;
}

void
standard_set_classes(struct state *state, enum standard_global global, PyTypeObject *asyncio,
                     PyTypeObject *ours)
{
    state->standard.classes[global][0] = asyncio;
    state->standard.classes[global][1] = ours;
}

/* What the global is now, if that is a function of its module, with the code that it has, be it the own one or
 * not; or both NULL. No other function becomes the own one, whatever code it gets. */
static struct standard_function
function_seen(struct standard *standard, int i, PyObject *value)
{
    struct standard_function seen = {NULL, NULL};
    if (globals[i].kind == KIND_FUNCTION && value != NULL && PyFunction_Check(value)
        && PyFunction_GET_GLOBALS(value) == standard->modules[globals[i].module].dict) {
        seen.function = Py_NewRef(value);
        seen.code = Py_NewRef(PyFunction_GET_CODE(value));
    }
    return seen;
}

static void
functions_drop(struct standard *standard UNUSED, struct standard_function *functions)
{
    for (int i = 0; i < STANDARD_GLOBAL_COUNT; i++) {
        Py_CLEAR(functions[i].code);
#ifdef Py_GIL_DISABLED
        /* Another thread may be looking at a function that the global had (there are few): it lives on. */
        if (functions[i].function != SHARED_LOAD(standard->functions[i].function)) {
            continue;
        }
#endif
        Py_CLEAR(functions[i].function);
    }
}

/* What a look has found counts from now on, unless another thread has looked later. `functions` becomes what
 * is to be dropped. */
static void
keep_look(struct standard *standard, struct standard_function *functions, unsigned int replaced,
          unsigned int changes UNUSED)
{
    GUARD(standard->modules[0].dict);
    if (!STANDARD_IS_LATER(changes, standard->changes)) {
        return;
    }
    for (int i = 0; i < STANDARD_GLOBAL_COUNT; i++) {
        struct standard_function old = standard->functions[i];
        SHARED_STORE(standard->functions[i].function, functions[i].function);
        SHARED_STORE(standard->functions[i].code, functions[i].code);
        functions[i] = old;
    }
    SHARED_STORE(standard->replaced, replaced);
#if PY_VERSION_HEX >= 0x030C0000
    SHARED_STORE(standard->changes, changes);
#endif
}

void
standard_look(struct state *state)
{
    struct standard *standard = &state->standard;
    if (standard->modules[0].dict == NULL) {
        return;    /* the interpreter ends */
    }
    PyObject *exc = PyErr_GetRaisedException();
    struct standard_function functions[STANDARD_GLOBAL_COUNT];
    unsigned int replaced = 0, changes = 0;
#if PY_VERSION_HEX >= 0x030C0000
    /* Noted before the look: what changes meanwhile is looked at the next time. */
    changes = __atomic_load_n(&standard_changes, __ATOMIC_ACQUIRE);
    if (standard->watcher < 0) {
        changes--;
    }
#else
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        standard->modules[i].version = *standard->modules[i].current;
    }
#endif
    for (int i = 0; i < STANDARD_GLOBAL_COUNT; i++) {
        PyObject *value = NULL;
        PyObject *dict = standard->modules[globals[i].module].dict;
        PyObject *name = PyUnicode_FromString(globals[i].attribute);
        if (name == NULL || PyDict_GetItemRef(dict, name, &value) < 0) {
            PyErr_Clear();
        }
        Py_XDECREF(name);
        /* What was not there at import (os.writev, _ThreadSafeHandle) is no short way's concern. */
        bool own = value == NULL ? (standard->missing & (1u << i)) != 0
                                 : global_is_own(state, i, value);
        functions[i] = function_seen(standard, i, value);
        replaced |= own ? 0 : 1u << i;
        Py_XDECREF(value);
    }
    keep_look(standard, functions, replaced, changes);
    functions_drop(standard, functions);
    PyErr_SetRaisedException(exc);
}

bool
standard_class_has(PyTypeObject *type, const char *name, PyTypeObject *owner)
{
    PyObject *mine = PyObject_GetAttrString((PyObject *)type, name);
    PyObject *theirs = mine == NULL ? NULL : PyObject_GetAttrString((PyObject *)owner, name);
    bool same = mine != NULL && mine == theirs;
    if (theirs == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(mine);
    Py_XDECREF(theirs);
    return same;
}

unsigned int
standard_version_given(PyTypeObject *type)
{
    Py_XDECREF(PyObject_GetAttrString((PyObject *)type, "__new__"));    /* any look-up gives it one */
    PyErr_Clear();
    unsigned int version = standard_version(type);
    return version != 0 ? version : UINT_MAX;
}

void
standard_keep(PyTypeObject *type, unsigned int *version, unsigned int version_seen, unsigned int *found,
              unsigned int found_now)
{
    GUARD((PyObject *)type);
    if (!standard_class_is_same(type, version)) {
        SHARED_STORE(*found, found_now);
        SHARED_STORE(*version, version_seen);
    }
}

/* -- sockets -------------------------------------------------------------------------- */

static const char *const socket_methods[] = {
#define X(name, attribute) attribute,
    STANDARD_SOCKET_METHODS(X)
#undef X
};

/* Is the attribute what socket.py or the C module _socket defines? */
static bool
socket_attribute_is_own(PyTypeObject *class, PyObject *name, PyObject *namespace)
{
    PyTypeObject *base = class->tp_base;    /* _socket.socket */
    PyObject *value = PyDict_GetItemWithError(class->tp_dict, name);
    if (value == NULL) {
        PyErr_Clear();
        return PyDict_GetItemWithError(base->tp_dict, name) != NULL
               || PyUnicode_CompareWithASCIIString(name, "__getattribute__") == 0;
    }
    if (Py_IS_TYPE(value, &PyProperty_Type)) {
        PyObject *getter = PyObject_GetAttrString(value, "fget");
        bool own = getter != NULL && PyFunction_Check(getter)
                   && PyFunction_GET_GLOBALS(getter) == namespace;
        PyErr_Clear();
        Py_XDECREF(getter);
        return own;
    }
    PyObject *qualname = PyUnicode_FromFormat("socket.%U", name);
    const char *expected = qualname == NULL ? NULL : PyUnicode_AsUTF8(qualname);
    bool own = expected != NULL && standard_function(value, namespace, expected);
    PyErr_Clear();
    Py_XDECREF(qualname);
    return own;
}

void
standard_sockets_look(struct state *state)
{
    PyTypeObject *class = (PyTypeObject *)state->standard.socket_class;
    PyObject *namespace = state->standard.modules[MODULE_SOCKET].dict;
    PyObject *exc = PyErr_GetRaisedException();
    unsigned int replaced = 0, version = standard_version_given(class);
    for (int i = 0; i < SOCKET_METHOD_COUNT; i++) {
        PyObject *name = PyUnicode_InternFromString(socket_methods[i]);
        PyObject *value = name == NULL ? NULL : PyObject_GetAttr((PyObject *)class, name);
        if (value == NULL || !socket_attribute_is_own(class, name, namespace)) {
            replaced |= 1u << i;
        }
        Py_XDECREF(value);
        Py_XDECREF(name);
    }
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
    standard_keep(class, &state->standard.socket_version, version, &state->standard.socket_replaced, replaced);
}

bool
standard_socket_look(struct state *state, PyObject *sock, unsigned int methods)
{
    if (!Py_IS_TYPE(sock, (PyTypeObject *)state->standard.socket_class)) {
        return false;
    }
    standard_sockets_look(state);
    return (SHARED_LOAD(state->standard.socket_replaced) & methods) == 0;
}

PyObject *
standard_socket_class(void)
{
    PyObject *socket_module = PyImport_ImportModule("_socket");
    PyObject *base = socket_module == NULL ? NULL : PyObject_GetAttrString(socket_module, "socket");
    PyObject *classes = base == NULL ? NULL : PyObject_CallMethod(base, "__subclasses__", NULL);
    PyObject *found = NULL;
    for (Py_ssize_t i = 0; classes != NULL && found == NULL && i < PyList_GET_SIZE(classes); i++) {
        PyObject *class = PyList_GET_ITEM(classes, i);
        if (attribute_is(class, "__module__", "socket") && attribute_is(class, "__qualname__", "socket")) {
            found = Py_NewRef(class);
        }
    }
    if (classes != NULL && found == NULL) {
        PyErr_SetString(PyExc_ImportError, "the class socket.socket is missing");
    }
    Py_XDECREF(classes);
    Py_XDECREF(base);
    Py_XDECREF(socket_module);
    return found;
}

/* -- our transports -------------------------------------------------------------------- */

int
standard_transport_init(struct state *state, struct standard_transport *transport,
                        PyTypeObject *type)
{
    STATE_OWN(state, &transport->own);
    transport->version = UINT_MAX;    /* not looked at yet; 0 is the version of a class just changed */
#define X(name)                                                                         \
    transport->own.name = PyObject_GetAttr((PyObject *)type, state->names.name);        \
    if (transport->own.name == NULL) {                                                  \
        return -1;                                                                      \
    }
    STANDARD_TRANSPORT_METHODS(X)
#undef X
    return 0;
}

bool
standard_transport_look(struct state *state, struct standard_transport *transport,
                        PyTypeObject *type)
{
    PyObject *exc = PyErr_GetRaisedException();
    unsigned int version = standard_version_given(type);
    unsigned int replaced = type->tp_getattro != PyObject_GenericGetAttr;
#define X(name)                                                                         \
    {                                                                                   \
        PyObject *value = PyObject_GetAttr((PyObject *)type, state->names.name);        \
        replaced |= value != transport->own.name;                                       \
        Py_XDECREF(value);                                                              \
    }
    STANDARD_TRANSPORT_METHODS(X)
#undef X
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
    standard_keep(type, &transport->version, version, &transport->replaced, replaced);
    return replaced == 0;
}

/* -- being told -------------------------------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030C0000

unsigned int standard_changes;

static int
dict_has_changed(PyDict_WatchEvent event UNUSED, PyObject *dict UNUSED, PyObject *key UNUSED,
                 PyObject *value UNUSED)
{
    __atomic_fetch_add(&standard_changes, 1, __ATOMIC_ACQ_REL);
    return 0;
}

static int
class_has_changed(PyTypeObject *type UNUSED)
{
    __atomic_fetch_add(&standard_changes, 1, __ATOMIC_ACQ_REL);
    return 0;
}

bool
standard_watch_class(struct state *state, PyTypeObject *type)
{
    int watcher = state->standard.class_watcher;
    if (watcher < 0 || standard_version_given(type) == UINT_MAX) {
        return false;
    }
    if (PyType_Watch(watcher, (PyObject *)type) < 0) {
        PyErr_Clear();
        return false;
    }
    return standard_version(type) != 0;
}

static int
watch_modules(struct standard *standard)
{
    standard->class_watcher = PyType_AddWatcher(class_has_changed);
    if (standard->class_watcher < 0) {
        PyErr_Clear();
    }
    standard->watcher = PyDict_AddWatcher(dict_has_changed);
    if (standard->watcher < 0) {
        PyErr_Clear();    /* all are taken: see standard_look() */
        return 0;
    }
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        if (PyDict_Watch(standard->watcher, standard->modules[i].dict) < 0) {
            return -1;
        }
    }
    return 0;
}

#else

static int
watch_modules(struct standard *standard)
{
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        standard->modules[i].current =
            &((PyDictObject *)standard->modules[i].dict)->ma_version_tag;
    }
    return 0;
}

#endif

int
standard_init(PyObject *module UNUSED, struct state *state)
{
    struct standard *standard = &state->standard;
    standard->watcher = standard->class_watcher = -1;
    standard->socket_version = UINT_MAX;    /* not looked at yet; 0 is the version of a class just changed */
#if PY_VERSION_HEX >= 0x030C0000
    standard->changes = standard_change_count() - 1;
#endif
    state_own(state, &standard->socket_class, 1);
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        PyObject *imported = PyImport_ImportModule(module_names[i]);
        if (imported == NULL) {
            return -1;
        }
        standard->modules[i].dict = Py_XNewRef(PyModule_GetDict(imported));
        Py_DECREF(imported);
        if (standard->modules[i].dict == NULL) {
            return -1;
        }
    }
    for (int i = 0; i < STANDARD_GLOBAL_COUNT; i++) {
        PyObject *dict = standard->modules[globals[i].module].dict;
        if (PyDict_GetItemString(dict, globals[i].attribute) == NULL) {
            standard->missing |= 1u << i;
        }
    }
    standard->socket_class = standard_socket_class();
    if (standard->socket_class == NULL || watch_modules(standard) < 0) {
        return -1;
    }
    standard_look(state);
    return 0;
}

int
standard_traverse(struct state *state, visitproc visit, void *arg)
{
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        Py_VISIT(state->standard.modules[i].dict);
    }
    for (int i = 0; i < STANDARD_GLOBAL_COUNT; i++) {
        Py_VISIT(state->standard.functions[i].function);
        Py_VISIT(state->standard.functions[i].code);
    }
    return 0;
}

void
standard_clear(struct state *state)
{
    struct standard *standard = &state->standard;
#if PY_VERSION_HEX >= 0x030C0000
    if (standard->watcher >= 0 && standard->modules[0].dict != NULL) {
        for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
            if (PyDict_Unwatch(standard->watcher, standard->modules[i].dict) < 0) {
                PyErr_Clear();
            }
        }
        if (PyDict_ClearWatcher(standard->watcher) < 0
            || (standard->class_watcher >= 0
                && PyType_ClearWatcher(standard->class_watcher) < 0)) {
            PyErr_Clear();
        }
        standard->watcher = standard->class_watcher = -1;
    }
#endif
    functions_drop(standard, standard->functions);
    /* From here on everything is taken for replaced. */
    standard->replaced = ~0u;
    for (int i = 0; i < STANDARD_MODULE_COUNT; i++) {
        standard->modules[i].current = &standard->modules[i].version;
        Py_CLEAR(standard->modules[i].dict);
    }
}
