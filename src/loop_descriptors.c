/* loop_descriptors.c - see loop_descriptors.h. */
#include "loop_descriptors.h"

#include "base/args.h"
#include "loop/handle.h"
#include "loop/overrides.h"
#include "loop/owner.h"
#include "loop/watch_inside.h"
#include "net/transport.h"
#include "readers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

/* Of what the user gave: its number (new reference), and whether a transport uses that. NULL with
 * ValueError or RuntimeError. */
static PyObject *
descriptor_for_users(Loop *loop, PyObject *object, bool check_transport)
{
    PyObject *number = args_fileno(object);
    int overflow;
    long fd = number == NULL ? -1 : PyLong_AsLongAndOverflow(number, &overflow);
    if (check_transport && fd >= 0 && fd <= INT_MAX
        && transport_ensure_free(loop, (int)fd, object) < 0) {
        Py_CLEAR(number);
    }
    return number;
}

/* The number that the table knows, of one from descriptor_for_users() (stolen). An object that was closed
 * meanwhile is found by itself: *closed. -1 with an exception. */
static int
descriptor_known_steal(Loop *loop, PyObject *object, PyObject *number, bool *closed)
{
    int fd = args_fd(number);
    if (UNLIKELY(fd < 0) && PyErr_ExceptionMatches(PyExc_ValueError)) {
        int known = watch_find_fileobj(loop, object);
        if (known >= 0) {
            PyErr_Clear();
            *closed = true;
            fd = known;
        }
    }
    Py_DECREF(number);
    return fd;
}

#define LOOP_IS_CLOSED (-2)      /* and no exception */
#define TOO_LARGE (-3)           /* and OverflowError */

static __attribute__((noinline)) int
descriptor_of_object(Loop *loop, PyObject *object, bool check_transport, bool *closed)
{
    PyObject *number = descriptor_for_users(loop, object, check_transport);
    if (number == NULL) {
        return -1;
    }
    if (FLAG(loop->closed)) {
        Py_DECREF(number);
        return LOOP_IS_CLOSED;
    }
    int fd = descriptor_known_steal(loop, object, number, closed);
    return fd < 0 && PyErr_ExceptionMatches(PyExc_OverflowError) ? TOO_LARGE : fd;
}

/* What the user gave, as the table knows it: its number, or a number below 0, -1 with an exception; and its entry
 * there, or NULL. *closed: the object is there no more. The loop may be closed. */
static inline int
descriptor_given(Loop *loop, PyObject *object, bool check_transport, bool *closed, struct fd_entry **entry)
{
    int fd = args_small_fd(object);
    *closed = false;
    if (UNLIKELY(fd < 0)) {
        fd = descriptor_of_object(loop, object, check_transport, closed);
        *entry = fds_find(loop, fd);
        return fd;
    }
    *entry = fds_find(loop, fd);
    if (check_transport && *entry != NULL && UNLIKELY((*entry)->transport != NULL)
        && transport_ensure_free(loop, fd, object) < 0) {
        return -1;
    }
    return fd;
}

/* Of a descriptor that was closed, asyncio can tell the kernel no change: that fails, and takes reader
 * and writer with it. Always -1. */
