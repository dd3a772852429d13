/* freelist.c - see freelist.h. */
#include "base/freelist.h"

void
freelist_init(struct state *state, struct freelist *list, PyTypeObject *type)
{
    list->type = type;
    list->next = state->free_lists;
    state->free_lists = list;
}

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
