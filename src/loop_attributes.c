/* loop_attributes.c - see loop_attributes.h. */
#include "loop_attributes.h"

#include "loop/loop.h"
#include "loop/overrides.h"
#include "loop/timer.h"
#include "tasks/record.h"

#define BOOL_ATTRIBUTE(field)                                              \
    static PyObject *                                                      \
    Loop_get__##field(PyObject *op, void *closure UNUSED)                  \
    {                                                                      \
        return PyBool_FromLong(FLAG(((Loop *)op)->field));                 \
    }                                                                      \
    static int                                                             \
    Loop_set__##field(PyObject *op, PyObject *value, void *closure UNUSED) \
    {                                                                      \
        int truth = value == NULL ? 0 : PyObject_IsTrue(value);            \
        if (truth < 0) {                                                   \
            return -1;                                                     \
        }                                                                  \
        SET_FLAG(((Loop *)op)->field, truth);                              \
        return 0;                                                          \
    }
BOOL_ATTRIBUTE(closed)
BOOL_ATTRIBUTE(stopping)
BOOL_ATTRIBUTE(looked_at)
#undef BOOL_ATTRIBUTE

/* What the field keeps of an attribute of which the core knows more: new reference, or NULL. */
static PyObject *
kept_object(PyObject *op, PyObject *const *field)
{
    PyObject *kept;
    GUARD(op);
    kept = Py_XNewRef(*field);
    return kept;
}

static void
keep_object(PyObject *op, PyObject **field, PyObject *value)
{
    PyObject *old;
    {
        GUARD(op);
        old = *field;
        *field = Py_XNewRef(value);
    }
    Py_XDECREF(old);
}

PyObject *
Loop_get__debug(PyObject *op, void *closure UNUSED)
{
    PyObject *kept = kept_object(op, &((Loop *)op)->debug_value);
    return kept != NULL ? kept : PyBool_FromLong(FLAG(((Loop *)op)->debug));
}

static int
Loop_set__debug(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0) {
        return -1;
    }
    SET_FLAG(((Loop *)op)->debug, truth);
    loop_update_careful((Loop *)op);
    keep_object(op, &((Loop *)op)->debug_value, value == NULL || PyBool_Check(value) ? NULL : value);
    return 0;
}

/* True or False, nothing that is only true: -1 with TypeError. */
static int
plain_bool(PyObject *value, const char *name)
{
    if (value == NULL || PyBool_Check(value)) {
        return value == Py_True;
    }
    PyErr_Format(PyExc_TypeError, "%s has to be True or False, not %R", name, value);
    return -1;
}

static PyObject *
Loop_get_strong_tasks(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->strong_tasks));
}

static int
Loop_set_strong_tasks(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = plain_bool(value, "strong_tasks");
    return truth < 0 ? -1 : record_set_strong((Loop *)op, truth);
}

static PyObject *
Loop_get_task_accounting(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->task_accounting));
}

static int
Loop_set_task_accounting(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = plain_bool(value, "task_accounting");
    if (truth < 0 || record_set_accounting((Loop *)op, truth) < 0) {
        return -1;
    }
    loop_update_careful((Loop *)op);
    return 0;
}

static PyObject *
Loop_get__visible_tasks(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Loop *)op)->visible_tasks));
}

static int
Loop_set__visible_tasks(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int truth = plain_bool(value, "_visible_tasks");
    return truth < 0 ? -1 : record_set_visible((Loop *)op, truth);
}

