/* page.h - counters in memory that other processes may map: what `python -m asyncloop ps` reads.
 *
 * Owns:     a file in memory (Linux: memfd_create), of mode 0600: a header, and a slot for each loop.
 * Promises: a loop's counters stay where they are for as long as the loop lives, also when the page
 *           is closed, or in a child of fork(): there it becomes private to the process.
 * Layout:   struct page_header, then PAGE_SLOTS times PAGE_SLOT_BYTES that begin with struct counters.
 *           Whoever changes either gives PAGE_VERSION another number; asyncloop/_outside.py checks it.
 * Ignores:  who reads, and when. */
#ifndef ASYNCLOOP_PAGE_H
#define ASYNCLOOP_PAGE_H

#include "loop/counters.h"

#define PAGE_MAGIC "asyncloop page\n"    /* with its zero, 16 bytes */
#define PAGE_VERSION 2
#define PAGE_HEADER_BYTES 4096
#define PAGE_SLOT_BYTES 4096
#define PAGE_SLOTS 63
#define PAGE_TEXT_BYTES 2048

struct page_header {
    char magic[16];
    uint32_t version;
    uint32_t header_bytes;
    uint32_t slot_bytes;
    uint32_t slots;
    uint32_t counters_bytes;
    uint32_t delay_buckets;
    uint64_t pid;
    uint64_t without_slot;    /* loops that found none: they are not shown */
    char asyncloop[32];       /* versions */
    char python[32];
    char socket[64];          /* where requests go: its abstract name without the first zero byte; or "" */
    /* The last stall. Whoever reads looks whether `stalls` is the same before and after, and even. */
    uint64_t stalls;          /* twice how often something was noted, and 1 while it is */
    uint64_t stall_loop;
    int64_t stall_told_ns;    /* CLOCK_MONOTONIC */
    int64_t stall_lasted_ns;
    uint64_t stall_goes_on;
    char stall_text[PAGE_TEXT_BYTES];
};

struct page;

/* -1 without it, with errno. `socket` and the versions are cut to what fits. */
struct page *page_open(const char *asyncloop, const char *python, const char *socket);
/* It has no name any more, and its memory is the process's own. */
void page_close(struct page *page);

/* NULL: there is no slot. */
struct counters *page_take(struct page *page);
void page_give(struct page *page, struct counters *counters);    /* the last one frees a closed page */

/* By one thread at a time. */
void page_note_stall(struct page *page, uint64_t loop, int64_t lasted_ns, bool goes_on,
                     const char *text, size_t length);

#endif
