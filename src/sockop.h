/* sockop.h - a future for the readiness of a descriptor: what loop.sock_*() wait on. */
#ifndef ASYNCLOOP_SOCKOP_H
#define ASYNCLOOP_SOCKOP_H

#include "state.h"

int sockop_type_init(PyObject *module, struct state *state);

#endif
