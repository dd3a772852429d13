/* look_up.c - see look_up.h.
 *
 * Invariants:
 *   - a look-up is in the list `asked` exactly as long as it has an Operation, and is freed by a
 *     thread only when none has one any more;
 *   - there are as many threads as look-ups that are not finished, up to LOOK_UPS_MAX, so that
 *     none waits while a thread could be had for it.
 *
 * (Benchmark row: getaddrinfo, localhost. By a thread of Python's the hand-over, there and back,
 * took longer than the look-up.) */
#include "ops/look_up.h"

#include "base/thread.h"
#include "loop/inbox.h"
#include "tasks/future.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct look_up {
    struct posted posted;
    struct list_node waiting;     /* in the queue until a thread takes it */
    struct list_node asked;
    Operation *op;                /* strong; NULL: nobody wants the answer */
    look_up_reader read;
    const char *host;             /* behind the struct, or NULL */
    const char *port;
    struct addrinfo hints;
    struct addrinfo *found;
    int code;
    int error;                    /* errno with it */
};

struct look_ups {
    pthread_mutex_t lock;         /* for what follows; held across no Python and no look-up */
    pthread_cond_t work;
    Loop *loop;                   /* borrowed; NULL once closed */
    struct list_node waiting;
    unsigned int holders;         /* the loop and the threads */
    unsigned int threads;
    unsigned int unfinished;      /* look-ups that wait or are under way */
    unsigned int posting;         /* threads that touch the loop, without the lock */
    int idle_ms;
    struct list_node asked;       /* the loop's thread's, without the lock */
};

/* -- life, in any thread --------------------------------------------------------------- */

static void
look_up_free(struct look_up *look_up)
{
    if (look_up->found != NULL) {
        freeaddrinfo(look_up->found);
    }
    free(look_up);
}

static void
look_ups_init_locks(struct look_ups *ups)
{
    pthread_mutex_init(&ups->lock, NULL);
#ifdef __APPLE__
    pthread_cond_init(&ups->work, NULL);
#else
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ups->work, &attr);
    pthread_condattr_destroy(&attr);
#endif
}

/* Gives the lock back as well. */
static void
look_ups_release_locked(struct look_ups *ups)
{
    bool last = --ups->holders == 0;
    pthread_mutex_unlock(&ups->lock);
    if (last) {
        pthread_cond_destroy(&ups->work);
        pthread_mutex_destroy(&ups->lock);
        free(ups);
    }
}

/* -- a thread's side ----------------------------------------------------------------------- */

/* False: nothing came for so long. Others may have taken what came. */
static bool
look_ups_wait_locked(struct look_ups *ups)
{
    struct timespec until;
#ifdef __APPLE__
    until = (struct timespec){
        .tv_sec = ups->idle_ms / 1000,
        .tv_nsec = ups->idle_ms % 1000 * 1000000L,
    };
    return pthread_cond_timedwait_relative_np(&ups->work, &ups->lock, &until) != ETIMEDOUT;
#else
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + ups->idle_ms % 1000 * INT64_C(1000000);
    until.tv_sec += ups->idle_ms / 1000 + ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    return pthread_cond_timedwait(&ups->work, &ups->lock, &until) != ETIMEDOUT;
#endif
}

/* The next one of the queue; NULL: the thread is to end. */
static struct look_up *
look_ups_next_locked(struct look_ups *ups)
{
    bool patient = true;
    while (list_empty(&ups->waiting)) {
        if (ups->loop == NULL || !patient) {
            return NULL;
        }
        patient = look_ups_wait_locked(ups);
    }
    struct look_up *look_up = container_of(ups->waiting.next, struct look_up, waiting);
    list_remove(&look_up->waiting);
    return look_up;
}

/* The lock is given back for the time that it takes to wake the loop, which will want it;
 * look_ups_close() waits for that moment. */
static void
look_up_post_locked(struct look_ups *ups, struct look_up *look_up)
{
    Loop *loop = ups->loop;
    ups->posting++;
    pthread_mutex_unlock(&ups->lock);
    inbox_post(loop, &look_up->posted);
    pthread_mutex_lock(&ups->lock);
    if (--ups->posting == 0 && ups->loop == NULL) {
        pthread_cond_broadcast(&ups->work);
    }
}

