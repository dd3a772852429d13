/* turns.c - see turns.h. */
#include "loop/turns.h"

/* It is told of once in a window, while it goes on. */
#define WINDOW_NS INT64_C(150000000)
#define BUSY_TURNS_PER_SECOND 2000
/* Of a sleep that ends at once: for each turn, what the system call takes; where other processes have
 * the processor meanwhile it is longer, but not most of the time. */
#define BUSY_SLEEP_NS 20000
#define BUSY_SLEEP_PART 0.6
#define BUSY_CALLS 50            /* more turns than that for each call of another thread */

bool
turns_look(struct window *window, const struct activity *activity, int64_t now, double *told)
{
    const struct counters *counters = activity->counters;
    int64_t length = now - window->began_ns;
    if (window->began_ns != 0 && length < WINDOW_NS) {
        return false;
    }
    uint64_t count = __atomic_load_n(&counters->turns, __ATOMIC_RELAXED);
    uint64_t from_threads = __atomic_load_n(&counters->from_threads, __ATOMIC_RELAXED);
    int64_t idle = span_at(__atomic_load_n(&counters->idle, __ATOMIC_RELAXED), now);
    uint64_t turns = count - window->turns;
    int64_t slept = idle - window->idle;
    double per_second = (double)turns * 1e9 / (double)length;
    bool busy = window->began_ns != 0 && activity->thread != 0 && per_second >= BUSY_TURNS_PER_SECOND
                && (slept < (int64_t)turns * BUSY_SLEEP_NS
                    || (double)slept < (double)length * BUSY_SLEEP_PART)
                && (from_threads - window->from_threads) * BUSY_CALLS < turns;
    bool tells = busy || window->busy;
    *told = busy ? per_second : 0;
    *window = (struct window){
        .began_ns = now,
        .turns = count,
        .idle = idle,
        .from_threads = from_threads,
        .busy = busy,
    };
    return tells;
}
