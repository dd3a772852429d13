/* measure.h - what the load generators share: how long the answers took, and what is printed. */
#ifndef BENCHMARKS_MEASURE_H
#define BENCHMARKS_MEASURE_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define STALL_MS 3000      /* no answer on any connection for so long is an error */
#define SUB_BITS 5         /* histogram: 32 steps per power of two, 3 % wide */
#define BUCKETS (64 << SUB_BITS)

static uint64_t histogram[BUCKETS];
static uint64_t requests;
static uint64_t max_ns;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("{\"error\": \"", stdout);
    vprintf(format, arguments);
    fputs("\"}\n", stdout);
    va_end(arguments);
    exit(1);
}

static uint64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Bucket of a latency: the power of two, then SUB_BITS bits below the leading one. */
static unsigned
bucket_of(uint64_t ns)
{
    if (ns < (1u << SUB_BITS)) {
        return (unsigned)ns;
    }
    unsigned log = 63 - (unsigned)__builtin_clzll(ns);
    unsigned sub = (unsigned)(ns >> (log - SUB_BITS)) & ((1u << SUB_BITS) - 1);
    return ((log - SUB_BITS + 1) << SUB_BITS) + sub;
}

/* Lower end of a bucket, in ns. */
static uint64_t
bucket_start(unsigned bucket)
{
    unsigned log = bucket >> SUB_BITS;
    if (log == 0) {
        return bucket;
    }
    uint64_t sub = bucket & ((1u << SUB_BITS) - 1);
    return ((1u << SUB_BITS) + sub) << (log - 1);
}

static double
percentile_us(double share)
{
    uint64_t wanted = (uint64_t)(share * (double)requests);
    uint64_t seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > wanted) {
            return (double)bucket_start(i) / 1000.0;
        }
    }
    return (double)max_ns / 1000.0;
}

/* Count a request whose answer took so long. */
static inline void
request_done(uint64_t took_ns)
{
    histogram[bucket_of(took_ns)]++;
    requests++;
    if (took_ns > max_ns) {
        max_ns = took_ns;
    }
}

/* Print the line of JSON for a load that took so long. */
static void
print_result(uint64_t took_ns)
{
    if (requests == 0) {
        die("not one answer");
    }
    double took = (double)took_ns / 1e9;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu_us = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6
                    + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    printf("{\"requests\": %llu, \"seconds\": %.4f, \"rate\": %.1f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"max_us\": %.1f, \"cpu_us\": %.2f}\n",
           (unsigned long long)requests, took, (double)requests / took,
           percentile_us(0.50), percentile_us(0.99), (double)max_ns / 1000.0,
           cpu_us / (double)requests);
}

/* New bytes without a pattern that would hide those of another place. */
static char *
random_bytes(size_t size)
{
    char *bytes = malloc(size);
    if (bytes == NULL) {
        die("out of memory");
    }
    uint32_t x = 12345;
    for (size_t i = 0; i < size; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (char)(x >> 24);
    }
    return bytes;
}

#endif
