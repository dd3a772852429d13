# The watchdog's thread is missing in a forked child, which would wait for it at exit.
faulthandler.cancel_dump_traceback_later()
signal.alarm(50)


def forked(function):
    """Runs in a forked child: its exit status, 0 when the function returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(40)
            function()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
