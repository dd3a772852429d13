/* reader.h - feeding asyncio's StreamReader without its three Python calls per packet.
 *
 * Only for a protocol that is exactly asyncio.StreamReaderProtocol with exactly an
 * asyncio.StreamReader, whose methods nobody has replaced, neither on the classes (by their
 * version) nor on the instances (instance.h, and the size of the reader's dict): looked at for
 * each packet. Then the outcome is
 * what StreamReader.feed_data() leaves: _buffer, _waiter, _paused and the waiter's result.
 * One thing differs: while readexactly() of stream_api.h waits for more than there is, its Task
 * is not woken to wait again, and the transport not paused to be resumed (benchmark row:
 * streams, with --sizes 1048576).
 * Whatever is unusual goes the standard way. */
#ifndef ASYNCLOOP_READER_H
#define ASYNCLOOP_READER_H

#include "base/standard.h"
#include "base/tuning.h"
#include "loop/loop.h"
#include "net/io.h"
#include "net/net_state.h"

/* Looks at the classes of asyncio.streams again. */
bool reader_classes_look(struct state *state);

/* Has nobody changed them since? */
static inline bool
reader_classes_are_same(struct reader_state *reader)
{
    return LIKELY(standard_version((PyTypeObject *)reader->ProtocolType) == SHARED_LOAD(reader->protocol_version)
                  && standard_version((PyTypeObject *)reader->ReaderType) == SHARED_LOAD(reader->reader_version)
                  && standard_version((PyTypeObject *)reader->WriterType) == SHARED_LOAD(reader->writer_version));
}

/* Are they what they were at import? Asked several times for each message, so inlined (guarded path:
 * streams). */
static inline bool
reader_classes_are_standard(struct state *state)
{
    struct reader_state *reader = &net_state(state)->reader;
    if (reader_classes_are_same(reader)) {
        return SHARED_LOAD(reader->classes_ok);
    }
    return reader_classes_look(state);
}

/* What the class of that function has under its name now: new reference or NULL. */
PyObject *reader_current_function(struct state *state, enum own_function which);

/* True for exactly a StreamReaderProtocol, as long as its class is the standard one. */
bool reader_protocol_is_plain(struct state *state, PyObject *protocol);

/* After connection_lost(error) of any protocol. A StreamReaderProtocol keeps the error in a future,
 * and asks for it in __del__(), so that nobody is told of a connection that nobody awaits. If both
 * die in a cycle, the collector may finalize the future first (without a GIL the greater one goes
 * first), so it is asked for at once. No exception may be set; sets none. */
void reader_error_is_known(struct state *state, PyObject *protocol);

/* Is the protocol as it was when it was found to be a plain StreamReaderProtocol with nothing put
 * on the instance, or is it found to be that now? Sets no exception. */
bool reader_proto_is_standard(struct state *state, struct proto *proto);

/* Has somebody put something on the reader's instance that our code does not call? `dict` is its
 * dict, or NULL. */
bool reader_has_own_methods(struct state *state, PyObject *reader, PyObject *dict);

/* Entries in the dict of a StreamReader that nobody has added to, except in debug mode. */
#define READER_FIELDS 8

static inline bool
reader_is_plain(struct state *state, PyObject *reader, PyObject *dict)
{
    return LIKELY(dict != NULL && PyDict_GET_SIZE(dict) == READER_FIELDS)
           || !reader_has_own_methods(state, reader, dict);
}

/* Where the fields are in the dict of a StreamReader, and in that of a StreamWriter, as long as nobody has
 * deleted one: in the order in which __init__() sets them. */
enum field_place {
    READER_LIMIT = 0,
    READER_LOOP = 1,
    READER_BUFFER = 2,
    READER_EOF = 3,
    READER_WAITER = 4,
    READER_EXCEPTION = 5,
    READER_PAUSED = 7,
    WRITER_TRANSPORT = 0,
    WRITER_READER = 2,
};

#ifdef Py_GIL_DISABLED
/* New reference; NULL where it is missing, without an exception. */
static inline PyObject *
field_ref(PyObject *dict, PyObject *name, enum field_place place UNUSED)
{
    PyObject *value;
    if (UNLIKELY(PyDict_GetItemRef(dict, name, &value) < 0)) {
        PyErr_Clear();
    }
    return value;
}
#else
/* Borrowed; NULL where it is missing, without an exception. To look whether a name is where it is expected takes
 * a third of what looking for it takes (guarded path: streams). */
static inline PyObject *
field_get(PyObject *dict, PyObject *name, enum field_place place)
{
    Py_ssize_t at = place;
    PyObject *found, *value;
    if (LIKELY(PyDict_Next(dict, &at, &found, &value) && found == name)) {
        return value;
    }
    value = PyDict_GetItemWithError(dict, name);
    if (UNLIKELY(value == NULL)) {
        PyErr_Clear();
    }
    return value;
}

static inline PyObject *
field_ref(PyObject *dict, PyObject *name, enum field_place place)
{
    return Py_XNewRef(field_get(dict, name, place));
}
#endif

/* Is it None, or whatever else always exists? */
static inline bool
field_is(PyObject *dict, PyObject *name, enum field_place place, PyObject *constant)
{
#ifdef Py_GIL_DISABLED
    PyObject *value = field_ref(dict, name, place);
    Py_XDECREF(value);
#else
    PyObject *value = field_get(dict, name, place);
#endif
    return value == constant;
}

/* 1: fed; 0: not possible, call data_received(); -1: with what feed_data() would raise. */
int reader_feed(struct state *state, struct proto *proto, const char *data, size_t n);

/* A StreamReader's task that waits for so many bytes more gets them straight into the reader's buffer. (Benchmark
 * row: streams, with --sizes 1048576, of which 4 to 9 % fewer messages go through without; of 64 KiB as many.
 * 2026-11-30.) */
#define READER_LARGE_BYTES TUNED(READER_LARGE_BYTES, 32 * 1024)

/* Where readexactly() waits for at least so many bytes more: receives up to `max` of them straight
 * into the reader's buffer. 1: done, with *status and *n as from io_ops.read(), and *complete if all
 * that is wanted has come; 0: not the case, nothing was received; -1 as above. */
int reader_receive(struct state *state, struct proto *proto, struct io *io, size_t max,
                   enum io_status *status, size_t *n, bool *complete);

#endif
