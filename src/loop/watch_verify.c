/* watch_verify.c - the debug build's look at the table of descriptors (checked.h). */
#include "loop/watch_inside.h"

#ifdef ASYNCLOOP_DEBUG

/* Of a list: how many there are, as far as they were looked at. */
static size_t
watch_verify_list(Loop *loop, const struct list_node *head, bool noted, bool lent, uint64_t turn)
{
    size_t count = 0, most = verify_most(turn);
    VERIFY(verify_node(head));
    for (const struct list_node *node = head->next; node != head && count < most; node = node->next) {
        struct watch *watch = container_of(node, struct watch, active);
        VERIFY(verify_node(node));
        VERIFY(watch_loop(watch) == loop && verify_lives(watch->owner) && watch->ready != NULL);
        VERIFY(watch->noted == noted && watch->lent == lent);
        if (!lent) {
            /* libev stops one that the kernel refuses, and says so by an event */
            VERIFY(ev_is_active(&watch->io) || noted || ev_is_pending(&watch->io));
            struct fd_entry *entry = fds_find(loop, watch->io.fd);
            VERIFY(entry != NULL && entry->watched > 0);
            VERIFY(!watch->placed || *place_of(entry, watch->io.events & (EV_READ | EV_WRITE)) != NULL);
        }
        count++;
    }
    return count;
}

static void
fd_entry_verify(Loop *loop, const struct fd_entry *entry, int fd)
{
    VERIFY(entry->transport == NULL || verify_lives(entry->transport));
    bool is_placed = false;
    for (int i = 0; i < 2; i++) {
        const struct watch *watch = entry->place[i];
        is_placed = is_placed || watch != NULL;
        if (watch != NULL) {
            VERIFY(watch->io.fd == fd && watch_loop(watch) == loop);
            VERIFY((watch->io.events & (EV_READ | EV_WRITE)) == (i == 0 ? EV_READ : EV_WRITE));
        }
    }
    VERIFY(entry->fileobj == NULL || is_placed);
}

void
watch_verify(Loop *loop, uint64_t turn)
{
    const struct fds *fds = &loop->fds;
    VERIFY(fds->changed_count <= fds->changed_capacity);
    size_t active = watch_verify_list(loop, &fds->active, false, false, turn)
                    + watch_verify_list(loop, &fds->noted, true, false, turn);
    watch_verify_list(loop, &fds->lent, false, true, turn);
    size_t watched = 0, descriptors = 0;
    bool whole = fds->length <= VERIFY_MOST / PAGE_LENGTH + 1 || verify_most(turn) == SIZE_MAX;
    struct verify_part part = verify_part(fds->length, turn);
    for (size_t page = whole ? 0 : part.from; page < (whole ? fds->length : part.to); page++) {
        for (int i = 0; fds->pages[page] != NULL && i < PAGE_LENGTH; i++) {
            const struct fd_entry *entry = &fds->pages[page]->entries[i];
            fd_entry_verify(loop, entry, (int)(page << PAGE_BITS) + i);
            watched += entry->watched;
            descriptors += entry->watched > 0;
        }
    }
    if (whole) {
        VERIFY(watched == active || (verify_most(turn) < watched && active < watched));
        VERIFY(descriptors == COUNTER_GET(loop->counters->descriptors));
    }
}

void
watch_verify_transports(Loop *loop, uint64_t turn, void (*verify)(PyObject *transport, Loop *loop, uint64_t turn))
{
    const struct fds *fds = &loop->fds;
    struct verify_part part = verify_part(fds->length, turn);
    for (size_t page = part.from; page < part.to; page++) {
        for (int i = 0; fds->pages[page] != NULL && i < PAGE_LENGTH; i++) {
            PyObject *transport = fds->pages[page]->entries[i].transport;
            if (transport != NULL) {
                verify(transport, loop, turn);
            }
        }
    }
}

#endif
