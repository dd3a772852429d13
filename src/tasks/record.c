/* record.c - see record.h. */
#include "tasks/record.h"

#include "tasks/visible.h"

#include <stddef.h>

typedef struct {
    PyObject_HEAD
    PyObject *task;               /* with strong tasks, until it is done; else NULL */
    PyObject *code;               /* of the function that made it; NULL: no Python did */
    int line;                     /* in that */
    int64_t made_ns;              /* of the monotonic clock */
    int64_t ready_ns;             /* it waits for its turn since then; 0: it does not */
    int64_t ran_ns;               /* in all, as the next one */
    int64_t waited_ns;            /* for its turn */
    int64_t steps;
    int64_t wakeups;
} TaskRecord;

/* -- the table ---------------------------------------------------------------------- */

/* New reference, or NULL without an exception. */
static TaskRecord *
record_find(PyObject *task, Loop *loop)
{
    PyObject *records = Py_XNewRef(loop->records);
    PyObject *key = records == NULL ? NULL : PyLong_FromVoidPtr(task);
    PyObject *record = NULL;
    if (key != NULL && PyDict_GetItemRef(records, key, &record) < 0) {
        record = NULL;
    }
    Py_XDECREF(key);
    Py_XDECREF(records);
    PyErr_Clear();
    return (TaskRecord *)record;
}