static int
fail_closed(Loop *loop, int fd)
{
    watch_remove(loop, fd, EV_READ);
    watch_remove(loop, fd, EV_WRITE);
    errno = fcntl(fd, F_GETFD) < 0 ? EBADF : ENOENT;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* add_reader() of an object that is registered and was closed since: the callback alone is changed. */
static int
add_callback_of_closed_steal(Loop *loop, int fd, int event, Handle *handle)
{
    return readers_change(loop, fd, event, handle) ? 0 : fail_closed(loop, fd);
}

/* watch_check_pollable(), which need not be called for what is watched most. */
static inline int
check_pollable(int fd)
{
    struct stat about;
    return LIKELY(fstat(fd, &about) == 0 && (S_ISSOCK(about.st_mode) || S_ISFIFO(about.st_mode)))
               ? 0
               : watch_check_pollable(fd);
}

/* None, or of the private methods, which are those that do not look whether a transport has the descriptor, the
 * handle. args: descriptor, callback, and the callback's arguments; context may be NULL. */
static inline PyObject *
set_callback(Loop *loop, int event, bool check_transport, PyObject *const *args, Py_ssize_t nargs,
             PyObject *context)
{
    bool closed;
    struct fd_entry *entry;
    int fd = descriptor_given(loop, args[0], check_transport, &closed, &entry);
    if (fd == -1 || fd == TOO_LARGE || loop_check_closed(loop) < 0) {
        return NULL;
    }
    Handle *handle = handle_new(loop, args[1], args + 2, nargs - 2, context);
    if (handle == NULL) {
        return NULL;
    }
    PyObject *result = Py_NewRef(check_transport ? Py_None : (PyObject *)handle);
    int done;
    if (UNLIKELY(closed)) {
        done = add_callback_of_closed_steal(loop, fd, event, handle);
    }
    else if (UNLIKELY(check_pollable(fd) < 0)) {
        Py_DECREF(handle);
        done = -1;
    }
    else {
        done = readers_set(loop, fd, entry, event, handle, args[0]);
    }
    if (UNLIKELY(done < 0)) {
        Py_CLEAR(result);
    }
    return result;
}

/* Where arguments come by keyword, or are missing. The private methods take a context as well, as asyncio's do from
 * 3.15 on. */
static __attribute__((noinline)) PyObject *
set_callback_named(Loop *loop, const char *function, int event, bool check_transport,
                   PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
#if PY_VERSION_HEX >= 0x030F0000
    bool with_context = !check_transport;
#else
    bool with_context = false;
#endif
    PyObject *context = NULL;
    if (with_context && nargs > 2) {
        return args_context_keyword(function, args, nargs, kwnames, &context) < 0
                   ? NULL
                   : set_callback(loop, event, check_transport, args, nargs, context);
    }
    const char *const names[] = {"fd", "callback", with_context ? "context" : NULL, NULL};
    PyObject *values[3] = {NULL, NULL, NULL};
    if (args_unpack(function, args, nargs, kwnames, names, 2, 2, values) < 0) {
        return NULL;
    }
    context = values[2] == Py_None ? NULL : values[2];
    return set_callback(loop, event, check_transport, values, 2, context);
}

static inline PyObject *
add_callback(Loop *loop, const char *function, int event, bool check_transport,
             PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return UNLIKELY(nargs < 2 || kwnames != NULL)
               ? set_callback_named(loop, function, event, check_transport, args, nargs, kwnames)
               : set_callback(loop, event, check_transport, args, nargs, NULL);
}

/* The private methods take a transport's own reader or writer away, as asyncio's do: it is not told any
 * more. True if there was one. */
static bool
remove_of_transport(Loop *loop, int fd, int event)
{
    PyObject *transport = watch_fd_transport(loop, fd);
    bool found = false;
    if (transport != NULL && PyObject_TypeCheck(transport, net_state(loop->state)->types.Transport)) {
        Transport *tr = (Transport *)transport;
        struct watch *watch = event == EV_READ ? &tr->read_watch : &tr->write_watch;
        found = watch_is_active(watch) && !watch->lent;    /* who looks after a lent one, knows */
        if (found) {
            watch_abandon(watch);
        }
    }
    Py_XDECREF(transport);
    return found;
}

static PyObject *
remove_callback(Loop *loop, const char *function, int event, bool check_transport,
                PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *object = args_one(function, "fd", args, nargs, kwnames);
    bool closed;
    if (object == NULL) {
        return NULL;
    }
    struct fd_entry *entry;
    int fd = descriptor_given(loop, object, check_transport, &closed, &entry);
    if (UNLIKELY(fd < 0 || FLAG(loop->closed))) {
        if (fd == -1) {
            return NULL;
        }
        PyErr_Clear();    /* asyncio only looks it up */
        Py_RETURN_FALSE;
    }
    if (entry != NULL && UNLIKELY(entry->place[0] != NULL && entry->place[1] != NULL)
        && (closed || fcntl(fd, F_GETFD) < 0)) {
        (void)fail_closed(loop, fd);
        return NULL;
    }
    bool found = entry != NULL && readers_remove(entry, event) != 0;
    return Py_NewRef(found || (!check_transport && remove_of_transport(loop, fd, event)) ? Py_True : Py_False);
}

/* The private methods, where one is somebody else's: asyncio's public one calls them. */
static PyObject *
call_private(Loop *loop, const char *function, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *number = loop_replaced(loop) & LOOP_BIT(_ensure_fd_no_transport)
                           ? PyObject_CallMethod((PyObject *)loop, "_ensure_fd_no_transport", "O", args[0])
                           : descriptor_for_users(loop, args[0], true);
    PyObject *method = number == NULL ? NULL : PyObject_GetAttrString((PyObject *)loop, function);
    Py_XDECREF(number);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_XDECREF(method);
    return result;
}

/* What asyncio's public methods of descriptors, and those behind them, call first. */
#define LOOP_FD_CHECKS (LOOP_BIT(_ensure_fd_no_transport) | LOOP_BIT(_check_closed))

/* The program's own _check_closed(): 0, or -1 with what it raised. */
static int
ask_closed(Loop *loop)
{
    if (LIKELY((loop_replaced(loop) & LOOP_BIT(_check_closed)) == 0)) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod((PyObject *)loop, "_check_closed", NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static inline bool
is_overridden(PyObject *loop, unsigned int bit, Py_ssize_t nargs, PyObject *kwnames)
{
    return UNLIKELY((loop_replaced((Loop *)loop) & bit) != 0) && kwnames == NULL && nargs > 0;
}

PyObject *
Loop_add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_add_reader) | LOOP_FD_CHECKS, nargs, kwnames)) {
        return none_for_steal(call_private((Loop *)op, "_add_reader", args, nargs));
    }
    return add_callback((Loop *)op, "add_reader", EV_READ, true, args, nargs, kwnames);
}

