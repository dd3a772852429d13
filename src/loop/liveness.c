/* liveness.c - tells systemd, a health file and whoever asks over HTTP whether the loops turn.
 *
 * Owns:     a thread without thread state, which takes no GIL, so that it answers while a call holds it;
 *           the listening socket and the one to systemd.
 * Promises: nobody is told that all is well while a loop is in one turn for longer than the threshold,
 *           or while none runs. An answer takes the time of a look at the loops, or of a signal: the
 *           handler of faulthandler writes down where the thread of a blocked loop is.
 * Ignores:  what the loops do: it looks at activity.h alone. */
#include "loop/lookout.h"

#include "base/monotonic.h"
#include "loop/loop_state.h"
#include "loop/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TICK_MIN_NS INT64_C(2000000)
#define STATUS_NS INT64_C(5000000000)     /* so often systemd is told what happens, if nothing changes */
#define HEALTH_NS INT64_C(500000000)      /* so often the health file is touched */
#define DUMP_MS 500                       /* for the handler of the signal to write, on a busy machine */
#define REST_NS INT64_C(500000000)        /* for systemd, whose socket is full, before it is tried again */
#define WHERE_MAX 512

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

/* What a look at all loops has found. */
struct state_of_loops {
    unsigned int running;
    uint64_t blocked;            /* the number of the loop that is blocked for longest; 0: none */
    int64_t blocked_ns;          /* how long */
    uint64_t turns;              /* of all of them */
};

struct liveness {
    struct lookout lookout;

    /* set before the thread starts */
    int notify_fd;               /* for systemd; -1: none */
    struct sockaddr_un notify;   /* its address: who makes the socket anew is still found */
    socklen_t notify_size;
    int64_t ping_every_ns;       /* WATCHDOG=1; 0: it does not ask for that */
    char *health_path;           /* or NULL */

    /* the thread's */
    struct probe probe;
    bool ready_told;
    bool blocked_told;
    int64_t next_notify_ns;      /* systemd's socket was full */
    int64_t next_ping_ns;
    int64_t next_status_ns;
    int64_t next_health_ns;
};

static void
live_close(struct liveness *live)
{
    probe_close(&live->probe);
    if (live->notify_fd >= 0) {
        close(live->notify_fd);
        live->notify_fd = -1;
    }
}

static void
liveness_drop(struct liveness *live)
{
    if (lookout_leave(&live->lookout)) {
        live_close(live);
        free(live->health_path);
        free(live);
    }
}

/* -- a look at the loops ------------------------------------------------------------- */

static void
live_look_at(struct liveness *live, struct activity *activity, int64_t now,
             struct state_of_loops *found)
{
    struct seen_loop *seen = seen_find(&live->lookout.seen, activity->number);
    if (seen == NULL) {
        return;    /* looked at when there is memory again */
    }
    uint64_t pulse = __atomic_load_n(&activity->counters->pulse, __ATOMIC_RELAXED);
    seen->there = true;
    if (pulse != seen->pulse || seen->since_ns == 0) {
        seen->pulse = pulse;
        seen->since_ns = now;
    }
    if (activity->thread == 0) {
        return;    /* nobody runs it */
    }
    found->running += pulse > 1;    /* it has come to a turn */
    found->turns += __atomic_load_n(&activity->counters->turns, __ATOMIC_RELAXED);
    int64_t lasted = now - seen->since_ns;
    if ((pulse & 1) != 0 && lasted >= live->lookout.threshold_ns && lasted > found->blocked_ns) {
        found->blocked = activity->number;
        found->blocked_ns = lasted;
    }
}

