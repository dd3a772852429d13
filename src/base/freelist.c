/* freelist.c - see freelist.h. */
#include "base/freelist.h"

void
freelist_init(struct state *state, struct freelist *list, PyTypeObject *type)
{
    list->type = type;
#ifdef Py_GIL_DISABLED
    list->place = state->free_lists == NULL ? 0 : state->free_lists->place + sizeof(struct kept_list);
    VERIFY(list->place < sizeof(struct kept));
#endif
    list->next = state->free_lists;
    state->free_lists = list;
#if PY_VERSION_HEX >= 0x030E0000
    /* The first object of a type has room for thirty attributes behind it, each next one for one less, down to
     * one. Those that are kept are not to be of the first: it takes memory, and time to look at all of it. */
    PyObject *op = (PyObject *)type;
    for (int i = 0; i < 30 && op != NULL && (type->tp_flags & Py_TPFLAGS_INLINE_VALUES) != 0; i++) {
        op = type->tp_alloc(type, 0);
        if (op != NULL) {
            PyObject_GC_UnTrack(op);
            type->tp_free(op);
            Py_DECREF(type);
        }
    }
    PyErr_Clear();    /* without memory it only takes longer */
#endif
}

bool
freelist_is_traced(void)
{
    const unsigned int domain = 0xA510;    /* any that nobody has: there is no other way to ask */
    if (LIKELY(PyTraceMalloc_Track(domain, 0, 0) == -2)) {
        return false;
    }
    PyTraceMalloc_Untrack(domain, 0);
    return true;
}

#ifdef Py_GIL_DISABLED

const struct kept kept_nowhere;
__thread struct kept *kept_here THREAD_STORAGE = (struct kept *)&kept_nowhere;

void
kept_init(struct kept *kept, const struct state *state)
{
    for (const struct freelist *list = state->free_lists; list != NULL; list = list->next) {
        kept->lists[list->place / sizeof(struct kept_list)].type = list->type;
    }
}

void
kept_free(struct kept *kept)
{
    for (int i = 0; i < FREELIST_COUNT; i++) {
        struct kept_list *list = &kept->lists[i];
        while (list->head != NULL) {
            PyObject *op = list->head;
            list->head = freelist_link(op);
            list->length--;
            list->type->tp_free(op);
        }
    }
}

void
kept_end(struct kept *kept)
{
    kept_free(kept);
    for (int i = 0; i < FREELIST_COUNT; i++) {
        kept->lists[i].length = FREELIST_MAX;
    }
}

#else

static void
freelist_drain(struct freelist *list)
{
    while (list->head != NULL) {
        PyObject *op = list->head;
        list->head = (PyObject *)op->ob_type;
        list->length--;
        /* tp_free() asks the type where the allocation begins. */
        op->ob_type = list->type;
        list->type->tp_free(op);
    }
    list->length = FREELIST_MAX;
}

void
freelist_drain_all(struct state *state)
{
    for (struct freelist *list = state->free_lists; list != NULL; list = list->next) {
        freelist_drain(list);
    }
}

#endif
