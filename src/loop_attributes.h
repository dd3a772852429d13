/* loop_attributes.h - the attributes of the loop that asyncio.BaseEventLoop's methods use as well, and
 * asyncloop's own switches. */
#ifndef ASYNCLOOP_LOOP_ATTRIBUTES_H
#define ASYNCLOOP_LOOP_ATTRIBUTES_H

#include "base/state.h"

extern PyGetSetDef loop_attributes[];

PyObject *Loop_get__debug(PyObject *op, void *closure);    /* what get_debug() gives */

#endif
