/* args.h - arguments of METH_FASTCALL | METH_KEYWORDS methods, and what methods return. */
#ifndef ASYNCLOOP_ARGS_H
#define ASYNCLOOP_ARGS_H

#include "base/state.h"

/* The only keyword that call_soon() and its kin take: *context (borrowed; NULL for none
 * and for None). 0, or -1 with TypeError. */
int args_context_keyword(const char *function, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames, PyObject **context);

static inline int
args_context(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
             PyObject **context)
{
    *context = NULL;
    return LIKELY(kwnames == NULL)
               ? 0
               : args_context_keyword(function, args, nargs, kwnames, context);
}

/* Fills values[] (borrowed; left alone where not given) from positional arguments and
 * keywords, in the order of `names` (NULL at its end). The first `positional` may be
 * given by position. 0, or -1 with TypeError. */
int args_unpack(const char *function, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames, const char *const *names, Py_ssize_t positional,
                Py_ssize_t required, PyObject **values);

/* The only argument of a method that takes it by its name as well: borrowed, or NULL with TypeError. */
static inline PyObject *
args_one(const char *function, const char *name, PyObject *const *args, Py_ssize_t nargs,
         PyObject *kwnames)
{
    if (LIKELY(nargs == 1 && kwnames == NULL)) {
        return args[0];
    }
    const char *const names[] = {name, NULL};
    PyObject *value;
    return args_unpack(function, args, nargs, kwnames, names, 1, 1, &value) < 0 ? NULL : value;
}

/* Descriptors: whatever comes from outside goes through these two, and asyncio's errors come out. */

/* The number of a descriptor or of an object with fileno(), of any size: new reference, or NULL with
 * ValueError for what is none. */
PyObject *args_fileno(PyObject *object);
/* Such a number as an int that is not negative; -1 with ValueError or OverflowError. */
int args_fd(PyObject *number);

/* The number of what was given as an int that is a descriptor's; -1 of everything else, for which the two
 * above are. */
static inline int
args_small_fd(PyObject *object)
{
    return PyLong_Check(object) ? long_if_small(object) : -1;
}

/* Both. */
int args_descriptor(PyObject *object);

/* An int that is not negative as a number of bytes; SIZE_MAX for what is too large for a size. 0,
 * or -1 with an exception that is no OverflowError. */
int args_size(PyObject *whole, size_t *bytes);

/* Of an object that gave no writable buffer: the TypeError of socket.recv_into() and its like, in place
 * of the current exception, unless that is to leave the loop. `argument`: "recv_into() argument 1" */
void args_not_writable(const char *argument, PyObject *object);

/* The type's __name__: without its module */
const char *type_name(PyTypeObject *type);

static inline PyObject *
args_null_for_none(PyObject *object)
{
    return object == Py_None ? NULL : object;
}

/* What a method returns that only succeeds or fails. */
static inline PyObject *
none_or_error(int result)
{
    if (UNLIKELY(result < 0)) {
        return NULL;
    }
    Py_RETURN_NONE;    /* from 3.12 on without a count, which Py_NewRef() looks for */
}

/* Of a method that gives None whatever it has called gives, which may be NULL. */
static inline PyObject *
none_for_steal(PyObject *result)
{
    Py_XDECREF(result);
    return none_or_error(result == NULL ? -1 : 0);
}

/* What a slice that ends at `number` takes for its end. 0, or -1 with TypeError. */
int args_slice_end(PyObject *number, Py_ssize_t *end);

/* NULL with the AttributeError of None: what asyncio raises where it has let go of an object, and needs its
 * attribute of that name. */
PyObject *args_none_has_no(const char *name);

/* function(first, second), of which only matters whether it raises: 0 / -1. `second` may be NULL. */
int call_for_effect(PyObject *function, PyObject *first, PyObject *second);

/* True if the current exception is a KeyboardInterrupt or SystemExit. */
bool is_exit_exception(void);

#endif
