/* standard.h - is what the core passes over still the standard library's own?
 *
 * A short way does in C what asyncio does by calling something that a program can replace: a
 * function of a module, a method of a class, an attribute of an object. It may be taken only while
 * nothing has been put in that place; short_ways.md lists all of them, what each takes for granted,
 * how that is looked at each time, and the test that breaks it. There are three ways to look:
 *
 *   standard_is()            a global of a module (STANDARD_GLOBALS): it costs two comparisons
 *   standard_class_is_same() a class that was looked at: its version, two comparisons
 *   instance.h               an object: the table of its names
 *
 * "Own" is what comes from the standard library's code, not what was there at import: what was
 * replaced before that counts as replaced. */
#ifndef ASYNCLOOP_STANDARD_H
#define ASYNCLOOP_STANDARD_H

#include "base/checked.h"
#include "base/state.h"

int standard_init(PyObject *module, struct state *state);
int standard_traverse(struct state *state, visitproc visit, void *arg);
void standard_clear(struct state *state);

/* The global is one of these two classes, which are borrowed: asyncio's, and ours in its place. */
void standard_set_classes(struct state *state, enum standard_global global, PyTypeObject *asyncio,
                          PyTypeObject *ours);

/* Looks at all globals again. */
void standard_look(struct state *state);

#if PY_VERSION_HEX >= 0x030C0000
/* Goes up whenever one of the watched dicts, in whatever interpreter, is changed: the only variable
 * that interpreters share, and all that a watcher touches. */
extern HIDDEN unsigned int standard_changes;

/* Under a GIL that is the interpreter's own, a plain read: what the interpreter itself has changed it sees, and
 * the others' changes are nothing to it. */
static inline unsigned int
standard_change_count(void)
{
    return SHARED_LOAD(standard_changes);
}

/* Of two looks: was the one that began at `changes` not the earlier one? */
#ifdef Py_GIL_DISABLED
#define STANDARD_IS_LATER(changes, kept) ((int)((changes) - (kept)) >= 0)
#else
#define STANDARD_IS_LATER(changes, kept) true
#endif

/* From now on changes of the class count as well, until it has changed: then it has to be looked at
 * again. False: they cannot be had. */
bool standard_watch_class(struct state *state, PyTypeObject *type);
#define standard_seen(state, module) (SHARED_LOAD((state)->standard.changes) == standard_change_count())
#else
#define standard_change_count() 0u
#define STANDARD_IS_LATER(changes, kept) true
#define standard_seen(state, module)                                                 \
    (*(state)->standard.modules[module].current                                      \
     == (state)->standard.modules[module].version)
#endif

#define STANDARD_KIND_IS_BUILTIN false
#define STANDARD_KIND_IS_FUNCTION true
#define STANDARD_KIND_IS_CLASS false
#define STANDARD_KIND_IS_ASYNCIO false
#define STANDARD_KIND_IS_MODULE false

/* Has somebody assigned to __code__ of the function? The module is as it was seen, so it lives. */
static inline bool
standard_has_other_code(struct state *state, enum standard_global global)
{
    PyObject *function = SHARED_LOAD(state->standard.functions[global].function);
    return function != NULL
           && PyFunction_GET_CODE(function) != SHARED_LOAD(state->standard.functions[global].code);
}

/* Is the global what the standard library has there? */
static inline bool
standard_is(struct state *state, enum standard_global global)
{
    static const uint8_t module_of[] = {
#define X(name, module, ...) MODULE_##module,
        STANDARD_GLOBALS(X)
#undef X
    };
    static const bool is_function[] = {
#define X(name, module, attribute, kind) STANDARD_KIND_IS_##kind,
        STANDARD_GLOBALS(X)
#undef X
    };
    (void)module_of;
    if (UNLIKELY(!standard_seen(state, module_of[global]))
        || (is_function[global] && UNLIKELY(standard_has_other_code(state, global)))) {
        standard_look(state);
    }
    return LIKELY((SHARED_LOAD(state->standard.replaced) & (1u << global)) == 0);
}

