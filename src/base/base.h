/* base.h - compiler helpers and the intrusive list; no Python.
 *
 * Everything here is plain C that any other file may include. */
#ifndef ASYNCLOOP_BASE_H
#define ASYNCLOOP_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define UNUSED __attribute__((unused))

/* What help() says of a function that only the package calls: a wheel does without. */
#ifdef ASYNCLOOP_SMALL
#define INSIDE_DOC(text) NULL
#else
#define INSIDE_DOC(text) PyDoc_STR(text)
#endif
#define HIDDEN __attribute__((visibility("hidden")))    /* of a variable of ours: found without a look-up */
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* A node that is in no list points at itself, so list_remove() is always safe. */
struct list_node {
    struct list_node *prev;
    struct list_node *next;
};

static inline void
list_init(struct list_node *node)
{
    node->prev = node;
    node->next = node;
}

static inline bool
list_empty(const struct list_node *head)
{
    return head->next == head;
}

static inline void
list_append(struct list_node *head, struct list_node *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

static inline void
list_remove(struct list_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* Out of the list that it is in, and to the end of another. */
static inline void
list_move(struct list_node *head, struct list_node *node)
{
    struct list_node *prev = node->prev, *next = node->next;
    prev->next = next;
    next->prev = prev;
    list_append(head, node);
}

#endif
