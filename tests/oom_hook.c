/* oom_hook.c - makes single allocations of the core fail, for tests/oom.py.
 *
 * An allocation counts when the core is on the C stack nearer than the interpreter's evaluation
 * loop: so it was asked for by the core, or by what the core called in C. The interpreter's own
 * code is left alone: parts of it do not survive a failure. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <link.h>
#include <stdbool.h>

static PyMemAllocatorEx original[3];
static uintptr_t core_begin, core_end, eval_begin, eval_end;
static long countdown = -1;
static long failed;
static __thread bool inside;
static bool tracing;

static bool
asked_by_core(void)
{
    void *frames[64];
    inside = true;
    int count = backtrace(frames, 64);
    inside = false;
    for (int i = 2; i < count; i++) {
        uintptr_t at = (uintptr_t)frames[i];
        if (at >= core_begin && at < core_end) {
            return true;
        }
        if (at >= eval_begin && at < eval_end) {
            return false;
        }
    }
    return false;
}

static bool
fails(void)
{
    if (countdown < 0 || inside || !asked_by_core()) {
        return false;
    }
    if (countdown-- > 0) {
        return false;
    }
    failed++;
    if (tracing) {
        void *frames[24];
        inside = true;
        backtrace_symbols_fd(frames, backtrace(frames, 24), 2);
        inside = false;
    }
    return true;
}

static void *
hook_malloc(void *ctx, size_t size)
{
    PyMemAllocatorEx *next = ctx;
    return fails() ? NULL : next->malloc(next->ctx, size);
}

static void *
hook_calloc(void *ctx, size_t count, size_t size)
{
    PyMemAllocatorEx *next = ctx;
    return fails() ? NULL : next->calloc(next->ctx, count, size);
}

static void *
hook_realloc(void *ctx, void *old, size_t size)
{
    PyMemAllocatorEx *next = ctx;
    return fails() ? NULL : next->realloc(next->ctx, old, size);
}

static void
hook_free(void *ctx, void *block)
{
    PyMemAllocatorEx *next = ctx;
    next->free(next->ctx, block);
}

static int
find_core(struct dl_phdr_info *info, size_t size, void *wanted)
{
    (void)size;
    if (info->dlpi_name == NULL || strstr(info->dlpi_name, wanted) == NULL) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
            core_begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            core_end = core_begin + info->dlpi_phdr[i].p_memsz;
        }
    }
    return 1;
}

/* 0, or -1 when the core or the evaluation loop is not found. */
int
oom_install(const char *core)
{
    dl_iterate_phdr(find_core, (void *)core);
    void *eval = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (core_begin == 0 || eval == NULL
        || dladdr1(eval, &info, (void **)&symbol, RTLD_DL_SYMENT) == 0 || symbol == NULL) {
        return -1;
    }
    eval_begin = (uintptr_t)eval;
    eval_end = eval_begin + symbol->st_size;
    void *warm[4];
    backtrace(warm, 4);    /* loads what it needs now */
    for (int domain = PYMEM_DOMAIN_RAW; domain <= PYMEM_DOMAIN_OBJ; domain++) {
        PyMem_GetAllocator(domain, &original[domain]);
        PyMemAllocatorEx hook = {&original[domain], hook_malloc, hook_calloc, hook_realloc,
                                 hook_free};
        PyMem_SetAllocator(domain, &hook);
    }
    return 0;
}

/* The n-th allocation from now fails (0: the next); -1: none. How many have failed so far. */
long
oom_arm(long n)
{
    countdown = n;
    return failed;
}

/* Whether each failure writes its C stack to stderr. */
void
oom_trace(int on)
{
    tracing = on != 0;
}
