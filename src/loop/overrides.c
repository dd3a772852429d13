/* overrides.c - see overrides.h. */
#include "loop/overrides.h"

#include "base/checked.h"

#include <string.h>

static const char *const method_names[] = {
#define X(name) #name,
    LOOP_METHODS(X)
#undef X
};

static bool loop_has_standard(struct state *state, PyObject *class, int method);
static unsigned int handle_overrides(struct state *state);

static PyObject *
module_accepting_methods(PyObject *module, PyObject *methods)
{
    struct state *state = PyModule_GetState(module);
    /* While asyncloop is imported: the code that asyncio's methods have. */
    for (int i = 0; i < LOOP_METHOD_COUNT; i++) {
        (void)loop_has_standard(state, loop_state(state)->overrides.BaseEventLoop, i);
    }
    (void)handle_overrides(state);
    Py_XSETREF(loop_state(state)->overrides.accepting, Py_NewRef(methods));
    Py_RETURN_NONE;
}

static PyMethodDef overrides_functions[] = {
    {"_accepting_methods", module_accepting_methods, METH_O,
     INSIDE_DOC("_accepting_methods(methods, /)\n--\n\n"
                "A dict of what is called for each connection that a server accepts, as ours has it.")},
    {NULL, NULL, 0, NULL},
};

int
overrides_init(PyObject *module, struct state *state)
{
    STATE_OWN_UNTIL(state, &loop_state(state)->overrides, timer_handle_version);
    const struct state_import wanted[] = {
        {&loop_state(state)->overrides.BaseEventLoop, "asyncio.base_events", "BaseEventLoop", false},
    };
    if (STATE_IMPORT(wanted) < 0) {
        return -1;
    }
    for (int i = 0; i < LOOP_METHOD_COUNT; i++) {
        PyObject *type = (PyObject *)loop_state(state)->types.Loop;
        /* BaseEventLoop's own methods, and what is not the core's, it has not. */
        if (PyObject_HasAttrString(type, method_names[i])) {
            loop_state(state)->overrides.own[i] = PyObject_GetAttrString(type, method_names[i]);
            if (loop_state(state)->overrides.own[i] == NULL) {
                return -1;
            }
        }
    }
    return PyModule_AddFunctions(module, overrides_functions);
}

/* asyncloop.Loop has descriptors of its own for methods of the core's type (loop_type.h). */
static bool
is_same_method(PyObject *value, PyObject *wanted)
{
    return value == wanted
           || (Py_IS_TYPE(value, &PyMethodDescr_Type) && Py_IS_TYPE(wanted, &PyMethodDescr_Type)
               && ((PyMethodDescrObject *)value)->d_method == ((PyMethodDescrObject *)wanted)->d_method);
}

/* Is the attribute of the class that method of ours? Gives the class its version. */
static bool
class_has(PyObject *class, const char *name, PyObject *wanted)
{
    PyObject *value = PyObject_GetAttrString(class, name);
    bool same = value != NULL && is_same_method(value, wanted);
    if (value == NULL) {
        PyErr_Clear();
    }
    Py_XDECREF(value);
    return same;
}

/* Are attributes of its objects looked up as everybody's? Else a __getattribute__() is to see each look. */
static bool
class_has_usual_look_up(PyObject *class)
{
    PyObject *usual = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__getattribute__");
    bool same = usual != NULL && class_has(class, "__getattribute__", usual);
    Py_XDECREF(usual);
    return same;
}

