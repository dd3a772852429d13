/* lookout.c - see lookout.h. */
#include "loop/lookout.h"

#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICKS 5                   /* looks per threshold */
#define TICK_MAX_NS INT64_C(50000000)
/* On a busy machine a thread waits for the processor, too, but not for so long. */
#define PAUSE_MIN_NS INT64_C(1000000000)
#define PIPE_ATOMIC 4096          /* a pipe that may be written to takes that much */
#define MORE_NS INT64_C(20000000) /* for more to come */

#ifdef __linux__
#define WAIT_CLOCK CLOCK_MONOTONIC
#else
#define WAIT_CLOCK CLOCK_REALTIME    /* there is no choice of clocks */
#endif

/* -- life ------------------------------------------------------------------------------- */

void
lookout_init(struct lookout *lookout, struct activities *all, double threshold, int64_t tick_min_ns,
             size_t seen_bytes)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
#ifdef __linux__
    pthread_condattr_setclock(&attributes, WAIT_CLOCK);
#endif
    pthread_cond_init(&lookout->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&lookout->lock, NULL);
    lookout->holders = 1;
    lookout->ended = true;
    lookout->pid = getpid();
    lookout->all = all;
    activities_hold(all);
    lookout->threshold_ns = (int64_t)(threshold * 1e9);
    int64_t tick = lookout->threshold_ns / TICKS;
    lookout->tick_ns = tick > TICK_MAX_NS   ? TICK_MAX_NS
                       : tick < tick_min_ns ? tick_min_ns
                                            : tick;
    lookout->seen.item_bytes = seen_bytes;
}

int
lookout_start(struct lookout *lookout, void *(*body)(void *lookout))
{
    lookout->holders++;
    lookout->ended = false;
    errno = thread_start(body, lookout);
    if (errno != 0) {
        lookout->holders--;
        lookout->ended = true;
        return -1;
    }
    return 0;
}

void
lookout_wait_tick(struct lookout *lookout)
{
    struct timespec until;
    clock_gettime(WAIT_CLOCK, &until);
    int64_t ns = until.tv_nsec + lookout->tick_ns;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    int error = 0;
    while (!lookout->stopped && error != ETIMEDOUT) {
        error = pthread_cond_timedwait(&lookout->changed, &lookout->lock, &until);
    }
}

void
lookout_end(struct lookout *lookout)
{
    lookout->ended = true;
    pthread_cond_broadcast(&lookout->changed);
    pthread_mutex_unlock(&lookout->lock);
}

void
lookout_stop(struct lookout *lookout)
{
    if (lookout->pid != getpid()) {
        return;
    }
    pthread_mutex_lock(&lookout->lock);
    lookout->stopped = true;
    pthread_cond_broadcast(&lookout->changed);
    while (!lookout->ended) {
        pthread_cond_wait(&lookout->changed, &lookout->lock);
    }
    pthread_mutex_unlock(&lookout->lock);
}

bool
lookout_leave(struct lookout *lookout)
{
    if (lookout->pid != getpid()) {
        return false;    /* the memory is lost, which a child has room for */
    }
    pthread_mutex_lock(&lookout->lock);
    bool last = --lookout->holders == 0;
    pthread_mutex_unlock(&lookout->lock);
    if (last) {
        activities_drop(lookout->all);
        pthread_cond_destroy(&lookout->changed);
        pthread_mutex_destroy(&lookout->lock);
        free(lookout->seen.items);
    }
    return last;
}

bool
lookout_may_signal(struct lookout *lookout)
{
    if (lookout->signal != 0 && signal_handler(lookout->signal) != lookout->handler) {
        lookout->signal = 0;    /* somebody else's now, or it would end the process */
    }
    return lookout->signal != 0;
}

/* -- what is known of the loops -------------------------------------------------------------- */

void *
seen_find(struct seen_list *list, uint64_t number)
{
    for (size_t i = 0; i < list->length; i++) {
        struct seen_loop *seen = seen_at(list, i);
        if (seen->number == number) {
            return seen;
        }
    }
    if (list->length == list->capacity) {
        size_t capacity = list->capacity == 0 ? 8 : list->capacity * 2;
        char *items = realloc(list->items, capacity * list->item_bytes);
        if (items == NULL) {
            return NULL;
        }
        list->items = items;
        list->capacity = capacity;
    }
    struct seen_loop *seen = seen_at(list, list->length++);
    memset(seen, 0, list->item_bytes);
    seen->number = number;
    return seen;
}

void
seen_remove(struct seen_list *list, size_t i)
{
    memmove(seen_at(list, i), seen_at(list, --list->length), list->item_bytes);
}

/* -- clocks, signals, descriptors -------------------------------------------------------------- */

int64_t
pause_between(int64_t looked_ns, int64_t now_ns, int64_t tick_ns, int64_t threshold_ns)
{
    int64_t pause = now_ns - looked_ns - tick_ns;
    int64_t least = threshold_ns > PAUSE_MIN_NS ? threshold_ns : PAUSE_MIN_NS;
    return looked_ns == 0 || pause < least ? 0 : pause;
}

void *
signal_handler(int number)
{
    struct sigaction action;
    if (number <= 0 || sigaction(number, NULL, &action) < 0) {
        return NULL;
    }
    return (action.sa_flags & SA_SIGINFO) != 0 ? (void *)action.sa_sigaction
                                               : (void *)action.sa_handler;
}

void
write_at_once(int fd, const char *text, size_t length)
{
    struct pollfd look = {.fd = fd, .events = POLLOUT};
    while (fd >= 0 && length > 0 && poll(&look, 1, 0) > 0 && (look.revents & POLLOUT) != 0) {
        ssize_t written = write(fd, text, length < PIPE_ATOMIC ? length : PIPE_ATOMIC);
        if (written <= 0) {
            return;
        }
        text += written;
        length -= (size_t)written;
    }
}

size_t
read_all_for_a_while(int fd, char *text, size_t size)
{
    size_t length = 0, before;
    do {
        before = length;
        ssize_t got = 0;
        while (length < size - 1 && (got = read(fd, text + length, size - 1 - length)) > 0) {
            length += (size_t)got;
        }
        if (length > before) {
            sleep_ns(MORE_NS);
        }
    } while (length > before);
    text[length] = '\0';
    return length;
}

void
sleep_ns(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&time, &time) < 0 && errno == EINTR) {
    }
}
