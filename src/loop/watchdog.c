/* watchdog.c - see watchdog.h.
 *
 * Two threads share a `struct watch` (the Python object holds it, and so does the thread in C):
 * the C thread looks, writes events, and signals; the one of Python takes the events. */
#include "loop/watchdog.h"

#include "base/monotonic.h"
#include "base/thread.h"
#include "loop/activity.h"
#include "loop/lookout.h"
#include "loop/turns.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 64            /* more than that are dropped: somebody takes none */
#define TICKS 5                  /* looks per threshold */
#define TICK_MAX_NS INT64_C(50000000)
#define TICK_MIN_NS INT64_C(500000)
/* For the thread of Python's to take an event; on a busy machine it may wait for the processor. */
#define GRACE_PART 0.4           /* of the threshold */
#define GRACE_MIN_NS INT64_C(10000000)
#define GRACE_MAX_NS INT64_C(50000000)
#define TELLING_NS INT64_C(500000000)     /* for it to note an event that it has taken */
#define DUMP_NS INT64_C(20000000)         /* for the signal's handler to begin */
#define DUMP_LATE_NS INT64_C(10000000000) /* for it to begin: the thread may wait for the processor */
#define DUMP_MAX 8192
/* Without a GIL the frames of a thread that runs may be looked at by that thread alone: by the handler. */
#ifdef Py_GIL_DISABLED
#define FRAMES_ARE_SHY true
#else
#define FRAMES_ARE_SHY false
#endif
#define RIPE_NS INT64_C(500000000)        /* for it to be read; on a busy machine it may come late */

enum event_kind {
    EVENT_STALL,
    EVENT_STILL,
    EVENT_END,
    EVENT_BUSY,
    EVENT_CALM,
};

struct event {
    enum event_kind kind;
    uint64_t number;             /* of the loop */
    unsigned long thread;
    int64_t lasted_ns;
    int64_t written_ns;
    double turns;                /* EVENT_BUSY: per second */
    char *dump;                  /* malloc: what faulthandler wrote, or NULL; */
    bool held;                   /* because the GIL was not to be had */
    bool unripe;                 /* nobody is to take it before it has its dump */
};

/* What is known of one loop. */
struct seen {
    uint64_t number;
    uint64_t pulse;
    int64_t since_ns;            /* the pulse has been this one since */
    int64_t next_report_ns;      /* 0: none is due */
    int64_t asked_ns;            /* an event was written that nobody has noted yet; 0: none */
    int64_t signalled_ns;        /* a dump is to be read; 0: none */
    bool held;                   /* why: the GIL is not to be had, or else Python's thread is busy */
    bool reported;
    bool there;                  /* in this look */
    struct window window;
};

struct watch {
    pthread_mutex_t lock;        /* for all but what is the C thread's alone */
    pthread_cond_t changed;
    unsigned int holders;
    bool stopped;
    bool ended;                  /* the C thread touches nothing of the process any more */
    bool waits;                  /* Python's thread waits for an event, or for the GIL to take it */
    bool telling;                /* it has taken a stall, and may have lost the GIL since */
    pid_t pid;                   /* whose threads they are: a child of fork() has none of them */
    struct event events[EVENTS_MAX];
    unsigned int first;
    unsigned int count;

    /* set before the thread starts */
    struct activities *all;
    int64_t threshold_ns;
    int64_t repeat_ns;           /* 0: a stall is told once */
    int64_t tick_ns;
    int64_t grace_ns;
    int signal;                  /* 0: no way to a stack while the GIL is held */
    void *handler;               /* of the signal: as long as it is this one */
    int dump_fd;                 /* where its handler writes to; read here, non-blocking */
    int error_fd;                /* standard error; -1: the program has none */

    /* the C thread's */
    int64_t looked_ns;           /* when it has last looked */
    struct seen *seen;
    size_t seen_length;
    size_t seen_capacity;
};

