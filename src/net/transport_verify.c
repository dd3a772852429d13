/* transport_verify.c - see transport_verify.h. */
#include "net/transport_verify.h"

#include "base/checked.h"
#include "net/stream.h"

#ifdef ASYNCLOOP_DEBUG

static void
stream_verify(Stream *stream, uint64_t turn)
{
    const Transport *tr = &stream->base;
    wqueue_verify(&stream->output, turn);
    VERIFY(tr->head.set_by_hand || tr->head.conn_lost == 0 || wqueue_is_empty(&stream->output));
    VERIFY(tr->head.set_by_hand || wqueue_is_empty(&stream->output) || watch_is_active(&tr->write_watch));
    VERIFY(stream->empty_waiter == NULL || verify_lives(stream->empty_waiter));
}

static void
transport_verify(PyObject *op, Loop *loop, uint64_t turn)
{
    Transport *tr = transport_cast(op);
    VERIFY(tr->kind != NULL && tr->head.state == loop->state);
    if (tr->head.loop == NULL) {
        VERIFY(!watch_is_active(&tr->read_watch) && !watch_is_active(&tr->write_watch));
        return;
    }
    VERIFY(tr->head.loop == loop);
    if (!tr->head.set_by_hand) {
        VERIFY(tr->head.conn_lost == 0 || FLAG(tr->head.closing));
        VERIFY(tr->head.conn_lost == 0 || !watch_is_active(&tr->read_watch));
        VERIFY(tr->head.conn_lost == 0 || !watch_is_active(&tr->write_watch));
        bool sends_rest = tr->kind->close_ends_output && tr->head.conn_lost == 0 && tr->kind->queued(tr) > 0;
        VERIFY(!watch_is_active(&tr->read_watch) || transport_wants_data(tr) || sends_rest);
        VERIFY(tr->head.limits.low <= tr->head.limits.high);
    }
    VERIFY(tr->head.owed_lost.kind == NULL || tr->head.owed_lost.arg == NULL || verify_lives(tr->head.owed_lost.arg));
    VERIFY(tr->file == NULL || verify_lives(tr->file));
    VERIFY(verify_node(&tr->client));
    if (Py_IS_TYPE(op, net_state(tr->head.state)->types.Stream)) {
        stream_verify(stream_cast(op), turn);
    }
}

static void
transports_verify_in(Loop *loop, const struct list_node *head, uint64_t turn)
{
    size_t most = verify_most(turn);
    for (const struct list_node *node = head->next; node != head && most-- > 0; node = node->next) {
        PyObject *owner = container_of(node, struct watch, active)->owner;
        if (PyObject_TypeCheck(owner, net_state(loop->state)->types.Transport)) {
            transport_verify(owner, loop, turn);
        }
    }
}

void
transports_verify(Loop *loop, uint64_t turn)
{
    transports_verify_in(loop, &loop->fds.active, turn);
    transports_verify_in(loop, &loop->fds.noted, turn);
    transports_verify_in(loop, &loop->fds.lent, turn);
#ifndef Py_GIL_DISABLED    /* another thread may be about to free one */
    watch_verify_transports(loop, turn, transport_verify);
#endif
}

#endif
