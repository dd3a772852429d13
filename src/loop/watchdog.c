/* watchdog.c - a thread in C that sees a loop that does not go on, while it does not.
 *
 * Owns:     the thread, which has no thread state and takes no GIL; what it has seen waits in a
 *           queue for a thread of Python's (asyncloop/_watchdog.py), which makes a report of it.
 * Promises: a stall is noted within a tick (a fifth of the threshold). If nobody takes it from the
 *           queue, because the code that blocks holds the GIL, the loop's thread gets a signal whose
 *           handler (faulthandler's) writes its Python stack, and that goes to standard error.
 * Ignores:  what the loop does: it looks at activity.h alone.
 *
 * Two threads share a `struct watch` (the Python object holds it, and so does the thread in C):
 * the C thread looks, writes events, and signals; the one of Python takes the events. */
#include "loop/lookout.h"

#include "base/monotonic.h"
#include "loop/loop_state.h"
#include "loop/turns.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_MAX 64
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
    char *dump;                  /* of malloc(): what faulthandler wrote, or NULL */
    bool held;                   /* the dump was asked for because the GIL was not to be had */
    bool unripe;                 /* nobody is to take it before it has its dump */
};

/* What is known of one loop. */
struct seen {
    struct seen_loop loop;
    int64_t next_report_ns;      /* 0: none is due */
    int64_t asked_ns;            /* an event was written that nobody has noted yet; 0: none */
    int64_t signalled_ns;        /* a dump is to be read; 0: none */
    bool unasked;                /* its stack is to be asked for when no other loop's is awaited */
    bool held;                   /* signalled because the GIL is not to be had; else Python's thread is busy */
    bool reported;
    struct window window;
};

struct watch {
    struct lookout lookout;      /* its lock is for these, too: */
    bool waits;                  /* Python's thread waits for an event, or for the GIL to take it */
    bool telling;                /* it has taken a stall, and may have lost the GIL since */
    struct event events[EVENTS_MAX];
    unsigned int first;
    unsigned int count;

    /* set before the thread starts */
    int64_t repeat_ns;           /* 0: a stall is told once */
    int64_t grace_ns;
    int error_fd;                /* standard error; -1: the program has none */
};

static void
watch_lock(struct watch *watch)
{
    pthread_mutex_lock(&watch->lookout.lock);
}

static void
watch_unlock(struct watch *watch)
{
    pthread_mutex_unlock(&watch->lookout.lock);
}

static void
watch_drop(struct watch *watch)
{
    if (!lookout_leave(&watch->lookout)) {
        return;
    }
    for (; watch->count > 0; watch->count--) {
        free(watch->events[watch->first++ % EVENTS_MAX].dump);
    }
    free(watch);
}

/* -- the C thread ------------------------------------------------------------------------ */

/* False: there are too many already; it comes again at the next tick. */
static bool
watch_write(struct watch *watch, enum event_kind kind, const struct seen *seen,
            unsigned long thread, int64_t now)
{
    watch_lock(watch);
    bool room = watch->count < EVENTS_MAX;
    if (room) {
        watch->events[(watch->first + watch->count++) % EVENTS_MAX] = (struct event){
            .kind = kind,
            .number = seen->loop.number,
            .thread = thread,
            .lasted_ns = now - seen->loop.since_ns,
            .written_ns = now,
            .unripe = FRAMES_ARE_SHY && kind <= EVENT_STILL && watch->lookout.signal != 0,
        };
        pthread_cond_broadcast(&watch->lookout.changed);
    }
    watch_unlock(watch);
    return room;
}

static void
watch_write_busy(struct watch *watch, const struct seen *seen, unsigned long thread, double turns)
{
    watch_lock(watch);
    if (watch->count < EVENTS_MAX / 2) {    /* stalls go first */
        watch->events[(watch->first + watch->count++) % EVENTS_MAX] = (struct event){
            .kind = turns > 0 ? EVENT_BUSY : EVENT_CALM,
            .number = seen->loop.number,
            .thread = thread,
            .turns = turns,
        };
        pthread_cond_broadcast(&watch->lookout.changed);
    }
    watch_unlock(watch);
}

