/* oom_hook.c - makes allocations of the core fail, one or several in a row, for tests/programs/oom.py.
 *
 * An allocation counts when the core is on the C stack nearer than the interpreter's evaluation
 * loop: so it was asked for by the core, or by what the core called in C. The interpreter's own
 * code is left alone: parts of it do not survive a failure.
 *
 * Compilers cut the evaluation loop into pieces that lie far apart, and the symbol table knows one
 * of them (3.15 as GCC 16 builds it: one percent). So it is not looked for by address: each call of
 * it goes through a function of this library, which is then the frame around it. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <stdbool.h>

static PyMemAllocatorEx original[3];
static struct {
    uintptr_t begin, end;
} core, self;
static long countdown = -1;
static long times = 1, left;
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
    bool own = true;    /* still among the hook's own frames, which are the nearest */
    for (int i = 0; i < count; i++) {
        uintptr_t at = (uintptr_t)frames[i];
        if (at >= core.begin && at < core.end) {
            return true;
        }
        if (at < self.begin || at >= self.end) {
            own = false;
        }
        else if (!own) {
            return false;    /* evaluate() */
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
    if (countdown > 0) {
        countdown--;
        return false;
    }
    if (--left <= 0) {
        countdown = -1;
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

/* Around each evaluation loop on the stack; what it does after the call keeps it there. */
static PyObject *
evaluate(PyThreadState *tstate, struct _PyInterpreterFrame *frame, int throwing)
{
    PyObject *volatile result = _PyEval_EvalFrameDefault(tstate, frame, throwing);
    return result;
}

/* For a library's code: by a piece of the library's name, or by an address in it. */
struct search {
    const char *name;
    uintptr_t address;
    uintptr_t begin, end;    /* the answer */
};

static int
find_code(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    struct search *wanted = arg;
    if (wanted->name && (info->dlpi_name == NULL || !strstr(info->dlpi_name, wanted->name))) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) {
            continue;
        }
        uintptr_t begin = info->dlpi_addr + part->p_vaddr;
        uintptr_t end = begin + part->p_memsz;
        if (wanted->name || (wanted->address >= begin && wanted->address < end)) {
            wanted->begin = begin;
            wanted->end = end;
            return 1;
        }
    }
    return 0;
}

/* 0, or -1 when the core's code or this library's is not found. */
int
oom_install(const char *name)
{
    struct search search = {.name = name};
    if (!dl_iterate_phdr(find_code, &search)) {
        return -1;
    }
    core.begin = search.begin;
    core.end = search.end;
    search = (struct search){.address = (uintptr_t)evaluate};
    if (!dl_iterate_phdr(find_code, &search)) {
        return -1;
    }
    self.begin = search.begin;
    self.end = search.end;
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate);
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
    left = times;
    return failed;
}

/* How many fail in a row, from the n-th on. */
void
oom_times(long number)
{
    times = number;
}

/* Whether each failure writes its C stack to stderr. */
void
oom_trace(int on)
{
    tracing = on != 0;
}
