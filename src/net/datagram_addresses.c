/* datagram_addresses.c - see datagram_addresses.h. */
#include "net/datagram_addresses.h"

/* The cache, made with the first address. NULL without memory, and without an exception. */
static struct address_cache *
datagram_cache(Datagram *dgram)
{
    if (UNLIKELY(dgram->cache == NULL)) {
        dgram->cache = PyMem_Calloc(1, sizeof(*dgram->cache));
    }
    return dgram->cache;
}

static void
entry_set(struct address_entry *entry, const struct addr *addr, PyObject *object)
{
    PyObject *old = entry->object;
    entry->addr = *addr;
    entry->object = Py_NewRef(object);
    Py_XDECREF(old);    /* a tuple of the user's: anything may run */
}

/* The slot of a mixed value: the top bits, where a multiplication gathers all others. */
static inline unsigned int
slot_of(uint64_t value)
{
    return (unsigned int)((value * UINT64_C(0x9E3779B97F4A7C15)) >> 32) % ADDRESS_CACHE_SIZE;
}

static inline unsigned int
slot_of_address(const struct sockaddr *address, socklen_t length)
{
    if (address->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        const struct sockaddr_in *in = (const void *)address;
        return slot_of((uint64_t)in->sin_addr.s_addr << 16 | in->sin_port);
    }
    if (address->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        uint64_t halves[2];
        memcpy(halves, &in6->sin6_addr, sizeof(halves));
        return slot_of(halves[0] ^ halves[1] << 1 ^ in6->sin6_port);
    }
    return 0;    /* of no internet family: no entry equals it */
}

PyObject *
datagram_sender_slowly(Datagram *dgram, const struct sockaddr *address, socklen_t length)
{
    if (length == 0) {
        return Py_NewRef(Py_None);    /* an unbound Unix socket */
    }
    struct address_cache *cache = datagram_cache(dgram);
    struct address_entry *entry = NULL;
    if (LIKELY(cache != NULL)) {
        unsigned int slot = slot_of_address(address, length);
        for (unsigned int way = 0; way < 2; way++) {
            entry = &cache->senders[slot ^ way];
            if (LIKELY(entry->object == NULL)) {
                break;
            }
            if (LIKELY(addr_equal(&entry->addr, address, length))) {
                cache->last = entry;
                return Py_NewRef(entry->object);
            }
        }
    }
    PyObject *object = addr_build(address, length);
    struct addr addr;
    if (object != NULL && entry != NULL && addr_keep(&addr, address, length)) {
        cache->last = entry;
        entry_set(entry, &addr, object);
    }
    if (object == NULL && !PyErr_Occurred()) {
        object = Py_NewRef(Py_None);    /* of another family than its socket */
    }
    return object;
}

void
datagram_target_slowly(Datagram *dgram, PyObject *address, struct addr *addr)
{
    struct address_cache *cache = datagram_cache(dgram);
    struct address_entry *entry =
        cache != NULL ? &cache->targets[slot_of((uint64_t)(uintptr_t)address)] : NULL;
    if (entry != NULL && entry->object == address) {
        *addr = entry->addr;
        return;
    }
    if (!addr_parse(addr, dgram->family, address)) {
        addr->length = 0;
    }
    else if (entry != NULL) {
        entry_set(entry, addr, address);
    }
}

void
datagram_clear_cache(Datagram *dgram)
{
    struct address_cache *cache = dgram->cache;
    dgram->cache = NULL;
    for (int i = 0; cache != NULL && i < ADDRESS_CACHE_SIZE; i++) {
        Py_CLEAR(cache->senders[i].object);
        Py_CLEAR(cache->targets[i].object);
    }
    PyMem_Free(cache);
}