/* How long an event may wait for Python's thread before a signal asks for the stack; 0: for ever. `held`:
 * it then is the GIL that the thread waits for; else it is busy with what it was told before. */
static int64_t
watch_patience(struct watch *watch, bool *held)
{
    watch_lock(watch);
    int64_t patience = 0;
    *held = watch->waits || watch->telling;
    if (watch->telling) {
        patience = TELLING_NS;
    }
    else if (watch->count > 0) {
        patience = watch->grace_ns;
    }
    watch_unlock(watch);
    return patience;
}

/* Nobody of Python's can look: what the handler of faulthandler writes, in the loop's thread, is all
 * that there is. Called with the lock of the activities, so that the thread is still in its run. */
static void
watch_signal(struct watch *watch, struct seen *seen, const struct activity *activity, int64_t now)
{
    if (!lookout_may_signal(&watch->lookout)) {
        return;
    }
    char old[512];
    while (read(watch->lookout.dump_fd, old, sizeof(old)) > 0) {
    }
    seen->asked_ns = 0;
    if (pthread_kill(activity->pthread, watch->lookout.signal) == 0) {
        seen->signalled_ns = now;
    }
}

/* Into the first event of this loop that has none yet. */
static void
watch_add_dump(struct watch *watch, const struct seen *seen, char *dump)
{
    watch_lock(watch);
    for (unsigned int i = 0; i < watch->count; i++) {
        struct event *event = &watch->events[(watch->first + i) % EVENTS_MAX];
        if (event->number == seen->loop.number && event->dump == NULL && event->kind <= EVENT_STILL) {
            event->dump = dump;
            event->held = seen->held;
            event->unripe = false;
            dump = NULL;
            break;
        }
    }
    pthread_cond_broadcast(&watch->lookout.changed);
    watch_unlock(watch);
    free(dump);
}

/* After watch_signal(): the stack goes to the event, for later; to standard error now, if nobody else can
 * tell of it. */
static void
watch_read_dump(struct watch *watch, struct seen *seen)
{
    char *dump = malloc(DUMP_MAX);
    size_t length = dump == NULL ? 0 : read_all_for_a_while(watch->lookout.dump_fd, dump, DUMP_MAX);
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
        int64_t ms = (now - seen->loop.since_ns) / 1000000;
        int n = snprintf(head, sizeof(head),
                         "asyncloop: loop %llu blocked for %lld.%03lld s so far, while a call holds the GIL\n",
                         (unsigned long long)seen->loop.number, (long long)(ms / 1000),
                         (long long)(ms % 1000));
        write_at_once(watch->error_fd, head, (size_t)n);
        write_at_once(watch->error_fd, dump, length);
        activities_note_stall(watch->lookout.all, seen->loop.number, now - seen->loop.since_ns, true, dump, length);
    }
    watch_add_dump(watch, seen, dump);
}

/* Is a dump of some loop under way? All of them come through one pipe, so that a second one would be taken
 * for a part of the first. */
static bool
watch_awaits_dump(struct watch *watch, int64_t now)
{
    for (size_t i = 0; i < watch->lookout.seen.length; i++) {
        const struct seen *seen = seen_at(&watch->lookout.seen, i);
        if (seen->signalled_ns != 0 && now - seen->signalled_ns < RIPE_NS) {
            return true;
        }
    }
    return false;
}

