/* name_hook.c - names that behave as tests/unit/ops/test_look_up.py wants them to, for LD_PRELOAD.
 *
 * Those that begin with one of these words are 127.0.0.1, after what the word says:
 *   quick    nothing
 *   held     the test has called names_release()
 *   stuck    never
 *   system   an error of the system instead of an answer: EMFILE
 *   odd      nothing, but the family of the first answer is another
 * Any other name goes to the C library, so that the interpreter's own calls work as well. */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static atomic_bool released, threads_fail;
static atomic_int asked, running, unmasked;

void names_release(int value) { released = value; }
void names_fail_threads(int value) { threads_fail = value; }
int names_asked(void) { return asked; }
int names_running(void) { return running; }
int names_unmasked(void) { return unmasked; }    /* calls in a thread that takes SIGUSR1 */

static bool
begins(const char *host, const char *word)
{
    return strncmp(host, word, strlen(word)) == 0;
}

static void
note_mask(void)
{
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    if (!sigismember(&mask, SIGUSR1)) {
        unmasked++;
    }
}

int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
            struct addrinfo **found)
{
    int (*original)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&original = dlsym(RTLD_NEXT, "getaddrinfo");
    bool held = host != NULL && begins(host, "held");
    bool stuck = host != NULL && begins(host, "stuck");
    bool system = host != NULL && begins(host, "system");
    bool odd = host != NULL && begins(host, "odd");
    if (host == NULL || !(held || stuck || system || odd || begins(host, "quick"))) {
        return original(host, port, hints, found);
    }
    if (hints != NULL && hints->ai_flags & AI_NUMERICHOST) {
        return EAI_NONAME;
    }
    asked++;
    note_mask();
    running++;
    while (stuck || (held && !released)) {
        usleep(500);
    }
    running--;
    if (system) {
        errno = EMFILE;
        return EAI_SYSTEM;
    }
    int code = original("127.0.0.1", port, hints, found);
    if (odd && code == 0) {
        (*found)->ai_family = (*found)->ai_addr->sa_family = AF_APPLETALK;
    }
    return code;
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    int (*original)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&original = dlsym(RTLD_NEXT, "pthread_create");
    return threads_fail ? EAGAIN : original(thread, attr, start, arg);
}
