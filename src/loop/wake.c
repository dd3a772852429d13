/* wake.c - see wake.h. */
#include "loop/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void
wake_write(struct inbox *inbox)
{
    static const uint64_t one = 1;
    /* It can only fail by being full, and then the loop wakes up anyway. */
    ssize_t ignored UNUSED = write(inbox->wake_write_fd, &one, sizeof(one));
}

void
wake_empty(Loop *loop)
{
    /* The iteration drains the inbox after each poll; here only the descriptor. */
    char waste[64];
    ssize_t ignored UNUSED = read(loop->inbox.wake_fd, waste, sizeof(waste));
}

void
wake_wait_while(Loop *loop, const uint32_t *runner)
{
    struct inbox *inbox = &loop->inbox;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&inbox->lock);
    /* Before the look: the loop sees the one or has cleared the other. */
    __atomic_add_fetch(&inbox->waiters, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(runner, __ATOMIC_SEQ_CST) != 0) {
        pthread_cond_wait(&inbox->released, &inbox->lock);
    }
    __atomic_sub_fetch(&inbox->waiters, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&inbox->lock);
    Py_END_ALLOW_THREADS
}

void
wake_tell_all_waiters(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    pthread_cond_broadcast(&loop->inbox.released);
    pthread_mutex_unlock(&loop->inbox.lock);
}

void
loop_wake(Loop *loop)
{
    pthread_mutex_lock(&loop->inbox.lock);
    __atomic_store_n(&loop->inbox.poked, true, __ATOMIC_SEQ_CST);
    wake_locked(&loop->inbox);
    pthread_mutex_unlock(&loop->inbox.lock);
}

int
wake_open_pipe(int fds[2])
{
#ifdef __linux__
    int result = pipe2(fds, O_CLOEXEC | O_NONBLOCK);
#else
    int result = pipe(fds);
    for (int i = 0; result == 0 && i < 2; i++) {
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
#endif
    if (result < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return result;
}
