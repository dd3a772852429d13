/* executor.c - see executor.h.
 *
 * A Link stands between the two futures, and is the done callback of both:
 *   - the executor's future is done: in whatever thread that is, the Link asks the loop to copy
 *     the outcome, which happens in the loop's thread;
 *   - ours is done: if it was cancelled, the other one is.
 * Which of the two calls, its argument tells.
 *
 * Only a result is copied here. Exceptions, cancellation and whatever looks odd go to the function that
 * asyncio.futures._chain_future() has the loop call, in a Handle as there, since it may raise; and that
 * is what the loop is asked to call in debug mode, and where its call_soon_threadsafe() is the program's.
 *
 * Threads: the executor's call the Link while the loop's may. Its fields are set before anybody can
 *          call it, and taken in its critical section. */
#include "tasks/executor.h"

#include "base/args.h"
#include "tasks/future.h"
#include "tasks/future_waiters.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct state *state;          /* borrowed: the type keeps the module alive */
    Loop *loop;                   /* strong */
    PyObject *source;             /* strong: a concurrent.futures.Future; NULL once it has no use */
    Future *future;               /* strong; NULL once the outcome is copied */
    bool sent;                    /* the loop was asked to copy it */
} Link;

static inline bool
future_is_cancelled(const Future *future)
{
    return SHARED_LOAD(future->future_state) == FUTURE_CANCELLED;
}

/* What _chain_future() gives the two futures to call (asyncloop/_insides.py). */
enum standard_callback {
    CHECK_CANCEL,
    SET_STATE,
    AT_ONCE,    /* no callback: True where an executor's future that is done in the loop's thread does not wait */
};