/* -- classes ----------------------------------------------------------------------- */

/* A class's version is another one whenever it, or one that it inherits from, was changed. 0, when
 * nobody has looked at it since, is no version. */
static inline unsigned int
standard_version(PyTypeObject *type)
{
    return SHARED_LOAD(type->tp_version_tag);
}

static inline bool
standard_class_is_same(PyTypeObject *type, unsigned int *version)
{
    unsigned int now = standard_version(type);
    return LIKELY(now == SHARED_LOAD(*version) && now != 0);
}

/* What was found out about the class, which a look-up gave `version_seen` (standard_version_given()) before that,
 * is kept with it, unless another thread has looked later. */
unsigned int standard_version_given(PyTypeObject *type);
void standard_keep(PyTypeObject *type, unsigned int *version, unsigned int version_seen, unsigned int *found,
                   unsigned int found_now);

/* Does the class get `name` from `owner` (a class that it inherits from, or itself), as that one's
 * own function or method of C? Gives the class its version. Sets no exception. */
bool standard_class_has(PyTypeObject *type, const char *name, PyTypeObject *owner);

/* -- our transports ------------------------------------------------------------------ */

/* What the class was made with, which is the state's from now on: 0 / -1. */
int standard_transport_init(struct state *state, struct standard_transport *transport,
                            PyTypeObject *type);
bool standard_transport_look(struct state *state, struct standard_transport *transport,
                             PyTypeObject *type);

/* Has nobody put another method on the class of our transport? For the instance, its dict is NULL. */
static inline bool
standard_transport_class(struct state *state, struct standard_transport *transport,
                         PyTypeObject *type)
{
    if (UNLIKELY(standard_version(type) != SHARED_LOAD(transport->version))) {
        return standard_transport_look(state, transport, type);
    }
    return LIKELY(!SHARED_LOAD(transport->replaced)) && SHORT_WAY(writes);
}

/* -- sockets -------------------------------------------------------------------- */

/* The class socket.socket of the standard library, whatever socket.socket is now: new reference. */
PyObject *standard_socket_class(void);

/* Looks at the class socket.socket again. */
void standard_sockets_look(struct state *state);
/* The same. True if it gives this object these methods (bits). */
bool standard_socket_look(struct state *state, PyObject *sock, unsigned int methods);

/* Has the class socket.socket of the standard library its own methods? */
static inline bool
standard_sockets_have(struct state *state, unsigned int methods)
{
    if (!SHORT_WAY(sockets)) {
        return false;
    }
    PyTypeObject *class = (PyTypeObject *)state->standard.socket_class;
    if (UNLIKELY(standard_version(class) != SHARED_LOAD(state->standard.socket_version))) {
        standard_sockets_look(state);
    }
    return LIKELY((SHARED_LOAD(state->standard.socket_replaced) & methods) == 0);
}

/* Is it exactly a socket.socket, with the standard library's own method? What it has then, a system
 * call does as well. Instances have no dict. */
static inline bool
standard_socket_has_all(struct state *state, PyObject *sock, unsigned int methods)
{
    if (!SHORT_WAY(sockets)) {
        return false;
    }
    if (UNLIKELY(standard_version(Py_TYPE(sock)) != SHARED_LOAD(state->standard.socket_version))) {
        return standard_socket_look(state, sock, methods);
    }
    return LIKELY((SHARED_LOAD(state->standard.socket_replaced) & methods) == 0);
}

static inline bool
standard_socket_has(struct state *state, PyObject *sock, enum standard_socket_method method)
{
    return standard_socket_has_all(state, sock, 1u << method | 1u << SOCKET_GETATTRIBUTE);
}

/* Is owner.name a function that was compiled in the module with these globals, as Class.name?
 * Sets no exception. */
bool standard_function(PyObject *function, PyObject *globals, const char *qualname);

#endif
