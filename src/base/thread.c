/* thread.c - see thread.h. */
#include "base/thread.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>

/* Modules of the name service may take more than the 128 KiB that some C libraries give. */
#define STACK_MIN ((size_t)1024 * 1024)

int
thread_start(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    size_t stack;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return error;
    }
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_attr_getstacksize(&attributes, &stack) == 0 && stack < STACK_MIN) {
        pthread_attr_setstacksize(&attributes, STACK_MIN);
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, &attributes, body, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error;
}