static void *
look_ups_work(void *arg)
{
    struct look_ups *ups = arg;
    struct look_up *look_up;
#ifdef __linux__
    pthread_setname_np(pthread_self(), "asyncloop-names");
#endif
    pthread_mutex_lock(&ups->lock);
    while ((look_up = look_ups_next_locked(ups)) != NULL) {
        pthread_mutex_unlock(&ups->lock);
        look_up->code = getaddrinfo(look_up->host, look_up->port, &look_up->hints,
                                    &look_up->found);
        look_up->error = errno;
        pthread_mutex_lock(&ups->lock);
        ups->unfinished--;
        if (ups->loop != NULL) {
            look_up_post_locked(ups, look_up);
        }
        else {
            look_up_free(look_up);
        }
    }
    ups->threads--;
    look_ups_release_locked(ups);
    return NULL;
}

static bool
look_ups_start_thread_locked(struct look_ups *ups)
{
    bool started = thread_start(look_ups_work, ups) == 0;
    ups->threads += started;
    ups->holders += started;
    return started;
}

/* Puts it into the queue; false: there is no thread at all, and it is not in it. */
static bool
look_ups_add(struct look_ups *ups, struct look_up *look_up)
{
    pthread_mutex_lock(&ups->lock);
    bool possible = (ups->unfinished < ups->threads || ups->threads >= LOOK_UPS_MAX
                     || look_ups_start_thread_locked(ups) || ups->threads > 0);
    if (possible) {
        ups->unfinished++;
        list_append(&ups->waiting, &look_up->waiting);
    }
    pthread_mutex_unlock(&ups->lock);
    if (possible) {
        pthread_cond_signal(&ups->work);
    }
    return possible;
}

/* -- the loop's side ----------------------------------------------------------------------- */

/* The Operation that waited: its reference, or NULL. */
static Operation *
look_up_detach(struct look_up *look_up)
{
    Operation *op = look_up->op;
    if (op != NULL) {
        op->look_up = NULL;
        look_up->op = NULL;
        list_remove(&look_up->asked);
    }
    return op;
}

/* Out of the inbox, in the loop's thread. */
static void
look_up_answered(struct posted *posted, Loop *loop)
{
    struct look_up *look_up = container_of(posted, struct look_up, posted);
    Operation *op = look_up_detach(look_up);
    if (op == NULL) {
        look_up_free(look_up);
        return;
    }
    PyObject *value = look_up->read(loop->state, look_up->code, look_up->error, look_up->found);
    look_up_free(look_up);
    op->phase = value != NULL ? LOOK_UP_ANSWERED : LOOK_UP_FAILED;
    Py_XSETREF(op->value, value != NULL ? value : PyErr_GetRaisedException());
    /* Making the list may have run Python, which left the Operation. */
    if (op->future != NULL && future_set_result_if_pending(op->future, Py_None) < 0) {
        loop_report(loop, "A name could not be given to who waits for it", NULL, NULL);
    }
    Py_DECREF(op);
}

void
look_up_leave(Operation *op)
{
    struct look_up *look_up = op->look_up;
    if (look_up == NULL) {
        return;
    }
    struct look_ups *ups = ops_loop(op->loop)->look_ups;
    look_up_detach(look_up);
    pthread_mutex_lock(&ups->lock);
    bool waiting = !list_empty(&look_up->waiting);
    if (waiting) {
        list_remove(&look_up->waiting);
        ups->unfinished--;
    }
    pthread_mutex_unlock(&ups->lock);
    if (waiting) {
        look_up_free(look_up);
    }
    Py_DECREF(op);
}

static struct look_ups *
look_ups_of(Loop *loop)
{
    if (ops_loop(loop)->look_ups == NULL) {
        struct look_ups *ups = malloc(sizeof(*ups));
        if (ups == NULL) {
            return NULL;
        }
        *ups = (struct look_ups){.loop = loop, .holders = 1};
        ups->idle_ms = ops_state(loop->state)->resolve.idle_ms;
        list_init(&ups->waiting);
        list_init(&ups->asked);
        look_ups_init_locks(ups);
        ops_loop(loop)->look_ups = ups;
    }
    return ops_loop(loop)->look_ups;
}

/* A copy behind `*room`, which moves on; NULL stays NULL. */
static const char *
copy_text(const char *text, size_t size, char **room)
{
    if (text == NULL) {
        return NULL;
    }
    char *copy = memcpy(*room, text, size);
    *room += size;
    return copy;
}

