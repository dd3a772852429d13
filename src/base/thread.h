/* thread.h - threads of ours, of which Python knows nothing. */
#ifndef ASYNCLOOP_THREAD_H
#define ASYNCLOOP_THREAD_H

/* Starts a detached thread that runs body(arg). It handles no signal of the process: those are for
 * the threads that Python knows. 0, or the error of pthread_create(): no thread was started. Sets no
 * exception, and may be called without the GIL. */
int thread_start(void *(*body)(void *), void *arg);

#endif