#ifdef __linux__
#define WAIT_CLOCK CLOCK_MONOTONIC
#else
#define WAIT_CLOCK CLOCK_REALTIME    /* there is no choice of clocks */
#endif

static void
watch_init_locks(struct watch *watch)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
#ifdef __linux__
    pthread_condattr_setclock(&attributes, WAIT_CLOCK);
#endif
    pthread_cond_init(&watch->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&watch->lock, NULL);
}

/* Until the next tick, or until it is stopped. With the lock. */
static void
watch_wait_tick(struct watch *watch)
{
    struct timespec until;
    clock_gettime(WAIT_CLOCK, &until);
    int64_t ns = until.tv_nsec + watch->tick_ns;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    int error = 0;
    while (!watch->stopped && error != ETIMEDOUT) {
        error = pthread_cond_timedwait(&watch->changed, &watch->lock, &until);
    }
}

static void
watch_drop(struct watch *watch)
{
    if (watch->pid != getpid()) {
        return;    /* in a child: a thread that is gone may hold anything of it */
    }
    pthread_mutex_lock(&watch->lock);
    bool last = --watch->holders == 0;
    pthread_mutex_unlock(&watch->lock);
    if (!last) {
        return;
    }
    for (; watch->count > 0; watch->count--) {
        free(watch->events[watch->first++ % EVENTS_MAX].dump);
    }
    activities_drop(watch->all);
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->lock);
    free(watch->seen);
    free(watch);
}

/* -- the C thread ------------------------------------------------------------------------ */

static void
watch_write(struct watch *watch, enum event_kind kind, const struct seen *seen,
            unsigned long thread, int64_t now)
{
    pthread_mutex_lock(&watch->lock);
    if (watch->count < EVENTS_MAX) {
        watch->events[(watch->first + watch->count++) % EVENTS_MAX] = (struct event){
            .kind = kind,
            .number = seen->number,
            .thread = thread,
            .lasted_ns = now - seen->since_ns,
            .written_ns = now,
            .unripe = FRAMES_ARE_SHY && kind <= EVENT_STILL && watch->signal != 0,
        };
        pthread_cond_broadcast(&watch->changed);
    }
    pthread_mutex_unlock(&watch->lock);
}

static void
watch_write_busy(struct watch *watch, const struct seen *seen, unsigned long thread, double turns)
{
    pthread_mutex_lock(&watch->lock);
    if (watch->count < EVENTS_MAX / 2) {    /* stalls go first */
        watch->events[(watch->first + watch->count++) % EVENTS_MAX] = (struct event){
            .kind = turns > 0 ? EVENT_BUSY : EVENT_CALM,
            .number = seen->number,
            .thread = thread,
            .turns = turns,
        };
        pthread_cond_broadcast(&watch->changed);
    }
    pthread_mutex_unlock(&watch->lock);
}

/* How long an event may wait for Python's thread before a signal asks for the stack; 0: for ever. `held`:
 * it then is the GIL that the thread waits for; else it is busy with what it was told before. */
static int64_t
watch_patience(struct watch *watch, bool *held)
{
    pthread_mutex_lock(&watch->lock);
    int64_t patience = 0;
    *held = watch->waits || watch->telling;
    if (watch->telling) {
        patience = TELLING_NS;
    }
    else if (watch->count > 0) {
        patience = watch->grace_ns;
    }
    pthread_mutex_unlock(&watch->lock);
    return patience;
}

static struct seen *
watch_find(struct watch *watch, uint64_t number)
{
    for (size_t i = 0; i < watch->seen_length; i++) {
        if (watch->seen[i].number == number) {
            return &watch->seen[i];
        }
    }
    if (watch->seen_length == watch->seen_capacity) {
        size_t capacity = watch->seen_capacity == 0 ? 8 : watch->seen_capacity * 2;
        struct seen *seen = realloc(watch->seen, capacity * sizeof(*seen));
        if (seen == NULL) {
            return NULL;    /* this loop is looked at when there is memory again */
        }
        watch->seen = seen;
        watch->seen_capacity = capacity;
    }
    struct seen *seen = &watch->seen[watch->seen_length++];
    *seen = (struct seen){.number = number};
    return seen;
}

