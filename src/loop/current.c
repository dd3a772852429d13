/* current.c - see current.h.
 *
 * What is used of asyncio: the dict asyncio.tasks._current_tasks up to 3.13, and
 * functions of _asyncio: _enter_task, _leave_task, _swap_current_task (3.12). */
#include "loop/current.h"

/* -- current task ------------------------------------------------------------------- */

#if PY_VERSION_HEX < 0x030E0000

static int
books_set(struct state *state, PyObject *loop, PyObject *task)
{
    return PyDict_SetItem(loop_state(state)->current.tasks, loop, task);
}

static void
books_drop(struct state *state, PyObject *loop)
{
    if (PyDict_DelItem(loop_state(state)->current.tasks, loop) < 0) {
        PyErr_Clear();    /* somebody else took it out */
    }
}

/* New reference, or NULL: no Task is current. */
static PyObject *
books_take(struct state *state, PyObject *loop)
{
    PyObject *task = Py_XNewRef(PyDict_GetItemWithError(loop_state(state)->current.tasks, loop));
    if (task != NULL) {
        books_drop(state, loop);
    }
    PyErr_Clear();
    return task;
}

#else

static int
books_set(struct state *state, PyObject *loop, PyObject *task)
{
    PyObject *args[] = {loop, task};
    PyObject *previous = PyObject_Vectorcall(loop_state(state)->current.swap_current_task, args, 2, NULL);
    Py_XDECREF(previous);
    return previous == NULL ? -1 : 0;
}

static void
books_drop(struct state *state, PyObject *loop)
{
    if (books_set(state, loop, Py_None) < 0) {
        PyErr_Clear();    /* it is not the running loop any more */
    }
}

static PyObject *
books_take(struct state *state, PyObject *loop)
{
    PyObject *args[] = {loop, Py_None};
    PyObject *task = PyObject_Vectorcall(loop_state(state)->current.swap_current_task, args, 2, NULL);
    if (task == NULL || task == Py_None) {
        PyErr_Clear();    /* it does not run, so that no Task is current */
        Py_CLEAR(task);
    }
    return task;
}

#endif

int
current_replace(Loop *loop, PyObject *task)
{
    if (books_set(loop->state, (PyObject *)loop, task) < 0) {
        return -1;
    }
    Py_XSETREF(loop->current_task, Py_NewRef(task));
    return 0;
}

void
current_drop(Loop *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *task = loop->current_task;
    loop->current_task = NULL;
    books_drop(loop->state, (PyObject *)loop);
    Py_XDECREF(task);
    PyErr_SetRaisedException(exc);
}

void
current_take(Loop *loop, PyObject **books, PyObject **entered)
{
    *books = books_take(loop->state, (PyObject *)loop);
    *entered = loop->current_task;
    loop->current_task = NULL;
}

void
current_put_back_steal(Loop *loop, PyObject *books, PyObject *entered)
{
    if (books != NULL && books_set(loop->state, (PyObject *)loop, books) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(books);
    Py_XSETREF(loop->current_task, entered);
}

static int
call_books(PyObject *function, PyObject *loop, PyObject *task)
{
    PyObject *args[] = {loop, task};
    PyObject *result = PyObject_Vectorcall(function, args, 2, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
current_enter_foreign(struct state *state, PyObject *loop, PyObject *task)
{
    return call_books(loop_state(state)->current.enter_task, loop, task);
}

int
current_leave_foreign(struct state *state, PyObject *loop, PyObject *task)
{
    return call_books(loop_state(state)->current.leave_task, loop, task);
}

/* loop->current_task stays: when the eager start is over, the books say the same again. */
PyObject *
current_swap(struct state *state, PyObject *loop, PyObject *task)
{
    PyObject *args[] = {loop, task};
    return PyObject_Vectorcall(loop_state(state)->current.swap_current_task, args, 2, NULL);
}

/* -- init --------------------------------------------------------------------------- */

int
current_init(PyObject *module UNUSED, struct state *state)
{
    STATE_OWN(state, &loop_state(state)->current);
    PyObject *tasks_module = PyImport_ImportModule("asyncio.tasks");
    PyObject *c_module = tasks_module == NULL ? NULL : PyImport_ImportModule("_asyncio");
    int result = -1;
    if (c_module == NULL) {
        goto done;
    }
    const struct {
        PyObject **slot;
        const char *name;
    } wanted[] = {
        {&loop_state(state)->current.enter_task, "_enter_task"},
        {&loop_state(state)->current.leave_task, "_leave_task"},
#if PY_VERSION_HEX >= 0x030C0000
        {&loop_state(state)->current.swap_current_task, "_swap_current_task"},
#endif
#if PY_VERSION_HEX < 0x030E0000
        {&loop_state(state)->current.tasks, "_current_tasks"},
#endif
    };
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        *wanted[i].slot = PyObject_GetAttrString(c_module, wanted[i].name);
        if (*wanted[i].slot == NULL) {
            goto done;
        }
    }
#if PY_VERSION_HEX < 0x030E0000
    if (!PyDict_CheckExact(loop_state(state)->current.tasks)) {
        PyErr_SetString(PyExc_ImportError, "asyncio.tasks._current_tasks is not a dict");
        goto done;
    }
#endif
    result = 0;
done:
    Py_XDECREF(tasks_module);
    Py_XDECREF(c_module);
    return result;
}
