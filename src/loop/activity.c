/* activity.c - see activity.h. */
#include "loop/activity.h"

#include <stdlib.h>

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
        pthread_mutex_destroy(&all->lock);
        free(all);
    }
}

void
activities_forked(struct activities *all)
{
    if (all != NULL) {
        pthread_mutex_init(&all->lock, NULL);    /* a thread that is gone may have held it */
    }
}

struct activity *
activity_new(struct activities *all)
{
    struct activity *activity = all == NULL ? NULL : calloc(1, sizeof(*activity));
    if (activity != NULL) {
        activity->all = all;
        pthread_mutex_lock(&all->lock);
        all->holders++;
        activity->number = ++all->last_number;
        activity->counters = &activity->own;
        activity->own.number = activity->number;
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
    pthread_mutex_unlock(&activity->all->lock);
}

void
activity_forked(struct activity *activity)
{
    struct counters *counters = activity->counters;
    int64_t now = counters_clock_ns();
    activity_set_thread(activity, 0);
    span_end(&counters->idle, now);
    span_end(&counters->run, now);
    counters_sleep(counters);
}

unsigned long
activity_thread(struct activity *activity)
{
    pthread_mutex_lock(&activity->all->lock);
    unsigned long thread = activity->thread;
    pthread_mutex_unlock(&activity->all->lock);
    return thread;
}
