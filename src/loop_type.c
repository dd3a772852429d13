/* loop_type.c - the methods and attributes of asyncloop._core.Loop: parse, check, forward.
 *
 * asyncloop.Loop derives from this type and from asyncio.BaseEventLoop. */
#include "loop_type.h"

#include "base/freelist.h"
#include "loop/activity.h"
#include "loop/current.h"
#include "loop/signals.h"
#include "loop/timer.h"
#include "loop/wake.h"
#include "tasks/executor.h"
#include "tasks/record.h"
#include "tasks/trace.h"
#include "net/hold.h"
#include "tls/tls.h"
#include "ops/look_up.h"
#include "ops/resolve.h"
#include "ops/sockop.h"
#include "insides.h"
#include "iteration.h"
#include "life.h"
#include "loop_attributes.h"
#include "loop_descriptors.h"
#include "loop_schedule.h"
#include "nested.h"
#include "readers.h"
#include "stats.h"

/* -- life --------------------------------------------------------------------------------------- */

static PyObject *
Loop__run(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(loop_run((Loop *)op));
}

static PyObject *
Loop__run_turn(PyObject *op, PyObject *ignored UNUSED)
{
    return none_or_error(loop_turn((Loop *)op));
}

static PyObject *
Loop__enter_nested(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    loop_enter_nested((Loop *)op);
    Py_RETURN_NONE;
}

static PyObject *
Loop__leave_nested(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    return none_or_error(loop_leave_nested((Loop *)op));
}

static PyObject *
Loop__close(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    loop_close((Loop *)op);
    Py_RETURN_NONE;
}

static PyObject *
Loop__signal_fd(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    int fd = signals_fd((Loop *)op);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *
Loop__write_to_self(PyObject *op, PyObject *ignored UNUSED)
{
    loop_wake((Loop *)op);
    Py_RETURN_NONE;
}

static PyObject *
Loop_stop(PyObject *op, PyObject *ignored UNUSED)
{
    SET_FLAG(((Loop *)op)->stopping, true);
    Py_RETURN_NONE;
}

static PyObject *
Loop_is_running(PyObject *op, PyObject *ignored UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->thread_id) != 0);
}

static PyObject *
Loop_is_closed(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    return PyBool_FromLong(FLAG(loop->closed) || SHARED_LOAD(loop->ev) == NULL);
}

static PyObject *
Loop_get_debug(PyObject *op, PyObject *ignored UNUSED)
{
    Loop *loop = (Loop *)op;
    return loop_base_replaced(loop, LOOP_BIT(get_debug))
               ? overrides_call_base(loop, loop->state->names.get_debug, NULL, 0, NULL)
               : Loop_get__debug(op, NULL);
}

/* -- attributes of the instance --------------------------------------------------------- */

static PyObject *
Loop__task_records(PyObject *op, PyObject *ignored UNUSED)
{
    return record_list((Loop *)op);
}

/* What is put on the instance has to be called: see overrides.h; an iteration and its parts as well. */
static int
Loop_setattro(PyObject *op, PyObject *name, PyObject *value)
{
    if (PyObject_GenericSetAttr(op, name, value) < 0) {
        return -1;
    }
    overrides_attribute_set((Loop *)op, name);
    if (!PyUnicode_Check(name)) {
        return 0;
    }
    if (PyUnicode_CompareWithASCIIString(name, "_run_once") == 0) {
        SET_FLAG(((Loop *)op)->turns_change, true);
    }
    else if (PyUnicode_CompareWithASCIIString(name, "_own_ready") == 0
             || PyUnicode_CompareWithASCIIString(name, "_own_scheduled") == 0) {
        SET_FLAG(((Loop *)op)->turns_change, true);
        overrides_forget((Loop *)op);
    }
    else if (PyUnicode_CompareWithASCIIString(name, "_process_events") == 0) {
        SET_FLAG(((Loop *)op)->looked_at, true);
    }
    return 0;
}

static PyObject *
Loop__instance_dict(PyObject *op, PyObject *ignored UNUSED)
{
    return overrides_expose_dict((Loop *)op);
}

