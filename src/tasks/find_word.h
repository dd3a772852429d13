/* find_word.h - where an object of asyncio's own keeps a reference, found in its memory. */
#ifndef ASYNCLOOP_FIND_WORD_H
#define ASYNCLOOP_FIND_WORD_H

#include "base/compat.h"

#include <string.h>

/* The offset of the only word in the object that is `wanted`, or 0. Only numbers are compared. */
static inline size_t
find_word(PyObject *op, PyObject *wanted)
{
    size_t found = 0;
    size_t size = (size_t)Py_TYPE(op)->tp_basicsize;
    for (size_t i = sizeof(PyObject); i + sizeof(uintptr_t) <= size; i += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, (const char *)op + i, sizeof(word));
        if (word == (uintptr_t)wanted) {
            if (found != 0) {
                return 0;
            }
            found = i;
        }
    }
    return found;
}

#endif