static struct state_of_loops
live_look(struct liveness *live)
{
    struct state_of_loops found = {0};
    struct lookout *lookout = &live->lookout;
    struct seen_list *list = &lookout->seen;
    int64_t now = monotonic_ns();
    /* What this thread has not seen is no fault of the loops: the process was stopped. */
    int64_t pause = pause_between(lookout->looked_ns, now, lookout->tick_ns, lookout->threshold_ns);
    lookout->looked_ns = now;
    for (size_t i = 0; i < list->length; i++) {
        struct seen_loop *seen = seen_at(list, i);
        seen->since_ns += pause;
        seen->there = false;
    }
    pthread_mutex_lock(&lookout->all->lock);
    struct list_node *head = &lookout->all->list;
    for (struct list_node *node = head->next; node != head; node = node->next) {
        live_look_at(live, container_of(node, struct activity, node), now, &found);
    }
    pthread_mutex_unlock(&lookout->all->lock);
    for (size_t i = list->length; i-- > 0;) {
        if (!((struct seen_loop *)seen_at(list, i))->there) {
            seen_remove(list, i);
        }
    }
    return found;
}

/* -- where a loop is -------------------------------------------------------------------- */

/* Sends the signal to the thread of the loop: it is still in its run meanwhile. */
static bool
live_ask(struct liveness *live, uint64_t number)
{
    struct lookout *lookout = &live->lookout;
    bool asked = false;
    if (!lookout_may_signal(lookout)) {
        return false;
    }
    pthread_mutex_lock(&lookout->all->lock);
    struct list_node *head = &lookout->all->list;
    for (struct list_node *node = head->next; node != head && !asked; node = node->next) {
        struct activity *activity = container_of(node, struct activity, node);
        asked = activity->number == number && activity->thread != 0
                && pthread_kill(activity->pthread, lookout->signal) == 0;
    }
    pthread_mutex_unlock(&lookout->all->lock);
    return asked;
}

/* `  File "NAME", line N in FUNCTION` as `NAME:N in FUNCTION()`. False: there is no such line yet. */
static bool
first_place(const char *dump, char *where)
{
    const char *name = strstr(dump, "  File \"");
    const char *line = name == NULL ? NULL : strstr(name, "\", line ");
    const char *function = line == NULL ? NULL : strstr(line, " in ");
    const char *end = function == NULL ? NULL : strchr(function, '\n');
    if (end == NULL) {
        return false;
    }
    name += strlen("  File \"");
    const char *number = line + strlen("\", line ");
    function += strlen(" in ");
    snprintf(where, WHERE_MAX, "%.*s:%.*s in %.*s()", (int)(line - name), name,
             (int)(function - number - 4), number, (int)(end - function), function);
    return true;
}

/* The line at which a blocked loop is, as text. */
static void
live_where(struct liveness *live, uint64_t number, char *where)
{
    char dump[4096];
    size_t length = 0;
    int fd = live->lookout.dump_fd;
    strcpy(where, "an unknown place");
    if (live->lookout.signal == 0) {
        return;
    }
    while (read(fd, dump, sizeof(dump)) > 0) {
    }
    if (!live_ask(live, number)) {
        return;
    }
    int64_t until = monotonic_ns() + DUMP_MS * INT64_C(1000000);
    struct pollfd look = {.fd = fd, .events = POLLIN};
    while (length < sizeof(dump) - 1 && monotonic_ns() < until) {
        if (poll(&look, 1, 10) <= 0) {
            continue;
        }
        ssize_t got = read(fd, dump + length, sizeof(dump) - 1 - length);
        if (got > 0) {
            length += (size_t)got;
            dump[length] = '\0';
            if (first_place(dump, where)) {
                return;
            }
        }
    }
}

/* One line about all loops, without the end of the line. */
static void
live_describe(struct liveness *live, const struct state_of_loops *found, char *text, size_t size)
{
    if (found->blocked != 0) {
        char where[WHERE_MAX];
        live_where(live, found->blocked, where);
        snprintf(text, size, "event loop %llu is blocked, for %.3f s so far, at %s",
                 (unsigned long long)found->blocked, (double)found->blocked_ns * 1e-9, where);
    }
    else if (found->running == 0) {
        snprintf(text, size, "no event loop runs");
    }
    else {
        snprintf(text, size, "%u event loop(s) running, %llu turns", found->running,
                 (unsigned long long)found->turns);
    }
}

static bool
is_alive(const struct state_of_loops *found)
{
    return found->running > 0 && found->blocked == 0;
}