/* Nobody of Python's can look: what the handler of faulthandler writes, in the loop's thread, is all
 * that there is. Called with the lock of the activities, so that the thread is still in its run. */
static void
watch_signal(struct watch *watch, struct seen *seen, const struct activity *activity, int64_t now)
{
    if (signal_handler(watch->signal) != watch->handler) {
        watch->signal = 0;    /* somebody else's now, or it would end the process */
        return;
    }
    char old[512];
    while (read(watch->dump_fd, old, sizeof(old)) > 0) {
    }
    seen->asked_ns = 0;
    if (pthread_kill(activity->pthread, watch->signal) == 0) {
        seen->signalled_ns = now;
    }
}

/* Into the first event of this loop that has none yet. */
static void
watch_add_dump(struct watch *watch, const struct seen *seen, char *dump)
{
    pthread_mutex_lock(&watch->lock);
    for (unsigned int i = 0; i < watch->count; i++) {
        struct event *event = &watch->events[(watch->first + i) % EVENTS_MAX];
        if (event->number == seen->number && event->dump == NULL && event->kind <= EVENT_STILL) {
            event->dump = dump;
            event->held = seen->held;
            event->unripe = false;
            dump = NULL;
            break;
        }
    }
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    free(dump);
}

/* After watch_signal(): the stack goes to the event, for later; to standard error now, if nobody else can
 * tell of it. */
static void
watch_read_dump(struct watch *watch, struct seen *seen)
{
    char *dump = malloc(DUMP_MAX);
    size_t length = dump == NULL ? 0 : read_all_for_a_while(watch->dump_fd, dump, DUMP_MAX);
    int64_t now = monotonic_ns();
    if (length == 0) {
        if (now - seen->signalled_ns > DUMP_LATE_NS) {
            seen->signalled_ns = 0;
        }
        free(dump);
        return;
    }
    seen->signalled_ns = 0;
    if (seen->held) {
        char head[160];
        int64_t ms = (now - seen->since_ns) / 1000000;
        int n = snprintf(head, sizeof(head),
                         "asyncloop: loop %llu blocked for %lld.%03lld s so far, in a call that "
                         "holds the GIL\n",
                         (unsigned long long)seen->number, (long long)(ms / 1000),
                         (long long)(ms % 1000));
        write_at_once(watch->error_fd, head, (size_t)n);
        write_at_once(watch->error_fd, dump, length);
        activities_note_stall(watch->all, seen->number, now - seen->since_ns, true, dump, length);
    }
    watch_add_dump(watch, seen, dump);
}

/* One loop that is in the turn in which it was the last time. */
static void
watch_stuck(struct watch *watch, struct seen *seen, const struct activity *activity, int64_t now)
{
    if (now - seen->since_ns < watch->threshold_ns) {
        return;
    }
    if (!seen->reported || (seen->next_report_ns != 0 && now >= seen->next_report_ns)) {
        watch_write(watch, seen->reported ? EVENT_STILL : EVENT_STALL, seen, activity->thread, now);
        COUNT(activity->counters->stalls, !seen->reported);
        seen->reported = true;
        seen->next_report_ns = watch->repeat_ns == 0 ? 0 : now + watch->repeat_ns;
        seen->asked_ns = now;
        if (FRAMES_ARE_SHY && watch->signal != 0) {
            seen->held = false;
            watch_signal(watch, seen, activity, now);
        }
    }
    else if (seen->asked_ns != 0 && now - seen->asked_ns >= watch->grace_ns) {
        int64_t patience = watch_patience(watch, &seen->held);
        if (patience == 0) {
            seen->asked_ns = 0;
        }
        else if (watch->signal != 0 && now - seen->asked_ns >= patience) {
            watch_signal(watch, seen, activity, now);
        }
    }
}

