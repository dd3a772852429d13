/* future_waiters.c - who waits for a Future: adding, removing, listing and waking them.
 *
 * Owns:     callback0, context0, parked0 and callbacks. The first waiter is callback0, later
 *           ones are in the list `callbacks`: a pair (callable, context), a parked Task, or None
 *           for one who is awake while the others still wait for memory.
 * Promises: waiters are woken once, in the order in which they came, each through call_soon()
 *           or, a Task of our own loop, through the ready ring.
 * Python:   waking on our own loop runs none. A comparison, and call_soon() of a foreign loop,
 *           may do anything to the future: what is used across such a call is held, and fields
 *           are read again after. */
#include "tasks/future.h"

#include "base/args.h"
#include "loop/overrides.h"
#include "tasks/future_methods.h"
#include "tasks/future_waiters.h"
#include "tasks/owed_tasks.h"
#include "tasks/record.h"

/* -- waking --------------------------------------------------------------------- */

int
future_check_own_loop(Loop *loop)
{
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    return FLAG(loop->debug) ? loop_check_thread(loop) : 0;
}

int
future_look_at_push(Loop *loop, PyObject *task)
{
    if (SHARED_LOAD(loop->task_accounting)) {
        record_ready(task, loop);
    }
    if (FLAG(loop->debug)) {
        struct claim claim;
        if (loop_claim(&claim, loop) == 0) {
            record_place(task, loop);
            loop_unclaim(&claim);
        }
        else {
            PyErr_Clear();    /* another thread's, which the check refuses */
        }
    }
    return future_check_own_loop(loop);
}