/* Who makes it: the innermost function that is not asyncio's. */
static void
record_set_place(TaskRecord *record, struct state *state)
{
    PyObject *folder = tasks_state(state)->records.asyncio_folder;
    PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
    while (frame != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        Py_ssize_t own = PyUnicode_Tailmatch(code->co_filename, folder, 0, PY_SSIZE_T_MAX, -1);
        if (own == 0) {
            record->code = (PyObject *)code;
            record->line = PyFrame_GetLineNumber(frame);
            break;
        }
        Py_DECREF(code);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
    PyErr_Clear();
}

int
record_begin(Task *task, Loop *loop)
{
    struct state *state = task->future.state_ptr;
    PyObject *records = Py_XNewRef(loop->records);
    PyTypeObject *type = tasks_state(state)->types.TaskRecord;
    PyObject *key = records == NULL ? NULL : PyLong_FromVoidPtr(task);
    TaskRecord *record = key == NULL ? NULL : (TaskRecord *)type->tp_alloc(type, 0);
    int result = records == NULL ? 0 : -1;
    if (record != NULL) {
        record->made_ns = monotonic_ns();
        record_set_place(record, state);
        record->task = loop->strong_tasks ? Py_NewRef(task) : NULL;
        result = PyDict_SetItem(records, key, (PyObject *)record);
        task->recorded = result == 0;
        if (result == 0 && loop->visible_tasks) {
            result = visible_show(task);
        }
    }
    Py_XDECREF(record);
    Py_XDECREF(key);
    Py_XDECREF(records);
    return result;
}

void
record_end(Task *task)
{
    task->recorded = false;
    visible_hide(task);
    Loop *loop = task->future.own_loop;
    PyObject *records = loop == NULL ? NULL : Py_XNewRef(loop->records);
    if (records == NULL) {
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *key = PyLong_FromVoidPtr(task);
    if (key == NULL || PyDict_DelItem(records, key) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(key);
    Py_DECREF(records);
    PyErr_SetRaisedException(exc);
}

PyObject *
record_list(Loop *loop)
{
    PyObject *records = Py_XNewRef(loop->records);
    PyObject *list = records == NULL ? PyList_New(0) : PyDict_Items(records);
    Py_XDECREF(records);
    return list;
}

/* -- accounting ----------------------------------------------------------------------- */

void
record_ready(PyObject *task, Loop *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    TaskRecord *record = record_find(task, loop);
    if (record != NULL && record->ready_ns == 0) {
        record->ready_ns = monotonic_ns();
        record->wakeups++;
    }
    Py_XDECREF(record);
    PyErr_SetRaisedException(exc);
}

void
record_step_begin(struct record_step *step, Loop *loop, PyObject *task)
{
    TaskRecord *record = record_find(task, loop);
    step->record = (PyObject *)record;
    step->began_ns = monotonic_ns();
    if (record != NULL && record->ready_ns != 0) {
        record->waited_ns += step->began_ns - record->ready_ns;
        record->ready_ns = 0;
    }
    else if (record != NULL) {
        record->wakeups++;    /* by a future that is not ours, which has not told */
    }
}

void
record_step_end(struct record_step *step)
{
    TaskRecord *record = (TaskRecord *)step->record;
    if (record != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        record->ran_ns += monotonic_ns() - step->began_ns;
        record->steps++;
        Py_DECREF(record);
        PyErr_SetRaisedException(exc);
    }
}

int
record_step(Loop *loop, PyObject *task, int (*run)(Loop *loop, PyObject *task))
{
    struct record_step step;
    record_step_begin(&step, loop, task);
    int result = run(loop, task);
    record_step_end(&step);
    return result;
}

/* -- debug mode ------------------------------------------------------------------------- */

void
record_place(PyObject *task, Loop *loop)
{
    PyObject *exc = PyErr_GetRaisedException();
    struct loop_state *own = loop_state(loop->state);
    if (loop->places == NULL) {
        loop->places = PyDict_New();
    }
    PyObject *places = Py_XNewRef(loop->places);
    PyObject *key = places == NULL ? NULL : PyLong_FromVoidPtr(task);
    PyObject *frame = key == NULL ? NULL : PyObject_CallNoArgs(own->handles.sys_getframe);
    PyObject *stack = frame == NULL ? NULL : PyObject_CallOneArg(own->handles.extract_stack, frame);
    if (stack != NULL) {
        (void)PyDict_SetItem(places, key, stack);
    }
    PyErr_Clear();
    Py_XDECREF(stack);
    Py_XDECREF(frame);
    Py_XDECREF(key);
    Py_XDECREF(places);
    PyErr_SetRaisedException(exc);
}

PyObject *
record_take_place(PyObject *task, Loop *loop)
{
    PyObject *places = Py_XNewRef(loop->places), *stack = NULL;
    PyObject *key = places == NULL ? NULL : PyLong_FromVoidPtr(task);
    if (key != NULL && PyDict_GetItemRef(places, key, &stack) > 0) {
        (void)PyDict_DelItem(places, key);
    }
    PyErr_Clear();
    Py_XDECREF(key);
    Py_XDECREF(places);
    return stack;
}

/* -- switches ----------------------------------------------------------------------------- */

/* The dict is there as long as one of them is on. 0 / -1 */
static int
records_keep(Loop *loop, bool wanted)
{
    PyObject *new = wanted ? PyDict_New() : NULL, *old = NULL;
    if (wanted && new == NULL) {
        return -1;
    }
    {
        GUARD(loop);
        if (!wanted || loop->records == NULL) {
            old = loop->records;
            SHARED_STORE(loop->records, new);
            new = NULL;
        }
    }
    Py_XDECREF(new);
    Py_XDECREF(old);
    return 0;
}

/* Those that were held are held no more. */
static int
records_let_go(Loop *loop)
{
    PyObject *list = record_list(loop);
    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        TaskRecord *record = (TaskRecord *)PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 1);
        PyObject *task;
        {
            GUARD(record);
            task = record->task;
            record->task = NULL;
        }
        Py_XDECREF(task);
    }
    Py_XDECREF(list);
    return list == NULL ? -1 : 0;
}

int
record_set_strong(Loop *loop, bool strong)
{
    if (records_keep(loop, strong || loop->task_accounting || loop->visible_tasks) < 0) {
        return -1;
    }
    SHARED_STORE(loop->strong_tasks, strong);
    return strong ? 0 : records_let_go(loop);
}

int
record_set_accounting(Loop *loop, bool accounting)
{
    if (records_keep(loop, accounting || loop->strong_tasks || loop->visible_tasks) < 0) {
        return -1;
    }
    SHARED_STORE(loop->task_accounting, accounting);
    return 0;
}

int
record_set_visible(Loop *loop, bool visible)
{
    if (records_keep(loop, visible || loop->strong_tasks || loop->task_accounting) < 0) {
        return -1;
    }
    SHARED_STORE(loop->visible_tasks, visible);
    return 0;
}

int
record_rename(Task *task)
{
    Loop *loop = task->future.own_loop;
    return loop != NULL && loop->visible_tasks ? visible_rename(task) : 0;
}

/* -- the type ------------------------------------------------------------------------------- */

static int
TaskRecord_traverse(PyObject *op, visitproc visit, void *arg)
{
    TaskRecord *record = (TaskRecord *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(record->task);
    Py_VISIT(record->code);
    return 0;
}

static int
TaskRecord_clear(PyObject *op)
{
    TaskRecord *record = (TaskRecord *)op;
    Py_CLEAR(record->task);
    Py_CLEAR(record->code);
    return 0;
}

static void
TaskRecord_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    TaskRecord_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

#define NUMBER(name, doc) {#name, T_LONGLONG, offsetof(TaskRecord, name), READONLY, PyDoc_STR(doc)}

static PyMemberDef TaskRecord_members[] = {
    {"task", T_OBJECT, offsetof(TaskRecord, task), READONLY, PyDoc_STR("The Task if it is held.")},
    {"code", T_OBJECT, offsetof(TaskRecord, code), READONLY, PyDoc_STR("Of what made it.")},
    {"line", T_INT, offsetof(TaskRecord, line), READONLY, PyDoc_STR("In that.")},
    NUMBER(made_ns, "When it was made, by time.monotonic_ns()."),
    NUMBER(ready_ns, "Since when it waits for its turn; 0: it does not."),
    NUMBER(ran_ns, "Nanoseconds that its steps took."),
    NUMBER(waited_ns, "Nanoseconds that it waited for its turn."),
    NUMBER(steps, "How often it has gone on."),
    NUMBER(wakeups, "How often it became ready."),
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot record_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("What is written down about a Task.")},
    {Py_tp_dealloc, TaskRecord_dealloc},
    {Py_tp_traverse, TaskRecord_traverse},
    {Py_tp_clear, TaskRecord_clear},
    {Py_tp_members, TaskRecord_members},
    {0, NULL},
};

static PyType_Spec record_spec = {
    .name = "asyncloop._core.TaskRecord",
    .basicsize = sizeof(TaskRecord),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = record_slots,
};

/* The folder of asyncio's own files, with a slash behind it. New reference or NULL. */
static PyObject *
asyncio_folder(struct state *state)
{
    PyObject *file = PyObject_GetAttrString(loop_state(state)->loops.base_events, "__file__");
    if (file == NULL || !PyUnicode_Check(file)) {
        PyErr_Clear();    /* a frozen one */
        Py_XDECREF(file);
        return PyUnicode_FromString("<frozen asyncio");
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(file);
    Py_ssize_t slash = PyUnicode_FindChar(file, '/', 0, length, -1);
    PyObject *folder = PyUnicode_Substring(file, 0, slash + 1);
    Py_DECREF(file);
    return folder;
}

int
record_type_init(PyObject *module, struct state *state)
{
    STATE_OWN(state, &tasks_state(state)->records);
    tasks_state(state)->records.asyncio_folder = asyncio_folder(state);
    if (tasks_state(state)->records.asyncio_folder == NULL) {
        return -1;
    }
    return state_add_type(module, &record_spec, NULL, 0, &tasks_state(state)->types.TaskRecord);
}