static void
watch_look(struct watch *watch, struct activity *activity, int64_t now)
{
    struct seen *seen = watch_find(watch, activity->number);
    if (seen == NULL) {
        return;
    }
    uint64_t pulse = __atomic_load_n(&activity->counters->pulse, __ATOMIC_RELAXED);
    seen->there = true;
    double turns;
    if (turns_look(&seen->window, activity, now, &turns)) {
        watch_write_busy(watch, seen, activity->thread, turns);
    }
    if (pulse == seen->pulse && (pulse & 1) != 0 && activity->thread != 0) {
        watch_stuck(watch, seen, activity, now);
        return;
    }
    if (seen->reported) {
        watch_write(watch, EVENT_END, seen, activity->thread, now);
    }
    *seen = (struct seen){
        .number = seen->number,
        .pulse = pulse,
        .since_ns = now,
        .there = true,
        .window = seen->window,
    };
}

/* Where this thread has not looked for long, the process was stopped, or the machine: the loops have not
 * gone on either, and are not to blame for it. */
static void
watch_leave_out_pause(struct watch *watch, int64_t now)
{
    int64_t pause = pause_between(watch->looked_ns, now, watch->tick_ns, watch->threshold_ns);
    for (size_t i = 0; pause > 0 && i < watch->seen_length; i++) {
        struct seen *seen = &watch->seen[i];
        seen->since_ns += pause;
        seen->next_report_ns += seen->next_report_ns != 0 ? pause : 0;
        seen->asked_ns += seen->asked_ns != 0 ? pause : 0;
        seen->window.began_ns = 0;
    }
}

/* What has waited for its dump for too long goes without: the thread does not come to write it, or has done
 * something else since. */
static void
watch_ripen(struct watch *watch, int64_t now)
{
    pthread_mutex_lock(&watch->lock);
    for (unsigned int i = 0; i < watch->count; i++) {
        struct event *event = &watch->events[(watch->first + i) % EVENTS_MAX];
        if (event->unripe && (watch->stopped || now - event->written_ns > RIPE_NS)) {
            event->unripe = false;
            pthread_cond_broadcast(&watch->changed);
        }
    }
    pthread_mutex_unlock(&watch->lock);
}

static void
watch_tick(struct watch *watch)
{
    int64_t now = monotonic_ns();
    watch_leave_out_pause(watch, now);
    for (size_t i = 0; i < watch->seen_length; i++) {
        watch->seen[i].there = false;
    }
    pthread_mutex_lock(&watch->all->lock);
    struct list_node *head = &watch->all->list;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        watch_look(watch, container_of(node, struct activity, node), now);
    }
    pthread_mutex_unlock(&watch->all->lock);
    bool reads = false;
    for (size_t i = 0; i < watch->seen_length; i++) {
        struct seen *seen = &watch->seen[i];
        reads |= seen->signalled_ns != 0;
        if (!seen->there) {
            if (seen->reported) {
                watch_write(watch, EVENT_END, seen, 0, now);
            }
            *seen = watch->seen[--watch->seen_length];
            i--;
        }
    }
    watch_ripen(watch, now);
    if (!reads) {
        return;
    }
    sleep_ns(DUMP_NS);
    for (size_t i = 0; i < watch->seen_length; i++) {
        if (watch->seen[i].signalled_ns != 0) {
            watch_read_dump(watch, &watch->seen[i]);
        }
    }
}

static void *
watch_main(void *arg)
{
    struct watch *watch = arg;
    pthread_mutex_lock(&watch->lock);
    while (!watch->stopped) {
        watch_wait_tick(watch);    /* when it is stopped it looks once more: what was told has ended, maybe */
        pthread_mutex_unlock(&watch->lock);
        watch_tick(watch);
        watch->looked_ns = monotonic_ns();
        pthread_mutex_lock(&watch->lock);
    }
    watch->ended = true;
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->lock);
    watch_drop(watch);
    return NULL;
}

