/* scratch.h - large memory for the time of a call: what has just been read, or is about to be sent.
 *
 * Owns:     a few free blocks of SCRATCH_BYTES in each loop, which spare a malloc() per packet.
 * Promises: a block belongs to whoever took it until it is given back. The loop knows nothing of it
 *           meanwhile, so that a call into Python in between is harmless: another connection, or a
 *           run of the loop inside that call, gets a block of its own, and loop.close() frees only
 *           what is free.
 * Checks:   the debug build counts what is out. Under AddressSanitizer a block that was given back
 *           cannot be read or written. */
#ifndef ASYNCLOOP_SCRATCH_H
#define ASYNCLOOP_SCRATCH_H

#include "base/checked.h"
#include "base/tuning.h"

#define SCRATCH_BYTES ((size_t)256 * 1024)
/* Free blocks that a loop keeps; TLS has three at once. glibc keeps as many itself, so that one would do there (guarded
 * path: tls-direct, 1.7 % more). Where malloc() maps each of them (musl's, or MALLOC_MMAP_THRESHOLD_=131072), an
 * echo of 1 KiB by TLS takes two page faults and twice the CPU with one. 2026-11-30. */
#define SCRATCH_KEPT TUNED(SCRATCH_KEPT, 4)

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SCRATCH_POISONS
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SCRATCH_POISONS)
#include <sanitizer/asan_interface.h>
#define SCRATCH_POISON(block) __asan_poison_memory_region(block, SCRATCH_BYTES)
#define SCRATCH_UNPOISON(block) __asan_unpoison_memory_region(block, SCRATCH_BYTES)
#else
#define SCRATCH_POISON(block) ((void)(block))
#define SCRATCH_UNPOISON(block) ((void)(block))
#endif

struct scratch {
    char *blocks[SCRATCH_KEPT];       /* the free ones */
    unsigned int count;
    unsigned int taken;               /* that are out; debug build */
    bool closed;                      /* none is kept any more */
};

char *scratch_new(void);                       /* NULL with MemoryError */
void scratch_free(char *block);
void scratch_close(struct scratch *scratch);   /* frees what is free */

/* A block of SCRATCH_BYTES for scratch_give(), or NULL with MemoryError. */
static inline char *
scratch_take(struct scratch *scratch)
{
    char *block;
    if (LIKELY(scratch->count > 0)) {
        block = scratch->blocks[--scratch->count];
        SCRATCH_UNPOISON(block);
    }
    else {
        block = scratch_new();
    }
#ifndef NDEBUG
    scratch->taken += block != NULL;
#endif
    return block;
}

/* Keeps the current exception. */
static inline void
scratch_give(struct scratch *scratch, char *block)
{
#ifndef NDEBUG
    assert(scratch->taken > 0);
    scratch->taken--;
    for (unsigned int i = 0; i < scratch->count; i++) {
        assert(scratch->blocks[i] != block);
    }
#endif
    if (LIKELY(scratch->count < SCRATCH_KEPT && !scratch->closed)) {
        SCRATCH_POISON(block);
        scratch->blocks[scratch->count++] = block;
    }
    else {
        scratch_free(block);
    }
}

#ifdef ASYNCLOOP_DEBUG
void scratch_verify(const struct scratch *scratch);    /* checked.h */
#endif

#endif
