/* full_table_hook.c - a system whose table of open files is full, for tests/process/test_full_table.py.
 *
 * ENFILE cannot be had by a limit of the process. This module puts functions of its own in the
 * place of those of the C library that make an open file, in every library that is loaded at that
 * moment (the table through which a library calls others is rewritten), and they fail with ENFILE
 * as often as they are told to. What they do not fail goes to the C library. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#if defined(__x86_64__)
#define SLOT_TYPES R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT
#define RELOC_TYPE(info) ELF64_R_TYPE(info)
#define RELOC_SYMBOL(info) ELF64_R_SYM(info)
#elif defined(__aarch64__)
#define SLOT_TYPES R_AARCH64_JUMP_SLOT, R_AARCH64_GLOB_DAT
#define RELOC_TYPE(info) ELF64_R_TYPE(info)
#define RELOC_SYMBOL(info) ELF64_R_SYM(info)
#else
#error "the relocations of this machine are not known here"
#endif

/* The calls that are let through, then those that fail; -1: all that follow. */
static atomic_long passes, failures;
static atomic_long seen, failed;
static const char *_Atomic only;    /* the name of the one call that fails, or NULL: any */

static bool
is_full(const char *name)
{
    const char *wanted = only;
    if (wanted != NULL && strcmp(wanted, name) != 0) {
        return false;
    }
    seen++;
    if (passes > 0) {
        passes--;
        return false;
    }
    if (failures == 0) {
        return false;
    }
    if (failures > 0) {
        failures--;
    }
    failed++;
    errno = ENFILE;
    return true;
}

#define REPLACE(name, parameters, arguments)        \
    static int (*real_##name) parameters;           \
    static int full_##name parameters               \
    {                                               \
        return is_full(#name) ? -1 : real_##name arguments; \
    }

REPLACE(accept4, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags))
REPLACE(accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n))
REPLACE(socket, (int family, int type, int proto), (family, type, proto))
REPLACE(socketpair, (int family, int type, int proto, int *fds), (family, type, proto, fds))
REPLACE(epoll_create1, (int flags), (flags))
REPLACE(epoll_create, (int size), (size))
REPLACE(eventfd, (unsigned int value, int flags), (value, flags))
REPLACE(timerfd_create, (int clock, int flags), (clock, flags))
REPLACE(pipe2, (int *fds, int flags), (fds, flags))
REPLACE(pipe, (int *fds), (fds))

/* os.pidfd_open() */
static long (*real_syscall)(long number, ...);
static long
full_syscall(long number, ...)
{
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (number == SYS_pidfd_open && is_full("pidfd_open")) {
        return -1;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static const struct {
    const char *name;
    void *replacement;
    void **real;
} calls[] = {
#define CALL(name) {#name, (void *)full_##name, (void **)&real_##name}
    CALL(accept4), CALL(accept), CALL(socket), CALL(socketpair), CALL(epoll_create1),
    CALL(epoll_create), CALL(eventfd), CALL(timerfd_create), CALL(pipe2), CALL(pipe),
    CALL(syscall),
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

/* What a library's dynamic section says. */
struct library {
    const char *strings;
    const ElfW(Sym) *symbols;
    const ElfW(Rela) *tables[2];
    size_t lengths[2];    /* in bytes */
};

static void
replace_slot(ElfW(Addr) base, const struct library *library, const ElfW(Rela) *entry)
{
    static const unsigned int types[] = {SLOT_TYPES};
    unsigned int type = RELOC_TYPE(entry->r_info);
    const char *name = library->strings + library->symbols[RELOC_SYMBOL(entry->r_info)].st_name;
    for (size_t i = 0; i < CALLS; i++) {
        if ((type == types[0] || type == types[1]) && strcmp(name, calls[i].name) == 0) {
            void **slot = (void **)(base + entry->r_offset);
            uintptr_t page = (uintptr_t)slot & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
            /* The linker may have made it read-only after its work. */
            if (mprotect((void *)page, (uintptr_t)(slot + 1) - page, PROT_READ | PROT_WRITE) == 0) {
                *slot = calls[i].replacement;
            }
        }
    }
}

static const void *
address_of(ElfW(Addr) base, ElfW(Addr) value)
{
    return (const void *)(value < base ? base + value : value);
}

static int
patch_library(struct dl_phdr_info *info, size_t size, void *own)
{
    (void)size;
    struct library library = {0};
    const ElfW(Dyn) *dynamic = NULL;
    ElfW(Addr) base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        ElfW(Addr) begin = base + part->p_vaddr;
        if (part->p_type == PT_DYNAMIC) {
            dynamic = (const ElfW(Dyn) *)begin;
        }
        if (part->p_type == PT_LOAD && (ElfW(Addr))own >= begin
            && (ElfW(Addr))own < begin + part->p_memsz) {
            return 0;    /* this library */
        }
    }
    /* Not the kernel's, and not those that are the C library or sit in front of it. */
    if (dynamic == NULL || strstr(info->dlpi_name, "vdso") || strstr(info->dlpi_name, "libc.so")
        || strstr(info->dlpi_name, "ld-linux") || strstr(info->dlpi_name, "libasan")
        || strstr(info->dlpi_name, "libubsan")) {
        return 0;
    }
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
        switch (dynamic->d_tag) {
        case DT_STRTAB:
            library.strings = address_of(base, dynamic->d_un.d_ptr);
            break;
        case DT_SYMTAB:
            library.symbols = address_of(base, dynamic->d_un.d_ptr);
            break;
        case DT_JMPREL:
            library.tables[0] = address_of(base, dynamic->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            library.lengths[0] = dynamic->d_un.d_val;
            break;
        case DT_RELA:
            library.tables[1] = address_of(base, dynamic->d_un.d_ptr);
            break;
        case DT_RELASZ:
            library.lengths[1] = dynamic->d_un.d_val;
            break;
        }
    }
    for (int i = 0; i < 2 && library.strings && library.symbols; i++) {
        size_t count = library.tables[i] ? library.lengths[i] / sizeof(ElfW(Rela)) : 0;
        for (size_t j = 0; j < count; j++) {
            replace_slot(base, &library, &library.tables[i][j]);
        }
    }
    return 0;
}

static PyObject *
install(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    for (size_t i = 0; i < CALLS; i++) {
        *calls[i].real = dlsym(RTLD_DEFAULT, calls[i].name);
    }
    dl_iterate_phdr(patch_library, (void *)patch_library);
    Py_RETURN_NONE;
}

static PyObject *
fill(PyObject *module, PyObject *args)
{
    (void)module;
    long pass = 0, fail = -1;
    static char name[32];
    const char *call = NULL;
    if (!PyArg_ParseTuple(args, "|llz", &pass, &fail, &call)) {
        return NULL;
    }
    only = NULL;
    if (call != NULL) {
        strncpy(name, call, sizeof(name) - 1);
        only = name;
    }
    seen = failed = 0;
    passes = pass;
    failures = fail;
    Py_RETURN_NONE;
}

static PyObject *
drain(PyObject *module, PyObject *ignored)
{
    (void)module, (void)ignored;
    passes = failures = 0;
    return PyLong_FromLong(failed);
}

static PyMethodDef methods[] = {
    {"install", install, METH_NOARGS, "install(): to be called when all libraries are loaded."},
    {"fill", fill, METH_VARARGS,
     "fill(passes=0, failures=-1, name=None): after so many calls so many fail, -1: all; or only\n"
     "those of one name."},
    {"drain", drain, METH_NOARGS, "drain(): none fails any more; how many have failed."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "full_table_hook", .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_full_table_hook(void)
{
    return PyModuleDef_Init(&definition);
}
