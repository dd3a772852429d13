/* trace.c - see trace.h. */
#include "tasks/trace.h"

#include "loop/handle.h"
#include "loop/owner.h"
#include "tasks/task.h"

#include <string.h>
#include <sys/ioctl.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

#define TRACE_ITEMS 600
#define TRACE_FOUND 8

/* Items that do the same: code and self are equal, also where a new bound method, partial or closure is made for
 * each, or a new object that does not outlive its item (is_over()). */
struct found {
    const void *code;
    const void *self;
    PyObject *what;               /* owned: the callback or Task of the first of them */
    PyObject *args;               /* owned: a tuple of its arguments, or NULL */
    unsigned int count;
};

struct trace {
    struct found found[TRACE_FOUND];
    unsigned int found_length;
    unsigned int items;           /* all of them */
    unsigned int timers;          /* of all items: those that are timers */
    unsigned int woken;           /* those that are tasks which a result has woken */
    unsigned int moved;           /* those with which bytes moved */
    uint64_t turns;               /* the loop's count of turns when the trace began */
    uint64_t bytes;               /* the loop's count of bytes after the last item */
    int event_fd;                 /* the descriptor of the last event; -1: there was none */
    uint32_t took_ns[TRACE_ITEMS];    /* by item */
};

static uint64_t
bytes_of(const Loop *loop)
{
    return loop->counters->bytes_in + loop->counters->bytes_out;
}

/* What waits in a descriptor to be read, and to be sent; -1 for what does not tell. */
static int64_t
bytes_in_kernel(int fd)
{
    int in = -1, out = -1;
    if (fd < 0 || ioctl(fd, FIONREAD, &in) < 0) {
        in = -1;
    }
#ifdef SIOCOUTQ
    if (fd < 0 || ioctl(fd, SIOCOUTQ, &out) < 0) {
        out = -1;
    }
#endif
    return ((int64_t)in << 32) + out;
}

static void
trace_free(struct trace *trace)
{
    for (unsigned int i = 0; i < trace->found_length; i++) {
        Py_DECREF(trace->found[i].what);
        Py_XDECREF(trace->found[i].args);
    }
    PyMem_Free(trace);
}

/* -- one item ------------------------------------------------------------------------ */

/* Runs no code of the program's. */
static void
identify_callback(PyObject *callback, struct found *key)
{
    key->code = key->self = callback;
    if (PyMethod_Check(callback)) {
        key->code = PyMethod_GET_FUNCTION(callback);
        key->self = PyMethod_GET_SELF(callback);
    }
    else if (PyFunction_Check(callback)) {
        key->code = PyFunction_GET_CODE(callback);
        key->self = NULL;
    }
    else if (PyCFunction_Check(callback)) {
        key->code = (const void *)(uintptr_t)PyCFunction_GET_FUNCTION(callback);
        key->self = PyCFunction_GET_SELF(callback);
    }
    else if (strcmp(Py_TYPE(callback)->tp_name, "functools.partial") == 0) {
        PyObject *function = PyObject_GetAttrString(callback, "func");
        if (function == NULL) {
            PyErr_Clear();
            return;
        }
        identify_callback(function, key);
        Py_DECREF(function);    /* only compared from here on: the partial holds it */
    }
}

static bool
is_task(struct state *state, PyObject *what)
{
    return PyObject_TypeCheck(what, tasks_state(state)->types.Task);
}

/* The Task of which the item is a step, also one that call_soon() was called with: new reference, or NULL. */
static PyObject *
task_of(uintptr_t item)
{
    PyObject *op = ready_object(item);
    if ((item & READY_KIND_MASK) == READY_TASK) {
        return Py_NewRef(op);
    }
    Handle *handle = (Handle *)op;
    if ((item & READY_KIND_MASK) != READY_HANDLE || handle->is_native) {
        return NULL;
    }
    GUARD(handle);
    return handle->callback == NULL ? NULL : Py_XNewRef(task_of_step_function(handle->callback));
}

/* What a task runs, only to be compared. Runs no code of the program's. */
static const void *
code_of(PyObject *task)
{
    PyObject *coro = ((Task *)task)->coro;
    if (coro == NULL || !PyCoro_CheckExact(coro)) {
        return task;
    }
    PyObject *code = PyObject_GetAttrString(coro, "cr_code");
    if (code == NULL) {
        PyErr_Clear();
        return task;
    }
    Py_DECREF(code);    /* the coroutine holds it */
    return code;
}

