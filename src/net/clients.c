/* clients.c - see clients.h.
 *
 * Invariant: a transport's node is in at most one list, and only while tr->server is set and the transport
 * has not paused. Until then the loop holds it: it is no garbage, and leaves the list before it dies. */
#include "net/clients.h"

#include "base/args.h"
#include "base/standard.h"

#if PY_VERSION_HEX >= 0x030D0000 && !defined(Py_GIL_DISABLED)
#define HAVE_CLIENTS 1
#else
#define HAVE_CLIENTS 0
#endif

static int
server_call(PyObject *server, PyObject *name, Transport *tr)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *result = PyObject_CallMethodOneArg(server, name, (PyObject *)tr);
#else
    (void)tr;
    PyObject *result = PyObject_CallMethodNoArgs(server, name);
#endif
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

#if HAVE_CLIENTS

typedef struct {
    PyObject_HEAD
    struct list_node transports;    /* Transport.client of ours */
    PyObject *others;               /* a WeakSet of all that may die at any moment, or NULL */
} Clients;

static inline Clients *
clients_cast(PyObject *op)
{
    return (Clients *)op;
}

/* -- the list ------------------------------------------------------------------------------ */

/* New reference, or NULL. */
static PyObject *
clients_add_other(Clients *self, PyObject *op)
{
    if (self->others == NULL) {
        PyObject *module = PyImport_ImportModule("weakref");
        self->others = module == NULL ? NULL : PyObject_CallMethod(module, "WeakSet", NULL);
        Py_XDECREF(module);
        if (self->others == NULL) {
            return NULL;
        }
    }
    return PyObject_CallMethod(self->others, "add", "O", op);
}

/* -- the way of each connection ----------------------------------------------------------- */

static bool
class_has_own(struct state *state, PyObject *name, const char *qualname)
{
    PyObject *namespace = state->standard.modules[MODULE_BASE_EVENTS].dict;
    PyObject *value = PyObject_GetAttr((PyObject *)net_state(state)->clients.ServerType, name);
    bool own = value != NULL && namespace != NULL && standard_function(value, namespace, qualname);
    PyErr_Clear();
    Py_XDECREF(value);
    return own;
}

/* Are _attach() and _detach() asyncio's, in the class? Sets no exception, keeps the current one. */
static bool
class_is_own(struct state *state)
{
    if (UNLIKELY(!standard_class_is_same(net_state(state)->clients.ServerType, &net_state(state)->clients.server_version))) {
        PyObject *exc = PyErr_GetRaisedException();
        bool own = class_has_own(state, state->names._attach, "Server._attach");
        own = own && class_has_own(state, state->names._detach, "Server._detach");
        net_state(state)->clients.server_is_own = own && net_state(state)->clients.ServerType->tp_getattro == PyObject_GenericGetAttr;
        net_state(state)->clients.server_version = standard_version(net_state(state)->clients.ServerType);
        PyErr_SetRaisedException(exc);
    }
    return net_state(state)->clients.server_is_own;
}

/* The server's dict (new reference) if the methods of class and instance are asyncio's, or NULL. Sets no
 * exception, keeps the current one. */