int
future_call_soon(Future *self, PyObject *callback, PyObject *argument, PyObject *context)
{
    Loop *loop = self->own_loop;
    if (LIKELY(loop != NULL)) {
        if (UNLIKELY(FLAG(loop->debug)) && future_check_own_loop(loop) < 0) {
            return -1;
        }
        unsigned int replaced = loop_replaced(loop);
        if (LIKELY((replaced & LOOP_BIT(call_soon)) == 0)) {
            PyObject *handle = loop_call_soon_knowing(loop, replaced, callback, &argument,
                                                      argument != NULL, context);
            Py_XDECREF(handle);
            return handle == NULL ? -1 : 0;
        }
    }
    struct state *state = self->state_ptr;
    PyObject *loop_object = Py_NewRef(self->loop);
    PyObject *args[4] = {loop_object, callback};
    size_t nargs = 2;
    if (argument != NULL) {
        args[nargs++] = argument;
    }
    args[nargs] = context;
    PyObject *result = PyObject_VectorcallMethod(state->names.call_soon, args, nargs,
                                                 context == NULL ? NULL : state->keywords.context);
    Py_DECREF(loop_object);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
future_wake_one(Future *self, PyObject *callback, PyObject *context)
{
    if (context == NULL) {
        return future_wake_task_steal(self, Py_NewRef(callback));
    }
    return future_call_soon(self, callback, (PyObject *)self, context);
}

int
future_wake_task_by_call_steal(Future *self, PyObject *task)
{
    PyObject *callback, *context;
    int result = -1;
    if (tasks_state(self->state_ptr)->tasks.as_callback(task, &callback, &context) == 0) {
        if (self->own_loop != NULL && SHARED_LOAD(self->own_loop->task_accounting)) {
            record_ready(task, self->own_loop);
        }
        result = future_call_soon(self, callback, (PyObject *)self, context);
        Py_DECREF(callback);
        Py_DECREF(context);
    }
    Py_DECREF(task);
    return result;
}

/* After the first failure (a closed loop) the others still come: the exception of the first is
 * kept. */
static int
future_wake_next(Future *self, PyObject *callback, PyObject *context, PyObject **failure)
{
    if (future_wake_one(self, callback, context) == 0) {
        return 0;
    }
    if (self->own_loop != NULL && owed_add_callbacks(self->own_loop, self)) {
        return 1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    if (*failure == NULL) {
        *failure = exc;
    }
    else {
        Py_XDECREF(exc);
    }
    return -1;
}

void
future_take_waiters(Future *self, PyObject **callback, PyObject **context, PyObject **later)
{
    VERIFY(!future_is_pending(self));
    *callback = self->callback0;
    *context = self->context0;
    *later = self->callbacks;
    self->callback0 = self->context0 = self->callbacks = NULL;
    self->parked0 = false;
}

/* Waiters are taken off first: call_soon() of a foreign loop may do anything to `self`,
 * but the references here are ours alone. Where they have to wait for memory they are put back,
 * with None in the place of who is awake. */
static inline int
wake_taken_steal(Future *self, PyObject *callback, PyObject *context, PyObject *later)
{
    PyObject *failure = NULL;
    int result = 0, woken = 0;
    if (callback != NULL) {
        woken = future_wake_next(self, callback, context, &failure);
        result |= woken < 0;
    }
    if (UNLIKELY(woken > 0)) {
        FUTURE_GUARD(self);
        self->callback0 = callback;
        self->context0 = context;
    }
    else {
        Py_XDECREF(callback);
        Py_XDECREF(context);
    }
    for (Py_ssize_t i = 0; later != NULL && woken <= 0 && i < PyList_GET_SIZE(later); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(later, i));
        if (LIKELY(item != Py_None)) {
            future_waiter_parts(item, &callback, &context);
            woken = future_wake_next(self, callback, context, &failure);
            result |= woken < 0;
        }
        if (UNLIKELY(woken > 0)) {
            for (Py_ssize_t j = 0; j < i; j++) {
                (void)PyList_SetItem(later, j, Py_NewRef(Py_None));
            }
        }
        Py_DECREF(item);
    }
    if (UNLIKELY(woken > 0)) {
        FUTURE_GUARD(self);
        self->callbacks = later;
    }
    else {
        Py_XDECREF(later);
    }
    if (failure != NULL) {
        PyErr_SetRaisedException(failure);
    }
    return result ? -1 : 0;
}

int
future_wake_several(Future *self)
{
    PyObject *callback, *context, *later;
    future_take_waiters(self, &callback, &context, &later);
    return wake_taken_steal(self, callback, context, later);
}

#ifdef Py_GIL_DISABLED
int
future_wake_first_steal(Future *self, PyObject *callback, PyObject *context)
{
    return wake_taken_steal(self, callback, context, NULL);
}
#endif

/* -- adding --------------------------------------------------------------------- */

static int
future_append_waiter(Future *self, PyObject *item)
{
    if (self->callbacks == NULL) {
        self->callbacks = PyList_New(0);
        if (self->callbacks == NULL) {
            return -1;
        }
    }
    return PyList_Append(self->callbacks, item);
}

int
future_park_later(Future *self, PyObject *task)
{
    return future_append_waiter(self, task);
}

#ifdef Py_GIL_DISABLED
int
future_park(Future *self, PyObject *task, bool *done)
{
    FUTURE_GUARD(self);
    *done = !future_is_pending(self);
    return *done ? 0 : future_park_pending(self, task);
}
#endif

static int
future_add_callback_steal(Future *self, PyObject *callback, PyObject *context)
{
    FUTURE_GUARD(self);
    int result = 0;
    if (self->future_state != FUTURE_PENDING) {
        result = future_call_soon(self, callback, (PyObject *)self, context);
        Py_DECREF(context);
    }
    else if (LIKELY(future_has_no_waiter(self))) {
        self->callback0 = Py_NewRef(callback);
        self->context0 = context;
    }
    else {
        PyObject *item = PyTuple_Pack(2, callback, context);
        Py_DECREF(context);
        result = item == NULL ? -1 : future_append_waiter(self, item);
        Py_XDECREF(item);
    }
    return result;
}

#ifdef Py_GIL_DISABLED
/* The usual case, in a turn of the loop itself: the first one. False: nothing was done. (Guarded path gather-100
 * on 3.14t.) */
static inline bool
future_add_first_briefly_steal(Future *self, PyObject *callback, PyObject *context)
{
    struct brief brief;
    if (UNLIKELY(!brief_begin(&brief, &self->own_loop))) {
        return false;
    }
    bool first = self->future_state == FUTURE_PENDING && future_has_no_waiter(self);
    if (LIKELY(first)) {
        self->callback0 = Py_NewRef(callback);
        self->context0 = context;
    }
    brief_end(&brief);
    return first;
}
#else
#define future_add_first_briefly_steal(future, callback, context) false
#endif

int
future_add_callback(Future *self, PyObject *callback, PyObject *context)
{
    context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (context == NULL) {
        return -1;
    }
    return future_add_first_briefly_steal(self, callback, context)
               ? 0
               : future_add_callback_steal(self, callback, context);
}

/* `context` is what the loop's call_soon() will be given: a foreign loop may take anything. */
static int
future_parse_context(Future *self, PyObject *const *values, PyObject *kwnames, PyObject **context)
{
    static const char *const names[] = {"context", NULL};
    if (self->own_loop != NULL) {
        return args_context("add_done_callback", values, 0, kwnames, context);
    }
    if (args_unpack("add_done_callback", values, 0, kwnames, names, 0, 0, context) < 0) {
        return -1;
    }
    if (*context == Py_None) {
        *context = NULL;
    }
    return 0;
}

PyObject *
Future_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Future *self = (Future *)op;
    PyObject *context = NULL;
    if (UNLIKELY(nargs != 1)) {
        return PyErr_Format(PyExc_TypeError,
                            "add_done_callback() takes exactly 1 positional argument (%zd given)",
                            nargs);
    }
    if (UNLIKELY(self->loop == NULL)) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Future object");
        return NULL;
    }
    if (kwnames != NULL && future_parse_context(self, args + 1, kwnames, &context) < 0) {
        return NULL;
    }
    if (future_add_callback(self, args[0], context) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* -- removing ------------------------------------------------------------------- */

/* Whether a waiter is what remove_done_callback() was asked for: 1, 0, -1. `waiter` is held
 * by the caller. */
static int
waiter_matches(Future *self, PyObject *waiter, bool parked, PyObject *wanted)
{
    if (!parked) {
        return PyObject_RichCompareBool(waiter, wanted, Py_EQ);
    }
    PyObject *callback, *context;
    if (tasks_state(self->state_ptr)->tasks.as_callback(waiter, &callback, &context) < 0) {
        return -1;
    }
    int result = PyObject_RichCompareBool(callback, wanted, Py_EQ);
    Py_DECREF(callback);
    Py_DECREF(context);
    return result;
}

/* 1 removed, 0 not, -1 */
static int
future_remove_first(Future *self, PyObject *wanted)
{
    PyObject *first = Py_XNewRef(self->callback0);
    if (first == NULL) {
        return 0;
    }
    int result = waiter_matches(self, first, self->parked0, wanted);
    /* the comparison may have settled the future, and even made it wait again */
    if (result > 0 && self->callback0 == first) {
        self->parked0 = false;
        Py_CLEAR(self->callback0);
        Py_CLEAR(self->context0);
    }
    else if (result > 0) {
        result = 0;
    }
    Py_DECREF(first);
    return result;
}

/* Takes `item` off the list if it is still there, near `index`: 1, 0, -1 */
static int
future_remove_item(Future *self, PyObject *item, Py_ssize_t index)
{
    PyObject *list = Py_XNewRef(self->callbacks);
    int result = 0;
    for (Py_ssize_t i = index; list != NULL && i >= 0; i--) {
        if (i < PyList_GET_SIZE(list) && PyList_GET_ITEM(list, i) == item) {
            result = PyList_SetSlice(list, i, i + 1, NULL) < 0 ? -1 : 1;
            break;
        }
    }
    Py_XDECREF(list);
    return result;
}

PyObject *
Future_remove_done_callback(PyObject *op, PyObject *wanted)
{
    FUTURE_GUARD(op);
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    Py_ssize_t removed = future_remove_first(self, wanted);
    if (removed < 0) {
        return NULL;
    }
    /* also at what a comparison adds, as asyncio does */
    for (Py_ssize_t i = 0; self->callbacks != NULL && i < PyList_GET_SIZE(self->callbacks);) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(self->callbacks, i));
        bool parked = !PyTuple_CheckExact(item);
        PyObject *waiter = parked ? item : PyTuple_GET_ITEM(item, 0);
        int result = item == Py_None ? 0 : waiter_matches(self, waiter, parked, wanted);
        if (result > 0) {
            result = future_remove_item(self, item, i);
        }
        Py_DECREF(item);
        if (result < 0) {
            return NULL;
        }
        removed += result;
        i += !result;
    }
    if (self->callbacks != NULL && PyList_GET_SIZE(self->callbacks) == 0) {
        Py_CLEAR(self->callbacks);
    }
    return PyLong_FromSsize_t(removed);
}