/* Once, when _chain_future() is known to be asyncio's. 0 / -1 */
static int
find_standard_callbacks(struct state *state)
{
    PyObject **place = &tasks_state(state)->executor.callbacks, *nobodys = NULL;
    if (LIKELY(SHARED_LOAD(*place) != NULL)) {
        return 0;
    }
    PyObject *module = PyImport_ImportModule("asyncloop._insides");
    PyObject *found = module == NULL ? NULL : PyObject_CallMethod(module, "chained", NULL);
    Py_XDECREF(module);
    if (found != NULL
        && !__atomic_compare_exchange_n(place, &nobodys, found, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        Py_DECREF(found);    /* another thread was first */
    }
    return found == NULL ? -1 : 0;
}

/* Borrowed; None once the module was cleared, as the interpreter ends. */
static PyObject *
standard_callback(struct state *state, enum standard_callback which)
{
    PyObject *callbacks = SHARED_LOAD(tasks_state(state)->executor.callbacks);
    return UNLIKELY(callbacks == NULL) ? Py_None : PyTuple_GET_ITEM(callbacks, which);
}

/* Both are the caller's then, and may be NULL. */
static void
link_take(Link *link, PyObject **source, Future **future)
{
    GUARD(link);
    *source = link->source;
    *future = link->future;
    link->source = NULL;
    link->future = NULL;
}

/* -- the executor's future is done ---------------------------------------------------------- */

/* What it has as its result: 1 with a new reference; 0: it has something else to tell; -1 */
static int
source_result(struct state *state, PyObject *source, PyObject **result)
{
    PyObject *outcome = PyObject_GetAttr(source, state->names._state);
    bool finished = outcome != NULL && PyUnicode_Check(outcome)
                    && PyUnicode_Compare(outcome, state->names.FINISHED) == 0;
    Py_XDECREF(outcome);
    if (!finished) {
        return PyErr_Occurred() ? -1 : 0;
    }
    outcome = PyObject_GetAttr(source, state->names._exception);
    bool succeeded = outcome == Py_None;
    Py_XDECREF(outcome);
    if (!succeeded) {
        return PyErr_Occurred() ? -1 : 0;
    }
    *result = PyObject_GetAttr(source, state->names._result);
    return *result == NULL ? -1 : 1;
}

/* What asyncio calls for it. */
static int
copy_by_asyncio(Loop *loop, PyObject *source, Future *future)
{
    PyObject *set_state = standard_callback(loop->state, SET_STATE), *args[] = {(PyObject *)future, source};
    Handle *handle = handle_new(loop, set_state, args, 2, NULL);
    if (handle == NULL) {    /* somebody waits for it all the same */
        PyErr_Clear();
        return call_for_effect(set_state, (PyObject *)future, source);
    }
    int result = handle_run(handle);
    Py_DECREF(handle);
    return result;
}

static int
copy_outcome(Loop *loop, PyObject *source, Future *future)
{
    PyObject *result;
    int has = future_is_pending(future) ? source_result(loop->state, source, &result) : 0;
    if (LIKELY(has > 0)) {
        int failed = future_set_result(future, result);
        Py_DECREF(result);
        return failed;
    }
    return has < 0 ? -1 : copy_by_asyncio(loop, source, future);
}

/* in the loop's thread */
static int
link_copy(PyObject *op, PyObject *ignored UNUSED)
{
    Link *link = (Link *)op;
    PyObject *source;
    Future *future;
    link_take(link, &source, &future);
    int result = 0;
    if (source != NULL && future != NULL && !future_is_cancelled(future)) {
        result = copy_outcome(link->loop, source, future);
    }
    Py_XDECREF(source);
    Py_XDECREF(future);
    return result;
}

static int
link_send(Link *link)
{
    bool sent;
    {
        GUARD(link);
        sent = link->sent;
        link->sent = true;
    }
    if (sent) {
        return 0;
    }
    Handle *handle = handle_new_native(link->loop, link_copy, (PyObject *)link, NULL);
    return handle == NULL ? -1 : loop_call_soon_threadsafe(link->loop, handle);
}

/* asyncio's callback is called, now or by the loop's method. */
static int
link_send_openly(Link *link, bool now)
{
    PyObject *source, *result = Py_None, *set_state = standard_callback(link->state, SET_STATE);
    Future *future;
    link_take(link, &source, &future);
    if (source != NULL && future != NULL) {
        result = now ? PyObject_CallFunctionObjArgs(set_state, future, source, NULL)
                     : PyObject_CallMethodObjArgs((PyObject *)link->loop, link->state->names.call_soon_threadsafe,
                                                  set_state, future, source, NULL);
        Py_XDECREF(result);
    }
    Py_XDECREF(source);
    Py_XDECREF(future);
    return result == NULL ? -1 : 0;
}

static int
link_source_done(Link *link)
{
    Loop *loop = link->loop;
    bool waits;
    {
        GUARD(link);
        waits = link->future != NULL && !future_is_cancelled(link->future);
    }
    if (!waits || FLAG(loop->closed) || SHARED_LOAD(loop->ev) == NULL) {
        return 0;    /* nobody wants to know any more */
    }
    bool now = SHARED_LOAD(loop->thread_id) == PyThread_get_thread_ident()
               && standard_callback(link->state, AT_ONCE) == Py_True;
    if (UNLIKELY(now) || UNLIKELY(FLAG(loop->debug))
        || UNLIKELY(loop_replaced(loop) & LOOP_BIT(call_soon_threadsafe))) {
        return link_send_openly(link, now);
    }
    return link_send(link);
}

/* -- ours is done ------------------------------------------------------------------------------ */

static int
link_future_done(Link *link, Future *future)
{
    if (LIKELY(!future_is_cancelled(future))) {
        return 0;
    }
    PyObject *source;
    {
        GUARD(link);
        source = link->source;
        link->source = NULL;
    }
    if (source == NULL) {
        return 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs(source, link->state->names.cancel);
    Py_DECREF(source);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* -- the type ------------------------------------------------------------------------------------ */

static PyObject *
Link_vectorcall(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    Link *link = (Link *)op;
    if (PyVectorcall_NARGS(nargsf) != 1 || (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "the callback takes one argument, a future");
        return NULL;
    }
    return none_or_error(future_check_exact(link->state, args[0])
                             ? link_future_done(link, (Future *)args[0])
                             : link_source_done(link));
}

/* What texts of a future say of this callback: asyncio's has these. */
static PyObject *
Link_get_look(PyObject *op, void *name)
{
    PyObject *callback = standard_callback(((Link *)op)->state, CHECK_CANCEL);
    return name == NULL ? Py_NewRef(callback) : PyObject_GetAttrString(callback, name);
}

static int
Link_traverse(PyObject *op, visitproc visit, void *arg)
{
    Link *link = (Link *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(link->loop);
    Py_VISIT(link->source);
    Py_VISIT(link->future);
    return 0;
}

/* The loop stays: it may be asked for until the end. */
static int
Link_clear(PyObject *op)
{
    PyObject *source;
    Future *future;
    link_take((Link *)op, &source, &future);
    Py_XDECREF(source);
    Py_XDECREF(future);
    return 0;
}

static void
Link_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Link_clear(op);
    Py_CLEAR(((Link *)op)->loop);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMemberDef Link_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Link, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Link_getsets[] = {
    {"__qualname__", Link_get_look, NULL, NULL, "__qualname__"},
    {"__wrapped__", Link_get_look, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Link_slots[] = {
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_traverse, Link_traverse},
    {Py_tp_clear, Link_clear},
    {Py_tp_dealloc, Link_dealloc},
    {Py_tp_members, Link_members},
    {Py_tp_getset, Link_getsets},
    {0, NULL},
};

static PyType_Spec Link_spec = {
    .name = "asyncloop._core.ExecutorLink",
    .basicsize = sizeof(Link),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL
             | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Link_slots,
};

static PyObject *
link_new(Loop *loop, PyObject *source, Future *future)
{
    PyTypeObject *type = tasks_state(loop->state)->types.Link;
    Link *link = find_standard_callbacks(loop->state) < 0 ? NULL : (Link *)type->tp_alloc(type, 0);
    if (link != NULL) {
        link->vectorcall = Link_vectorcall;
        link->state = loop->state;
        link->loop = (Loop *)Py_NewRef(loop);
        link->source = Py_NewRef(source);
        link->future = (Future *)Py_NewRef(future);
    }
    return (PyObject *)link;
}

/* -- the method ----------------------------------------------------------------------------------- */

/* 0 / -1 */
static int
chain(Loop *loop, PyObject *source, PyObject *future)
{
    struct state *state = loop->state;
    if (!future_check_exact(state, future) || ((Future *)future)->own_loop != loop) {
        /* of somebody's own create_future() */
        return call_for_effect(tasks_state(state)->executor.chain_future, source, future);
    }
    PyObject *link = link_new(loop, source, (Future *)future);
    PyObject *result = NULL;
    if (link != NULL && future_add_callback((Future *)future, link, NULL) == 0) {
        result = PyObject_CallMethodOneArg(source, state->names.add_done_callback, link);
    }
    Py_XDECREF(link);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* A Future of the loop for what submit() has given, or NULL. */
static PyObject *
wrap(Loop *loop, PyObject *source)
{
    struct state *state = loop->state;
    if (UNLIKELY(!Py_IS_TYPE(source, (PyTypeObject *)tasks_state(state)->executor.concurrent_Future))
        || UNLIKELY(loop_replaced(loop) & LOOP_BIT(call_soon_threadsafe))
        || !standard_is(state, STANDARD_FUTURES_WRAP_FUTURE) || !standard_is(state, STANDARD_FUTURES_CHAIN_FUTURE)) {
        PyObject *wrap_future = PyObject_GetAttrString(tasks_state(state)->executor.futures, "wrap_future");
        PyObject *stack[] = {source, (PyObject *)loop};
        PyObject *future = wrap_future == NULL ? NULL : PyObject_Vectorcall(wrap_future, stack, 1, state->keywords.loop);
        Py_XDECREF(wrap_future);
        return future;
    }
    PyObject *future = PyObject_CallMethodNoArgs((PyObject *)loop, state->names.create_future);
    if (future != NULL && chain(loop, source, future) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

/* The default executor: new reference, or NULL. Py_None: asyncio's own method has to make one, or to say
 * that there is none any more. */
static PyObject *
default_executor(Loop *loop)
{
    struct state_names *names = &loop->state->names;
    PyObject *shut = PyObject_GetAttr((PyObject *)loop, names->_executor_shutdown_called);
    if (shut == NULL) {
        return NULL;
    }
    Py_DECREF(shut);
    if (UNLIKELY(shut != Py_False)) {
        return Py_NewRef(Py_None);
    }
    return PyObject_GetAttr((PyObject *)loop, names->_default_executor);
}

/* asyncio's own method has made it, so nobody else had a hand in it. Keeps the error indicator. */
static void
note_made_executor(Loop *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *executor = PyObject_GetAttr((PyObject *)loop, loop->state->names._default_executor);
    PyObject *seen = executor == NULL || executor == Py_None ? NULL : PyWeakref_NewRef(executor, NULL);
    PyErr_Clear();
    Py_XSETREF(loop->made_executor, seen);
    Py_XDECREF(executor);
    PyErr_SetRaisedException(exc);
}

/* asyncio's own method makes the default executor. `stack` begins with the loop. */
static PyObject *
run_in_new_executor(struct state *state, PyObject *const *stack, Py_ssize_t nargs)
{
    PyObject *method = PyObject_GetAttr(loop_state(state)->overrides.BaseEventLoop, state->names.run_in_executor);
    if (method == NULL) {
        return NULL;
    }
    PyObject *future = PyObject_Vectorcall(method, stack, (size_t)nargs, NULL);
    Py_DECREF(method);
    note_made_executor((Loop *)stack[0]);
    return future;
}

static PyObject *
run_by_default(Loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *executor = default_executor(loop);
    if (executor == NULL) {
        return NULL;
    }
    PyObject **stack = PyMem_New(PyObject *, nargs + 1);
    PyObject *future = NULL, *source = NULL;
    if (stack == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    stack[0] = (PyObject *)loop;
    stack[1] = executor;
    for (Py_ssize_t i = 1; i < nargs; i++) {
        stack[i + 1] = args[i];
    }
    if (UNLIKELY(executor == Py_None)) {
        future = run_in_new_executor(loop->state, stack, nargs + 1);
        goto done;
    }
    source = PyObject_VectorcallMethod(loop->state->names.submit, stack + 1,
                                       (size_t)nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    future = source == NULL ? NULL : wrap(loop, source);
    Py_XDECREF(source);
done:
    PyMem_Free(stack);
    Py_DECREF(executor);
    return future;
}

PyObject *
Loop_run_in_executor(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"executor", "func", NULL};
    Loop *loop = (Loop *)op;
    PyObject *values[2];
    if (loop_base_replaced(loop, LOOP_BIT(run_in_executor))) {
        return overrides_call_base(loop, loop->state->names.run_in_executor, args, nargs, kwnames);
    }
    if (UNLIKELY(nargs < 2 || kwnames != NULL)) {
        if (args_unpack("run_in_executor", args, nargs, kwnames, names, 2, 2, values) < 0) {
            return NULL;
        }
        args = values;
        nargs = 2;
    }
    if (loop_check_closed(loop) < 0
        || (UNLIKELY(FLAG(loop->debug))
            && loop_check_callback(loop, args[1], "run_in_executor") < 0)) {
        return NULL;
    }
    if (LIKELY(args[0] == Py_None)) {
        return run_by_default(loop, args, nargs);
    }
    PyObject *source = PyObject_VectorcallMethod(loop->state->names.submit, args, (size_t)nargs,
                                                 NULL);
    PyObject *future = source == NULL ? NULL : wrap(loop, source);
    Py_XDECREF(source);
    return future;
}

int
executor_init(PyObject *module, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    STATE_OWN(state, &own->executor);
    const struct state_import wanted[] = {
        {&own->executor.concurrent_Future, "concurrent.futures", "Future", false},
        {&own->executor.chain_future, "asyncio.futures", "_chain_future", false},
        {&own->executor.futures, "asyncio", "futures", false},
    };
    return STATE_IMPORT(wanted) < 0
               ? -1
               : state_add_type(module, &Link_spec, NULL, 0, &own->types.Link);
}
