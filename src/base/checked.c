/* checked.c - see checked.h. */
#include "base/checked.h"

#ifdef ASYNCLOOP_DEBUG

#include <stdio.h>
#include <stdlib.h>

_Noreturn void
verify_failed(const char *condition, const char *function, const char *file, int line)
{
    fprintf(stderr, "asyncloop: %s:%d: %s: this does not hold: %s\n", file, line, function, condition);
    fflush(stderr);
    abort();
}

int
verify_status(int result, const char *call, const char *file, int line)
{
    if ((result == -1) != (PyErr_Occurred() != NULL)) {
        if (PyErr_Occurred() != NULL) {
            PyErr_Print();
        }
        verify_failed(result == -1 ? "-1 comes with an exception" : "an exception comes with -1", call, file,
                      line);
    }
    return result;
}

#endif
