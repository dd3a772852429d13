/* reserve.c - see reserve.h. */
#include "loop/reserve.h"

#include "base/tuning.h"

#include <ev.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <malloc.h>
#define block_size(block) malloc_usable_size(block)
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#define block_size(block) malloc_size(block)
#else
#define block_size(block) ((size_t)0)
#endif

/* The largest element of a table, the factor by which libev rounds up how many there are, what stands in
 * for watchers that were stopped while they were pending, and a page that it rounds up to. */
#ifdef __linux__
#define ELEMENT_BYTES 16
#else
#define ELEMENT_BYTES 64    /* struct kevent, and two of them for a descriptor */
#endif
#define TABLE_BYTES(count) (2 * ELEMENT_BYTES * ((count) + 2) + 4352)
#define BLOCK_BYTES(count) TABLE_BYTES(2 * (count))

static _Thread_local struct libev_call this_call;
static bool system_fails, blocks_fail;

static void *
system_realloc(void *block, size_t size)
{
    return UNLIKELY(__atomic_load_n(&system_fails, __ATOMIC_RELAXED)) ? NULL : realloc(block, size);
}

static void *
block_new(size_t size)
{
    return UNLIKELY(__atomic_load_n(&blocks_fail, __ATOMIC_RELAXED)) ? NULL : malloc(size);
}

/* A block of that size at least, which is the caller's. */
static void *
reserve_take(struct reserve *reserve, size_t size)
{
    void *block = NULL;
    if (reserve->table != NULL && block_size(reserve->table) >= size) {
        block = reserve->table;
        reserve->table = NULL;
    }
    for (int i = 0; block == NULL && i < RESERVE_BLOCKS && size <= reserve->size; i++) {
        block = reserve->blocks[i];
        reserve->blocks[i] = NULL;
    }
    return block;
}

/* libev's allocator. */
static void *
allocate(void *old, long size)
{
    if (size <= 0) {
        free(old);
        return NULL;
    }
    void *block = system_realloc(old, (size_t)size);
    if (LIKELY(block != NULL) || this_call.reserve == NULL) {
        return block;
    }
    size_t old_size = old == NULL ? 0 : block_size(old);
    if (old_size >= (size_t)size) {
        return old;    /* one of the reserve's */
    }
    if (old != NULL && old_size == 0) {
        return NULL;    /* nothing tells here how much there is to copy */
    }
    block = reserve_take(this_call.reserve, (size_t)size);
    if (block != NULL && old != NULL) {
        memcpy(block, old, old_size);
        free(old);
    }
    return block;
}

void
reserve_install(void)
{
    ev_set_allocator(allocate);
}

struct libev_call *
libev_call(void)
{
    return &this_call;
}

void
reserve_drop_table(struct reserve *reserve)
{
    free(reserve->table);
    reserve->table = NULL;
}

static void
blocks_free(void **blocks)
{
    for (int i = 0; i < RESERVE_BLOCKS; i++) {
        free(blocks[i]);
        blocks[i] = NULL;
    }
}

int
reserve_grow(struct reserve *reserve)
{
    size_t covered = reserve->covered == 0 ? ARRAY_FIRST : reserve->covered * 2;
    void *blocks[RESERVE_BLOCKS] = {NULL};
    for (int i = 0; i < RESERVE_BLOCKS; i++) {
        blocks[i] = block_new(BLOCK_BYTES(covered));
        if (blocks[i] == NULL) {
            blocks_free(blocks);
            PyErr_NoMemory();
            return -1;
        }
    }
    blocks_free(reserve->blocks);
    memcpy(reserve->blocks, blocks, sizeof(blocks));
    reserve->size = BLOCK_BYTES(covered);
    reserve->covered = covered;
    return 0;
}

int
reserve_make_table(struct reserve *reserve, int fd)
{
    reserve->table = block_new(TABLE_BYTES((size_t)fd));
    if (reserve->table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    reserve->numbers = (size_t)fd + 1;
    return 0;
}

int
reserve_open(struct reserve *reserve)
{
    return reserve_grow(reserve);
}

void
reserve_close(struct reserve *reserve)
{
    blocks_free(reserve->blocks);
    *reserve = (struct reserve){0};
}

void
reserve_set_failing(bool system, bool blocks)
{
    __atomic_store_n(&system_fails, system, __ATOMIC_RELAXED);
    __atomic_store_n(&blocks_fail, blocks, __ATOMIC_RELAXED);
}
