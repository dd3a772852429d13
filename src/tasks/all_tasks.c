/* all_tasks.c - see all_tasks.h.
 *
 * What is used of asyncio: the WeakSet of tasks up to 3.13, and functions of _asyncio:
 * _register_task, _unregister_task. */
#include "tasks/all_tasks.h"

#include "base/checked.h"
#include "tasks/introspect.h"
#include "tasks/task.h"

#if TASKS_ARE_LISTED

int
all_tasks_add(struct state *state, PyObject *task UNUSED, struct list_node *node)
{
    VERIFY(verify_node(node) && verify_node(&tasks_state(state)->all.list));
    if (list_empty(node)) {
        list_append(&tasks_state(state)->all.list, node);
    }
    return 0;
}

void
all_tasks_remove(struct state *state UNUSED, PyObject *task UNUSED, struct list_node *node)
{
    VERIFY(verify_node(node));
    list_remove(node);
}

/* New list of every Task of ours that is not done. A Task that is being deallocated has
 * no references, and is left alone. */
static PyObject *
list_of_tasks(struct state *state)
{
    for (;;) {
        Py_ssize_t expected = 0, count = 0;
        for (struct list_node *n = tasks_state(state)->all.list.next; n != &tasks_state(state)->all.list; n = n->next) {
            expected++;
        }
        /* This may collect garbage and so change the list; nothing below does. */
        PyObject *list = PyList_New(expected);
        if (list == NULL) {
            return NULL;
        }
        struct list_node *node = tasks_state(state)->all.list.next;
        for (; node != &tasks_state(state)->all.list && count < expected; node = node->next) {
            PyObject *task = (PyObject *)container_of(node, Task, node);
            if (Py_REFCNT(task) > 0) {
                PyList_SET_ITEM(list, count++, Py_NewRef(task));
            }
        }
        if (node == &tasks_state(state)->all.list) {
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
    if (tasks_state(state)->all.task_set_base == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "asyncloop is gone");
        return NULL;
    }
    PyObject *base_iter = PyObject_GetAttrString(tasks_state(state)->all.task_set_base, "__iter__");
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

/* The same for a method that is given one task, or none: ours is in our list, or it is not. */
static Task *
task_of_ours(struct state *state, PyObject *const *args, Py_ssize_t nargs)
{
    return nargs == 2 && PyObject_TypeCheck(args[1], tasks_state(state)->types.Task) ? (Task *)args[1] : NULL;
}

static PyObject *
task_set_base_call(struct state *state, const char *name, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *base = tasks_state(state)->all.task_set_base;
    PyObject *method = PyObject_GetAttrString(base != NULL ? base : Py_None, name);
    PyObject *result = method == NULL ? NULL : PyObject_Vectorcall(method, args, (size_t)nargs, NULL);
    Py_XDECREF(method);
    return result;
}

/* asyncio._register_task(task) */
static PyObject *
task_set_add(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = PyModule_GetState(module);
    Task *task = task_of_ours(state, args, nargs);
    if (task == NULL) {
        return task_set_base_call(state, "add", args, nargs);
    }
    if (future_is_pending(&task->future)) {
        all_tasks_add(state, args[1], &task->node);
    }
    Py_RETURN_NONE;
}

/* asyncio._unregister_task(task) */
static PyObject *
task_set_discard(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = PyModule_GetState(module);
    Task *task = task_of_ours(state, args, nargs);
    if (task == NULL) {
        return task_set_base_call(state, "discard", args, nargs);
    }
    if (!task->owed) {    /* else it is found there, to be paid */
        all_tasks_remove(state, args[1], &task->node);
    }
    Py_RETURN_NONE;
}

static PyObject *
task_set_contains(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = PyModule_GetState(module);
    Task *task = task_of_ours(state, args, nargs);
    return task == NULL ? task_set_base_call(state, "__contains__", args, nargs)
                        : PyBool_FromLong(!list_empty(&task->node));
}

static PyObject *
task_set_len(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    struct state *state = PyModule_GetState(module);
    PyObject *rest = task_set_base_call(state, "__len__", args, nargs);
    PyObject *ours = rest == NULL ? NULL : list_of_tasks(state);
    PyObject *count = ours == NULL ? NULL : PyLong_FromSsize_t(PyList_GET_SIZE(ours));
    PyObject *result = count == NULL ? NULL : PyNumber_Add(rest, count);
    Py_XDECREF(count);
    Py_XDECREF(ours);
    Py_XDECREF(rest);
    return result;
}

#define TASK_SET_METHOD(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL, NULL

static PyMethodDef task_set_methods[] = {
    {"__iter__", task_set_iter, METH_O, NULL},
    {"__len__", TASK_SET_METHOD(task_set_len)},
    {"__contains__", TASK_SET_METHOD(task_set_contains)},
    {"add", TASK_SET_METHOD(task_set_add)},
    {"discard", TASK_SET_METHOD(task_set_discard)},
};

/* New reference to the namespace of the class. */
static PyObject *
task_set_namespace(PyObject *module)
{
    PyObject *namespace = Py_BuildValue("{ss}", "__module__", "asyncloop");
    for (size_t i = 0; namespace != NULL && i < ARRAY_LEN(task_set_methods); i++) {
        PyObject *function = PyCFunction_New(&task_set_methods[i], module);
        PyObject *method = function == NULL ? NULL : PyInstanceMethod_New(function);
        if (method == NULL || PyDict_SetItemString(namespace, task_set_methods[i].ml_name, method) < 0) {
            Py_CLEAR(namespace);
        }
        Py_XDECREF(method);
        Py_XDECREF(function);
    }
    return namespace;
}

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
    PyObject *namespace = NULL, *type = NULL;
    int result = -1;
    if (set == NULL) {
        goto done;
    }
    tasks_state(state)->all.task_set_base = Py_NewRef((PyObject *)Py_TYPE(set));
    namespace = task_set_namespace(module);
    type = namespace == NULL ? NULL
                             : PyObject_CallFunction((PyObject *)&PyType_Type, "s(O)O", "WeakSet",
                                                     tasks_state(state)->all.task_set_base, namespace);
    if (type != NULL) {
        result = PyObject_SetAttr(set, state->names.__class__, type);
    }
done:
    Py_XDECREF(type);
    Py_XDECREF(namespace);
    Py_XDECREF(set);
    return result;
}

#else

int
all_tasks_add(struct state *state, PyObject *task, struct list_node *node UNUSED)
{
#if PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
    /* asyncio.all_tasks(loop) in another thread passes over whatever is not marked so, as task_alloc() does. */
    if (UNLIKELY((__atomic_load_n(&task->ob_ref_shared, __ATOMIC_RELAXED) & _Py_REF_SHARED_FLAG_MASK) == 0)) {
        PyUnstable_EnableTryIncRef(task);
    }
    introspect_set_thread(task, &tasks_state(state)->introspect);
#endif
    PyObject *result = PyObject_CallOneArg(tasks_state(state)->all.register_task, task);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

void
all_tasks_remove(struct state *state, PyObject *task, struct list_node *node UNUSED)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (tasks_state(state)->all.unregister_task != NULL) {
        PyObject *result = PyObject_CallOneArg(tasks_state(state)->all.unregister_task, task);
        Py_XDECREF(result);
    }
    PyErr_SetRaisedException(exc);    /* drops the call's own exception, if any */
}

#endif

int
all_tasks_init(PyObject *module UNUSED, struct state *state)
{
    struct tasks_state *own = tasks_state(state);
    STATE_OWN_UNTIL(state, &own->all, list);
    list_init(&own->all.list);
    const struct state_import wanted[] = {
        {&own->all.register_task, "_asyncio", "_register_task", false},
        {&own->all.unregister_task, "_asyncio", "_unregister_task", false},
    };
    if (STATE_IMPORT(wanted) < 0) {
        return -1;
    }
#if TASKS_ARE_LISTED
    PyObject *tasks_module = PyImport_ImportModule("asyncio.tasks");
    int result = tasks_module == NULL ? -1 : extend_task_set(module, state, tasks_module);
    Py_XDECREF(tasks_module);
    return result;
#else
    return 0;
#endif
}

#ifdef ASYNCLOOP_DEBUG
/* Tasks of all loops are in the list; a Task that is going away may be there without a reference. */
void
all_tasks_verify(Loop *loop, uint64_t turn, void (*verify)(Task *task, uint64_t turn))
{
    struct state *state = loop->state;
    const struct list_node *head = &tasks_state(state)->all.list;
    size_t most = verify_most(turn), owed = 0;
    state_lock_lists(state);
    VERIFY(verify_node(head));
    const struct list_node *node = head->next;
    for (; node != head && most > 0; node = node->next, most--) {
        Task *task = container_of(node, Task, node);
        VERIFY(verify_node(node));
        VERIFY(task->owed || TASKS_ARE_LISTED);
        owed += task->owed && task->future.own_loop == loop;
#ifndef Py_GIL_DISABLED    /* it may be another thread's */
        if (Py_REFCNT(task) > 0) {
            verify(task, turn);
        }
#else
        (void)verify;
#endif
    }
    VERIFY(node != head || FLAG(loop->owed.tasks) || owed == 0);
    state_unlock_lists(state);
}
#endif