static struct look_up *
look_up_new(const char *host, const char *port, const struct addrinfo *hints, look_up_reader read)
{
    size_t host_size = host == NULL ? 0 : strlen(host) + 1;
    size_t port_size = port == NULL ? 0 : strlen(port) + 1;
    struct look_up *look_up = malloc(sizeof(*look_up) + host_size + port_size);
    if (look_up == NULL) {
        return NULL;
    }
    char *room = (char *)(look_up + 1);
    *look_up = (struct look_up){.posted.run = look_up_answered, .hints = *hints, .read = read};
    look_up->host = copy_text(host, host_size, &room);
    look_up->port = copy_text(port, port_size, &room);
    list_init(&look_up->waiting);
    list_init(&look_up->asked);
    return look_up;
}

int
look_up_begin(Operation *op, const char *host, const char *port, const struct addrinfo *hints,
              look_up_reader read)
{
    Loop *loop = op->loop;
    if (loop_check_closed(loop) < 0) {
        return -1;
    }
    Future *future = (Future *)future_new(loop->state, (PyObject *)loop);
    if (future == NULL) {
        return -1;
    }
    struct look_ups *ups = look_ups_of(loop);
    struct look_up *look_up = ups == NULL ? NULL : look_up_new(host, port, hints, read);
    if (look_up == NULL) {
        Py_DECREF(future);
        PyErr_NoMemory();
        return -1;
    }
    if (!look_ups_add(ups, look_up)) {
        look_up_free(look_up);
        Py_DECREF(future);
        PyErr_SetString(PyExc_RuntimeError, "can't start new thread");
        return -1;
    }
    look_up->op = (Operation *)Py_NewRef(op);
    list_append(&ups->asked, &look_up->asked);
    op->look_up = look_up;
    op->future = future;
    op->phase = LOOK_UP_ASKED;
    return 0;
}

void
look_ups_close(Loop *loop)
{
    struct look_ups *ups = ops_loop(loop)->look_ups;
    if (ups == NULL) {
        return;
    }
    /* Before the threads know of the end: from then on they free what is answered. May run Python,
     * which takes a closed loop for what it is. */
    while (!list_empty(&ups->asked)) {
        struct look_up *look_up = container_of(ups->asked.next, struct look_up, asked);
        Py_XDECREF(look_up_detach(look_up));
    }
    pthread_mutex_lock(&ups->lock);
    ups->loop = NULL;
    while (ups->posting > 0) {
        pthread_cond_wait(&ups->work, &ups->lock);
    }
    pthread_mutex_unlock(&ups->lock);
    inbox_run_posted(loop);
    ops_loop(loop)->look_ups = NULL;
    pthread_mutex_lock(&ups->lock);
    while (!list_empty(&ups->waiting)) {
        struct look_up *look_up = container_of(ups->waiting.next, struct look_up, waiting);
        list_remove(&look_up->waiting);
        look_up_free(look_up);
    }
    pthread_cond_broadcast(&ups->work);
    look_ups_release_locked(ups);
}

int
look_ups_traverse(Loop *loop, visitproc visit, void *arg)
{
    struct look_ups *ups = ops_loop(loop)->look_ups;
    if (ups != NULL) {
        for (struct list_node *node = ups->asked.next; node != &ups->asked; node = node->next) {
            Py_VISIT(container_of(node, struct look_up, asked)->op);
        }
    }
    return 0;
}

/* -- fork ---------------------------------------------------------------------------------- */

/* The threads are the parent's, and may have held the lock, or be in the middle of the queue or
 * of an answer: whatever is still wanted is asked anew. What is not is lost. */
void
look_ups_forked(Loop *loop)
{
    struct look_ups *ups = ops_loop(loop)->look_ups;
    if (ups == NULL) {
        return;
    }
    look_ups_init_locks(ups);
    ups->holders = 1;
    ups->threads = ups->unfinished = ups->posting = 0;
    list_init(&ups->waiting);
    for (struct list_node *node = ups->asked.next; node != &ups->asked; node = node->next) {
        struct look_up *look_up = container_of(node, struct look_up, asked);
        look_up->found = NULL;
        list_append(&ups->waiting, &look_up->waiting);
        ups->unfinished++;
    }
}

/* Where no thread can be started, the next look-up tries again. */
void
look_ups_after_fork(Loop *loop)
{
    struct look_ups *ups = ops_loop(loop)->look_ups;
    if (ups == NULL) {
        return;
    }
    pthread_mutex_lock(&ups->lock);
    while (ups->threads < ups->unfinished && ups->threads < LOOK_UPS_MAX
           && look_ups_start_thread_locked(ups)) {
    }
    pthread_mutex_unlock(&ups->lock);
}