/* -- listing -------------------------------------------------------------------- */

/* (callable, context) of a parked Task, as asyncio would have stored it */
static PyObject *
parked_as_tuple(Future *self, PyObject *task)
{
    PyObject *callback, *context;
    if (tasks_state(self->state_ptr)->tasks.as_callback(task, &callback, &context) < 0) {
        return NULL;
    }
    PyObject *tuple = PyTuple_Pack(2, callback, context);
    Py_DECREF(callback);
    Py_DECREF(context);
    return tuple;
}

static int
list_append_steal(PyObject *list, PyObject *item)
{
    int result = item == NULL ? -1 : PyList_Append(list, item);
    Py_XDECREF(item);
    return result;
}

PyObject *
Future_get__callbacks(PyObject *op, void *closure UNUSED)
{
    FUTURE_GUARD(op);
    Future *self = (Future *)op;
    if (self->loop == NULL) {
        return future_not_initialised();
    }
    if (future_has_no_waiter(self)) {
        Py_RETURN_NONE;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    /* Allocations may collect garbage, and so run anything: no item is kept across one. */
    if (self->callback0 != NULL) {
        PyObject *first = Py_NewRef(self->callback0);
        PyObject *item = self->parked0 ? parked_as_tuple(self, first)
                                       : PyTuple_Pack(2, first, self->context0);
        Py_DECREF(first);
        if (list_append_steal(list, item) < 0) {
            goto failed;
        }
    }
    for (Py_ssize_t i = 0; self->callbacks != NULL && i < PyList_GET_SIZE(self->callbacks); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(self->callbacks, i));
        if (item == Py_None) {
            Py_DECREF(item);    /* is awake already */
            continue;
        }
        if (!PyTuple_CheckExact(item)) {
            Py_SETREF(item, parked_as_tuple(self, item));
        }
        if (list_append_steal(list, item) < 0) {
            goto failed;
        }
    }
    return list;
failed:
    Py_DECREF(list);
    return NULL;
}

