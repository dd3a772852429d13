/* timer.c - a 4-ary heap of TimerHandles, ordered by deadline and, among equal ones,
 * by the order in which they were scheduled.
 *
 * Owns: one reference per entry. Each entry knows its index, so that a cancelled one
 * leaves at once, in O(log n), and nothing keeps its callback alive until due. */
#include "loop/timer.h"

#include "base/checked.h"
#include "base/tuning.h"
#include "loop/handle_inside.h"
#include "loop/wake.h"

#include <math.h>
#include <string.h>

#define HEAP_ARITY TUNED(HEAP_ARITY, 4)    /* benchmark row: 100,000 timers, where a binary heap takes 7 % longer */

/* -- times as numbers -------------------------------------------------------------- */

/* A double's bits are ordered as integers are: of negative ones the wrong way round, which this turns. */
static inline int64_t
key_turn(int64_t bits)
{
    return UNLIKELY(bits < 0) ? bits ^ INT64_MAX : bits;
}

/* Of what is no number: less than all, it is due at once. */
static inline int64_t
key_of(double when)
{
    int64_t bits;
    memcpy(&bits, &when, sizeof(bits));
    if (LIKELY((uint64_t)bits <= UINT64_C(0x7FF) << 52)) {
        return bits;    /* from 0 to infinity */
    }
    return key_turn(isnan(when) ? bits | INT64_MIN : bits);
}

static inline double
key_seconds(int64_t key)
{
    double when;
    int64_t bits = key_turn(key);
    memcpy(&when, &bits, sizeof(when));
    return when;
}

int64_t
timer_deadline(double when)
{
    if (isnan(when)) {
        return 0;
    }
    double ns = when * 1e9;
    if (ns >= 9.2e18) {
        return TIMER_NEVER;
    }
    if (ns <= -9.2e18) {
        return INT64_MIN;
    }
    int64_t whole = (int64_t)ns;      /* towards zero; ceil() is a call where there is no SSE4.1 */
    return whole + ((double)whole < ns);
}

/* The one below a positive number: nextafter(), for which a wheel would need libm. */
static double
next_below(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    bits--;
    memcpy(&value, &bits, sizeof(bits));
    return value;
}

/* The greatest that is no more than it. */
static inline double
ns_as_double(int64_t ns)
{
    double nearest = (double)ns;
    if (UNLIKELY(ns >= INT64_C(1) << 53)) {    /* as numbers of a program's own clock may be */
        return nearest >= 9.2e18 ? INFINITY : (int64_t)nearest > ns ? next_below(nearest)
                                                                    : nearest;
    }
    return nearest;
}

/* timer_deadline() <= now, without making it whole: ceil(x) <= n wherever x <= n. */
static inline bool
key_is_due(int64_t key, double now)
{
    return !(key_seconds(key) * 1e9 > now);
}

/* -- the heap ---------------------------------------------------------------------- */

/* The times lie in the heap itself: a comparison touches the handle only where two of
 * them are equal (benchmark row: 100,000 timers due). */
static inline bool
entry_before(const struct timer_entry *a, const struct timer_entry *b)
{
    return a->key < b->key
           || (UNLIKELY(a->key == b->key)
               && (int32_t)(a->timer->place.sequence - b->timer->place.sequence) < 0);
}

static inline void
heap_place(struct timers *timers, size_t index, struct timer_entry entry)
{
    timers->heap[index] = entry;
    entry.timer->place.index = (uint32_t)index;
}

/* There is another first one. */
static inline void
heap_set_next(struct timers *timers, double when)
{
    SHARED_STORE(timers->next_ns, timer_deadline(when));
}

/* The index where it has come to. */
static size_t
heap_up(struct timers *timers, size_t index, struct timer_entry entry)
{
    while (index > 0) {
        size_t parent = (index - 1) / HEAP_ARITY;
        if (!entry_before(&entry, &timers->heap[parent])) {
            break;
        }
        heap_place(timers, index, timers->heap[parent]);
        index = parent;
    }
    heap_place(timers, index, entry);
    return index;
}

