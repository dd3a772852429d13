/* brief.h - sections of what belongs to a loop, without an atomic operation for the thread that runs it.
 *
 * A critical section takes two locked instructions, and a task step had ten of them that no other thread
 * ever waited for. So the thread that runs a loop goes in and out by plain stores (brief_begin()), and any
 * other one, which is rare, pays for both (LOOP_GUARD()): it says that it is there, makes all processors see
 * that (membarrier()), and waits until the loop's thread is out. As long as another thread is there, the
 * loop's takes the critical section as well.
 *
 * Owns:     Loop.brief, and which loop this thread runs.
 * Promises: between brief_begin() and brief_end() no other thread is in a LOOP_GUARD() of the same object, nor
 *           of any other one whose field names the same loop.
 * Ignores:  builds with a GIL, where all of this is nothing.
 * Taken for granted: what is done in a brief section runs no Python, drops no reference, waits for nothing, and
 *           allocates nothing. The field that names the loop is only changed in a LOOP_GUARD(), as the last
 *           thing there, or before anybody else knows the object.
 * Checked:  each time, by brief_begin(): that this thread makes a turn of that loop, and that no other one is there.
 *           Where the kernel has no membarrier() there are no brief sections. */
#ifndef ASYNCLOOP_BRIEF_H
#define ASYNCLOOP_BRIEF_H

#include "base/freelist.h"
#include "base/guard.h"
#include "loop/owner.h"

#ifdef Py_GIL_DISABLED

/* The loop that this thread makes a turn of: the innermost one. NULL: none, or one that may have no
 * brief sections. Only this thread has it, so it lives, and cannot change hands. */
extern __thread Loop *brief_loop THREAD_STORAGE;

struct brief {
    Loop *loop;
    bool outer;    /* inside of another one of the same loop */
};

static inline void
brief_end(struct brief *brief)
{
    __atomic_store_n(&brief->loop->brief.inside, brief->outer, __ATOMIC_RELEASE);
}

/* True: until brief_end() the object is this thread's, whose loop is at `place`. False: LOOP_GUARD(). */
static inline bool
brief_begin(struct brief *brief, Loop *const *place)
{
    Loop *loop = brief_loop;
    if (UNLIKELY(loop == NULL)) {
        return false;
    }
    brief->loop = loop;
    brief->outer = __atomic_load_n(&loop->brief.inside, __ATOMIC_RELAXED);
    __atomic_store_n(&loop->brief.inside, true, __ATOMIC_RELAXED);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);    /* the processor's part is the other thread's membarrier() */
    if (LIKELY(__atomic_load_n(&loop->brief.others, __ATOMIC_ACQUIRE) == 0)
        && LIKELY(__atomic_load_n(place, __ATOMIC_ACQUIRE) == loop)) {
        return true;
    }
    brief_end(brief);
    return false;
}

struct loop_guard {
    struct guard guard;
    Loop *loop;    /* strong: another thread's, which has been told; or NULL */
};

/* In the critical section already: the loop at `place`, told, and its thread out; or NULL. */
Loop *brief_tell(Loop *const *place);
void brief_leave(Loop *loop);

static inline void
loop_guard_begin_here(struct loop_guard *guard, PyObject *op, Loop *const *place)
{
    guard_begin_here(&guard->guard, op);
    Loop *loop = *place;
    guard->loop = LIKELY(loop == NULL || loop_is_mine(loop)) ? NULL : brief_tell(place);
}

static inline void
loop_guard_end_here(struct loop_guard *guard)
{
    guard_end_here(&guard->guard);
    if (UNLIKELY(guard->loop != NULL)) {
        brief_leave(guard->loop);
    }
}

#ifdef ASYNCLOOP_SMALL
void loop_guard_begin(struct loop_guard *guard, PyObject *op, Loop *const *place);
void loop_guard_end(struct loop_guard *guard);
#else
#define loop_guard_begin loop_guard_begin_here
#define loop_guard_end loop_guard_end_here
#endif

/* GUARD(op) of an object that has brief sections as well; its loop is at `place`. */
#define LOOP_GUARD_NAMED(name, op, place)                                   \
    struct loop_guard name __attribute__((cleanup(loop_guard_end)));        \
    loop_guard_begin(&name, (PyObject *)(op), place)
#define LOOP_GUARD_AT_LINE(line, op, place) LOOP_GUARD_NAMED(guard_##line, op, place)
#define LOOP_GUARD_EXPANDED(line, op, place) LOOP_GUARD_AT_LINE(line, op, place)
#define LOOP_GUARD(op, place) LOOP_GUARD_EXPANDED(__LINE__, op, place)

/* Statements in a brief section, or in a guarded one; none of them leaves it. */
#ifdef ASYNCLOOP_SMALL
struct section {
    struct brief brief;
    struct loop_guard guard;
    bool is_brief;
};
void section_begin(struct section *section, PyObject *op, Loop *const *place);
void section_end(struct section *section);
#define BRIEFLY(op, place, ...)                                  \
    do {                                                         \
        struct section section;                                  \
        section_begin(&section, (PyObject *)(op), place);        \
        __VA_ARGS__                                              \
        section_end(&section);                                   \
    } while (0)
#else
#define BRIEFLY(op, place, ...)                   \
    do {                                          \
        struct brief brief;                       \
        if (LIKELY(brief_begin(&brief, place))) { \
            __VA_ARGS__                           \
            brief_end(&brief);                    \
        }                                         \
        else {                                    \
            LOOP_GUARD(op, place);                \
            __VA_ARGS__                           \
        }                                         \
    } while (0)
#endif

/* Whether there may be brief sections: once for each interpreter. */
bool brief_prepare(void);

/* As a run begins, after the loop was claimed; as it ends, before that is given up. */
static inline void
brief_begin_run(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);    /* `owner` is seen before `others` is looked at */
}

static inline void
brief_end_run(void)
{
    brief_loop = NULL;    /* of a loop outside of this one, too, until its next turn */
    kept_here = (struct kept *)&kept_nowhere;
}

static inline void
brief_begin_turn(Loop *loop)
{
    brief_loop = loop_state(loop->state)->loops.brief ? loop : NULL;
    kept_here = &loop->kept;
}

#else
#define LOOP_GUARD(op, place) GUARD(op)
#define BRIEFLY(op, place, ...) \
    do {                        \
        __VA_ARGS__             \
    } while (0)
#define brief_begin_turn(loop) ((void)(loop))
#endif

#endif