#if PY_VERSION_HEX >= 0x030E0000
/* Those whom asyncio's functions recorded, in the base's fields: new reference to a
 * frozenset or None. */
static PyObject *
base_awaited_by(Future *self)
{
    struct state *state = self->state_ptr;
    PyObject *attribute = PyObject_GetAttr((PyObject *)tasks_state(state)->futures.asyncio_Future,
                                           state->names._asyncio_awaited_by);
    if (attribute == NULL) {
        return NULL;
    }
    PyObject *result = Py_TYPE(attribute)->tp_descr_get(attribute, (PyObject *)self,
                                                        (PyObject *)Py_TYPE(self));
    Py_DECREF(attribute);
    return result;
}

/* A parked Task awaits, without having been recorded anywhere. */
PyObject *
Future_get__awaited_by(PyObject *op, void *closure UNUSED)
{
    FUTURE_GUARD(op);
    Future *self = (Future *)op;
    PyObject *recorded = base_awaited_by(self);
    if (recorded == NULL || (!self->parked0 && self->callbacks == NULL)) {
        return recorded;
    }
    PyObject *set = PySet_New(recorded == Py_None ? NULL : recorded);
    Py_DECREF(recorded);
    if (set == NULL) {
        return NULL;
    }
    PyObject *first = self->parked0 ? Py_NewRef(self->callback0) : NULL;
    int failed = first == NULL ? 0 : PySet_Add(set, first);
    Py_XDECREF(first);
    for (Py_ssize_t i = 0;
         failed == 0 && self->callbacks != NULL && i < PyList_GET_SIZE(self->callbacks); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(self->callbacks, i));
        if (!PyTuple_CheckExact(item) && item != Py_None) {
            failed = PySet_Add(set, item);
        }
        Py_DECREF(item);
    }
    PyObject *result = NULL;
    if (failed == 0) {
        result = PySet_GET_SIZE(set) == 0 ? Py_NewRef(Py_None) : PyFrozenSet_New(set);
    }
    Py_DECREF(set);
    return result;
}
#endif