static void
heap_down(struct timers *timers, size_t index, struct timer_entry entry)
{
    for (;;) {
        size_t child = index * HEAP_ARITY + 1;
        if (child >= timers->length) {
            break;
        }
        size_t end = child + HEAP_ARITY;
        if (end > timers->length) {
            end = timers->length;
        }
        size_t least = child;
        for (size_t i = child + 1; i < end; i++) {
            if (entry_before(&timers->heap[i], &timers->heap[least])) {
                least = i;
            }
        }
        if (!entry_before(&timers->heap[least], &entry)) {
            break;
        }
        heap_place(timers, index, timers->heap[least]);
        index = least;
    }
    heap_place(timers, index, entry);
}

/* It is out of the heap, and has its time itself. */
static inline TimerHandle *
entry_leave(const struct timer_entry *entry)
{
    TimerHandle *timer = entry->timer;
    SHARED_STORE(timer->handle.waits, 0);
    timer->when = key_seconds(entry->key);
    return timer;
}

/* The same of the last one in the heap's array, which leaves no hole. */
static inline TimerHandle *
heap_drop_last(struct timers *timers)
{
    size_t last = timers->length - 1;
    SHARED_STORE(timers->length, last);
    return entry_leave(&timers->heap[last]);
}

/* The entry's reference becomes the caller's. `more`: who takes the next one, too, and calls heap_set_next(). */
static TimerHandle *
heap_remove(struct timers *timers, size_t index, bool more)
{
    VERIFY(index < timers->length && timers->heap[index].timer->place.index == index);
    TimerHandle *timer = entry_leave(&timers->heap[index]);
    size_t length = timers->length - 1;
    struct timer_entry last = timers->heap[length];
    SHARED_STORE(timers->length, length);
    if (last.timer != timer) {
        if (index > 0 && entry_before(&last, &timers->heap[(index - 1) / HEAP_ARITY])) {
            heap_up(timers, index, last);
        }
        else {
            heap_down(timers, index, last);
        }
        if (index == 0 && !more) {
            heap_set_next(timers, key_seconds(timers->heap[0].key));
        }
    }
    return timer;
}

