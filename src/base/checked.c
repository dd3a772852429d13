/* checked.c - see checked.h. */
#include "base/checked.h"

#ifdef ASYNCLOOP_DEBUG

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void
verify_failed(const char *condition, const char *function, const char *file, int line)
{
    fprintf(stderr, "asyncloop: %s:%d: %s: this does not hold: %s\n", file, line, function, condition);
    fflush(stderr);
    abort();
}

unsigned int long_ways;
bool verifies_turns = true;

int
checked_init(PyObject *module UNUSED, struct state *state UNUSED)
{
    static const char *const names[] = {
#define X(name) #name,
        SHORT_WAYS(X)
#undef X
    };
    const char *wanted = getenv("ASYNCLOOP_LONG_WAYS");
    unsigned int found = 0;
    for (size_t i = 0; wanted != NULL && i < ARRAY_LEN(names); i++) {
        const char *at = strstr(wanted, names[i]);
        found |= (unsigned int)(at != NULL || strcmp(wanted, "all") == 0) << i;
    }
    long_ways = found;
    const char *verify = getenv("ASYNCLOOP_VERIFY");
    verifies_turns = verify == NULL || strcmp(verify, "0") != 0;
    return 0;
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