static PyObject *
Loop_get__thread_id(PyObject *op, void *closure UNUSED)
{
    unsigned long thread_id = SHARED_LOAD(((Loop *)op)->thread_id);
    if (thread_id == 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromUnsignedLong(thread_id);
}

static int
Loop_set__thread_id(PyObject *op, PyObject *value, void *closure UNUSED)
{
    unsigned long thread_id = 0;
    if (value != NULL && value != Py_None) {
        thread_id = PyLong_AsUnsignedLong(value);
        if (thread_id == (unsigned long)-1 && PyErr_Occurred()) {
            return -1;
        }
    }
    SHARED_STORE(((Loop *)op)->thread_id, thread_id);
    return 0;
}

static PyObject *
Loop_get__task_factory(PyObject *op, void *closure UNUSED)
{
    PyObject *factory;
    GUARD(op);
    factory = ((Loop *)op)->task_factory;
    factory = Py_NewRef(factory != NULL ? factory : Py_None);
    return factory;
}

static int
Loop_set__task_factory(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Loop *loop = (Loop *)op;
    PyObject *old;
    {
        GUARD(op);
        old = loop->task_factory;
        SHARED_STORE(loop->task_factory, value == Py_None ? NULL : Py_XNewRef(value));
    }
    Py_XDECREF(old);
    return 0;
}

static PyObject *
Loop_get_slow_callback_duration(PyObject *op, void *closure UNUSED)
{
    PyObject *number = kept_object(op, &((Loop *)op)->slow_callback_number);
    return number != NULL ? number : PyFloat_FromDouble(((Loop *)op)->slow_callback_duration);
}

/* What is within the resolution of the clock, which is one of our nanoseconds, is no difference. */
static PyObject *
Loop_get_clock_resolution(PyObject *op, void *closure UNUSED)
{
    return PyFloat_FromDouble(((Loop *)op)->resolution);
}

static int
Loop_set_clock_resolution(PyObject *op, PyObject *value, void *closure UNUSED)
{
    double seconds = value == NULL ? 1e-9 : PyFloat_AsDouble(value);
    if (seconds == -1. && PyErr_Occurred()) {
        return -1;
    }
    ((Loop *)op)->resolution = seconds;
    ((Loop *)op)->resolution_ns = seconds <= 1e-9 ? 0 : seconds > 1e8 ? (int64_t)1e17
                                                                      : timer_deadline(seconds);
    return 0;
}

static int
Loop_set_slow_callback_duration(PyObject *op, PyObject *value, void *closure UNUSED)
{
    double seconds = 0.1;
    if (value != NULL) {
        /* Of any other, __float__() is not asked: asyncio compares, and says so there. */
        seconds = PyFloat_CheckExact(value) || PyLong_CheckExact(value) ? PyFloat_AsDouble(value) : SLOW_COMPARES;
        if (seconds == -1. && PyErr_Occurred()) {
            PyErr_Clear();
            seconds = SLOW_COMPARES;
        }
    }
    keep_object(op, &((Loop *)op)->slow_callback_number, value == NULL || PyFloat_CheckExact(value) ? NULL : value);
    ((Loop *)op)->slow_callback_duration = seconds;
    return 0;
}

static PyObject *
Loop_get_turn_budget(PyObject *op, void *closure UNUSED)
{
    int64_t ns = SHARED_LOAD(((Loop *)op)->turn_budget_ns);
    if (ns == 0) {
        Py_RETURN_NONE;
    }
    return PyFloat_FromDouble((double)ns / 1e9);
}

static int
Loop_set_turn_budget(PyObject *op, PyObject *value, void *closure UNUSED)
{
    Loop *loop = (Loop *)op;
    int64_t ns = 0;
    if (value != NULL && value != Py_None) {
        bool is_number = PyNumber_Check(value) && !PyBool_Check(value) && !PyComplex_Check(value);
        double seconds = is_number ? PyFloat_AsDouble(value) : -1.;
        if (seconds == -1. && PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
                return -1;
            }
            PyErr_Clear();
        }
        if (!(seconds > 0. && seconds < 1e9)) {
            PyErr_Format(PyExc_ValueError,
                         "turn_budget has to be a finite number of seconds > 0, or None, not %R",
                         value);
            return -1;
        }
        ns = seconds < 1e-9 ? 1 : (int64_t)(seconds * 1e9);
    }
    SHARED_STORE(loop->turn_budget_ns, ns);
    SET_FLAG(loop->turns_change, true);
    return 0;
}

static PyObject *
Loop_get__current_handle(PyObject *op, void *closure UNUSED)
{
    PyObject *handle;
    GUARD(op);
    handle = ((Loop *)op)->current_handle;
    handle = Py_NewRef(handle != NULL ? handle : Py_None);
    if (handle_check(((Loop *)op)->state, handle)) {
        handle_track((Handle *)handle);    /* that of a Task's step is in no place of the loop's */
    }
    return handle;
}

static int
Loop_set__current_handle(PyObject *op, PyObject *value, void *closure UNUSED)
{
    loop_set_current_handle_steal((Loop *)op, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

PyGetSetDef loop_attributes[] = {
    {"_closed", Loop_get__closed, Loop_set__closed, NULL, NULL},
    {"_stopping", Loop_get__stopping, Loop_set__stopping, NULL, NULL},
    {"_looked_at", Loop_get__looked_at, Loop_set__looked_at, NULL, NULL},
    {"_visible_tasks", Loop_get__visible_tasks, Loop_set__visible_tasks, NULL, NULL},
    {"_debug", Loop_get__debug, Loop_set__debug, NULL, NULL},
    {"_thread_id", Loop_get__thread_id, Loop_set__thread_id, NULL, NULL},
    {"_task_factory", Loop_get__task_factory, Loop_set__task_factory, NULL, NULL},
    {"_current_handle", Loop_get__current_handle, Loop_set__current_handle, NULL, NULL},
    {"strong_tasks", Loop_get_strong_tasks, Loop_set_strong_tasks,
     PyDoc_STR("Whether each Task that is made from now on is held until it is done; False, as it is by\n"
               "default: the collector may take it, as with asyncio. TypeError if it is no bool."),
     NULL},
    {"task_accounting", Loop_get_task_accounting, Loop_set_task_accounting,
     PyDoc_STR("Whether it is written down what each Task costs that is made from now on, for\n"
               "asyncloop.task_stats(); False by default. TypeError if it is no bool."),
     NULL},
    {"turn_budget", Loop_get_turn_budget, Loop_set_turn_budget,
     PyDoc_STR("Seconds after which what is ready waits for a look at the kernel and the timers, in the\n"
               "middle of a turn; None, as it is by default: a turn ends first. ValueError for anything\n"
               "else than a finite number above zero."),
     NULL},
    {"_clock_resolution", Loop_get_clock_resolution, Loop_set_clock_resolution, NULL, NULL},
    {"slow_callback_duration", Loop_get_slow_callback_duration, Loop_set_slow_callback_duration,
     "Seconds after which debug mode warns of a callback.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