static PyObject *
dict_of_usual_server(struct state *state, PyObject *server)
{
    if (!Py_IS_TYPE(server, net_state(state)->clients.ServerType) || !class_is_own(state)) {
        return NULL;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *dict = PyObject_GenericGetDict(server, NULL);
    if (dict != NULL
        && (PyDict_GetItemWithError(dict, state->names._attach) != NULL
            || PyDict_GetItemWithError(dict, state->names._detach) != NULL)) {
        Py_CLEAR(dict);
    }
    PyErr_Clear();
    PyErr_SetRaisedException(exc);
    return dict;
}

/* The server's list of its clients, or NULL where it has something else: borrowed. Sets no exception. */
static Clients *
clients_in(struct state *state, PyObject *dict)
{
    PyObject *clients = PyDict_GetItemWithError(dict, state->names._clients);
    PyErr_Clear();
    return clients != NULL && Py_IS_TYPE(clients, net_state(state)->types.Clients) ? clients_cast(clients) : NULL;
}

/* What Server._attach() does. False (and no exception): call it. */
static bool
attach_directly(Transport *tr, PyObject *server)
{
    struct state *state = tr->head.state;
    PyObject *dict = dict_of_usual_server(state, server);
    if (dict == NULL) {
        return false;
    }
    Clients *clients = clients_in(state, dict);
    PyObject *sockets = PyDict_GetItemWithError(dict, state->names._sockets);
    bool direct = clients != NULL && sockets != NULL && sockets != Py_None;
    if (direct) {
        list_append(&clients->transports, &tr->client);
    }
    PyErr_Clear();
    Py_DECREF(dict);
    return direct;
}

/* What Server._detach() does for all but the last. False: call it. */
static bool
detach_directly(Transport *tr, PyObject *server)
{
    if (list_empty(&tr->client) || tr->client.prev == tr->client.next) {
        return false;
    }
    PyObject *dict = dict_of_usual_server(tr->head.state, server);
    if (dict == NULL) {
        return false;
    }
    bool direct = clients_in(tr->head.state, dict) != NULL;    /* else they are listed elsewhere by now */
    if (LIKELY(direct)) {
        list_remove(&tr->client);
    }
    Py_DECREF(dict);
    return direct;
}

void
server_client_is_free(Transport *tr)
{
    PyObject *server = Py_XNewRef(tr->server);
    if (server == NULL) {
        return;    /* its _detach() is under way, which takes it out */
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *op = PyObject_GetAttr(server, tr->head.state->names._clients);
    if (op != NULL && Py_IS_TYPE(op, net_state(tr->head.state)->types.Clients)) {
        Clients *clients = clients_cast(op);
        list_remove(&tr->client);
        PyObject *result = clients_add_other(clients, (PyObject *)tr);
        if (result == NULL && tr->server != NULL && list_empty(&tr->client)) {
            list_append(&clients->transports, &tr->client);
        }
        else if (result != NULL && tr->server == NULL) {    /* it was lost in there */
            Py_SETREF(result, PyObject_CallMethod(clients->others, "discard", "O", tr));
        }
        Py_XDECREF(result);
    }
    Py_XDECREF(op);
    Py_DECREF(server);
    PyErr_SetRaisedException(exc);
}

/* -- for the methods of asyncio.Server ------------------------------------------------------ */

static bool
clients_have(Clients *self, PyObject *op)
{
    struct list_node *head = &self->transports;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        if ((PyObject *)container_of(node, Transport, client) == op) {
            return true;
        }
    }
    return false;
}

static PyObject *
Clients_add(PyObject *op, PyObject *transport)
{
    Clients *self = clients_cast(op);
    if (clients_have(self, transport)) {
        Py_RETURN_NONE;
    }
    return clients_add_other(self, transport);
}

static PyObject *
Clients_discard(PyObject *op, PyObject *transport)
{
    Clients *self = clients_cast(op);
    if (clients_have(self, transport)) {
        list_remove(&((Transport *)transport)->client);
        Py_RETURN_NONE;
    }
    return self->others == NULL ? Py_NewRef(Py_None)
                                : PyObject_CallMethod(self->others, "discard", "O", transport);
}

static PyObject *
Clients_copy(PyObject *op, PyObject *ignored UNUSED)
{
    Clients *self = clients_cast(op);
    PyObject *list = self->others == NULL ? PyList_New(0) : PySequence_List(self->others);
    struct list_node *head = &self->transports;
    for (struct list_node *node = head->next; list != NULL && node != head; node = node->next) {
        if (PyList_Append(list, (PyObject *)container_of(node, Transport, client)) < 0) {
            Py_CLEAR(list);
        }
    }
    return list;
}

static PyObject *
Clients_iter(PyObject *op)
{
    PyObject *list = Clients_copy(op, NULL);
    PyObject *iterator = list == NULL ? NULL : PyObject_GetIter(list);
    Py_XDECREF(list);
    return iterator;
}

static Py_ssize_t
Clients_length(PyObject *op)
{
    Clients *self = clients_cast(op);
    Py_ssize_t length = self->others == NULL ? 0 : PyObject_Size(self->others);
    struct list_node *head = &self->transports;
    for (struct list_node *node = head->next; length >= 0 && node != head; node = node->next) {
        length++;
    }
    return length;
}

static int
Clients_contains(PyObject *op, PyObject *transport)
{
    Clients *self = clients_cast(op);
    if (clients_have(self, transport)) {
        return 1;
    }
    return self->others == NULL ? 0 : PySequence_Contains(self->others, transport);
}

/* -- the type ------------------------------------------------------------------------------- */

static PyObject *
Clients_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_GET_SIZE(args) != 0 || (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)) {
        PyErr_SetString(PyExc_TypeError, "Clients() takes no arguments");
        return NULL;
    }
    PyObject *op = type->tp_alloc(type, 0);
    if (op != NULL) {
        list_init(&clients_cast(op)->transports);
    }
    return op;
}

