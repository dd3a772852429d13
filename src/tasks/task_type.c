/* task_type.c - see task_inside.h. */
#include "tasks/task_inside.h"

#include "base/args.h"
#include "base/freelist.h"
#include "base/standard.h"
#include "loop/owner.h"
#include "tasks/future_methods.h"
#include "tasks/introspect.h"
#include "tasks/record.h"

static PyObject *
Task_cancel(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"msg", NULL};
    Task *self = (Task *)op;
    PyObject *message = NULL;
    if ((nargs != 0 || kwnames != NULL)
        && args_unpack("cancel", args, nargs, kwnames, names, 1, 0, &message) < 0) {
        return NULL;
    }
    if (UNLIKELY(self->future.loop == NULL)) {
        return future_not_initialised();
    }
    int result = task_cancel(self, message);
    return result < 0 ? NULL : PyBool_FromLong(result);
}

static PyObject *
Task_cancelling(PyObject *op, PyObject *ignored UNUSED)
{
    return PyLong_FromLong(SHARED_LOAD(((Task *)op)->future.cancel_requests));
}

static PyObject *
Task_uncancel(PyObject *op, PyObject *ignored UNUSED)
{
    FUTURE_GUARD(op);
    Task *self = (Task *)op;
    if (self->future.cancel_requests > 0) {
        SHARED_STORE(self->future.cancel_requests, self->future.cancel_requests - 1);
#if PY_VERSION_HEX >= 0x030D0000
        if (self->future.cancel_requests == 0) {
            SHARED_STORE(self->must_cancel, false);
        }
#endif
    }
    return PyLong_FromLong(self->future.cancel_requests);
}

static PyObject *
Task_set_result(PyObject *op UNUSED, PyObject *value UNUSED)
{
    PyErr_SetString(PyExc_RuntimeError, "Task does not support set_result operation");
    return NULL;
}

static PyObject *
Task_set_exception(PyObject *op UNUSED, PyObject *exception UNUSED)
{
    PyErr_SetString(PyExc_RuntimeError, "Task does not support set_exception operation");
    return NULL;
}

static PyObject *
Task_get_coro(PyObject *op, PyObject *ignored UNUSED)
{
    GUARD(op);
    PyObject *coro = ((Task *)op)->coro;
    return Py_NewRef(coro != NULL ? coro : Py_None);
}

#if PY_VERSION_HEX >= 0x030C0000
static PyObject *
Task_get_context(PyObject *op, PyObject *ignored UNUSED)
{
    GUARD(op);
    PyObject *context = ((Task *)op)->context;
    return Py_NewRef(context != NULL ? context : Py_None);
}
#endif

static PyObject *
Task_get_name(PyObject *op, PyObject *ignored UNUSED)
{
    GUARD(op);
    Task *self = (Task *)op;
    if (!self->named) {
        if (self->number == 0) {
            Py_RETURN_NONE;    /* not initialised */
        }
        PyObject *name = PyUnicode_FromFormat("Task-%llu", (unsigned long long)self->number);
        if (name == NULL) {
            return NULL;
        }
        self->name = name;
        self->named = true;
    }
    return Py_NewRef(self->name);
}