/* -- systemd and the health file ----------------------------------------------------------- */

/* False: it was not taken, and has to be said again. Who does not listen is not waited for. */
static bool
live_notify(struct liveness *live, const char *text)
{
    return sendto(live->notify_fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL,
                  (struct sockaddr *)&live->notify, live->notify_size)
           >= 0;
}

static void
live_tell_systemd(struct liveness *live, const struct state_of_loops *found, int64_t now)
{
    bool alive = is_alive(found), blocked = found->blocked != 0;
    bool ready = alive && !live->ready_told;
    bool ping = alive && live->ping_every_ns > 0 && now >= live->next_ping_ns;
    bool status = (ready || live->ready_told)
                  && (blocked != live->blocked_told || now >= live->next_status_ns);
    if (!(ready || ping || status) || now < live->next_notify_ns) {
        return;
    }
    char text[WHERE_MAX + 200];
    int length = snprintf(text, sizeof(text), "%s%s%s", ready ? "READY=1\n" : "",
                          ping ? "WATCHDOG=1\n" : "", status ? "STATUS=" : "");
    if (status) {
        live_describe(live, found, text + length, sizeof(text) - (size_t)length);
    }
    if (!live_notify(live, text)) {
        live->next_notify_ns = now + REST_NS;
        return;
    }
    live->ready_told |= ready;
    if (ping) {
        live->next_ping_ns = now + live->ping_every_ns;
    }
    if (status) {
        live->blocked_told = blocked;
        live->next_status_ns = now + STATUS_NS;
    }
}

