/* page.c - see page.h. */
#include "loop/page.h"

#include "base/monotonic.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#define PAGE_BYTES (PAGE_HEADER_BYTES + PAGE_SLOTS * PAGE_SLOT_BYTES)

_Static_assert(sizeof(struct page_header) <= PAGE_HEADER_BYTES, "the header has no room");
_Static_assert(sizeof(struct counters) <= PAGE_SLOT_BYTES, "a slot has no room");

struct page {
    char *base;
    int fd;                   /* -1: closed */
    /* Which file it is: the program may have closed the descriptor, whose number is another file's then. */
    dev_t device;
    ino_t inode;
    uint64_t taken;           /* slots, as bits */
};

static struct page_header *
header_of(const struct page *page)
{
    return (struct page_header *)(void *)page->base;
}

#if defined(__linux__) && defined(SYS_memfd_create)
#define OPEN_FLAGS 3u         /* MFD_CLOEXEC | MFD_ALLOW_SEALING, which old headers lack */
#define ADD_SEALS 1033        /* F_ADD_SEALS */
#define SEALS 7               /* F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW: nobody cuts it under us */

static int
memory_file(size_t length)
{
    int fd = (int)syscall(SYS_memfd_create, "asyncloop-page", OPEN_FLAGS);
    if (fd >= 0
        && (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)length) < 0
            || fcntl(fd, ADD_SEALS, SEALS) < 0)) {
        int err = errno;
        close(fd);
        errno = err;
        fd = -1;
    }
    return fd;
}
#else
static int
memory_file(size_t length UNUSED)
{
    errno = ENOSYS;
    return -1;
}
#endif

static void
copy_text(char *to, size_t room, const char *from)
{
    size_t length = strlen(from);
    memcpy(to, from, length < room ? length : room - 1);
}

static void
page_fill_header(struct page *page, const char *asyncloop, const char *python, const char *socket)
{
    struct page_header *header = header_of(page);
    header->version = PAGE_VERSION;
    header->header_bytes = PAGE_HEADER_BYTES;
    header->slot_bytes = PAGE_SLOT_BYTES;
    header->slots = PAGE_SLOTS;
    header->counters_bytes = sizeof(struct counters);
    header->delay_buckets = DELAY_BUCKETS;
    header->pid = (uint64_t)getpid();
    copy_text(header->asyncloop, sizeof(header->asyncloop), asyncloop);
    copy_text(header->python, sizeof(header->python), python);
    copy_text(header->socket, sizeof(header->socket), socket);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy(header->magic, PAGE_MAGIC, sizeof(header->magic));
}

struct page *
page_open(const char *asyncloop, const char *python, const char *socket)
{
    struct stat about;
    struct page *page = calloc(1, sizeof(*page));
    if (page == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    page->fd = memory_file(PAGE_BYTES);
    if (page->fd < 0 || fstat(page->fd, &about) < 0) {
        goto failed;
    }
    page->device = about.st_dev;
    page->inode = about.st_ino;
    page->base = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, page->fd, 0);
    if (page->base == MAP_FAILED) {
        goto failed;
    }
    page_fill_header(page, asyncloop, python, socket);
    return page;
failed:;
    int err = errno;
    if (page->fd >= 0) {
        close(page->fd);
    }
    free(page);
    errno = err;
    return NULL;
}

static bool
page_has_descriptor(const struct page *page)
{
    struct stat about;
    return fstat(page->fd, &about) == 0 && about.st_dev == page->device
           && about.st_ino == page->inode;
}

static void
page_free_if_unused(struct page *page)
{
    if (page->fd < 0 && page->taken == 0) {
        munmap(page->base, PAGE_BYTES);
        free(page);
    }
}

/* The same memory, from now on copied where it is written to: who writes meanwhile loses nothing. Without
 * the descriptor, or memory for it, it stays as it is, and has no name. */
void
page_close(struct page *page)
{
    if (page_has_descriptor(page)) {
        (void)mmap(page->base, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
                   page->fd, 0);
        close(page->fd);
    }
    page->fd = -1;
    page_free_if_unused(page);
}

struct counters *
page_take(struct page *page)
{
    for (unsigned int i = 0; i < PAGE_SLOTS; i++) {
        if ((page->taken >> i & 1) == 0) {
            page->taken |= UINT64_C(1) << i;
            return (struct counters *)(void *)(page->base + PAGE_HEADER_BYTES
                                               + (size_t)i * PAGE_SLOT_BYTES);
        }
    }
    header_of(page)->without_slot++;
    return NULL;
}

void
page_give(struct page *page, struct counters *counters)
{
    size_t offset = (size_t)((char *)counters - page->base) - PAGE_HEADER_BYTES;
    __atomic_store_n(&counters->number, 0, __ATOMIC_RELEASE);
    memset(counters, 0, sizeof(*counters));
    page->taken &= ~(UINT64_C(1) << offset / PAGE_SLOT_BYTES);
    page_free_if_unused(page);
}

void
page_note_stall(struct page *page, uint64_t loop, int64_t lasted_ns, bool goes_on, const char *text,
                size_t length)
{
    struct page_header *header = header_of(page);
    uint64_t stalls = header->stalls | 1;
    __atomic_store_n(&header->stalls, stalls, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    header->stall_loop = loop;
    header->stall_told_ns = monotonic_ns();
    header->stall_lasted_ns = lasted_ns;
    header->stall_goes_on = goes_on;
    length = length < PAGE_TEXT_BYTES ? length : PAGE_TEXT_BYTES - 1;
    memcpy(header->stall_text, text, length);
    memset(header->stall_text + length, 0, PAGE_TEXT_BYTES - length);
    __atomic_store_n(&header->stalls, stalls + 1, __ATOMIC_RELEASE);
}
