/* tuning.h - constants that are chosen for speed or fairness alone, at values that no program would choose.
 *
 * What a constant is and why it is as large stands beside the code that it is for: TUNED(NAME, value). With
 * ASYNCLOOP_HOSTILE=1 at build time all of them have the values below: each ring, table and
 * buffer grows at once, each budget is used up, each batch is too small. Nothing may show it but the time.
 *
 * As small as goes: 1 to 3. Two are larger, so that whatever moves megabytes comes to an end. */
#ifndef ASYNCLOOP_TUNING_H
#define ASYNCLOOP_TUNING_H

#ifdef ASYNCLOOP_HOSTILE

#define TUNED(name, value) HOSTILE_##name

/* base/ */
#define HOSTILE_ARRAY_FIRST 2
#define HOSTILE_FREELIST_MAX 1

/* loop/ */
#define HOSTILE_HEAP_ARITY 2
#define HOSTILE_DIRECT_MAX 1
#define HOSTILE_DRAIN_MAX 1
#define HOSTILE_PAGE_BITS 1
#define HOSTILE_SCRATCH_KEPT 1
#define HOSTILE_HANDLE_INLINE_ARGS 1
#define HOSTILE_MANY_EVENTS 1
#define HOSTILE_SLOW_ANSWER_NS 1
#define HOSTILE_TIMERFD_HORIZON_NS 1

/* tasks/ */
#define HOSTILE_KEPT_VALUE_MAX 1

/* net/ */
#define HOSTILE_SPARE_MIN 1
#define HOSTILE_JOIN_BYTES 3
#define HOSTILE_IO_IOV_MAX 2
#define HOSTILE_WRITE_BUDGET_BYTES ((size_t)4093)
#define HOSTILE_LARGE_BYTES 3
#define HOSTILE_READER_LARGE_BYTES 3
#define HOSTILE_HOLD_BYTES 3
#define HOSTILE_PUSH_INTERVAL_NS 1
#define HOSTILE_DATAGRAM_BUDGET 1
#define HOSTILE_ADDRESS_CACHE_SIZE 2

/* tls/ */
#define HOSTILE_GATHER_PIECES 2
#define HOSTILE_PLAIN_BYTES ((size_t)509)
#define HOSTILE_TLS_OUT_RECORDS 1

/* ops/ */
#define HOSTILE_LOOK_UP_IDLE_MS 1
#define HOSTILE_CHECK_INTERVAL_NS 1
#define HOSTILE_SEND_UNLOCKED_BYTES 1

/* src/ itself */
#define HOSTILE_POLL_INTERVAL_NS 1

#else

#define TUNED(name, value) (value)

#endif

/* Items of an array or ring when it is first used. It doubles from there, and stays as large as it ever
 * had to be, so that no benchmark row shows where it began. A power of two. */
#define ARRAY_FIRST TUNED(ARRAY_FIRST, 8)

#endif
