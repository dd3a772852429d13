/* turns.c - see turns.h. */
#include "loop/turns.h"

#define WINDOW_NS INT64_C(150000000)
/* It is told of in each of the first windows, then after so long while it goes on: who is told takes the
 * GIL and has the loop note down what it runs, which a loop with work to do should hardly feel
 * (`benchmarks.observe cost`). A spin that follows work is still found within two seconds: it has to be
 * told of four times. */
#define FIRST_WINDOWS 4
#define SELDOM_NS INT64_C(400000000)
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
    uint32_t before = window->busy, windows = busy ? before + 1 : 0;
    bool tells = busy ? windows <= FIRST_WINDOWS || now - window->told_ns >= SELDOM_NS : before > 0;
    *told = busy ? per_second : 0;
    *window = (struct window){
        .began_ns = now,
        .turns = count,
        .idle = idle,
        .from_threads = from_threads,
        .told_ns = tells ? now : window->told_ns,
        .busy = windows,
    };
    return tells;
}
