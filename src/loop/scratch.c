/* scratch.c - see scratch.h. */
#include "loop/scratch.h"

char *
scratch_new(void)
{
    char *block = PyMem_RawMalloc(SCRATCH_BYTES);
    if (block == NULL) {
        PyErr_NoMemory();
    }
    return block;
}

void
scratch_free(char *block)
{
    PyMem_RawFree(block);
}

void
scratch_close(struct scratch *scratch)
{
    scratch->closed = true;
    while (scratch->count > 0) {
        char *block = scratch->blocks[--scratch->count];
        SCRATCH_UNPOISON(block);
        scratch_free(block);
    }
}

#ifdef ASYNCLOOP_DEBUG
void
scratch_verify(const struct scratch *scratch)
{
    VERIFY(scratch->count <= SCRATCH_KEPT);
    for (unsigned int i = 0; i < scratch->count; i++) {
        VERIFY(scratch->blocks[i] != NULL);
    }
}
#endif
