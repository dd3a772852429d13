/* coverage_exit.c - part of a build with ASYNCLOOP_COVERAGE=1: counters are written at the end of a process
 * that leaves by os._exit(), as children of fork() do (tools/coverage). */
void __gcov_dump(void);

__attribute__((visibility("default"))) void
asyncloop_write_counters(void)
{
    __gcov_dump();
}