static PyObject *
Task_set_name(PyObject *op, PyObject *name)
{
    GUARD(op);
    if (task_set_name((Task *)op, name) < 0 || introspect_rename((Task *)op) < 0
        || (((Task *)op)->recorded && record_rename((Task *)op) < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Task_get_stack(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"limit", NULL};
    PyObject *limit = Py_None;
    if (args_unpack("get_stack", args, nargs, kwnames, names, 0, 0, &limit) < 0) {
        return NULL;
    }
    PyObject *forward[] = {op, limit};
    return PyObject_Vectorcall(tasks_state(((Task *)op)->future.state_ptr)->tasks.get_stack, forward, 2,
                               NULL);
}

static PyObject *
Task_print_stack(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"limit", "file", NULL};
    PyObject *values[] = {Py_None, Py_None};
    if (args_unpack("print_stack", args, nargs, kwnames, names, 0, 0, values) < 0) {
        return NULL;
    }
    PyObject *forward[] = {op, values[0], values[1]};
    return PyObject_Vectorcall(tasks_state(((Task *)op)->future.state_ptr)->tasks.print_stack, forward, 3,
                               NULL);
}

static PyObject *
Task_repr(PyObject *op)
{
    Task *self = (Task *)op;
    if (self->future.loop == NULL) {
        return future_not_initialised();
    }
    return PyObject_CallOneArg(tasks_state(self->future.state_ptr)->tasks.repr, op);
}

static PyObject *
Task_get__coro(PyObject *op, void *closure UNUSED)
{
    return Task_get_coro(op, NULL);
}

static PyObject *
Task_get__fut_waiter(PyObject *op, void *closure UNUSED)
{
    FUTURE_GUARD(op);
    PyObject *waiter = ((Task *)op)->waiter;
    return Py_NewRef(waiter != NULL ? waiter : Py_None);
}

static PyObject *
Task_get__must_cancel(PyObject *op, void *closure UNUSED)
{
    FUTURE_GUARD(op);
    return PyBool_FromLong(((Task *)op)->must_cancel);
}

static PyObject *
Task_get__log_destroy_pending(PyObject *op, void *closure UNUSED)
{
    return PyBool_FromLong(SHARED_LOAD(((Task *)op)->log_destroy_pending));
}

static int
Task_set__log_destroy_pending(PyObject *op, PyObject *value, void *closure UNUSED)
{
    int wanted = future_attribute_bool(value);
    if (wanted < 0) {
        return -1;
    }
    SHARED_STORE(((Task *)op)->log_destroy_pending, wanted);
    return 0;
}

/* -- the type --------------------------------------------------------------------------- */

static bool
task_has_report(const Task *self)
{
    return self->future.log_traceback
           || (self->log_destroy_pending && self->future.future_state == FUTURE_PENDING);
}

/* Garbage is not among all tasks any more, as it would not be in a WeakSet, even if the
 * exception handler keeps it from now on. */
static void
Task_finalize(PyObject *op)
{
    Task *self = (Task *)op;
    task_unlink(self);
    if (!task_has_report(self)) {
        return;
    }
    struct state *state = self->future.state_ptr;
    PyObject *exc = PyErr_GetRaisedException();
    if (self->log_destroy_pending && self->future.future_state == FUTURE_PENDING) {
        PyObject *message = PyUnicode_FromString("Task was destroyed but it is pending!");
        PyObject *context = message == NULL ? NULL : PyDict_New();
        if (context != NULL
            && (PyDict_SetItem(context, state->names.message, message) < 0
                || PyDict_SetItem(context, state->names.task, op) < 0)) {
            Py_CLEAR(context);
        }
        Py_XDECREF(message);
        future_report_steal(&self->future, context);
    }
    future_finalize(&self->future);
    PyErr_SetRaisedException(exc);
}

static int
Task_traverse(PyObject *op, visitproc visit, void *arg)
{
    Task *self = (Task *)op;
#if PY_VERSION_HEX < 0x030C0000
    Py_VISIT(Py_TYPE(op));    /* the base is a heap type later, and does it */
#endif
    if (self->future.state_ptr != NULL) {
        int result = tasks_state(self->future.state_ptr)->tasks.base.traverse(op, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    Py_VISIT(self->coro);
    Py_VISIT(self->context);
    Py_VISIT(self->waiter);
    Py_VISIT(self->pending_exception);
    if (self->named) {
        Py_VISIT(self->name);
    }
    return future_traverse(&self->future, visit, arg);
}

static int
Task_clear(PyObject *op)
{
    Task *self = (Task *)op;
    task_clear(self);
    future_clear(&self->future);
    return tasks_state(self->future.state_ptr)->tasks.base.clear(op);
}

static void
task_dealloc_now(Task *self)
{
    PyObject *op = (PyObject *)self;
    struct state *state = self->future.state_ptr;
    if (UNLIKELY(SHARED_LOAD(*(PyObject **)((char *)op + Py_TYPE(op)->tp_weaklistoffset)) != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    task_clear(self);
    future_clear(&self->future);
    VERIFY(list_empty(&self->node));    /* or the list leads to freed memory */
    if (Py_IS_TYPE(op, tasks_state(state)->types.Task)) {
        introspect_clear_thread(op, &tasks_state(state)->introspect);
    }
    future_free(&self->future, &tasks_state(state)->tasks.free, tasks_state(state)->types.Task, &tasks_state(state)->tasks.base);
}

static void
Task_dealloc(PyObject *op)
{
    Task *self = (Task *)op;
    if (UNLIKELY(task_has_report(self)) && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    untrack_dying(op);
    task_unlink(self);    /* before the trashcan, which may keep it for a while */
    /* A finished coroutine has no frame, so nothing hangs on it. */
    if (LIKELY(self->future.future_state > FUTURE_PENDING && !future_is_deep(&self->future))) {
        task_dealloc_now(self);
        return;
    }
    Py_TRASHCAN_BEGIN(op, Task_dealloc)
        task_dealloc_now(self);
    Py_TRASHCAN_END
}

static PyObject *
Task_new(PyTypeObject *type, PyObject *args UNUSED, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    return state == NULL ? NULL : (PyObject *)task_alloc(state, type);
}

#if PY_VERSION_HEX >= 0x030C0000
#define TASK_SIGNATURE "coro, *, loop=None, name=None, context=None, eager_start=False"
#define TASK_FORMAT "O|$OOOp:Task"
#else
#define TASK_SIGNATURE "coro, *, loop=None, name=None, context=None"
#define TASK_FORMAT "O|$OOO:Task"
#endif

static int
Task_init(PyObject *op, PyObject *args, PyObject *kwargs)
{
    FUTURE_GUARD(op);    /* __init__ may be called again, from anywhere */
#if PY_VERSION_HEX >= 0x030C0000
    static char *names[] = {"coro", "loop", "name", "context", "eager_start", NULL};
#else
    static char *names[] = {"coro", "loop", "name", "context", NULL};
#endif
    Task *self = (Task *)op;
    PyObject *coro, *loop = NULL, *name = NULL, *context = NULL;
    int eager_start = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, TASK_FORMAT, names, &coro, &loop, &name,
                                     &context, &eager_start)) {
        return -1;
    }
#if PY_VERSION_HEX >= 0x030F0000
    if (self->future.loop != NULL) {
        PyErr_Format(PyExc_RuntimeError, "%T object is already initialized", op);
        return -1;
    }
#endif
    if (self->future.loop != NULL || self->coro != NULL) {
        task_clear(self);    /* __init__ called again */
        SHARED_STORE(self->future.cancel_requests, 0);
    }
    return future_init(&self->future, loop) < 0
                   || task_init(self, coro, name, context, eager_start) < 0
               ? -1
               : 0;
}

static PyMethodDef task_methods[] = {
    FUTURE_METHODS,
    {"set_result", Task_set_result, METH_O,
     PyDoc_STR("set_result($self, result, /)\n--\n\nA Task's coroutine sets it: RuntimeError.")},
    {"set_exception", Task_set_exception, METH_O,
     PyDoc_STR("set_exception($self, exception, /)\n--\n\n"
               "A Task's coroutine sets it: RuntimeError.")},
    {"cancel", (PyCFunction)(void (*)(void))Task_cancel, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("cancel($self, /, msg=None)\n--\n\n"
               "Ask the coroutine to end: CancelledError is raised in it where it waits. It\n"
               "may catch it and go on. Returns False if the Task is done already.")},
    {"cancelling", Task_cancelling, METH_NOARGS,
     PyDoc_STR("cancelling($self, /)\n--\n\n"
               "How many calls of cancel() were not taken back by uncancel().")},
    {"uncancel", Task_uncancel, METH_NOARGS,
     PyDoc_STR("uncancel($self, /)\n--\n\n"
               "Take back one cancel(); returns how many are left.")},
    {"get_stack", (PyCFunction)(void (*)(void))Task_get_stack, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("get_stack($self, /, *, limit=None)\n--\n\n"
               "The frames of the coroutine where it waits, or of its exception's traceback,\n"
               "oldest first; at most `limit` of them.")},
    {"print_stack", (PyCFunction)(void (*)(void))Task_print_stack, METH_FASTCALL | METH_KEYWORDS,
     PyDoc_STR("print_stack($self, /, *, limit=None, file=None)\n--\n\n"
               "Print what get_stack() returns, to `file` or to sys.stderr.")},
    {"get_name", Task_get_name, METH_NOARGS, PyDoc_STR("get_name($self, /)\n--\n\nIts name.")},
    {"set_name", Task_set_name, METH_O,
     PyDoc_STR("set_name($self, value, /)\n--\n\nName it str(value).")},
    {"get_coro", Task_get_coro, METH_NOARGS,
     PyDoc_STR("get_coro($self, /)\n--\n\nThe coroutine.")},
#if PY_VERSION_HEX >= 0x030C0000
    {"get_context", Task_get_context, METH_NOARGS,
     PyDoc_STR("get_context($self, /)\n--\n\nThe context in which the coroutine runs.")},
#endif
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef task_getsets[] = {
    FUTURE_GETSETS,
    {"_coro", Task_get__coro, NULL, NULL, NULL},
    {"_fut_waiter", Task_get__fut_waiter, NULL, NULL, NULL},
    {"_must_cancel", Task_get__must_cancel, NULL, NULL, NULL},
    {"_log_destroy_pending", Task_get__log_destroy_pending, Task_set__log_destroy_pending, NULL,
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot task_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR(
                    "Task(" TASK_SIGNATURE ")\n--\n\n"
                    "A coroutine that the loop drives; asyncio.Task of an asyncloop loop.")},
    {Py_tp_new, Task_new},
    {Py_tp_init, Task_init},
    {Py_tp_dealloc, Task_dealloc},
    {Py_tp_finalize, Task_finalize},
    {Py_tp_traverse, Task_traverse},
    {Py_tp_clear, Task_clear},
    {Py_tp_repr, Task_repr},
    {Py_tp_iter, Future_await},
    {Py_am_await, Future_await},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_getsets},
    {0, NULL},
};

static PyType_Spec task_spec = {
    .name = "asyncloop.Task",
    .basicsize = sizeof(Task),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC
             | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = task_slots,
};

/* Task with both bases, asyncio's Task and our Future: its struct begins like either one's. CPython
 * does not know that what our Future adds lies behind what asyncio's Task adds, and refuses two bases
 * that are both longer than the one they share; so for the moment of the question ours is not. It has
 * no instances yet, nor subclasses. */
static int
task_type_make(PyObject *module, struct state *state)
{
    PyTypeObject *future = tasks_state(state)->types.Future;
    PyObject *bases = PyTuple_Pack(2, (PyObject *)future, tasks_state(state)->tasks.asyncio_Task);
    if (bases == NULL) {
        return -1;
    }
    Py_ssize_t size = future->tp_basicsize;
    future->tp_basicsize = tasks_state(state)->futures.asyncio_Future->tp_basicsize;
    int result = state_add_type_with_bases(module, &task_spec, bases, &tasks_state(state)->types.Task);
    future->tp_basicsize = size;
    Py_DECREF(bases);
    return result;
}

static PyObject *
module_leave_task_out(PyObject *module, PyObject *op)
{
    Loop *loop = loop_from_argument(module, op);
    if (loop == NULL) {
        return NULL;
    }
    bool seen = tasks_are_seen(loop);
    if (!seen) {
        task_next_number(loop->state);
    }
    return PyBool_FromLong(!seen);
}

static PyMethodDef task_functions[] = {
    {"_leave_task_out", module_leave_task_out, METH_O,
     INSIDE_DOC("_leave_task_out(loop, /)\n--\n\n"
                "Do without a Task that asyncio makes, and leave its number out. False: somebody would see it.")},
    {NULL, NULL, 0, NULL},
};

int
task_type_init(PyObject *module, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    STATE_OWN_UNTIL(state, &own->tasks, base);
    const struct state_import wanted[] = {
        {&own->tasks.asyncio_Task, "_asyncio", "Task", false},
        {&own->tasks.repr, "asyncio.base_tasks", "_task_repr", false},
        {&own->tasks.get_stack, "asyncio.base_tasks", "_task_get_stack", false},
        {&own->tasks.print_stack, "asyncio.base_tasks", "_task_print_stack", false},
        {&own->tasks.iscoroutine, "asyncio.coroutines", "iscoroutine", false},
        {&own->tasks.eager_task_factory, "asyncio", "eager_task_factory", true},
    };
    if (STATE_IMPORT(wanted) < 0) {
        return -1;
    }
    PyTypeObject *base = own->tasks.asyncio_Task;
    own->tasks.base = (struct base_slots){base->tp_traverse, base->tp_clear, base->tp_dealloc};
    task_step_init(state);
    if (state_check_base(base, ASYNCIO_FUTURE_SIZE) < 0 || task_type_make(module, state) < 0) {
        return -1;
    }
    freelist_init(state, &own->tasks.free, own->types.Task);
    standard_set_classes(state, STANDARD_TASKS_TASK, base, own->types.Task);
    return PyModule_AddFunctions(module, task_functions);
}
