/* activity.c - see activity.h. */
#include "loop/activity.h"

#include "base/monotonic.h"

#include <stdlib.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

struct activities *
activities_new(void)
{
    struct activities *all = calloc(1, sizeof(*all));
    if (all != NULL) {
        pthread_mutex_init(&all->lock, NULL);
        list_init(&all->list);
        all->holders = 1;
    }
    return all;
}

void
activities_hold(struct activities *all)
{
    pthread_mutex_lock(&all->lock);
    all->holders++;
    pthread_mutex_unlock(&all->lock);
}

void
activities_drop(struct activities *all)
{
    if (all == NULL) {
        return;
    }
    pthread_mutex_lock(&all->lock);
    bool last = --all->holders == 0;
    pthread_mutex_unlock(&all->lock);
    if (last) {
        activities_close_page(all);
        pthread_mutex_destroy(&all->lock);
        free(all);
    }
}

void
activities_forked(struct activities *all)
{
    if (all != NULL) {
        pthread_mutex_init(&all->lock, NULL);    /* a thread that is gone may have held it */
        activities_close_page(all);              /* the parent's */
    }
}

/* -- the page ------------------------------------------------------------------------ */

int
activities_open_page(struct activities *all, const char *asyncloop, const char *python,
                     const char *socket)
{
    struct page *page = page_open(asyncloop, python, socket);
    if (page == NULL) {
        return -1;
    }
    pthread_mutex_lock(&all->lock);
    struct page *old = all->page;
    all->page = page;
    if (old != NULL) {
        page_close(old);
    }
    pthread_mutex_unlock(&all->lock);
    return 0;
}

void
activities_close_page(struct activities *all)
{
    pthread_mutex_lock(&all->lock);
    if (all->page != NULL) {
        page_close(all->page);
        all->page = NULL;
    }
    pthread_mutex_unlock(&all->lock);
}

void
activities_note_stall(struct activities *all, uint64_t loop, int64_t lasted_ns, bool goes_on,
                      const char *text, size_t length)
{
    pthread_mutex_lock(&all->lock);
    if (all->page != NULL) {
        page_note_stall(all->page, loop, lasted_ns, goes_on, text, length);
    }
    pthread_mutex_unlock(&all->lock);
}

void
activities_count_spin(struct activities *all, uint64_t loop)
{
    pthread_mutex_lock(&all->lock);
    for (struct list_node *node = all->list.next; node != &all->list; node = node->next) {
        struct activity *activity = container_of(node, struct activity, node);
        if (activity->number == loop) {
            COUNT(activity->counters->spins, 1);
            break;
        }
    }
    pthread_mutex_unlock(&all->lock);
}

/* With the lock. */
static void
activity_take_place(struct activity *activity)
{
    struct page *page = activity->all->page;
    struct counters *counters = page == NULL ? NULL : page_take(page);
    activity->page = counters == NULL ? NULL : page;
    activity->counters = counters == NULL ? &activity->own : counters;
}

struct counters *
activity_move(struct activity *activity)
{
    pthread_mutex_lock(&activity->all->lock);
    if (activity->page == NULL) {
        activity_take_place(activity);
        if (activity->page != NULL) {
            struct counters *counters = activity->counters;
            *counters = activity->own;
            counters->number = 0;
            __atomic_store_n(&counters->number, activity->number, __ATOMIC_RELEASE);
        }
    }
    pthread_mutex_unlock(&activity->all->lock);
    return activity->counters;
}

/* -- one loop ------------------------------------------------------------------------- */

struct activity *
activity_new(struct activities *all)
{
    struct activity *activity = all == NULL ? NULL : calloc(1, sizeof(*activity));
    if (activity != NULL) {
        activity->all = all;
        pthread_mutex_lock(&all->lock);
        all->holders++;
        activity->number = ++all->last_number;
        activity_take_place(activity);
        activity->counters->number = activity->number;
        list_append(&all->list, &activity->node);
        pthread_mutex_unlock(&all->lock);
    }
    return activity;
}

void
activity_free(struct activity *activity)
{
    if (activity == NULL) {
        return;
    }
    struct activities *all = activity->all;
    pthread_mutex_lock(&all->lock);
    list_remove(&activity->node);
    if (activity->page != NULL) {
        page_give(activity->page, activity->counters);
    }
    pthread_mutex_unlock(&all->lock);
    free(activity);
    activities_drop(all);
}

void
activity_set_thread(struct activity *activity, unsigned long thread)
{
    pthread_mutex_lock(&activity->all->lock);
    activity->thread = thread;
    activity->pthread = pthread_self();
    COUNTER_SET(activity->counters->thread, thread);
#ifdef __linux__
    if (activity->page != NULL) {
        COUNTER_SET(activity->counters->native_thread, (uint64_t)syscall(SYS_gettid));
    }
#endif
    pthread_mutex_unlock(&activity->all->lock);
}

void
activity_forked(struct activity *activity)
{
    struct counters *counters = activity->counters;
    int64_t now = monotonic_ns();
    activity_set_thread(activity, 0);
    span_end(&counters->idle, now);
    span_end(&counters->run, now);
    counters_sleep(counters);
}

void
activity_read(struct activity *activity, struct counters *copy, int64_t *now_ns)
{
    pthread_mutex_lock(&activity->all->lock);
    counters_read(activity->counters, copy, now_ns);
    int64_t run = span_at(copy->run, *now_ns);
    int64_t idle = span_at(copy->idle, *now_ns);
    if (run < activity->shown_idle + activity->shown_busy) {
        run = activity->shown_idle + activity->shown_busy;
    }
    if (idle > run - activity->shown_busy) {
        idle = run - activity->shown_busy;
    }
    if (idle < activity->shown_idle) {
        idle = activity->shown_idle;
    }
    activity->shown_idle = idle;
    activity->shown_busy = run - idle;
    copy->run = copy->run < 0 ? run - *now_ns : run;
    copy->idle = copy->idle < 0 ? idle - *now_ns : idle;
    pthread_mutex_unlock(&activity->all->lock);
}

unsigned long
activity_thread(struct activity *activity)
{
    pthread_mutex_lock(&activity->all->lock);
    unsigned long thread = activity->thread;
    pthread_mutex_unlock(&activity->all->lock);
    return thread;
}
