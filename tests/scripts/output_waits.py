faulthandler.cancel_dump_traceback_later()
signal.alarm(40)
warnings.simplefilter("ignore")
KIND, HOW = sys.argv[1:]

one, two = pair(KIND)
data = b"".join(b"%08d" % number for number in range(1 << 20))
events = []
class Peer(asyncio.Protocol):
    def pause_writing(self):
        events.append("pause")
    def resume_writing(self):
        events.append("resume")
    def connection_lost(self, exc):
        events.append("lost")
loop = new_event_loop()
loop.set_debug(False)
async def main():
    one.setblocking(False)
    transport, protocol = await loop.create_connection(Peer, sock=one)
    transport.write(data)
    assert events == ["pause"] and transport.get_write_buffer_size() > 0
    child = os.fork()
    if child == 0:
        try:
            if LOOP == "asyncloop":
                assert transport.get_write_buffer_size() == 0
                if HOW == "write":
                    transport.write(b"of the child")
                    transport.writelines([b"of", bytearray(b"the child")])
                    assert transport.get_write_buffer_size() == 0
                    if transport.can_write_eof():
                        transport.write_eof()
                if HOW == "close":
                    transport.close()
                if HOW == "abort":
                    transport.abort()
                if sys.version_info >= (3, 14):
                    os._exit(0)    # a forked child has no running loop there: tasks cannot wait
                for _ in range(3):
                    waiter = loop.create_future()
                    loop.call_later(0.02, waiter.set_result, None)
                    await waiter
                end = ["lost"] if HOW in ("close", "abort") else []
                assert [e for e in events if e != "resume"] == ["pause"] + end, events
                assert HOW != "run" or "resume" in events or KIND == "unix", events
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    got = []
    def read():
        while piece := two.recv(1 << 20):
            got.append(piece)
    reader = asyncio.to_thread(read)
    reader = asyncio.ensure_future(reader)
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.01)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    transport.close()
    await reader
    assert b"".join(got) == data
loop.run_until_complete(main())
two.close()
print("ok")