/* One loop that is in the turn in which it was the last time. */
static void
watch_stuck(struct watch *watch, struct seen *seen, const struct activity *activity, int64_t now)
{
    if (now - seen->loop.since_ns < watch->lookout.threshold_ns) {
        return;
    }
    if (!seen->reported || (seen->next_report_ns != 0 && now >= seen->next_report_ns)) {
        enum event_kind kind = seen->reported ? EVENT_STILL : EVENT_STALL;
        if (!watch_write(watch, kind, seen, activity->thread, now)) {
            return;
        }
        COUNT(activity->counters->stalls, !seen->reported);
        seen->reported = true;
        seen->next_report_ns = watch->repeat_ns == 0 ? 0 : now + watch->repeat_ns;
        seen->asked_ns = now;
        if (FRAMES_ARE_SHY && watch->lookout.signal != 0) {
            seen->unasked = true;
        }
    }
    else if (!seen->unasked && seen->asked_ns != 0 && now - seen->asked_ns >= watch->grace_ns) {
        int64_t patience = watch_patience(watch, &seen->held);
        if (patience == 0) {
            seen->asked_ns = 0;
        }
        else if (watch->lookout.signal != 0 && now - seen->asked_ns >= patience) {
            watch_signal(watch, seen, activity, now);
        }
    }
    if (FRAMES_ARE_SHY && seen->unasked && !watch_awaits_dump(watch, now)) {
        seen->unasked = false;
        seen->held = false;
        watch_signal(watch, seen, activity, now);
    }
}

static void
watch_look(struct watch *watch, struct activity *activity, int64_t now)
{
    struct seen *seen = seen_find(&watch->lookout.seen, activity->number);
    if (seen == NULL) {
        return;    /* looked at when there is memory again */
    }
    uint64_t pulse = __atomic_load_n(&activity->counters->pulse, __ATOMIC_RELAXED);
    seen->loop.there = true;
    double turns;
    if (turns_look(&seen->window, activity, now, &turns)) {
        watch_write_busy(watch, seen, activity->thread, turns);
    }
    if (pulse == seen->loop.pulse && (pulse & 1) != 0 && activity->thread != 0) {
        watch_stuck(watch, seen, activity, now);
        return;
    }
    if (seen->reported && !watch_write(watch, EVENT_END, seen, activity->thread, now)) {
        return;
    }
    *seen = (struct seen){
        .loop = {.number = seen->loop.number, .pulse = pulse, .since_ns = now, .there = true},
        .window = seen->window,
    };
}

/* Where this thread has not looked for long, the process was stopped, or the machine: the loops have not
 * gone on either, and are not to blame for it. */
static void
watch_leave_out_pause(struct watch *watch, int64_t now)
{
    int64_t pause = pause_between(watch->lookout.looked_ns, now, watch->lookout.tick_ns, watch->lookout.threshold_ns);
    for (size_t i = 0; pause > 0 && i < watch->lookout.seen.length; i++) {
        struct seen *seen = seen_at(&watch->lookout.seen, i);
        seen->loop.since_ns += pause;
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
    watch_lock(watch);
    for (unsigned int i = 0; i < watch->count; i++) {
        struct event *event = &watch->events[(watch->first + i) % EVENTS_MAX];
        if (event->unripe && (watch->lookout.stopped || now - event->written_ns > RIPE_NS)) {
            event->unripe = false;
            pthread_cond_broadcast(&watch->lookout.changed);
        }
    }
    watch_unlock(watch);
}

static void
watch_tick(struct watch *watch)
{
    struct seen_list *list = &watch->lookout.seen;
    int64_t now = monotonic_ns();
    watch_leave_out_pause(watch, now);
    for (size_t i = 0; i < list->length; i++) {
        ((struct seen *)seen_at(list, i))->loop.there = false;
    }
    pthread_mutex_lock(&watch->lookout.all->lock);
    struct list_node *head = &watch->lookout.all->list;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        watch_look(watch, container_of(node, struct activity, node), now);
    }
    pthread_mutex_unlock(&watch->lookout.all->lock);
    bool reads = false;
    for (size_t i = list->length; i-- > 0;) {
        struct seen *seen = seen_at(list, i);
        if (seen->loop.there) {
            reads |= seen->signalled_ns != 0;
            continue;
        }
        if (!seen->reported || watch_write(watch, EVENT_END, seen, 0, now)) {
            seen_remove(list, i);
        }
    }
    watch_ripen(watch, now);
    if (!reads) {
        return;
    }
    sleep_ns(DUMP_NS);
    for (size_t i = 0; i < list->length; i++) {
        struct seen *seen = seen_at(list, i);
        if (seen->signalled_ns != 0) {
            watch_read_dump(watch, seen);
        }
    }
}

