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

#define HEAP_ARITY TUNED(HEAP_ARITY, 4)    /* benchmark row: 100,000 timers, where a binary heap takes 7 % longer */

/* The deadlines lie in the heap itself: a comparison touches the handle only where two of
 * them are equal (benchmark row: 100,000 timers due). */
static inline bool
entry_before(const struct timer_entry *a, const struct timer_entry *b)
{
    return a->deadline_ns < b->deadline_ns
           || (UNLIKELY(a->deadline_ns == b->deadline_ns)
               && (int32_t)(a->timer->sequence - b->timer->sequence) < 0);
}

static inline void
heap_place(struct timers *timers, size_t index, struct timer_entry entry)
{
    timers->heap[index] = entry;
    SHARED_STORE(entry.timer->heap_index, (uint32_t)index);
#ifdef Py_GIL_DISABLED
    if (index == 0) {
        SHARED_STORE(timers->next_ns, entry.deadline_ns);
    }
#endif
}

static void
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

/* The entry's reference becomes the caller's. */
static TimerHandle *
heap_remove(struct timers *timers, size_t index)
{
    VERIFY(index < timers->length && timers->heap[index].timer->heap_index == index);
    TimerHandle *timer = timers->heap[index].timer;
    size_t length = timers->length - 1;
    struct timer_entry last = timers->heap[length];
    SHARED_STORE(timers->length, length);
    SHARED_STORE(timer->heap_index, TIMER_NOT_WAITING);
    if (last.timer != timer) {
        if (index > 0 && entry_before(&last, &timers->heap[(index - 1) / HEAP_ARITY])) {
            heap_up(timers, index, last);
        }
        else {
            heap_down(timers, index, last);
        }
    }
    return timer;
}

static int
heap_grow(struct timers *timers)
{
    size_t capacity = timers->capacity == 0 ? ARRAY_FIRST : timers->capacity * 2;
    struct timer_entry *heap = timers->heap;
    if (capacity <= TIMER_NOT_WAITING) {
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

static inline int
heap_add(struct timers *timers, TimerHandle *timer)
{
    VERIFY(verify_lives(timer) && timer->heap_index == TIMER_NOT_WAITING);
    if (timers->length == timers->capacity && heap_grow(timers) < 0) {
        return -1;
    }
    timer->sequence = timers->sequence++;
    Py_INCREF(timer);
    heap_up(timers, timers->length,
            (struct timer_entry){.deadline_ns = timer_deadline(timer->when), .timer = timer});
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
        if (timer->heap_index != TIMER_NOT_WAITING) {
            removed = heap_remove(&loop->timers, timer->heap_index);
            heap_shrink(&loop->timers);
        }
    }
    Py_XDECREF(removed);
}

int
timer_move(Loop *loop, TimerHandle *timer, double when)
{
    bool waits = SHARED_LOAD(timer->heap_index) != TIMER_NOT_WAITING;
    Py_INCREF(timer);
    if (waits) {
        timer_unschedule(loop, timer);
    }
    timer->when = when;
    int result = waits ? timer_schedule(loop, timer) : 0;
    Py_DECREF(timer);
    return result;
}

void
timer_cancel(TimerHandle *timer)
{
    Handle *handle = &timer->handle;
    struct cancel cancel;
    bool waited = SHARED_LOAD(timer->heap_index) != TIMER_NOT_WAITING;    /* else the ready ring still tells of it */
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
    while (timers->length > 0 && timers->heap[0].deadline_ns <= now_ns
           && ready_has_room(&loop->ready)) {
        ready_push_steal(&loop->ready, (PyObject *)heap_remove(timers, 0), READY_HANDLE);
    }
    heap_shrink(timers);
}

void
timer_clear(Loop *loop)
{
    struct timers *timers = &loop->timers;
    GUARD(loop);
    while (timers->length > 0) {
        SHARED_STORE(timers->length, timers->length - 1);
        TimerHandle *timer = timers->heap[timers->length].timer;
        SHARED_STORE(timer->heap_index, TIMER_NOT_WAITING);
        handle_drop_steal(&timer->handle);    /* may run Python, which may schedule again */
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
    VERIFY(timers->length <= timers->capacity && timers->capacity <= TIMER_NOT_WAITING);
    VERIFY((timers->heap == NULL) == (timers->capacity == 0));
    struct verify_part part = verify_part(timers->length, turn);
    for (size_t i = part.from; i < part.to; i++) {
        const struct timer_entry *entry = &timers->heap[i];
        VERIFY(verify_lives(entry->timer));
        VERIFY(entry->timer->heap_index == i);
        VERIFY(entry->deadline_ns == timer_deadline(entry->timer->when));
        VERIFY(i == 0 || !entry_before(entry, &timers->heap[(i - 1) / HEAP_ARITY]));
        VERIFY(SHARED_LOAD(entry->timer->handle.loop) == loop);
        handle_verify(&entry->timer->handle);
    }
}
#endif
