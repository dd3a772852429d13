/* marks.c - what a measured process asks of callgrind, and a clock that does not tick by itself.
 *
 * Preloaded into the interpreter. Python calls guard_begin() and guard_end() around a measured
 * part; callgrind then writes one file with the instructions between the two.
 *
 * In between CLOCK_MONOTONIC advances by a fixed step with every reading. A loop that decides
 * by the clock (whether to poll, say) would otherwise do so at random, since valgrind makes
 * everything fifty times slower. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#define STEP_NS 250   /* about what one iteration of a busy loop takes in real life */

void guard_begin(void);
void guard_end(const char *name);
int clock_gettime(clockid_t id, struct timespec *t);

static int frozen;
static struct timespec clock_now;

static int
real_clock(clockid_t id, struct timespec *t)
{
    return (int)syscall(SYS_clock_gettime, id, t);
}

int
clock_gettime(clockid_t id, struct timespec *t)
{
    if (!frozen || id != CLOCK_MONOTONIC) {
        return real_clock(id, t);
    }
    clock_now.tv_nsec += STEP_NS;
    if (clock_now.tv_nsec >= 1000000000) {
        clock_now.tv_nsec -= 1000000000;
        clock_now.tv_sec += 1;
    }
    *t = clock_now;
    return 0;
}

void
guard_begin(void)
{
    real_clock(CLOCK_MONOTONIC, &clock_now);
    frozen = 1;
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void
guard_end(const char *name)
{
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
    frozen = 0;
}