/* The code that the function of asyncio had when a loop of any thread looked at it first. */
static PyObject *
code_first_seen(struct state *state, int number, PyObject *function)
{
    PyObject **place = &loop_state(state)->overrides.seen[number].code;
    PyObject *code = NULL, *now = PyFunction_GET_CODE(function);
    if (SHARED_LOAD(*place) == NULL
        && __atomic_compare_exchange_n(place, &code, now, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        Py_INCREF(now);
        SHARED_STORE(loop_state(state)->overrides.seen[number].function, Py_NewRef(function));
    }
    return SHARED_LOAD(*place);
}

/* Has a class of asyncio the function that asyncio has there, with the code that it had when it was first seen
 * (the number in `seen`)? */
static bool
class_has_standard(struct state *state, int number, PyObject *class, const char *name, PyObject *namespace,
                   const char *qualname)
{
    PyObject *value = PyObject_GetAttrString(class, name);
    bool own = value != NULL && standard_function(value, namespace, qualname);
    own = own && PyFunction_GET_CODE(value) == code_first_seen(state, number, value);
    PyErr_Clear();
    Py_XDECREF(value);
    return own;
}

void
overrides_look_at_codes(Loop *loop)
{
    for (int i = 0; i < SEEN_COUNT; i++) {
        PyObject *function = SHARED_LOAD(loop_state(loop->state)->overrides.seen[i].function);
        if (function != NULL && PyFunction_GET_CODE(function) != loop_state(loop->state)->overrides.seen[i].code) {
            overrides_forget(loop);
            return;
        }
    }
}

static bool
loop_has_standard(struct state *state, PyObject *class, int method)
{
    const char *name = method_names[method];
    char qualname[64];
    PyOS_snprintf(qualname, sizeof(qualname), "BaseEventLoop.%s", name);
    PyObject *namespace = state->standard.modules[MODULE_BASE_EVENTS].dict;
    return namespace == NULL || class_has_standard(state, method, class, name, namespace, qualname);
}

/* Does the class of the loop have what it has for us? */
static bool
loop_class_has_own(struct state *state, PyTypeObject *class, int method)
{
    if (loop_state(state)->overrides.own[method] != NULL) {
        return class_has((PyObject *)class, method_names[method], loop_state(state)->overrides.own[method]);
    }
    /* Ours is in Python, and whatever is put in its place is found there. */
    return method == LOOP_create_connection
           || loop_has_standard(state, (PyObject *)class, method);
}

/* Is one of these another one, on the class or on the instance? */
static bool
accepting_is_replaced(struct state *state, Loop *loop)
{
    PyObject *methods = loop_state(state)->overrides.accepting;
    PyObject *dict = PyObject_GenericGetDict((PyObject *)loop, NULL);
    PyObject *name, *own;
    Py_ssize_t position = 0;
    bool found = false;
    while (methods != NULL && dict != NULL && !found && PyDict_Next(methods, &position, &name, &own)) {
        PyObject *value = PyObject_GetAttr((PyObject *)Py_TYPE(loop), name);
        found = value != own || PyDict_GetItemWithError(dict, name) != NULL;
        Py_XDECREF(value);
    }
    PyErr_Clear();
    Py_XDECREF(dict);
    return found;
}

/* Bits of what the instance itself has. */
static unsigned int
instance_overrides(Loop *loop)
{
    unsigned int found = 0;
    PyObject *dict = PyObject_GenericGetDict((PyObject *)loop, NULL);
    for (int i = 0; dict != NULL && i < LOOP_METHOD_COUNT; i++) {
        if (PyDict_GetItemString(dict, method_names[i]) != NULL) {
            found |= 1u << i;
        }
    }
    PyErr_Clear();    /* a _core.Loop alone has no dict */
    Py_XDECREF(dict);
    return found;
}

/* Has the instance a queue of somebody else's in place of _ready or _scheduled (asyncloop/_insides.py)? Then
 * asyncio's own methods put into it what is scheduled. Bits of these. */
static unsigned int
queue_overrides(Loop *loop)
{
    static const char *const names[] = {"_own_ready", "_own_scheduled"};
    const unsigned int both = LOOP_BIT(call_soon) | LOOP_BIT(call_soon_threadsafe) | LOOP_BIT(call_at) | LOOP_BIT(call_later);
    const unsigned int bits[] = {both | LOOP_BIT(_call_soon), both};
    PyObject *dict = PyObject_GenericGetDict((PyObject *)loop, NULL);
    unsigned int found = 0;
    for (size_t i = 0; dict != NULL && i < ARRAY_LEN(names); i++) {
        PyObject *queue = PyDict_GetItemString(dict, names[i]);
        found |= queue != NULL && queue != Py_None ? bits[i] : 0;
    }
    PyErr_Clear();
    Py_XDECREF(dict);
    return found;
}

/* What asyncio's own methods do instead of ours, where those that they call are somebody else's. */
static unsigned int
base_for(unsigned int replaced)
{
    unsigned int base = 0;
    if (replaced & (LOOP_CHECKS | LOOP_BIT(get_debug))) {
        base |= LOOP_BIT(call_soon) | LOOP_BIT(call_soon_threadsafe) | LOOP_BIT(call_at) | LOOP_BIT(call_later)
                | LOOP_BIT(create_task) | LOOP_BIT(run_in_executor);
    }
    if (replaced & LOOP_BIT(_timer_handle_cancelled)) {
        base |= LOOP_BIT(call_at) | LOOP_BIT(call_later);    /* asyncio's TimerHandle calls it */
    }
    if (replaced & LOOP_BIT(get_debug)) {
        base |= LOOP_BIT(create_future) | LOOP_HANDLE_CLASS;    /* as Handle and Future ask when they are made */
    }
    return base;
}

static unsigned int
handle_overrides(struct state *state)
{
    PyObject *namespace = state->standard.modules[MODULE_EVENTS].dict;
    unsigned int found = 0;
    if (namespace == NULL) {
        return 0;
    }
    if (!standard_is(state, STANDARD_EVENTS_HANDLE) || !standard_is(state, STANDARD_BASE_EVENTS_EVENTS)
        || !class_has_standard(state, SEEN_HANDLE_INIT, loop_state(state)->handles.asyncio_Handle, "__init__", namespace, "Handle.__init__")
        || ((PyTypeObject *)loop_state(state)->handles.asyncio_Handle)->tp_new != PyBaseObject_Type.tp_new) {
        found |= LOOP_HANDLE_CLASS;
    }
    if (!class_has_standard(state, SEEN_HANDLE_RUN, loop_state(state)->handles.asyncio_Handle, "_run", namespace, "Handle._run")) {
        found |= LOOP_HANDLE_RUN;
    }
    return found;
}

bool
overrides_timer_handle_look(struct state *state)
{
    static const char *const methods[] = {"__init__", "cancel", "when"};
    PyTypeObject *class = (PyTypeObject *)loop_state(state)->handles.asyncio_TimerHandle;
    PyObject *namespace = state->standard.modules[MODULE_EVENTS].dict;
    PyObject *exc = PyErr_GetRaisedException();
    unsigned int version = standard_version_given(class);
    bool own = true;
    for (size_t i = 0; namespace != NULL && i < ARRAY_LEN(methods); i++) {
        char qualname[64];
        PyOS_snprintf(qualname, sizeof(qualname), "TimerHandle.%s", methods[i]);
        own = own && class_has_standard(state, SEEN_TIMER_HANDLE + (int)i, (PyObject *)class, methods[i], namespace, qualname);
    }
    PyErr_SetRaisedException(exc);
    if (own) {
        SHARED_STORE(loop_state(state)->overrides.timer_handle_version, version);
    }
    return own;
}

/* What is not a method, but is called by one of asyncio's. */
static unsigned int
global_overrides(struct state *state)
{
    static const struct {
        unsigned int bit;
        enum standard_global global, module;
    } called[] = {
        {LOOP_BIT(create_future), STANDARD_FUTURES_FUTURE, STANDARD_BASE_EVENTS_FUTURES},
        {LOOP_BIT(create_task), STANDARD_TASKS_TASK, STANDARD_BASE_EVENTS_TASKS},
        {LOOP_BIT(time), STANDARD_TIME_MONOTONIC, STANDARD_BASE_EVENTS_TIME},
    };
    bool told = PY_VERSION_HEX >= 0x030C0000;    /* see GLOBAL_REPLACED */
    unsigned int found = 0;
    for (size_t i = 0; i < ARRAY_LEN(called); i++) {
        if (!standard_is(state, called[i].module) || (told && !standard_is(state, called[i].global))) {
            found |= called[i].bit;
        }
    }
    return found;
}

#if PY_VERSION_HEX >= 0x030C0000
/* Without a version, or a watcher, nobody tells of the next change. */
static bool
is_told_of_changes(Loop *loop)
{
    struct standard *standard = &loop->state->standard;
    return standard->watcher >= 0 && standard_watch_class(loop->state, Py_TYPE(loop))
           && standard_watch_class(loop->state, (PyTypeObject *)loop_state(loop->state)->handles.asyncio_Handle);
}

/* The number of changes before a look: each that comes later is told of. */
static unsigned int
changes_before_look(Loop *loop)
{
    bool told = is_told_of_changes(loop);
    unsigned int changes = standard_change_count();
    return told ? changes : changes - 1;
}

/* Another thread may have looked later than this one did, or have set an attribute meanwhile. */
static void
keep_look(Loop *loop, unsigned int replaced, unsigned int base, unsigned int changes)
{
    GUARD((PyObject *)loop);
    if (STANDARD_IS_LATER(changes, loop->overrides.changes)) {
        SHARED_STORE(loop->overrides.base, base);
        SHARED_STORE(loop->overrides.replaced, replaced | base);
        SHARED_STORE(loop->overrides.changes, changes);
    }
}
#else
static unsigned int
changes_before_look(Loop *loop UNUSED)
{
    return 0;
}

static void
keep_look(Loop *loop, unsigned int replaced, unsigned int base, unsigned int changes UNUSED)
{
    struct overrides *seen = &loop->overrides;
    seen->base = base;
    seen->replaced = replaced | base;
    bool known = Py_TYPE(loop)->tp_version_tag != 0 && ((PyTypeObject *)loop_state(loop->state)->handles.asyncio_Handle)->tp_version_tag != 0;
    seen->versions = known && seen->exposed == NULL ? overrides_versions(loop) : UINT_MAX;
    if (seen->exposed != NULL) {
        seen->exposed_versions = known ? overrides_versions(loop) : UINT_MAX;
        seen->exposed_version = ((PyDictObject *)seen->exposed)->ma_version_tag;
    }
}

/* Somebody may have the instance's dict, which has a version of its own. */
static bool
exposed_is_same(Loop *loop)
{
    const struct overrides *seen = &loop->overrides;
    return seen->exposed != NULL && overrides_versions(loop) == seen->exposed_versions
           && ((PyDictObject *)seen->exposed)->ma_version_tag == seen->exposed_version;
}
#endif

void
overrides_look(Loop *loop)
{
    struct state *state = loop->state;
#if PY_VERSION_HEX < 0x030C0000
    if (exposed_is_same(loop)) {
        return;
    }
#endif
    PyObject *exc = PyErr_GetRaisedException();
    unsigned int changes = changes_before_look(loop);
    unsigned int replaced = handle_overrides(state) | global_overrides(state) | instance_overrides(loop);
    unsigned int base = 0;
    for (int i = 0; i < LOOP_METHOD_COUNT; i++) {
        if (!loop_class_has_own(state, Py_TYPE(loop), i)) {
            replaced |= 1u << i;
        }
        /* BaseEventLoop has nothing that watches descriptors or wakes the loop. */
        if (i < LOOP__add_reader
            && !loop_has_standard(state, loop_state(state)->overrides.BaseEventLoop, i)) {
            base |= 1u << i;
        }
    }
    base |= base_for(replaced | base);
    if (!class_has_usual_look_up((PyObject *)Py_TYPE(loop))) {
        replaced |= LOOP_ALL_METHODS;
    }
    if (accepting_is_replaced(state, loop)) {
        replaced |= LOOP_ACCEPTING;
    }
    replaced |= SHORT_WAY(push) ? 0 : LOOP_BIT(call_soon);
    replaced |= SHORT_WAY(watch) ? 0 : LOOP_ADDING | LOOP_REMOVING;
    /* Where ours finds a global replaced, asyncio's method does what that is for. */
    base |= global_overrides(state);
    base |= queue_overrides(loop);
    keep_look(loop, replaced, base, changes);
    /* A class may have got another _run_once() or _process_events(): the run looks, too. */
    SET_FLAG(loop->turns_change, true);
    SET_FLAG(loop->looked_at, true);
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
}

void
overrides_begin(Loop *loop)
{
#if PY_VERSION_HEX >= 0x030C0000
    SHARED_STORE(loop->overrides.changes, standard_change_count() - 1);
#else
    loop->overrides.versions = loop->overrides.exposed_versions = UINT_MAX;
#endif
}

void
overrides_forget(Loop *loop)
{
#ifdef Py_GIL_DISABLED
    /* What another thread has begun to look at does not count, either. All loops look again: it is rare. */
    __atomic_fetch_add(&standard_changes, 1, __ATOMIC_ACQ_REL);
    (void)loop;
#else
    overrides_begin(loop);
#endif
}

#if PY_VERSION_HEX < 0x030C0000
void
overrides_modules_changed(Loop *loop)
{
    standard_look(loop->state);
    overrides_forget(loop);
}
#endif

unsigned int
overrides_bit(PyObject *name)
{
    for (int i = 0; PyUnicode_Check(name) && i < LOOP_METHOD_COUNT; i++) {
        if (PyUnicode_CompareWithASCIIString(name, method_names[i]) == 0) {
            return 1u << i;
        }
    }
    return 0;
}

void
overrides_attribute_set(Loop *loop, PyObject *name)
{
    if (!PyUnicode_Check(name)) {
        return;
    }
    PyObject *accepting = loop_state(loop->state)->overrides.accepting;
    if (overrides_bit(name) != 0 || (accepting != NULL && PyDict_Contains(accepting, name) != 0)
        || PyUnicode_CompareWithASCIIString(name, "__class__") == 0
        || PyUnicode_CompareWithASCIIString(name, "__dict__") == 0) {
        overrides_forget(loop);
    }
}

PyObject *
overrides_expose_dict(Loop *loop)
{
    PyObject *dict = PyObject_GenericGetDict((PyObject *)loop, NULL);
    if (dict == NULL) {
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    int watcher = loop->state->standard.watcher;
    if (watcher >= 0 && PyDict_Watch(watcher, dict) < 0) {
        Py_DECREF(dict);
        return NULL;
    }
#else
    Py_XSETREF(loop->overrides.exposed, Py_NewRef(dict));    /* so each use looks from now on */
#endif
    overrides_forget(loop);
    return dict;
}

int
overrides_ask_debug(Loop *loop)
{
    PyObject *debug = PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->names.get_debug);
    int result = debug == NULL ? -1 : PyObject_IsTrue(debug);
    Py_XDECREF(debug);
    return result;
}

PyObject *
overrides_call_base(Loop *loop, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    PyObject *method = PyObject_GetAttr(loop_state(loop->state)->overrides.BaseEventLoop, name);
    if (method == NULL) {
        return NULL;
    }
    Py_ssize_t count = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject **stack = PyMem_New(PyObject *, count + 1);
    PyObject *result = NULL;
    if (stack == NULL) {
        PyErr_NoMemory();
    }
    else {
        stack[0] = (PyObject *)loop;
        if (count > 0) {
            memcpy(stack + 1, args, (size_t)count * sizeof(*stack));
        }
        result = PyObject_Vectorcall(method, stack, (size_t)nargs + 1, kwnames);
    }
    PyMem_Free(stack);
    Py_DECREF(method);
    return result;
}
