/* verify.h - after each turn the debug build looks at what the loop consists of: base/checked.h. */
#ifndef ASYNCLOOP_VERIFY_H
#define ASYNCLOOP_VERIFY_H

#include "loop/loop.h"

#ifdef ASYNCLOOP_DEBUG
void loop_verify(Loop *loop);

/* For tests: breaks one of the structures, so that the end of the turn finds it. */
PyObject *module_break(PyObject *module, PyObject *args);
#define VERIFY_FUNCTIONS                                                                      \
    {"_break", module_break, METH_VARARGS,                                                    \
     INSIDE_DOC("_break(what, loop, object, /)\n--\n\nDebug build: something is wrong from now on.")},
#else
#define loop_verify(loop) ((void)0)
#define VERIFY_FUNCTIONS
#endif

#endif
