/* task.c - making, cancelling and describing a Task; the type. */
#include "tasks/task.h"

#include "base/args.h"
#include "base/freelist.h"
#include "loop/current.h"
#include "tasks/all_tasks.h"
#include "tasks/future_methods.h"
#include "tasks/introspect.h"
#include "tasks/record.h"

/* -- making ---------------------------------------------------------------------- */

static int
check_coroutine(struct state *state, PyObject *coro)
{
    if (LIKELY(PyCoro_CheckExact(coro))) {
        return 0;
    }
    PyObject *answer = PyObject_CallOneArg(tasks_state(state)->tasks.iscoroutine, coro);
    if (answer == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (result == 0) {
        PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
    }
    return result > 0 ? 0 : -1;
}

static int
check_context(PyObject *context)
{
    if (!PyContext_CheckExact(context)) {
        PyErr_Format(PyExc_TypeError, "a contextvars.Context was expected, got %s",
                     Py_TYPE(context)->tp_name);
        return -1;
    }
    return 0;
}

static int
task_set_name(Task *self, PyObject *name)
{
    PyObject *text = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    if (text == NULL) {
        return -1;
    }
    PyObject *old;
    {
        GUARD(self);
        old = self->named ? self->name : NULL;
        self->name = text;
        self->named = true;
    }
    Py_XDECREF(old);
    return 0;
}

/* Takes it off the list of all tasks, of which it may be the last trace. From 3.14 on that is
 * the business of the base's dealloc. */
static inline void
task_unlink(Task *self)
{
#if TASKS_ARE_LISTED
    list_remove(&self->node);
#endif
    task_set_unregistered(self);
}

/* what is specific to a Task: may run Python */
static void
task_clear(Task *self)
{
    task_unlink(self);
    if (UNLIKELY(self->recorded)) {
        record_end(self);
    }
    self->log_destroy_pending = false;
    self->must_cancel = false;
    self->parked = false;
    introspect_clear(self);
    Py_CLEAR(self->coro);
    Py_CLEAR(self->context);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->pending_exception);
    PyObject *name = self->named ? self->name : NULL;
    self->named = false;
    self->number = 0;
    Py_XDECREF(name);
}

