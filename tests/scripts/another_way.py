faulthandler.cancel_dump_traceback_later()
KIND, HOW, BEFORE = sys.argv[1:]

one, two = pair(KIND)
signal.alarm(40)
warnings.simplefilter("ignore")
pid = os.fork()
if pid == 0:
    two.close()
    one.setblocking(False)
    loop = new_event_loop()
    class Peer(asyncio.Protocol):
        def connection_lost(self, exc):
            loop.stop()
    transport, protocol = loop.run_until_complete(loop.create_connection(Peer, sock=one))
    def write(*pieces):
        for piece in pieces:
            transport.write(piece)
    def burst():                       # so that as many are expected from now on
        write(b"1", b"2", b"3")
        loop.call_soon(loop.call_soon, again)
    def again():
        write(b"4", b"5", b"6")
        loop.call_soon(loop.call_soon, last)
    def single():
        write(b"123456")
        loop.call_soon(loop.call_soon, last)
    def last():
        write(b"7")
        if HOW == "two":
            write(b"8")
        if HOW in ("exit", "two"):
            os._exit(0)
        if HOW == "exec":
            os.execv(sys.executable, [sys.executable, "-c", ""])
        if HOW == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if HOW == "closed":
            one.close()
            os._exit(0)
        if HOW == "raise":
            raise KeyboardInterrupt
        if HOW == "close":
            transport.close()
        if HOW == "abort":
            transport.abort()
        if HOW == "eof":
            transport.write_eof()
            os._exit(0)
        if HOW == "stop":
            loop.stop()
        if HOW.startswith("fork"):
            grandchild = os.fork()
            if grandchild == 0:
                if HOW == "fork-exit":
                    os._exit(0)
                if HOW == "fork-run":
                    loop.call_later(0.02, os._exit, 0)
                    return
                if HOW == "fork-close":
                    transport.close()
                    loop.call_later(0.02, os._exit, 0)
                    return
                if HOW == "fork-closes-loop":
                    try:
                        loop.close()
                    except RuntimeError:
                        pass
                    os._exit(0)
                if HOW == "fork-drop":
                    globals().update(transport=None, protocol=None, loop=None)
                    gc.collect()
                    os._exit(0)
            os.waitpid(grandchild, 0)
            os._exit(0)
    loop.call_soon(single if BEFORE == "single" else burst)
    try:
        loop.run_forever()
    finally:
        os._exit(0)
one.close()
two.settimeout(30)
got = b""
try:
    while data := two.recv(100):
        got += data
except ConnectionResetError:
    pass
os.waitpid(pid, 0)
assert got == b"12345678"[:8 if HOW == "two" else 7], got
print("ok")
