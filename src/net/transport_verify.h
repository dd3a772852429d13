/* transport_verify.h - what holds of a transport between two turns: see checked.h. */
#ifndef ASYNCLOOP_TRANSPORT_VERIFY_H
#define ASYNCLOOP_TRANSPORT_VERIFY_H

#include "net/transport.h"

#ifdef ASYNCLOOP_DEBUG
/* Those that a descriptor of the loop is known to belong to. */
void transports_verify(Loop *loop, uint64_t turn);
#endif

#endif
