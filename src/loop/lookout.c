/* lookout.c - see lookout.h. */
#include "loop/lookout.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* On a busy machine a thread waits for the processor, too, but not for so long. */
#define PAUSE_MIN_NS INT64_C(1000000000)
#define PIPE_ATOMIC 4096          /* a pipe that may be written to takes that much */
#define MORE_NS INT64_C(20000000) /* for more to come */

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