/* Whether the first step is made at once: 1, 0, -1. As asyncio: only on a running loop. */
static int
task_starts_eagerly(Task *self)
{
    struct state *state = self->future.state_ptr;
    PyObject *running = PyObject_CallMethodNoArgs(self->future.loop, state->names.is_running);
    if (running == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(running);
    Py_DECREF(running);
    return result;
}

static inline uint64_t
next_task_number(struct state *state)
{
#ifdef Py_GIL_DISABLED
    return __atomic_add_fetch(&tasks_state(state)->tasks.next_number, 1, __ATOMIC_RELAXED);
#else
    return ++tasks_state(state)->tasks.next_number;
#endif
}

/* The future is bound to its loop already. */
static int
task_init(Task *self, PyObject *coro, PyObject *name, PyObject *context, bool eager_start)
{
    struct state *state = self->future.state_ptr;
    if (check_coroutine(state, coro) < 0) {
        return -1;
    }
    if (context != NULL && context != Py_None) {
        if (check_context(context) < 0) {
            return -1;
        }
        Py_INCREF(context);
    }
    else {
        context = PyContext_CopyCurrent();
        if (context == NULL) {
            return -1;
        }
    }
    Py_XSETREF(self->context, context);
    Py_XSETREF(self->coro, Py_NewRef(coro));
    if (name == NULL || name == Py_None) {
        self->number = next_task_number(state);
    }
    else if (task_set_name(self, name) < 0) {
        return -1;
    }
    if (introspect_fill(self) < 0) {
        return -1;
    }
    Loop *loop = self->future.own_loop;
    if (loop != NULL && UNLIKELY(SHARED_LOAD(loop->records) != NULL)
        && record_begin(self, loop) < 0) {
        return -1;
    }
    self->log_destroy_pending = true;
    if (UNLIKELY(eager_start)) {
        int eagerly = task_starts_eagerly(self);
        if (eagerly > 0 && task_start_eagerly(self) < 0) {
            self->log_destroy_pending = false;
            return -1;
        }
        if (eagerly != 0) {
            return eagerly > 0 ? 0 : -1;
        }
    }
    /* In this order: a step of a Task that its maker does not get would be nobody's. */
    if (all_tasks_add(state, (PyObject *)self, &self->node) < 0) {
        return -1;
    }
    task_set_registered(self);
    if (task_schedule(self) < 0) {
        task_set_unregistered(self);
        all_tasks_remove(state, (PyObject *)self, &self->node);
        return -1;
    }
    return 0;
}

static inline Task *
task_alloc(struct state *state, PyTypeObject *type)
{
    PyObject *op = LIKELY(type == tasks_state(state)->tasks.Type) ? freelist_take(&tasks_state(state)->tasks.free, type)
                                                                  : type->tp_alloc(type, 0);
    if (op == NULL) {
        return NULL;
    }
    Task *self = (Task *)op;
    self->future.state_ptr = state;
    self->future.cancel_requests = 0;
    list_init(&self->node);
    return self;
}

PyObject *
task_new(struct state *state, PyObject *loop, PyObject *coro, PyObject *name, PyObject *context,
         int eager_start)
{
    Task *self = task_alloc(state, tasks_state(state)->tasks.Type);
    if (self == NULL) {
        return NULL;
    }
    if (future_init(&self->future, loop) < 0
        || task_init(self, coro, name, context, eager_start) < 0) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

/* -- cancelling --------------------------------------------------------------------- */

int
task_cancel_waiter(struct state *state, PyObject *waiter, PyObject *message)
{
    if (Py_IS_TYPE(waiter, tasks_state(state)->futures.Type)) {
        return future_cancel((Future *)waiter, message);
    }
    if (Py_IS_TYPE(waiter, tasks_state(state)->tasks.Type)) {
        return task_cancel((Task *)waiter, message);
    }
    PyObject *args[] = {waiter, message == NULL ? Py_None : message};
    PyObject *answer = PyObject_VectorcallMethod(state->names.cancel, args, 1, state->keywords.msg);
    if (answer == NULL) {
        return -1;
    }
    int result = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return result;
}

/* Counts a request to cancel: false if the Task is done already. */
static inline bool
task_request_cancel(Task *task)
{
    bool pending;
    GUARD(task);
    SHARED_STORE(task->future.log_traceback, false);
    pending = task->future.future_state == FUTURE_PENDING;
    if (pending) {
        task->future.cancel_requests++;
    }
    return pending;
}

/* What it awaits: new reference, or NULL. */
static inline PyObject *
task_waiter_ref(Task *task)
{
    GUARD(task);
    return Py_XNewRef(task->waiter);
}

/* It does not wait for `cancelled` any more, which may be NULL: the next step throws. False: it
 * waits for something else by now, which only happens if another thread runs it. */
static inline bool
task_cancel_next_step(Task *task, PyObject *cancelled UNUSED, PyObject *message)
{
    bool set = true;
    GUARD(task);
#ifdef Py_GIL_DISABLED
    Loop *loop = task->future.own_loop;
    set = task->waiter == NULL || task->waiter == cancelled || (loop != NULL && loop_is_mine(loop));
#endif
    if (set) {
        task->must_cancel = true;
        Py_XSETREF(task->future.cancel_message, Py_XNewRef(message));
    }
    return set;
}

/* The end of a chain: the Task that awaits no Task. 1, or -1 with an exception. */
static int
task_cancel_last(Task *task, PyObject *waiter, PyObject *message)
{
    int result = 0;
    bool again = false;
    Py_XINCREF(waiter);
    do {
        if (again) {
            Py_XSETREF(waiter, task_waiter_ref(task));
        }
        if (waiter != NULL) {
            result = task_cancel_waiter(task->future.state_ptr, waiter, message);
        }
        again = result == 0 && !task_cancel_next_step(task, waiter, message);
    } while (again);
    Py_XDECREF(waiter);
    return result < 0 ? -1 : 1;
}

/* One step of the slower walker: steals a reference, and gives one back. */
static Task *
task_follow_steal(Task *slow)
{
    PyObject *next = task_waiter_ref(slow);
    if (next != NULL && Py_IS_TYPE(next, tasks_state(slow->future.state_ptr)->tasks.Type)) {
        Py_SETREF(slow, (Task *)next);
    }
    else {
        Py_XDECREF(next);
    }
    return slow;
}

/* Tasks that await each other form a chain of any length, so it is walked in a loop; one
 * that leads back to itself is found with a second, slower walker. */
int
task_cancel(Task *self, PyObject *message)
{
    struct state *state = self->future.state_ptr;
    Task *task = (Task *)Py_NewRef(self);
    Task *slow = (Task *)Py_NewRef(self);
    size_t steps = 0;
    int result = 0;
    bool pending = task_request_cancel(task);
    while (pending && result == 0) {
        PyObject *waiter = task_waiter_ref(task);
        if (waiter == NULL || !Py_IS_TYPE(waiter, tasks_state(state)->tasks.Type)
            || !future_is_pending((Future *)waiter)) {
            result = task_cancel_last(task, waiter, message);
            Py_XDECREF(waiter);
            break;
        }
        if (++steps % 2 == 0) {
            slow = task_follow_steal(slow);
        }
        if (waiter == (PyObject *)slow) {
            PyErr_SetString(PyExc_RecursionError, "tasks that await each other in a circle");
            result = -1;
        }
        else if (UNLIKELY(!task_request_cancel((Task *)waiter))) {
            result = task_cancel_last(task, waiter, message);    /* another thread was faster */
        }
        else {
            Py_SETREF(task, (Task *)Py_NewRef(waiter));
        }
        Py_DECREF(waiter);
    }
    Py_DECREF(slow);
    Py_DECREF(task);
    return result;
}

/* -- methods --------------------------------------------------------------------------- */

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
    GUARD(op);
    return PyLong_FromLong(((Task *)op)->future.cancel_requests);
}

static PyObject *
Task_uncancel(PyObject *op, PyObject *ignored UNUSED)
{
    GUARD(op);
    Task *self = (Task *)op;
    if (self->future.cancel_requests > 0) {
        self->future.cancel_requests--;
#if PY_VERSION_HEX >= 0x030D0000
        if (self->future.cancel_requests == 0) {
            self->must_cancel = false;
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
    GUARD(op);
    PyObject *waiter = ((Task *)op)->waiter;
    return Py_NewRef(waiter != NULL ? waiter : Py_None);
}

static PyObject *
Task_get__must_cancel(PyObject *op, void *closure UNUSED)
{
    GUARD(op);
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
            && (PyDict_SetItem(context, state->names.task, op) < 0
                || PyDict_SetItem(context, state->names.message, message) < 0)) {
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
    if (UNLIKELY(*(PyObject **)((char *)op + Py_TYPE(op)->tp_weaklistoffset) != NULL)) {
        PyObject_ClearWeakRefs(op);
    }
    task_clear(self);
    future_clear(&self->future);
    if (Py_IS_TYPE(op, tasks_state(state)->tasks.Type)) {
        introspect_clear_thread(op, &tasks_state(state)->introspect);
    }
    future_free(&self->future, &tasks_state(state)->tasks.free, tasks_state(state)->tasks.Type, &tasks_state(state)->tasks.base);
}

static void
Task_dealloc(PyObject *op)
{
    Task *self = (Task *)op;
    if (UNLIKELY(task_has_report(self)) && PyObject_CallFinalizerFromDealloc(op) < 0) {
        return;
    }
    PyObject_GC_UnTrack(op);
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
    GUARD(op);    /* __init__ may be called again, from anywhere */
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
        self->future.cancel_requests = 0;
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
    PyTypeObject *future = tasks_state(state)->futures.Type;
    PyObject *bases = PyTuple_Pack(2, (PyObject *)future, tasks_state(state)->tasks.asyncio_Task);
    if (bases == NULL) {
        return -1;
    }
    Py_ssize_t size = future->tp_basicsize;
    future->tp_basicsize = tasks_state(state)->futures.asyncio_Future->tp_basicsize;
    int result = state_add_type_with_bases(module, &task_spec, bases, &tasks_state(state)->tasks.Type);
    future->tp_basicsize = size;
    Py_DECREF(bases);
    return result;
}

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
    freelist_init(state, &own->tasks.free, own->tasks.Type);
    standard_set_classes(state, STANDARD_TASKS_TASK, base, own->tasks.Type);
    return 0;
}
