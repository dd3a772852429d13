/* sockop_connect.h - one attempt of sock_connect(): see operation.h. */
#ifndef ASYNCLOOP_SOCKOP_CONNECT_H
#define ASYNCLOOP_SOCKOP_CONNECT_H

#include "ops/operation.h"

enum attempt attempt_connect(Operation *op, PyObject **result);

#endif
