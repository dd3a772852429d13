/* tls_shipped.c - is TLS in this process what the standard library has?
 *
 * asyncloop/_tls_shipped.py looks at the classes and says what it has seen; here that is
 * compared for each new connection: the classes' version tags (which change with each assignment
 * to an attribute of the class), the code of their functions, what the names of the modules
 * stand for, and the attributes of the context itself. */
#include "tls/tls.h"

/* The current tag of a class, or 0: it has none, so that a change would not be seen. */
static unsigned int
version_of(PyObject *type)
{
    return SHARED_LOAD(((PyTypeObject *)type)->tp_version_tag);
}

static bool
classes_are_unchanged(const struct tls_shipped *shipped)
{
    for (Py_ssize_t i = 0; i < TLS_CLASSES; i++) {
        unsigned int version = version_of(PyTuple_GET_ITEM(shipped->classes, i));
        if (version == 0 || version != shipped->versions[i]) {
            return false;
        }
    }
    return true;
}

static bool
functions_are_unchanged(const struct tls_shipped *shipped)
{
    Py_ssize_t count = PyTuple_GET_SIZE(shipped->functions);
    for (Py_ssize_t i = 0; i + 1 < count; i += 2) {
        PyObject *function = PyTuple_GET_ITEM(shipped->functions, i);
        if (PyFunction_GET_CODE(function) != PyTuple_GET_ITEM(shipped->functions, i + 1)) {
            return false;
        }
    }
    return true;
}

/* 1 / 0 / -1 */
static int
names_are_unchanged(const struct tls_shipped *shipped)
{
    Py_ssize_t count = PyTuple_GET_SIZE(shipped->names);
    for (Py_ssize_t i = 0; i + 2 < count; i += 3) {
        PyObject *value;
        int found = PyDict_GetItemRef(PyTuple_GET_ITEM(shipped->names, i),
                                      PyTuple_GET_ITEM(shipped->names, i + 1), &value);
        if (found < 0) {
            return -1;
        }
        Py_XDECREF(value);
        if (value != PyTuple_GET_ITEM(shipped->names, i + 2)) {
            return 0;
        }
    }
    return 1;
}

/* Are the methods that the class's wrap_bio() calls those of the class? 1 / 0 / -1 */
static int
context_is_plain(struct state *state, PyObject *context)
{
    PyObject *own = PyObject_GenericGetDict(context, NULL);
    if (own == NULL) {
        return -1;
    }
    PyObject *names[] = {state->names.wrap_bio, state->names._wrap_bio,
                         state->names._encode_hostname, state->names.sslobject_class};
    int plain = 1;
    for (size_t i = 0; i < ARRAY_LEN(names) && plain == 1 && PyDict_GET_SIZE(own) > 0; i++) {
        int found = PyDict_Contains(own, names[i]);
        plain = found < 0 ? -1 : !found;
    }
    Py_DECREF(own);
    return plain;
}

static PyObject *
check(struct state *state, PyObject *context)
{
    struct tls_shipped *shipped = &tls_state(state)->tls.shipped;
    int answer = shipped->classes != NULL && classes_are_unchanged(shipped)
                         && functions_are_unchanged(shipped)
                     ? names_are_unchanged(shipped)
                     : 0;
    if (answer < 0) {
        return NULL;
    }
    if (answer == 0) {
        return Py_NewRef(Py_None);
    }
    if ((PyObject *)Py_TYPE(context) != PyTuple_GET_ITEM(shipped->classes, TLS_CONTEXT_CLASS)) {
        return Py_NewRef(Py_False);
    }
    answer = context_is_plain(state, context);
    return answer < 0 ? NULL : PyBool_FromLong(answer);
}

PyObject *
module_tls_check(PyObject *module, PyObject *context)
{
    GUARD(module);
    return check(PyModule_GetState(module), context);
}

/* Are these tuples what module_tls_check() takes for granted? */
static bool
stamp_is_sound(PyObject *classes, PyObject *functions, PyObject *names)
{
    if (PyTuple_GET_SIZE(classes) != TLS_CLASSES || PyTuple_GET_SIZE(functions) % 2 != 0
        || PyTuple_GET_SIZE(names) % 3 != 0) {
        return false;
    }
    for (Py_ssize_t i = 0; i < TLS_CLASSES; i++) {
        if (!PyType_Check(PyTuple_GET_ITEM(classes, i))) {
            return false;
        }
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(functions); i += 2) {
        if (!PyFunction_Check(PyTuple_GET_ITEM(functions, i))) {
            return false;
        }
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i += 3) {
        if (!PyDict_Check(PyTuple_GET_ITEM(names, i))) {
            return false;
        }
    }
    return true;
}

/* The function that a class has under this name, and its code: borrowed from `functions`. 0 / -1 */
static int
find_function(PyObject *functions, PyObject *type, const char *name, PyObject **function,
              PyObject **code)
{
    PyObject *wanted = PyObject_GetAttrString(type, name);
    if (wanted == NULL) {
        return -1;
    }
    Py_DECREF(wanted);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(functions); i += 2) {
        if (PyTuple_GET_ITEM(functions, i) == wanted) {
            *function = wanted;
            *code = PyTuple_GET_ITEM(functions, i + 1);
            return 0;
        }
    }
    PyErr_Format(PyExc_TypeError, "%s is not among the functions", name);
    return -1;
}

/* 0 / -1 */
static int
stamp(struct state *state, PyObject *classes, PyObject *functions, PyObject *names)
{
    struct tls_shipped *shipped = &tls_state(state)->tls.shipped;
    for (Py_ssize_t i = 0; i < TLS_CLASSES; i++) {
        /* a class gets its tag when an attribute is looked up */
        PyObject *type = PyTuple_GET_ITEM(classes, i);
        PyObject *any = PyObject_GetAttrString(type, "__init__");
        if (any == NULL) {
            return -1;
        }
        Py_DECREF(any);
        shipped->versions[i] = version_of(type);
    }
    PyObject *type = PyTuple_GET_ITEM(classes, TLS_OBJECT_CLASS);
    if (find_function(functions, type, "read", &shipped->read, &shipped->read_code) < 0
        || find_function(functions, type, "write", &shipped->write, &shipped->write_code) < 0) {
        return -1;
    }
    PyObject *old[] = {shipped->classes, shipped->functions, shipped->names};
    shipped->classes = Py_NewRef(classes);
    shipped->functions = Py_NewRef(functions);
    shipped->names = Py_NewRef(names);
    for (size_t i = 0; i < ARRAY_LEN(old); i++) {
        Py_XDECREF(old[i]);
    }
    return 0;
}

PyObject *
module_tls_stamp(PyObject *module, PyObject *args)
{
    PyObject *classes, *functions, *names;
    if (!PyArg_ParseTuple(args, "O!O!O!:_tls_stamp", &PyTuple_Type, &classes, &PyTuple_Type,
                          &functions, &PyTuple_Type, &names)) {
        return NULL;
    }
    if (!stamp_is_sound(classes, functions, names)) {
        PyErr_SetString(PyExc_TypeError, "(classes), (function, code, ...), (dict, name, value, ...)");
        return NULL;
    }
    int result;
    {
        GUARD(module);
        result = stamp(PyModule_GetState(module), classes, functions, names);
    }
    return result < 0 ? NULL : Py_NewRef(Py_None);
}