static int
Clients_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(clients_cast(op)->others);
    return 0;
}

static int
Clients_clear(PyObject *op)
{
    Clients *self = clients_cast(op);
    while (!list_empty(&self->transports)) {
        list_remove(self->transports.next);
    }
    Py_CLEAR(self->others);
    return 0;
}

static void
Clients_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    (void)Clients_clear(op);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef Clients_methods[] = {
    {"add", Clients_add, METH_O,
     INSIDE_DOC("add($self, transport, /)\n--\n\nKeep a transport, which is not held.")},
    {"discard", Clients_discard, METH_O,
     INSIDE_DOC("discard($self, transport, /)\n--\n\nForget a transport, if it is known.")},
    {"copy", Clients_copy, METH_NOARGS,
     INSIDE_DOC("copy($self, /)\n--\n\nA list of the transports, which holds them.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Clients_slots[] = {
    {Py_tp_doc, INSIDE_DOC("Clients()\n--\n\nThe open connections of a server, not held: what "
                           "asyncio.Server uses a WeakSet for.")},
    {Py_tp_new, Clients_new},
    {Py_tp_dealloc, Clients_dealloc},
    {Py_tp_traverse, Clients_traverse},
    {Py_tp_clear, Clients_clear},
    {Py_tp_iter, Clients_iter},
    {Py_sq_length, Clients_length},
    {Py_sq_contains, Clients_contains},
    {Py_tp_methods, Clients_methods},
    {0, NULL},
};

static PyType_Spec Clients_spec = {
    .name = "asyncloop._core.Clients",
    .basicsize = sizeof(Clients),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = Clients_slots,
};

int
clients_type_init(PyObject *module, struct state *state)
{
    STATE_OWN_UNTIL(state, &net_state(state)->clients, server_version);
    PyObject *server = PyObject_GetAttrString(loop_state(state)->loops.base_events, "Server");
    if (server == NULL) {
        return -1;
    }
    net_state(state)->clients.ServerType = (PyTypeObject *)server;
    return state_add_type(module, &Clients_spec, NULL, 0, &net_state(state)->types.Clients);
}

#else

static bool
attach_directly(Transport *tr UNUSED, PyObject *server UNUSED)
{
    return false;
}

static bool
detach_directly(Transport *tr UNUSED, PyObject *server UNUSED)
{
    return false;
}

void
server_client_is_free(Transport *tr UNUSED)
{
}

int
clients_type_init(PyObject *module UNUSED, struct state *state UNUSED)
{
    return 0;
}

#endif

/* -- what transports call ------------------------------------------------------------------- */

int
server_attach(Transport *tr, PyObject *server)
{
    if (!attach_directly(tr, server) && server_call(server, tr->head.state->names._attach, tr) < 0) {
        return -1;
    }
    tr->server = Py_NewRef(server);
    return 0;
}

int
server_detach(Transport *tr)
{
    PyObject *server = tr->server;
    if (server == NULL) {
        return 0;
    }
    tr->server = NULL;
    int result = detach_directly(tr, server) ? 0 : server_call(server, tr->head.state->names._detach, tr);
    PyObject *exc = PyErr_GetRaisedException();
    Py_DECREF(server);
    PyErr_SetRaisedException(exc);
    return result;
}

void
server_abandon(Transport *tr)
{
    PyObject *exc = PyErr_GetRaisedException();
    if (server_detach(tr) < 0) {
        PyErr_Clear();
    }
    PyErr_SetRaisedException(exc);
}

void
server_leave(Transport *tr)
{
    if (tr->client.next != NULL) {    /* else it was never made */
        list_remove(&tr->client);
    }
}

void
server_forget(Transport *tr)
{
    server_leave(tr);
    Py_CLEAR(tr->server);
}
