/* visible.c - see visible.h. */
#include "tasks/visible.h"

#include "tasks/all_tasks.h"
#include "tasks/find_word.h"
#include "tasks/introspect.h"

static PyObject **
slot(PyObject *op, size_t offset)
{
    return (PyObject **)(void *)((char *)op + offset);
}

PyObject *
visible_find(PyObject *module, PyObject *args)
{
    struct tasks_state *own = tasks_state(PyModule_GetState(module));
    PyObject *task, *loop, *coro, *name;
    if (!PyArg_ParseTuple(args, "O!OOU", own->tasks.asyncio_Task, &task, &loop, &coro, &name)) {
        return NULL;
    }
    size_t loop_at = find_word(task, loop);
    size_t coro_at = find_word(task, coro);
    size_t name_at = find_word(task, name);
    bool found = loop_at != 0 && coro_at != 0 && name_at != 0;
    if (found) {
        own->visible.loop = loop_at;
        own->visible.coro = coro_at;
        own->visible.name = name_at;
    }
    return PyBool_FromLong(found);
}

static int
visible_set(Task *task, size_t offset, PyObject *value)
{
    if (value == NULL) {
        return -1;
    }
    Py_XSETREF(*slot((PyObject *)task, offset), value);
    return 0;
}

int
visible_rename(Task *task)
{
#if PY_VERSION_HEX >= 0x030E0000
    return introspect_rename(task);
#else
    size_t offset = tasks_state(task->future.state_ptr)->visible.name;
    return offset == 0 ? 0
                       : visible_set(task, offset,
                                     task->named ? Py_NewRef(task->name)
                                                 : PyUnicode_FromFormat(
                                                       "Task-%llu",
                                                       (unsigned long long)task->number));
#endif
}

int
visible_show(Task *task)
{
    struct tasks_state *own = tasks_state(task->future.state_ptr);
    if (own->visible.loop == 0) {
        return 0;
    }
    if (visible_set(task, own->visible.loop, Py_NewRef(task->future.loop)) < 0
        || visible_rename(task) < 0) {
        return -1;
    }
#if PY_VERSION_HEX < 0x030E0000    /* there it is among asyncio's tasks anyway, with its coroutine */
    if (visible_set(task, own->visible.coro, Py_NewRef(task->coro)) < 0) {
        return -1;
    }
    PyObject *result = PyObject_CallOneArg(own->all.register_task, (PyObject *)task);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
#else
    return 0;
#endif
}

void
visible_hide(Task *task)
{
    struct tasks_state *own = tasks_state(task->future.state_ptr);
    if (own->visible.loop == 0 || *slot((PyObject *)task, own->visible.loop) == NULL) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
#if PY_VERSION_HEX < 0x030E0000
    if (Py_REFCNT(task) > 0) {    /* else its weak reference is gone from the set already */
        PyObject *result = PyObject_CallOneArg(own->all.unregister_task, (PyObject *)task);
        Py_XDECREF(result);
        PyErr_Clear();
    }
    Py_CLEAR(*slot((PyObject *)task, own->visible.coro));
    Py_CLEAR(*slot((PyObject *)task, own->visible.name));
#endif
    Py_CLEAR(*slot((PyObject *)task, own->visible.loop));
    PyErr_SetRaisedException(exc);
}