static int
heap_grow(struct timers *timers)
{
    size_t capacity = timers->capacity == 0 ? ARRAY_FIRST : timers->capacity * 2;
    struct timer_entry *heap = timers->heap;
    if (capacity <= UINT32_MAX) {
        PyMem_Resize(heap, struct timer_entry, capacity);
    }
    else {
        heap = NULL;    /* no index for the next */
    }
    if (heap == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    timers->heap = heap;
    timers->capacity = capacity;
    return 0;
}

/* A burst of timers must not keep its peak for good. */
static void
heap_shrink(struct timers *timers)
{
    size_t capacity = timers->capacity;
    while (capacity > ARRAY_FIRST && timers->length <= capacity / 8) {
        capacity /= 2;
    }
    if (LIKELY(capacity == timers->capacity)) {
        return;
    }
    struct timer_entry *heap = timers->heap;
    PyMem_Resize(heap, struct timer_entry, capacity);
    if (heap != NULL) {
        timers->heap = heap;
        timers->capacity = capacity;
    }
}

static inline int
heap_add(struct timers *timers, TimerHandle *timer)
{
    VERIFY(verify_lives(timer) && !timer->handle.waits);
    if (timers->length == timers->capacity && heap_grow(timers) < 0) {
        return -1;
    }
    double when = timer->when;
    timer->place.sequence = timers->sequence++;
    Py_INCREF(timer);
    if (heap_up(timers, timers->length, (struct timer_entry){key_of(when), timer}) == 0) {
        heap_set_next(timers, when);
    }
    SHARED_STORE(timer->handle.waits, 1);
    SHARED_STORE(timers->length, timers->length + 1);
    return 0;
}

int
timer_schedule(Loop *loop, TimerHandle *timer)
{
    int result;
    {
        GUARD(loop);
        result = heap_add(&loop->timers, timer);
    }
    if (UNLIKELY(!loop_is_mine(loop))) {
        loop_wake(loop);    /* another thread's call: it may be the next to be due */
    }
    return result;
}

void
timer_unschedule(Loop *loop, TimerHandle *timer)
{
    TimerHandle *removed = NULL;
    {
        GUARD(loop);
        if (timer->handle.waits) {
            struct timers *timers = &loop->timers;
            size_t index = timer->place.index;
            /* Often it is the only one (guarded path: timeout). */
            removed = index == timers->length - 1 ? heap_drop_last(timers) : heap_remove(timers, index, false);
            heap_shrink(timers);
        }
    }
    Py_XDECREF(removed);
}

int
timer_move(Loop *loop, TimerHandle *timer, double when)
{
    TimerHandle *removed = NULL;
    int result = 0;
    {
        GUARD(loop);
        if (timer->handle.waits) {
            removed = heap_remove(&loop->timers, timer->place.index, false);
        }
        timer->when = when;
        if (removed != NULL) {
            result = heap_add(&loop->timers, timer);
        }
    }
    Py_XDECREF(removed);
    if (removed != NULL && UNLIKELY(!loop_is_mine(loop))) {
        loop_wake(loop);
    }
    return result;
}

void
timer_cancel(TimerHandle *timer)
{
    Handle *handle = &timer->handle;
    struct cancel cancel;
    bool waited = SHARED_LOAD(handle->waits);    /* else the ready ring still tells of it */
    {
        GUARD(handle);
        handle_begin_cancel(handle, &cancel);
    }
    timer_unschedule(handle->loop, timer);
    handle_end_cancel(handle, &cancel);
    if (waited) {
        handle_left(handle);
    }
}

void
timer_collect(Loop *loop, int64_t now_ns)
{
    struct timers *timers = &loop->timers;
    GUARD(loop);
    double now = ns_as_double(now_ns);
    while (timers->length > 0 && key_is_due(timers->heap[0].key, now) && ready_has_room(&loop->ready)) {
        ready_push_steal(&loop->ready, (PyObject *)heap_remove(timers, 0, true), READY_HANDLE);
    }
    heap_shrink(timers);
    if (timers->length > 0) {
        heap_set_next(timers, key_seconds(timers->heap[0].key));
    }
}

double
timer_seconds(TimerHandle *timer)
{
    Loop *loop = timer->handle.loop;
    double when;
    GUARD(loop);
    when = timer->handle.waits ? key_seconds(loop->timers.heap[timer->place.index].key) : timer->when;
    return when;
}

PyObject *
timer_first(Loop *loop)
{
    PyObject *first;
    GUARD(loop);
    first = loop->timers.length == 0 ? NULL : Py_NewRef(loop->timers.heap[0].timer);
    return first;
}

void
timer_clear(Loop *loop)
{
    struct timers *timers = &loop->timers;
    GUARD(loop);
    while (timers->length > 0) {
        handle_drop_steal(&heap_drop_last(timers)->handle);    /* may run Python, which may schedule again */
    }
    PyMem_Free(timers->heap);
    timers->heap = NULL;
    timers->capacity = 0;
}

int
timer_traverse(Loop *loop, visitproc visit, void *arg)
{
    for (size_t i = 0; i < loop->timers.length; i++) {
        int result = handle_traverse(&loop->timers.heap[i].timer->handle, false, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

#ifdef ASYNCLOOP_DEBUG
void
timer_verify(Loop *loop, uint64_t turn)
{
    const struct timers *timers = &loop->timers;
    GUARD(loop);
    VERIFY(timers->length <= timers->capacity && timers->capacity <= UINT32_MAX);
    VERIFY((timers->heap == NULL) == (timers->capacity == 0));
    struct verify_part part = verify_part(timers->length, turn);
    for (size_t i = part.from; i < part.to; i++) {
        const struct timer_entry *entry = &timers->heap[i];
        VERIFY(verify_lives(entry->timer));
        VERIFY(entry->timer->handle.waits && entry->timer->place.index == i);
        VERIFY(i > 0 || timers->next_ns == timer_deadline(key_seconds(entry->key)));
        VERIFY(i == 0 || !entry_before(entry, &timers->heap[(i - 1) / HEAP_ARITY]));
        VERIFY(SHARED_LOAD(entry->timer->handle.loop) == loop);
        handle_verify(&entry->timer->handle);
    }
}
#endif
