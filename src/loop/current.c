/* current.c - see current.h.
 *
 * What is used of asyncio: the dict asyncio.tasks._current_tasks up to 3.13, and
 * functions of _asyncio: _enter_task, _leave_task, _swap_current_task (3.12),
 * _register_task, _unregister_task, future_add_to_awaited_by (3.14). */
#include "loop/current.h"

#include "tasks/introspect.h"
#include "tasks/task.h"

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

/* -- all tasks ---------------------------------------------------------------------- */

#if CURRENT_HAS_TASK_LIST

int
current_register(struct state *state, PyObject *task UNUSED, struct list_node *node)
{
    if (list_empty(node)) {
        list_append(&loop_state(state)->current.list, node);
    }
    return 0;
}

void
current_unregister(struct state *state UNUSED, PyObject *task UNUSED, struct list_node *node)
{
    list_remove(node);
}

/* New list of every Task of ours that is not done. A Task that is being deallocated has
 * no references, and is left alone. */
static PyObject *
list_of_tasks(struct state *state)
{
    for (;;) {
        Py_ssize_t expected = 0, count = 0;
        for (struct list_node *n = loop_state(state)->current.list.next; n != &loop_state(state)->current.list; n = n->next) {
            expected++;
        }
        /* This may collect garbage and so change the list; nothing below does. */
        PyObject *list = PyList_New(expected);
        if (list == NULL) {
            return NULL;
        }
        struct list_node *node = loop_state(state)->current.list.next;
        for (; node != &loop_state(state)->current.list && count < expected; node = node->next) {
            PyObject *task = (PyObject *)container_of(node, Task, node);
            if (Py_REFCNT(task) > 0) {
                PyList_SET_ITEM(list, count++, Py_NewRef(task));
            }
        }
        if (node == &loop_state(state)->current.list) {
            Py_SET_SIZE(list, count);
            return list;
        }
        Py_SET_SIZE(list, count);
        Py_DECREF(list);
    }
}

/* WeakSet.__iter__(tasks) of asyncio's set: ours, then the rest. `module` is bound. */
static PyObject *
task_set_iter(PyObject *module, PyObject *tasks)
{
    struct state *state = PyModule_GetState(module);
    if (loop_state(state)->current.task_set_base == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "asyncloop is gone");
        return NULL;
    }
    PyObject *base_iter = PyObject_GetAttrString(loop_state(state)->current.task_set_base, "__iter__");
    PyObject *rest = base_iter == NULL ? NULL : PyObject_CallOneArg(base_iter, tasks);
    Py_XDECREF(base_iter);
    PyObject *list = rest == NULL ? NULL : list_of_tasks(state);
    PyObject *result = NULL;
    if (list != NULL && PyList_Extend(list, rest) == 0) {
        result = PyObject_GetIter(list);
    }
    Py_XDECREF(rest);
    Py_XDECREF(list);
    return result;
}

static PyMethodDef task_set_iter_def = {
    "__iter__", task_set_iter, METH_O, NULL,
};

/* Gives asyncio's WeakSet of tasks a subclass of its class: modules that imported the
 * object early see it too. */
static int
extend_task_set(PyObject *module, struct state *state, PyObject *tasks_module)
{
#if PY_VERSION_HEX < 0x030C0000
    PyObject *set = PyObject_GetAttrString(tasks_module, "_all_tasks");
#else
    PyObject *set = PyObject_GetAttrString(tasks_module, "_scheduled_tasks");
#endif
    PyObject *function = NULL, *method = NULL, *type = NULL;
    int result = -1;
    if (set == NULL) {
        goto done;
    }
    loop_state(state)->current.task_set_base = Py_NewRef((PyObject *)Py_TYPE(set));
    function = PyCFunction_New(&task_set_iter_def, module);
    method = function == NULL ? NULL : PyInstanceMethod_New(function);
    type = method == NULL ? NULL
                          : PyObject_CallFunction((PyObject *)&PyType_Type, "s(O){sOss}", "TaskSet",
                                                  loop_state(state)->current.task_set_base, "__iter__", method,
                                                  "__module__", "asyncloop");
    if (type != NULL) {
        result = PyObject_SetAttr(set, state->names.__class__, type);
    }
done:
    Py_XDECREF(type);
    Py_XDECREF(method);
    Py_XDECREF(function);
    Py_XDECREF(set);
    return result;
}

#else

int
current_register(struct state *state, PyObject *task, struct list_node *node UNUSED)
{
#if PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
    /* asyncio.all_tasks(loop) in another thread passes over whatever is not marked so. */
    PyUnstable_EnableTryIncRef(task);
    introspect_set_thread(task, &tasks_state(state)->introspect);
#endif
    PyObject *result = PyObject_CallOneArg(loop_state(state)->current.register_task, task);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
current_unregister(struct state *state, PyObject *task, struct list_node *node UNUSED)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (loop_state(state)->current.unregister_task != NULL) {
        PyObject *result = PyObject_CallOneArg(loop_state(state)->current.unregister_task, task);
        Py_XDECREF(result);
    }
    PyErr_SetRaisedException(exc);    /* drops the call's own exception, if any */
}

#endif

/* -- init --------------------------------------------------------------------------- */

int
current_init(PyObject *module UNUSED, struct state *state)
{
    STATE_OWN_UNTIL(state, &loop_state(state)->current, list);
    list_init(&loop_state(state)->current.list);
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
        {&loop_state(state)->current.register_task, "_register_task"},
        {&loop_state(state)->current.unregister_task, "_unregister_task"},
#if PY_VERSION_HEX >= 0x030C0000
        {&loop_state(state)->current.swap_current_task, "_swap_current_task"},
#endif
#if PY_VERSION_HEX >= 0x030E0000
        {&loop_state(state)->current.add_awaited_by, "future_add_to_awaited_by"},
        {&loop_state(state)->current.discard_awaited_by, "future_discard_from_awaited_by"},
#else
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
#if CURRENT_HAS_TASK_LIST
    result = extend_task_set(module, state, tasks_module);
#else
    result = 0;
#endif
done:
    Py_XDECREF(tasks_module);
    Py_XDECREF(c_module);
    return result;
}