/* False: it is nothing that would run. Otherwise key->what is a new reference. */
static bool
identify(uintptr_t item, struct found *key)
{
    PyObject *op = ready_object(item);
    PyObject *task = task_of(item);
    if (task != NULL) {
        *key = (struct found){.code = code_of(task), .self = task, .what = task};
        return true;
    }
    if ((item & READY_KIND_MASK) != READY_HANDLE) {
        *key = (struct found){.code = op, .self = op, .what = Py_NewRef(op)};
        return true;
    }
    Handle *handle = (Handle *)op;
    PyObject *callback;
    {
        GUARD(handle);
        callback = Py_XNewRef(handle->callback);    /* NULL: cancelled */
    }
    *key = (struct found){.what = callback};
    if (callback != NULL && handle->is_native) {
        key->code = (const void *)(uintptr_t)handle->how.native;
        key->self = callback;
    }
    else if (callback != NULL) {
        identify_callback(callback, key);
    }
    return callback != NULL;
}

/* New reference. NULL, without an exception, for none. */
static PyObject *
args_of(uintptr_t item)
{
    Handle *handle = (Handle *)ready_object(item);
    if ((item & READY_KIND_MASK) != READY_HANDLE || handle->is_native) {
        return NULL;
    }
    PyObject *args = PyTuple_New(handle->nargs == HANDLE_ARGS_TUPLE ? 0 : handle->nargs);
    if (args == NULL) {
        PyErr_Clear();
        return NULL;
    }
    GUARD(handle);
    if (handle->callback == NULL) {
        Py_CLEAR(args);
    }
    else if (handle->nargs == HANDLE_ARGS_TUPLE) {
        Py_SETREF(args, Py_NewRef(handle->args[0]));
    }
    else {
        for (Py_ssize_t i = 0; i < handle->nargs; i++) {
            PyTuple_SET_ITEM(args, i, Py_NewRef(handle->args[i]));
        }
    }
    return args;
}

/* A task that is done, or a method of an object that nobody has any more. What begins anew in each turn (a timeout of
 * no time, a task that starts the next one) spins as well as what stays. */
static bool
is_over(struct state *state, const struct found *found)
{
    if (is_task(state, found->what)) {
        return !future_is_pending((Future *)found->what);
    }
    return PyMethod_Check(found->what) && Py_REFCNT(found->what) == 1
           && Py_REFCNT(PyMethod_GET_SELF(found->what)) == 1;
}

static struct found *
trace_find(struct trace *trace, struct state *state, const struct found *key)
{
    for (unsigned int i = 0; i < trace->found_length; i++) {
        struct found *found = &trace->found[i];
        if (found->code == key->code && (found->self == key->self || is_over(state, found))) {
            return found;
        }
    }
    return NULL;
}

/* False: the collector has run, or somebody's end, and somebody has ended the trace. */
static bool
trace_count(Loop *loop, struct trace *trace, const struct found *key, uintptr_t item)
{
    struct found *found = trace_find(trace, loop->state, key);
    if (found != NULL) {
        PyObject *before = found->what;
        found->what = Py_NewRef(key->what);
        found->self = key->self;
        found->count++;
        Py_DECREF(before);
    }
    else if (trace->found_length < TRACE_FOUND) {
        PyObject *args = is_task(loop->state, key->what) ? NULL : args_of(item);
        if (loop->trace != trace) {
            Py_XDECREF(args);
            return false;
        }
        found = &trace->found[trace->found_length++];
        *found = *key;
        Py_INCREF(found->what);
        found->args = args;
        found->count = 1;
    }
    return loop->trace == trace;
}

/* Has a result woken it, and not only its own wish to go on, or a cancellation? */
static bool
task_was_woken(struct state *state, PyObject *op)
{
    Task *task = (Task *)op;
    return task->waiter != NULL && future_check_native(state, task->waiter)
           && SHARED_LOAD(((Future *)task->waiter)->future_state) == FUTURE_FINISHED;
}

