/* overrides.h - which of a loop's methods are somebody else's.
 *
 * asyncio's tasks, futures and timers call their loop: call_soon(), call_at(), create_future(). Ours
 * push into the loop's ring and heap instead, as long as those methods are ours: on the class, on
 * what it inherits from (BaseEventLoop, too), and on the instance. The same where asyncio makes
 * Handles, and Handle._run() runs them. What is replaced is called.
 *
 * Looked at: for each use. From 3.12 on by one number that goes up with every change of a class, a
 * module or a dict that matters (standard.h); before that by the versions of two classes, and what
 * modules have is looked at where it matters; another asyncio.events.Handle counts from the next
 * iteration on. */
#ifndef ASYNCLOOP_OVERRIDES_H
#define ASYNCLOOP_OVERRIDES_H

#include "base/standard.h"
#include "loop/loop.h"

/* A method was replaced: a bit for each enum loop_method. */
#define LOOP_BIT(method) (1u << LOOP_##method)
#define LOOP_ALL_METHODS (LOOP_BIT(METHOD_COUNT) - 1)
/* asyncio.events.Handle, TimerHandle or how one is made: the loop makes handles by calling that */
#define LOOP_HANDLE_CLASS (1u << 30)
/* asyncio.events.Handle._run() */
#define LOOP_HANDLE_RUN (1u << 31)

/* one of those that _accepting_methods() was told of */
#define LOOP_ACCEPTING (1u << 29)

/* What runs next goes by call_soon(), or through asyncio's Handle. */
#define LOOP_SOON (LOOP_BIT(call_soon) | LOOP_HANDLE_CLASS | LOOP_HANDLE_RUN)

/* What asyncio's methods that schedule begin with, or end with. */
#define LOOP_CHECKS \
    (LOOP_BIT(_check_closed) | LOOP_BIT(_check_thread) | LOOP_BIT(_check_callback) | LOOP_BIT(_call_soon))

/* How descriptors are watched, and no more. */
#define LOOP_ADDING (LOOP_BIT(_add_reader) | LOOP_BIT(_add_writer))
#define LOOP_REMOVING \
    (LOOP_BIT(_remove_reader) | LOOP_BIT(_remove_writer) | LOOP_BIT(remove_reader) | LOOP_BIT(remove_writer))

int overrides_init(PyObject *module, struct state *state);
/* At the beginning of an iteration. */
#if PY_VERSION_HEX >= 0x030C0000
#define overrides_look_at_modules(loop) ((void)0)
#else
void overrides_modules_changed(Loop *loop);
static inline void
overrides_look_at_modules(Loop *loop)
{
    struct state *state = loop->state;
    if (UNLIKELY(!standard_seen(state, MODULE_EVENTS) || !standard_seen(state, MODULE_BASE_EVENTS))) {
        overrides_modules_changed(loop);
    }
}
#endif
/* At the beginning of a run: has somebody assigned to __code__ of one of asyncio's methods? */
void overrides_look_at_codes(Loop *loop);
void overrides_look(Loop *loop);      /* finds out again what is replaced; keeps the current exception */
void overrides_begin(Loop *loop);     /* of a new loop */
void overrides_forget(Loop *loop);    /* the next use looks */

/* The bit of a method; 0 for another name. */
unsigned int overrides_bit(PyObject *name);

/* An attribute of the instance was set or deleted. */
void overrides_attribute_set(Loop *loop, PyObject *name);
/* Somebody gets hold of the instance's dict: new reference, or NULL. */
PyObject *overrides_expose_dict(Loop *loop);

#if PY_VERSION_HEX >= 0x030C0000
#define overrides_are_known(loop) (SHARED_LOAD((loop)->overrides.changes) == standard_change_count())
#else
/* A version is never used again, and a class that has none yet has 0. */
static inline unsigned int
overrides_versions(const Loop *loop)
{
    return Py_TYPE(loop)->tp_version_tag + ((PyTypeObject *)loop_state(loop->state)->handles.asyncio_Handle)->tp_version_tag;
}
#define overrides_are_known(loop) (overrides_versions(loop) == (loop)->overrides.versions)
#endif

/* What is replaced now, as bits. Sets no exception, keeps the current one. */
static inline unsigned int
loop_replaced(Loop *loop)
{
    if (UNLIKELY(!overrides_are_known(loop))) {
        overrides_look(loop);
    }
    return SHARED_LOAD(loop->overrides.replaced);
}

/* Is it BaseEventLoop's method that is replaced, which ours hides? Then ours calls it. */
static inline bool
loop_base_replaced(Loop *loop, unsigned int bit)
{
    return UNLIKELY((loop_replaced(loop) & bit) != 0) && (SHARED_LOAD(loop->overrides.base) & bit) != 0;
}

/* Before 3.12 the bits are not about globals that asyncio's methods call: those are looked at where
 * they matter. */
#if PY_VERSION_HEX >= 0x030C0000
#define GLOBAL_REPLACED(state, global) false
#else
#define GLOBAL_REPLACED(state, global) UNLIKELY(!standard_is(state, STANDARD_##global))
#endif

bool overrides_timer_handle_look(struct state *state);    /* for the next one */

/* Are asyncio.events.TimerHandle and its methods asyncio's? Ours stand for such only then. */
static inline bool
loop_timer_handles_are_own(Loop *loop)
{
    struct state *state = loop->state;
    return LIKELY(standard_is(state, STANDARD_EVENTS_TIMER_HANDLE))
           && (standard_class_is_same((PyTypeObject *)loop_state(state)->handles.asyncio_TimerHandle,
                                      &loop_state(state)->overrides.timer_handle_version)
               || overrides_timer_handle_look(state));
}

/* Does time() come from elsewhere than our own clock? */
static inline bool
loop_has_custom_clock(Loop *loop)
{
    return UNLIKELY((loop_replaced(loop) & LOOP_BIT(time)) != 0)
           || GLOBAL_REPLACED(loop->state, TIME_MONOTONIC);
}

/* Does create_future() give something else than future_new()? */
static inline bool
loop_has_custom_futures(Loop *loop)
{
    return UNLIKELY((loop_replaced(loop) & LOOP_BIT(create_future)) != 0)
           || GLOBAL_REPLACED(loop->state, FUTURES_FUTURE);
}

int overrides_ask_debug(Loop *loop);

/* What asyncio's transports ask before they log: is get_debug() true? -1 with what a program's own has raised. */
static inline int
loop_debugs(Loop *loop)
{
    return LIKELY((loop_replaced(loop) & LOOP_BIT(get_debug)) == 0) ? FLAG(loop->debug) : overrides_ask_debug(loop);
}

/* BaseEventLoop.name(loop, *args): new reference or NULL. */
PyObject *overrides_call_base(Loop *loop, PyObject *name, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);

#endif