static PyObject *
Loop__has_own(PyObject *op, PyObject *name)
{
    PyObject *dict = PyObject_GenericGetDict(op, NULL);
    int found = dict == NULL ? -1 : PyDict_Contains(dict, name);
    Py_XDECREF(dict);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

static PyObject *
Loop__set_instance_dict(PyObject *op, PyObject *dict)
{
    if (PyObject_GenericSetDict(op, dict, NULL) < 0) {
        return NULL;
    }
    PyObject *exposed = overrides_expose_dict((Loop *)op);
    Py_XDECREF(exposed);
    return none_or_error(exposed == NULL ? -1 : 0);
}

/* -- the type ------------------------------------------------------------------------------------------ */

static PyObject *
Loop_new(PyTypeObject *type, PyObject *args UNUSED, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    Loop *loop = state == NULL ? NULL : (Loop *)type->tp_alloc(type, 0);
    if (loop == NULL) {
        return NULL;
    }
    loop->state = state;
    loop->timer_fd = -1;
    list_init(&loop->all_loops);
    list_init(&tls_loop(loop)->pending);
    owed_init(&loop->owed);
    list_init(&loop->fds.active);
    list_init(&loop->fds.noted);
    list_init(&loop->fds.lent);
    list_init(&ops_loop(loop)->waiting_operations);
    inbox_init(loop);
    loop->activity = activity_new(loop_state(state)->loops.activities);
    if (loop->activity == NULL) {
        Py_DECREF(loop);
        return PyErr_NoMemory();
    }
    loop->counters = loop->activity->counters;
#ifdef Py_GIL_DISABLED
    kept_init(&loop->kept, state);
#endif
    if (loop_state(state)->loops.usual == NULL && type->tp_base == loop_state(state)->types.Loop) {
        /* Never a program's own subclass: the class would live for good, with all that hangs on
         * it, like the cells of a method that is defined in a function. */
        loop_state(state)->loops.usual = (PyTypeObject *)Py_NewRef(type);
    }
    loop->slow_callback_duration = 0.1;
    loop->resolution = 1e-9;
    overrides_begin(loop);
    if (ready_init(&loop->ready) < 0) {
        Py_DECREF(loop);
        return NULL;
    }
    return (PyObject *)loop;
}

static int
Loop_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) > 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)) {
        PyErr_SetString(PyExc_TypeError, "Loop() takes no arguments");
        return -1;
    }
    return loop_open((Loop *)op);
}