PyObject *
Loop_add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_add_writer) | LOOP_FD_CHECKS, nargs, kwnames)) {
        return none_for_steal(call_private((Loop *)op, "_add_writer", args, nargs));
    }
    return add_callback((Loop *)op, "add_writer", EV_WRITE, true, args, nargs, kwnames);
}

PyObject *
Loop_remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_remove_reader) | LOOP_FD_CHECKS, nargs, kwnames)) {
        return call_private((Loop *)op, "_remove_reader", args, nargs);
    }
    return remove_callback((Loop *)op, "remove_reader", EV_READ, true, args, nargs, kwnames);
}

PyObject *
Loop_remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    if (is_overridden(op, LOOP_BIT(_remove_writer) | LOOP_FD_CHECKS, nargs, kwnames)) {
        return call_private((Loop *)op, "_remove_writer", args, nargs);
    }
    return remove_callback((Loop *)op, "remove_writer", EV_WRITE, true, args, nargs, kwnames);
}

PyObject *
Loop__add_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return ask_closed((Loop *)op) < 0 ? NULL
                                      : add_callback((Loop *)op, "_add_reader", EV_READ, false, args, nargs, kwnames);
}

PyObject *
Loop__add_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return ask_closed((Loop *)op) < 0 ? NULL
                                      : add_callback((Loop *)op, "_add_writer", EV_WRITE, false, args, nargs, kwnames);
}

PyObject *
Loop__remove_reader(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return remove_callback((Loop *)op, "_remove_reader", EV_READ, false, args, nargs, kwnames);
}

PyObject *
Loop__remove_writer(PyObject *op, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    OWN_LOOP(op);
    return remove_callback((Loop *)op, "_remove_writer", EV_WRITE, false, args, nargs, kwnames);
}

PyObject *
Loop__ensure_fd_no_transport(PyObject *op, PyObject *object)
{
    OWN_LOOP(op);
    PyObject *number = descriptor_for_users((Loop *)op, object, true);
    if (number == NULL) {
        return NULL;
    }
    Py_DECREF(number);
    Py_RETURN_NONE;
}