static int
watch_start(struct watch *watch)
{
    watch->holders++;
    int error = thread_start(watch_main, watch);
    if (error != 0) {
        watch->holders--;
        watch->ended = true;
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* -- Python's face ------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    struct watch *watch;
} Watchdog;

static int64_t
tick_of(int64_t threshold_ns)
{
    int64_t tick = threshold_ns / TICKS;
    return tick > TICK_MAX_NS   ? TICK_MAX_NS
           : tick < TICK_MIN_NS ? TICK_MIN_NS
                                : tick;
}

static int64_t
grace_of(int64_t threshold_ns)
{
    int64_t grace = (int64_t)((double)threshold_ns * GRACE_PART);
    return grace > GRACE_MAX_NS   ? GRACE_MAX_NS
           : grace < GRACE_MIN_NS ? GRACE_MIN_NS
                                  : grace;
}

static PyObject *
Watchdog_new(PyTypeObject *type, PyObject *args, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    double threshold, repeat;
    int number, fd, error_fd;
    if (state == NULL
        || !PyArg_ParseTuple(args, "ddiii", &threshold, &repeat, &number, &fd, &error_fd)) {
        return NULL;
    }
    if (!(threshold > 0 && threshold < 1e9 && repeat >= 0 && repeat < 1e9)) {
        PyErr_SetString(PyExc_ValueError, "threshold and repeat have to be finite seconds");
        return NULL;
    }
    Watchdog *self = (Watchdog *)type->tp_alloc(type, 0);
    struct watch *watch = self == NULL ? NULL : calloc(1, sizeof(*watch));
    if (watch == NULL) {
        Py_XDECREF(self);
        return PyErr_NoMemory();
    }
    watch_init_locks(watch);
    watch->holders = 1;
    watch->pid = getpid();
    watch->threshold_ns = (int64_t)(threshold * 1e9);
    watch->repeat_ns = (int64_t)(repeat * 1e9);
    watch->tick_ns = tick_of(watch->threshold_ns);
    watch->grace_ns = grace_of(watch->threshold_ns);
    watch->signal = number;
    watch->handler = signal_handler(number);
    watch->dump_fd = fd;
    watch->error_fd = error_fd;
    watch->waits = true;    /* or is about to */
    watch->all = loop_state(state)->loops.activities;
    activities_hold(watch->all);
    self->watch = watch;
    if (watch_start(watch) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *
Watchdog_stop(PyObject *op, PyObject *ignored UNUSED)
{
    struct watch *watch = ((Watchdog *)op)->watch;
    if (watch->pid == getpid()) {
        Py_BEGIN_ALLOW_THREADS
        pthread_mutex_lock(&watch->lock);
        watch->stopped = true;
        pthread_cond_broadcast(&watch->changed);
        while (!watch->ended) {
            pthread_cond_wait(&watch->changed, &watch->lock);
        }
        pthread_mutex_unlock(&watch->lock);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static PyObject *
event_as_tuple(const struct event *event, bool over)
{
    static const char *const kinds[] = {"stall", "still", "end", "busy", "calm"};
    double waited = event->written_ns == 0 ? 0 : (double)(monotonic_ns() - event->written_ns) * 1e-9;
    return Py_BuildValue("(sKkdzdOO)", kinds[event->kind], (unsigned long long)event->number,
                         event->thread,
                         event->kind == EVENT_BUSY ? event->turns : (double)event->lasted_ns * 1e-9,
                         event->dump, waited, event->held ? Py_True : Py_False,
                         over ? Py_True : Py_False);
}

/* Takes the next event, if there is one, with the lock. `over`: what it tells of has ended since. */
static bool
watch_take(struct watch *watch, struct event *event, bool *over)
{
    watch->waits = false;
    *over = false;
    if (watch->count == 0) {
        return false;
    }
    *event = watch->events[watch->first++ % EVENTS_MAX];
    watch->count--;
    watch->telling = event->kind <= EVENT_STILL;
    for (unsigned int i = 0; i < watch->count && !*over; i++) {
        const struct event *later = &watch->events[(watch->first + i) % EVENTS_MAX];
        *over = later->number == event->number && later->kind == EVENT_END;
    }
    return true;
}

static PyObject *
Watchdog_wait(PyObject *op, PyObject *ignored UNUSED)
{
    struct watch *watch = ((Watchdog *)op)->watch;
    struct event event;
    bool over;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&watch->lock);
    watch->telling = false;
    watch->waits = true;
    while ((watch->count == 0 || watch->events[watch->first % EVENTS_MAX].unripe) && !watch->ended) {
        pthread_cond_wait(&watch->changed, &watch->lock);
    }
    pthread_mutex_unlock(&watch->lock);
    Py_END_ALLOW_THREADS
    /* Only with the GIL is it taken: else a dump would be made for nothing. */
    pthread_mutex_lock(&watch->lock);
    bool there = watch_take(watch, &event, &over);
    pthread_mutex_unlock(&watch->lock);
    if (!there) {
        Py_RETURN_NONE;
    }
    PyObject *tuple = event_as_tuple(&event, over);
    free(event.dump);
    return tuple;
}

static PyObject *
Watchdog_noted(PyObject *op, PyObject *ignored UNUSED)
{
    struct watch *watch = ((Watchdog *)op)->watch;
    pthread_mutex_lock(&watch->lock);
    watch->telling = false;
    pthread_mutex_unlock(&watch->lock);
    Py_RETURN_NONE;
}

static PyObject *
Watchdog_is_free(PyObject *ignored UNUSED, PyObject *number)
{
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return PyBool_FromLong(value > 0 && value <= INT_MAX && signal_handler((int)value) == NULL);
}

static void
Watchdog_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    struct watch *watch = ((Watchdog *)op)->watch;
    if (watch != NULL) {
        Py_XDECREF(Watchdog_stop(op, NULL));
        watch_drop(watch);
    }
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef Watchdog_methods[] = {
    {"wait", Watchdog_wait, METH_NOARGS,
     PyDoc_STR("wait($self, /)\n--\n\n"
               "The next event, without the GIL until there is one: ('stall', 'still' or 'end', the\n"
               "loop's number, the thread's, seconds so far, what faulthandler wrote, or None,\n"
               "seconds that the event has waited, whether that was for the GIL, whether the stall is\n"
               "over); the fourth is turns per second with 'busy', and none with 'calm'. None once\n"
               "the thread has ended.")},
    {"noted", Watchdog_noted, METH_NOARGS,
     PyDoc_STR("noted($self, /)\n--\n\n"
               "What wait() gave last is written down: whoever is told now may take his time.")},
    {"stop", Watchdog_stop, METH_NOARGS,
     PyDoc_STR("stop($self, /)\n--\n\n"
               "End the thread; it has ended when this returns. Nothing in a child of fork().")},
    {"is_free", Watchdog_is_free, METH_O | METH_STATIC,
     PyDoc_STR("is_free(number, /)\n--\n\n"
               "Has nobody in the process, not in C either, a handler for this signal?")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Watchdog_slots[] = {
    {Py_tp_doc, "Watchdog(threshold, repeat, signal, fd, stderr, /)\n--\n\n"
                "A thread that looks at the loops: see asyncloop.watchdog()."},
    {Py_tp_new, Watchdog_new},
    {Py_tp_dealloc, Watchdog_dealloc},
    {Py_tp_methods, Watchdog_methods},
    {0, NULL},
};

static PyType_Spec Watchdog_spec = {
    .name = "asyncloop._core.Watchdog",
    .basicsize = sizeof(Watchdog),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Watchdog_slots,
};

int
watchdog_init(PyObject *module, struct state *state)
{
    STATE_OWN(state, &loop_state(state)->watchdog);
    return state_add_type(module, &Watchdog_spec, NULL, 0, &loop_state(state)->watchdog.Type);
}