/* -- callbacks that came without memory ---------------------------------------------------- */

/* What a Handle would do, without one. 0 / -1 */
static int
call_now(Future *future, PyObject *callback, PyObject *context)
{
    if (!PyContext_CheckExact(context)) {
        PyErr_NoMemory();    /* its run() wants a bound method and a tuple */
        return -1;
    }
    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallOneArg(callback, (PyObject *)future);
    PyObject *exc = PyErr_GetRaisedException();
    (void)PyContext_Exit(context);
    PyErr_SetRaisedException(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 0, or -1 with an exit exception */
static int
run_left_callback(Loop *loop, Future *future, PyObject *callback, PyObject *context)
{
    if (future_wake_one(future, callback, context) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        PyErr_Clear();
        if (call_now(future, callback, context) == 0) {
            return 0;
        }
    }
    if (is_exit_exception()) {
        return -1;
    }
    loop_report(loop, "Exception in a callback of a future", "future", (PyObject *)future);
    return 0;
}

int
future_run_left_callbacks(Loop *loop, Future *future)
{
    PyObject *callback, *context, *later;
    {
        FUTURE_GUARD(future);
        future_take_waiters(future, &callback, &context, &later);
    }
    int result = 0;
    PyObject *leaving = NULL;
    if (callback != NULL) {
        result = run_left_callback(loop, future, callback, context);
        leaving = PyErr_GetRaisedException();
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    for (Py_ssize_t i = 0; later != NULL && i < PyList_GET_SIZE(later); i++) {
        PyObject *item = PyList_GET_ITEM(later, i);
        if (item == Py_None) {
            continue;    /* is awake already */
        }
        future_waiter_parts(item, &callback, &context);
        if (run_left_callback(loop, future, callback, context) < 0) {
            result = -1;
            Py_XSETREF(leaving, PyErr_GetRaisedException());
        }
    }
    Py_XDECREF(later);
    PyErr_SetRaisedException(leaving);
    return result;
}

#ifdef ASYNCLOOP_DEBUG
static void
waiter_verify(const Future *self, PyObject *waiter, bool parked)
{
    VERIFY(verify_lives(waiter));
    if (parked) {
        VERIFY(PyObject_TypeCheck(waiter, tasks_state(self->state_ptr)->types.Task));
        VERIFY(self->own_loop != NULL && ((Future *)waiter)->own_loop == self->own_loop);
    }
}

void
future_verify_waiters(const Future *self, uint64_t turn)
{
    if (self->callback0 == NULL) {
        VERIFY(self->context0 == NULL && !self->parked0);
    }
    else {
        VERIFY(self->parked0 == (self->context0 == NULL));
        waiter_verify(self, self->callback0, self->parked0);
    }
    if (self->callbacks == NULL) {
        return;
    }
    VERIFY(PyList_CheckExact(self->callbacks));
    struct verify_part part = verify_part((size_t)PyList_GET_SIZE(self->callbacks), turn);
    for (size_t i = part.from; i < part.to; i++) {
        PyObject *item = PyList_GET_ITEM(self->callbacks, (Py_ssize_t)i), *callback, *context;
        VERIFY(verify_lives(item));
        if (item == Py_None) {
            VERIFY(self->future_state != FUTURE_PENDING);
            continue;
        }
        VERIFY(!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) == 2);
        future_waiter_parts(item, &callback, &context);
        waiter_verify(self, callback, context == NULL);
    }
}
#endif
