/* counters.c - see counters.h. */
#include "loop/counters.h"

#include "base/monotonic.h"

int64_t
delay_bound(unsigned int bucket)
{
    int64_t octave = INT64_C(1) << (DELAY_FIRST_OCTAVE + bucket / DELAY_PER_OCTAVE);
    return octave + octave / DELAY_PER_OCTAVE * (bucket % DELAY_PER_OCTAVE);
}

static unsigned int
delay_bucket(int64_t ns)
{
    if (ns < DELAY_LEAST_NS) {
        return 0;
    }
    unsigned int octave = 63 - (unsigned int)__builtin_clzll((unsigned long long)ns);
    unsigned int part = (unsigned int)(ns >> (octave - 3)) & (DELAY_PER_OCTAVE - 1);
    unsigned int bucket = (octave - DELAY_FIRST_OCTAVE) * DELAY_PER_OCTAVE + part;
    return bucket < DELAY_BUCKETS - 1 ? bucket : DELAY_BUCKETS - 1;
}

/* What comes due at some moment of the span waits for the rest of it: each delay up to its length is as
 * likely as any other. */
void
counters_note_delay(struct counters *counters, int64_t first_ns, int64_t span_ns)
{
    int64_t last_ns = first_ns + span_ns;
    for (unsigned int i = delay_bucket(first_ns); i < DELAY_BUCKETS; i++) {
        int64_t from = delay_bound(i), to = delay_bound(i + 1);
        if (from >= last_ns) {
            break;
        }
        if (from < first_ns) {
            from = first_ns;
        }
        if (to > last_ns || i == DELAY_BUCKETS - 1) {
            to = last_ns;
        }
        COUNT(counters->delay[i], (uint64_t)(to - from));
    }
    if ((uint64_t)last_ns > COUNTER_GET(counters->delay_max)) {
        COUNTER_SET(counters->delay_max, (uint64_t)last_ns);
    }
}

/* The loop may begin or end a sleep meanwhile: the sums are of a moment at which it did not. */
void
counters_read(const struct counters *counters, struct counters *copy, int64_t *now_ns)
{
    const uint64_t *from = (const uint64_t *)counters;
    uint64_t *to = (uint64_t *)copy;
    for (size_t i = 0; i < sizeof(*copy) / sizeof(*to); i++) {
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
    for (int tries = 0; tries < 100; tries++) {
        int64_t run = __atomic_load_n(&counters->run, __ATOMIC_ACQUIRE);
        int64_t idle = __atomic_load_n(&counters->idle, __ATOMIC_ACQUIRE);
        int64_t looked = __atomic_load_n(&counters->looked, __ATOMIC_ACQUIRE);
        *now_ns = monotonic_ns();
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        copy->run = run;
        copy->idle = idle;
        copy->looked = looked;
        if (idle == __atomic_load_n(&counters->idle, __ATOMIC_RELAXED)
            && run == __atomic_load_n(&counters->run, __ATOMIC_RELAXED)) {
            return;
        }
    }
}