static void
live_touch_file(struct liveness *live, int64_t now)
{
    live->next_health_ns = now + HEALTH_NS;
    /* Needs no descriptor, of which there may be none. */
    if (utimensat(AT_FDCWD, live->health_path, NULL, 0) == 0 || errno != ENOENT) {
        return;
    }
    int fd = open(live->health_path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (fd >= 0) {
        close(fd);
    }
}

static bool
live_answer(void *arg, char *body, size_t size)
{
    struct liveness *live = arg;
    struct state_of_loops found = live_look(live);
    live_describe(live, &found, body, size);
    return is_alive(&found);
}

/* -- the thread ------------------------------------------------------------------------------- */

static void
live_tick(struct liveness *live)
{
    probe_serve(&live->probe, live->lookout.tick_ns, live_answer, live);
    struct state_of_loops found = live_look(live);
    int64_t now = monotonic_ns();
    if (live->notify_fd >= 0) {
        live_tell_systemd(live, &found, now);
    }
    if (live->health_path != NULL && is_alive(&found) && now >= live->next_health_ns) {
        live_touch_file(live, now);
    }
}

static void *
live_main(void *arg)
{
    struct liveness *live = arg;
    struct lookout *lookout = arg;
    pthread_mutex_lock(&lookout->lock);
    while (!lookout->stopped) {
        pthread_mutex_unlock(&lookout->lock);
        live_tick(live);
        pthread_mutex_lock(&lookout->lock);
    }
    live_close(live);    /* whoever has waited for the end finds the port free */
    lookout_end(lookout);
    liveness_drop(live);
    return NULL;
}

/* -- Python's face ------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    struct liveness *live;
} Liveness;

/* To systemd's socket: a path, or a name of the abstract namespace behind an @. Fails if it is not there. */
static int
live_find_systemd(struct liveness *live, const char *path)
{
    struct sockaddr_un *address = &live->notify;
    size_t length = strlen(path);
    if (length >= sizeof(address->sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length);
    if (path[0] == '@') {
        address->sun_path[0] = '\0';
    }
    live->notify_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    live->notify_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (live->notify_fd < 0) {
        return -1;
    }
    fcntl(live->notify_fd, F_SETFD, FD_CLOEXEC);
    return connect(live->notify_fd, (struct sockaddr *)address, live->notify_size);
}

static struct liveness *
live_new(struct loop_state *state, double threshold, const char *health)
{
    struct liveness *live = calloc(1, sizeof(*live));
    if (live == NULL) {
        return NULL;
    }
    live->health_path = *health == '\0' ? NULL : strdup(health);
    if (*health != '\0' && live->health_path == NULL) {
        free(live);
        return NULL;
    }
    lookout_init(&live->lookout, state->loops.activities, threshold, TICK_MIN_NS, sizeof(struct seen_loop));
    live->notify_fd = -1;
    probe_init(&live->probe);
    return live;
}

static PyObject *
Liveness_new(PyTypeObject *type, PyObject *args, PyObject *kwargs UNUSED)
{
    struct state *state = state_of_type(type);
    double threshold, ping;
    int listen_fd, number, dump_fd;
    const char *notify, *health;
    if (state == NULL
        || !PyArg_ParseTuple(args, "diydyii", &threshold, &listen_fd, &notify, &ping, &health,
                             &number, &dump_fd)) {
        return NULL;
    }
    if (!(threshold > 0 && threshold < 1e9 && ping >= 0 && ping < 1e9)) {
        PyErr_SetString(PyExc_ValueError, "threshold and ping have to be finite seconds");
        return NULL;
    }
    Liveness *self = (Liveness *)type->tp_alloc(type, 0);
    struct liveness *live = self == NULL ? NULL : live_new(loop_state(state), threshold, health);
    if (live == NULL) {
        Py_XDECREF(self);
        return PyErr_NoMemory();
    }
    self->live = live;
    live->ping_every_ns = (int64_t)(ping * 1e9);
    live->lookout.signal = number;
    live->lookout.handler = signal_handler(number);
    live->lookout.dump_fd = dump_fd;
    if (*notify != '\0' && live_find_systemd(live, notify) < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, notify);
        Py_DECREF(self);
        return NULL;
    }
    live->probe.listen_fd = listen_fd;
    if (lookout_start(&live->lookout, live_main) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        live->probe.listen_fd = -1;    /* the caller's still */
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *
Liveness_stop(PyObject *op, PyObject *ignored UNUSED)
{
    struct liveness *live = ((Liveness *)op)->live;
    Py_BEGIN_ALLOW_THREADS
    lookout_stop(&live->lookout);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *
Liveness_leave_to_parent(PyObject *op, PyObject *ignored UNUSED)
{
    struct liveness *live = ((Liveness *)op)->live;
    if (live->lookout.pid != getpid()) {
        live_close(live);
    }
    Py_RETURN_NONE;
}

static void
Liveness_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    struct liveness *live = ((Liveness *)op)->live;
    if (live != NULL) {
        Py_XDECREF(Liveness_stop(op, NULL));
        liveness_drop(live);
    }
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef Liveness_methods[] = {
    {"stop", Liveness_stop, METH_NOARGS,
     INSIDE_DOC("stop($self, /)\n--\n\n"
                "End the thread; it has ended when this returns. Nothing in a child of fork().")},
    {"leave_to_parent", Liveness_leave_to_parent, METH_NOARGS,
     INSIDE_DOC("leave_to_parent($self, /)\n--\n\n"
                "In a child of fork(): close its copies of the descriptors.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Liveness_slots[] = {
    {Py_tp_doc, INSIDE_DOC("Liveness(threshold, listen_fd, notify, ping, health_file, signal, fd, /)\n--\n\n"
                           "A thread that tells whether the loops turn: see asyncloop.liveness().")},
    {Py_tp_new, Liveness_new},
    {Py_tp_dealloc, Liveness_dealloc},
    {Py_tp_methods, Liveness_methods},
    {0, NULL},
};

static PyType_Spec Liveness_spec = {
    .name = "asyncloop._core.Liveness",
    .basicsize = sizeof(Liveness),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Liveness_slots,
};

int
liveness_init(PyObject *module, struct state *state)
{
    PyObject *is_main = PyInterpreterState_Get() == PyInterpreterState_Main() ? Py_True : Py_False;
    if (PyModule_AddObjectRef(module, "_is_main_interpreter", is_main) < 0) {
        return -1;
    }
    return state_add_type(module, &Liveness_spec, NULL, 0, &loop_state(state)->types.Liveness);
}
