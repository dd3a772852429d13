/* sockop_accept.h - one attempt of sock_accept(): see operation.h. */
#ifndef ASYNCLOOP_SOCKOP_ACCEPT_H
#define ASYNCLOOP_SOCKOP_ACCEPT_H

#include "ops/operation.h"

enum attempt attempt_accept(Operation *op, PyObject **result);

#endif
