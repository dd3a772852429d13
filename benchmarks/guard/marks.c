/* marks.c - what a measured process asks of callgrind, and a clock that does not tick by itself.
 *
 * Preloaded into the interpreter. Python calls guard_begin() and guard_end() around a measured
 * part; callgrind then writes one file with the instructions between the two.
 *
 * In between CLOCK_MONOTONIC starts at a whole second and advances by a fixed step with every
 * reading. A loop that decides by the clock (whether to poll, say) would otherwise do so at
 * random, since valgrind makes everything fifty times slower. Afterwards it goes on from where
 * it is then, for a clock that goes back is no clock. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#define STEP_NS 250   /* about what one iteration of a busy loop takes in real life */
#define SECOND_NS 1000000000LL

void guard_begin(void);
void guard_end(const char *name);
int clock_gettime(clockid_t id, struct timespec *t);

static int frozen;
static struct timespec clock_now;
static long long ahead_ns;   /* of the real clock, outside the measured parts */

static int
real_clock(clockid_t id, struct timespec *t)
{
    return (int)syscall(SYS_clock_gettime, id, t);
}

int
clock_gettime(clockid_t id, struct timespec *t)
{
    if (id != CLOCK_MONOTONIC) {
        return real_clock(id, t);
    }
    if (!frozen) {
        int status = real_clock(id, t);
        long long ns = t->tv_sec * SECOND_NS + t->tv_nsec + ahead_ns;
        t->tv_sec = ns / SECOND_NS;
        t->tv_nsec = ns % SECOND_NS;
        return status;
    }
    clock_now.tv_nsec += STEP_NS;
    if (clock_now.tv_nsec >= SECOND_NS) {
        clock_now.tv_nsec -= SECOND_NS;
        clock_now.tv_sec += 1;
    }
    *t = clock_now;
    return 0;
}

void
guard_begin(void)
{
    clock_gettime(CLOCK_MONOTONIC, &clock_now);
    clock_now.tv_sec += 1;
    clock_now.tv_nsec = 0;
    frozen = 1;
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void
guard_end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
    struct timespec real;
    real_clock(CLOCK_MONOTONIC, &real);
    ahead_ns = (clock_now.tv_sec - real.tv_sec) * SECOND_NS + clock_now.tv_nsec - real.tv_nsec;
    frozen = 0;
}