static int
Loop_traverse(PyObject *op, visitproc visit, void *arg)
{
    Loop *loop = (Loop *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(loop->task_factory);
    Py_VISIT(loop->records);
    Py_VISIT(loop->places);
    Py_VISIT(loop->slow_callback_number);
    Py_VISIT(loop->debug_value);
    Py_VISIT(loop->current_handle);
    Py_VISIT(loop->made_executor);
#if PY_VERSION_HEX < 0x030C0000
    Py_VISIT(loop->overrides.exposed);
#endif
    int result = ready_traverse(&loop->ready, visit, arg);
    if (result == 0) {
        result = ready_traverse(&loop->deferred, visit, arg);
    }
    if (result == 0) {
        result = timer_traverse(loop, visit, arg);
    }
    if (result == 0) {
        result = inbox_traverse(loop, visit, arg);
    }
    if (result == 0) {
        result = owed_traverse(&loop->owed, visit, arg);
    }
    if (result == 0) {
        result = look_ups_traverse(loop, visit, arg);
    }
    if (result == 0) {
        result = watch_traverse(loop, visit, arg);
    }
    return result != 0 ? result : readers_traverse(loop, visit, arg);
}

static int
Loop_clear(PyObject *op)
{
    Loop *loop = (Loop *)op;
    if (loop->run == NULL) {
        loop->collected = true;
        loop_close(loop);
    }
    Py_CLEAR(loop->task_factory);
    Py_CLEAR(loop->records);
    Py_CLEAR(loop->places);
    Py_CLEAR(loop->slow_callback_number);
    Py_CLEAR(loop->debug_value);
    Py_CLEAR(loop->current_handle);
    Py_CLEAR(loop->made_executor);
#if PY_VERSION_HEX < 0x030C0000
    Py_CLEAR(loop->overrides.exposed);
#endif
    return 0;
}

static void
Loop_dealloc(PyObject *op)
{
    Loop *loop = (Loop *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Loop_clear(op);
    loop_free_buffers(loop);    /* an Operation goes on after close(), too */
    inbox_free(loop);
    current_forget_loop(loop);
    ready_free(&loop->ready);
    ready_free(&loop->deferred);
    watch_free(loop);
    pthread_cond_destroy(&loop->inbox.released);
    pthread_mutex_destroy(&loop->inbox.lock);
    activity_free(loop->activity);
    PyMem_Free(loop->spare_run);
    type->tp_free(op);
    Py_DECREF(type);
}

#define FASTCALL(name) (PyCFunction)(void (*)(void))(name)

#if PY_VERSION_HEX >= 0x030D0300
#define CREATE_TASK_KEYWORDS "**kwargs"
#else
#define CREATE_TASK_KEYWORDS "*, name=None, context=None"
#endif

static PyMethodDef Loop_methods[] = {
    LOOP_SCHEDULE_METHODS,
    LOOP_DESCRIPTOR_METHODS,
    {"stop", Loop_stop, METH_NOARGS,
     PyDoc_STR("stop($self, /)\n--\n\nEnds run_forever() after the current iteration.")},
    {"is_running", Loop_is_running, METH_NOARGS,
     PyDoc_STR("is_running($self, /)\n--\n\nTrue inside run_forever().")},
    {"is_closed", Loop_is_closed, METH_NOARGS,
     PyDoc_STR("is_closed($self, /)\n--\n\nTrue after close().")},
    {"get_debug", Loop_get_debug, METH_NOARGS,
     PyDoc_STR("get_debug($self, /)\n--\n\nTrue in debug mode.")},
    SOCKOP_METHODS,
    RESOLVE_METHODS,
    EXECUTOR_METHODS,
    {"_has_own", Loop__has_own, METH_O, NULL},
    {"_instance_dict", Loop__instance_dict, METH_NOARGS, NULL},
    {"_set_instance_dict", Loop__set_instance_dict, METH_O, NULL},
    {"_run", Loop__run, METH_NOARGS, NULL},
    {"_run_turn", Loop__run_turn, METH_NOARGS, NULL},
    {"_task_records", Loop__task_records, METH_NOARGS, NULL},
    {"_enter_nested", Loop__enter_nested, METH_NOARGS, NULL},
    {"_leave_nested", Loop__leave_nested, METH_NOARGS, NULL},
    INSIDES_METHODS,
    STATS_METHODS,
    {"_trace_begin", Loop__trace_begin, METH_NOARGS, NULL},
    {"_trace_end", Loop__trace_end, METH_NOARGS, NULL},
    {"_close", Loop__close, METH_NOARGS, NULL},
    {"_signal_fd", Loop__signal_fd, METH_NOARGS, NULL},
    {"_write_to_self", Loop__write_to_self, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Loop_slots[] = {
    {Py_tp_doc, "Loop()\n--\n\n"
                "The core of asyncloop.Loop: scheduling, timers, descriptors, over libev."},
    {Py_tp_new, Loop_new},
    {Py_tp_init, Loop_init},
    {Py_tp_dealloc, Loop_dealloc},
    {Py_tp_traverse, Loop_traverse},
    {Py_tp_clear, Loop_clear},
    {Py_tp_setattro, Loop_setattro},
    {Py_tp_methods, Loop_methods},
    {Py_tp_getset, loop_attributes},
    {0, NULL},
};

static PyType_Spec Loop_spec = {
    .name = "asyncloop._core.Loop",
    .basicsize = sizeof(struct ops_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = Loop_slots,
};

/* -- finding a loop by its number ----------------------------------------------------------- */

PyObject *
loop_by_number(PyObject *module, PyObject *number)
{
    struct state *state = PyModule_GetState(module);
    unsigned long long wanted = PyLong_AsUnsignedLongLong(number);
    PyObject *found = NULL;
    if (wanted == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    state_lock_lists(state);
    for (struct list_node *node = loop_state(state)->loops.all.next; node != &loop_state(state)->loops.all; node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        if (loop->activity->number == wanted && SHARED_LOAD(loop->run) != NULL) {
            found = Py_NewRef((PyObject *)loop);    /* its run holds it */
            break;
        }
    }
    state_unlock_lists(state);
    return found == NULL ? Py_NewRef(Py_None) : found;
}

/* A reference to each in a list: a run holds its loop. */
static PyObject *
running_loops_list(struct state *state)
{
    PyObject *list = PyList_New(0);
    state_lock_lists(state);
    for (struct list_node *node = loop_state(state)->loops.all.next; list != NULL && node != &loop_state(state)->loops.all;
         node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        if (SHARED_LOAD(loop->run) != NULL && PyList_Append(list, (PyObject *)loop) < 0) {
            Py_CLEAR(list);
        }
    }
    state_unlock_lists(state);
    return list;
}

PyObject *
running_loops(PyObject *module, PyObject *ignored UNUSED)
{
    PyObject *list = running_loops_list(PyModule_GetState(module));
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        Loop *loop = (Loop *)PyList_GET_ITEM(list, i);
        PyObject *entry = Py_BuildValue("(KkO)", (unsigned long long)loop->activity->number,
                                        activity_thread(loop->activity), loop);
        if (entry == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SetItem(list, i, entry);
        }
    }
    return list;
}

/* -- fork ---------------------------------------------------------------------------------------------- */

/* Called in the child of each os.fork(): its loops get a kernel side of their own before
 * they are used again, and no descriptor is touched until then. */
static PyObject *
after_fork_in_child(PyObject *module, PyObject *ignored UNUSED)
{
    struct state *state = PyModule_GetState(module);
#ifdef Py_GIL_DISABLED
    /* A thread that is gone may have held it. */
    pthread_mutex_init(&loop_state(state)->loops.lock, NULL);
#endif
    activities_forked(loop_state(state)->loops.activities);
    for (struct list_node *node = loop_state(state)->loops.all.next; node != &loop_state(state)->loops.all; node = node->next) {
        Loop *loop = container_of(node, Loop, all_loops);
        inbox_forked(loop);
        look_ups_forked(loop);
        hold_forget(loop);
        loop->forked = true;
        if (loop->run != NULL && loop->run->thread != 0
            && loop->run->thread != PyThread_get_thread_ident()) {
            do {    /* of a thread that the child does not have */
                Py_XDECREF(loop_end_run(loop, loop->run));
            } while (loop->run != NULL);
            activity_forked(loop->activity);
        }
        tls_forked(loop);
    }
    transports_forked(state);
    Py_RETURN_NONE;
}

static PyMethodDef after_fork_def = {"_after_fork_in_child", after_fork_in_child, METH_NOARGS,
                                     NULL};

static int
register_fork_hook(PyObject *module)
{
    int result = -1;
    PyObject *os = PyImport_ImportModule("os");
    PyObject *hook = os == NULL ? NULL : PyCFunction_New(&after_fork_def, module);
    PyObject *function = hook == NULL ? NULL : PyObject_GetAttrString(os, "register_at_fork");
    PyObject *kwargs = function == NULL ? NULL : Py_BuildValue("{s:O}", "after_in_child", hook);
    PyObject *value = kwargs == NULL
                          ? NULL
                          : PyObject_VectorcallDict(function, NULL, 0, kwargs);
    if (value != NULL) {
        result = 0;
    }
    Py_XDECREF(value);
    Py_XDECREF(kwargs);
    Py_XDECREF(function);
    Py_XDECREF(hook);
    Py_XDECREF(os);
    return result;
}

static int
give_method(PyTypeObject *base, PyTypeObject *class, PyMethodDef *method)
{
    PyObject *own = PyObject_GetAttrString((PyObject *)base, method->ml_name);
    PyObject *found = own == NULL ? NULL : PyObject_GetAttrString((PyObject *)class, method->ml_name);
    int result = found == NULL ? -1 : 0;
    if (found != NULL && found == own && Py_IS_TYPE(found, &PyMethodDescr_Type)) {
        PyObject *given = PyDescr_NewMethod(class, method);
        result = given == NULL ? -1 : PyObject_SetAttrString((PyObject *)class, method->ml_name, given);
        Py_XDECREF(given);
    }
    Py_XDECREF(found);
    Py_XDECREF(own);
    return result;
}

PyObject *
loop_give_methods(PyObject *module, PyObject *class)
{
    struct state *state = PyModule_GetState(module);
    PyTypeObject *base = loop_state(state)->types.Loop;
    if (!PyType_Check(class) || !PyType_IsSubtype((PyTypeObject *)class, base)) {
        PyErr_Format(PyExc_TypeError, "a class of loops is needed, not %R", class);
        return NULL;
    }
    for (PyMethodDef *method = Loop_methods; method->ml_name != NULL; method++) {
        if (give_method(base, (PyTypeObject *)class, method) < 0) {
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

int
loop_type_init(PyObject *module, struct state *state)
{
    if (state_add_type(module, &Loop_spec, NULL, 0, &loop_state(state)->types.Loop) < 0) {
        return -1;
    }
    return register_fork_hook(module);
}