static void *
watch_main(void *arg)
{
    struct watch *watch = arg;
    watch_lock(watch);
    while (!watch->lookout.stopped) {
        lookout_wait_tick(&watch->lookout);    /* when it is stopped it looks once more: what was told has ended, maybe */
        watch_unlock(watch);
        watch_tick(watch);
        watch->lookout.looked_ns = monotonic_ns();
        watch_lock(watch);
    }
    lookout_end(&watch->lookout);
    watch_drop(watch);
    return NULL;
}

/* -- Python's face ------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    struct watch *watch;
} Watchdog;

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
    lookout_init(&watch->lookout, loop_state(state)->loops.activities, threshold, TICK_MIN_NS, sizeof(struct seen));
    watch->lookout.signal = number;
    watch->lookout.handler = signal_handler(number);
    watch->lookout.dump_fd = fd;
    watch->repeat_ns = (int64_t)(repeat * 1e9);
    watch->grace_ns = grace_of(watch->lookout.threshold_ns);
    watch->error_fd = error_fd;
    watch->waits = true;    /* or is about to */
    self->watch = watch;
    if (lookout_start(&watch->lookout, watch_main) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *
Watchdog_stop(PyObject *op, PyObject *ignored UNUSED)
{
    struct watch *watch = ((Watchdog *)op)->watch;
    Py_BEGIN_ALLOW_THREADS
    lookout_stop(&watch->lookout);
    Py_END_ALLOW_THREADS
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
    watch_lock(watch);
    watch->telling = false;
    watch->waits = true;
    while ((watch->count == 0 || watch->events[watch->first % EVENTS_MAX].unripe) && !watch->lookout.ended) {
        pthread_cond_wait(&watch->lookout.changed, &watch->lookout.lock);
    }
    watch_unlock(watch);
    Py_END_ALLOW_THREADS
    /* Only with the GIL is it taken: else a dump would be made for nothing. */
    watch_lock(watch);
    bool there = watch_take(watch, &event, &over);
    watch_unlock(watch);
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
    watch_lock(watch);
    watch->telling = false;
    watch_unlock(watch);
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

static PyObject *
Watchdog_ignore(PyObject *ignored UNUSED, PyObject *number)
{
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred()) {
        return NULL;
    }
    struct sigaction action = {.sa_handler = SIG_IGN};
    (void)sigaction((int)value, &action, NULL);
    Py_RETURN_NONE;
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
     INSIDE_DOC("wait($self, /)\n--\n\n"
                "The next event, without the GIL until there is one: ('stall', 'still' or 'end', the\n"
                "loop's number, the thread's, seconds so far, what faulthandler wrote, or None,\n"
                "seconds that the event has waited, whether that was for the GIL, whether the stall is\n"
                "over); the fourth is turns per second with 'busy', and none with 'calm'. None once\n"
                "the thread has ended.")},
    {"noted", Watchdog_noted, METH_NOARGS,
     INSIDE_DOC("noted($self, /)\n--\n\n"
                "What wait() gave last is written down: whoever is told now may take his time.")},
    {"stop", Watchdog_stop, METH_NOARGS,
     INSIDE_DOC("stop($self, /)\n--\n\n"
                "End the thread; it has ended when this returns. Nothing in a child of fork().")},
    {"is_free", Watchdog_is_free, METH_O | METH_STATIC,
     INSIDE_DOC("is_free(number, /)\n--\n\n"
                "Has nobody in the process, not in C either, a handler for this signal?")},
    {"ignore", Watchdog_ignore, METH_O | METH_STATIC,
     INSIDE_DOC("ignore(number, /)\n--\n\n"
                "Ignore a signal, from any thread. What a thread that blocks it has pending is gone.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Watchdog_slots[] = {
    {Py_tp_doc, INSIDE_DOC("Watchdog(threshold, repeat, signal, fd, stderr, /)\n--\n\n"
                           "A thread that looks at the loops: see asyncloop.watchdog().")},
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
    return state_add_type(module, &Watchdog_spec, NULL, 0, &loop_state(state)->types.Watchdog);
}
