/* handle_inside.h - what the files of handles share, with timer.c, and nobody else uses. */
#ifndef ASYNCLOOP_HANDLE_INSIDE_H
#define ASYNCLOOP_HANDLE_INSIDE_H

#include "loop/handle.h"
#include "loop/loop.h"

/* -- what a handle calls ------------------------------------------------------------ */

/* What a handle calls, taken out of it or held beside it. `args` is the end of an array whose
 * first slot is the callee's to use (PY_VECTORCALL_ARGUMENTS_OFFSET). */
struct call {
    PyObject *callback;
    PyObject *context;
    PyObject *scratch;
    PyObject *args[2];
    unsigned nargs;
    native_callback native;    /* or NULL */
};

/* Borrowed, or NULL. */
static inline PyObject *
handle_context(const Handle *handle)
{
    return handle->is_native ? NULL : handle->how.context;
}

static inline void
handle_copy_call(const Handle *handle, struct call *call)
{
    call->callback = handle->callback;
    call->context = handle_context(handle);
    call->native = handle->is_native ? handle->how.native : NULL;
    call->nargs = handle->nargs;
}

static inline unsigned
call_slots(unsigned nargs)
{
    return nargs == HANDLE_ARGS_TUPLE ? 1 : nargs;
}

/* All but the context, which is only borrowed. */
static inline void
handle_take_call(Handle *handle, struct call *call)
{
    handle_copy_call(handle, call);
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        call->args[i] = handle->args[i];
        handle->args[i] = NULL;
    }
    SHARED_STORE(handle->callback, NULL);
    handle->nargs = 0;
}

static inline void
call_release(struct call *call)
{
    Py_XDECREF(call->callback);
    for (unsigned i = 0, slots = call_slots(call->nargs); i < slots; i++) {
        Py_XDECREF(call->args[i]);
    }
}

/* A tuple of the arguments that are kept so (new reference), or NULL. */
static inline PyObject *
args_as_tuple(PyObject *const *args, unsigned nargs)
{
    if (nargs == HANDLE_ARGS_TUPLE) {
        return Py_NewRef(args[0]);
    }
    PyObject *tuple = PyTuple_New(nargs);
    for (unsigned i = 0; tuple != NULL && i < nargs; i++) {
        PyTuple_SET_ITEM(tuple, i, Py_NewRef(args[i]));
    }
    return tuple;
}

/* -- handle.c ------------------------------------------------------------------------ */

static inline struct state *
handle_state(const Handle *handle)
{
    return handle->loop->state;
}

/* Borrowed, or NULL. */
static inline PyObject *
handle_source_traceback(const Handle *handle)
{
    return handle_extra(handle) == NULL ? NULL : handle_extra(handle)->source_traceback;
}

static inline PyObject *
handle_kept_repr(const Handle *handle)
{
    return handle_extra(handle) == NULL ? NULL : handle_extra(handle)->repr;
}

/* In debug mode: what the handle is called when it has no callback any more. */
void handle_keep_repr(Handle *handle);
void handle_free_extra(Handle *handle);    /* there must be something */

/* A field of struct handle_extra gets a new value (borrowed; NULL: none). 0, or -1 with MemoryError. */
#define HANDLE_EXTRA(field) offsetof(struct handle_extra, field)
int handle_keep_extra(Handle *handle, size_t field, PyObject *value);

/* How far handle_begin_cancel() has come, and what it has taken out. */
struct cancel {
    enum { CANCEL_DONE,
           CANCEL_TELLS,
           CANCEL_DROPS } left;
    struct call call;
};

/* In its critical section, which is entered once and no more: most timers end so (guarded path: timeout). */
static inline void
handle_begin_cancel(Handle *handle, struct cancel *cancel)
{
    if (handle->cancelled) {
        cancel->left = CANCEL_DONE;
        return;
    }
    SHARED_STORE(handle->cancelled, true);
    if (UNLIKELY(FLAG(handle->loop->debug) && !handle->is_native)) {
        cancel->left = CANCEL_TELLS;    /* as asyncio: what was cancelled can still be told from its repr */
        return;
    }
    cancel->left = CANCEL_DROPS;
    handle_take_call(handle, &cancel->call);
}

void handle_cancel_telling(Handle *handle);
int handle_traverse_inside(Handle *handle, visitproc visit, void *arg);

/* What comes behind it. */
static inline void
handle_end_cancel(Handle *handle, struct cancel *cancel)
{
    if (LIKELY(cancel->left == CANCEL_DROPS)) {
        call_release(&cancel->call);
    }
    else if (cancel->left == CANCEL_TELLS) {
        handle_cancel_telling(handle);
    }
}

/* False: another thread runs it just now. */
bool handle_try_cancel(Handle *handle);
/* See handle_wait(). */
bool handle_runs_elsewhere(const Handle *handle);

/* Never 0; no two threads of an interpreter that live have the same. */
static inline uint32_t
this_thread(void)
{
    return (uint32_t)PyThreadState_GetID(PyThreadState_Get());
}

/* -- handle_run.c -------------------------------------------------------------------- */

/* asyncio's handles of call_soon_threadsafe() have, from 3.14 on, a lock: another thread
 * that cancels one, or asks whether it is cancelled, waits for the end of a callback that
 * has begun, whichever thread runs it. Here it waits to be told. */
void handle_wait(Handle *handle);

#endif