static void
trace_note(Loop *loop, struct trace *trace, uintptr_t item, PyObject *what)
{
    PyObject *op = ready_object(item);
    trace->items++;
    if (is_task(loop->state, what)) {
        trace->woken += task_was_woken(loop->state, what);
    }
    else if ((item & READY_KIND_MASK) == READY_HANDLE) {
        trace->timers += Py_IS_TYPE(op, loop_state(loop->state)->types.TimerHandle);
    }
}

int
trace_run(Loop *loop, uintptr_t item, bool event, int (*run)(Loop *loop, uintptr_t item))
{
    struct trace *trace = loop->trace;
    struct found key;
    if (trace->items >= TRACE_ITEMS || !identify(item, &key)) {
        return run(loop, item);
    }
    if (!trace_count(loop, trace, &key, item)) {
        Py_DECREF(key.what);
        return run(loop, item);
    }
    if (trace->items + 1 == TRACE_ITEMS) {
        /* The last one: what follows goes the short way again, and waits for whoever asks. */
        SET_FLAG(loop->careful, FLAG(loop->debug) || SHARED_LOAD(loop->task_accounting));
    }
    unsigned int place = trace->items;
    int fd = event ? loop->fds.event_fd : -1;
    trace_note(loop, trace, item, key.what);
    trace->event_fd = event ? fd : trace->event_fd;
    int64_t waiting = event ? bytes_in_kernel(fd) : 0;
    int64_t began = monotonic_ns();
    int result = run(loop, item);
    Py_DECREF(key.what);
    if (loop->trace != trace) {
        return result;    /* the item has ended it */
    }
    int64_t took = monotonic_ns() - began;
    trace->took_ns[place] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    uint64_t bytes = bytes_of(loop);
    trace->moved += bytes != trace->bytes || (event && waiting != bytes_in_kernel(fd));
    trace->bytes = bytes;
    return result;
}

/* -- for Python ------------------------------------------------------------------------ */

static int
compare_took(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static PyObject *
found_list(const struct trace *trace)
{
    PyObject *list = PyList_New(trace->found_length);
    for (unsigned int i = 0; list != NULL && i < trace->found_length; i++) {
        const struct found *found = &trace->found[i];
        PyObject *args = found->args == NULL ? PyTuple_New(0) : Py_NewRef(found->args);
        PyObject *pair = args == NULL ? NULL
                                      : Py_BuildValue("(OIN)", found->what, found->count, args);
        if (pair == NULL) {
            Py_CLEAR(list);
        }
        else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
        }
    }
    return list;
}

static PyObject *
trace_result(Loop *loop, struct trace *trace)
{
    PyObject *found = found_list(trace);
    if (found == NULL) {
        return NULL;
    }
    unsigned int items = trace->items;
    qsort(trace->took_ns, items, sizeof(*trace->took_ns), compare_took);
    return Py_BuildValue("{sK sI sI sI sI sI si sN}",
                         "turns", (unsigned long long)(loop->counters->turns - trace->turns),
                         "items", items, "timers", trace->timers, "woken", trace->woken,
                         "moved", trace->moved,
                         "median_ns", items == 0 ? 0u : trace->took_ns[items / 2],
                         "event_fd", trace->event_fd, "found", found);
}

static void
trace_set(Loop *loop, struct trace *trace)
{
    struct trace *old = loop->trace;
    loop->trace = trace;
    loop_update_careful(loop);
    if (old != NULL) {
        trace_free(old);
    }
}

void
trace_drop(Loop *loop)
{
    trace_set(loop, NULL);
}

PyObject *
Loop__trace_begin(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    if (loop_check_closed(loop) < 0) {
        return NULL;
    }
    struct trace *trace = PyMem_Calloc(1, sizeof(*trace));
    if (trace == NULL) {
        return PyErr_NoMemory();
    }
    trace->turns = loop->counters->turns;
    trace->bytes = bytes_of(loop);
    trace->event_fd = -1;
    trace_set(loop, trace);
    Py_RETURN_NONE;
}

PyObject *
Loop__trace_end(PyObject *op, PyObject *ignored UNUSED)
{
    OWN_LOOP(op);
    Loop *loop = (Loop *)op;
    struct trace *trace = loop->trace;
    if (trace == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *result = trace_result(loop, trace);
    trace_drop(loop);
    return result;
}
