import errno
import resource

loop = new_event_loop()
contexts = []
loop.set_exception_handler(lambda _, context: contexts.append(context))
served = []

class Greeter(asyncio.Protocol):
    def connection_made(self, transport):
        served.append(transport)
        transport.write(b"hi")
        transport.close()

async def main():
    server = await loop.create_server(Greeter, "127.0.0.1", 0, backlog=100)
    address = server.sockets[0].getsockname()
    clients = [socket.socket() for _ in range(20)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        while True:
            fillers.append(os.dup(0))
    except OSError as exc:
        assert exc.errno == errno.EMFILE
    for client in clients:
        client.connect(address)
    before = time.process_time()
    turns = 0
    start = time.monotonic()
    while time.monotonic() - start < 1.5:
        await asyncio.sleep(0.05)
        turns += 1
    spent = time.process_time() - before
    assert not served
    reports = len(records) + len(contexts)
    assert 1 <= reports <= LIMIT, (records, contexts)
    assert all(isinstance(c["exception"], OSError) for c in contexts)
    assert spent < 1.0, spent  # no busy loop: that would be 1.5 seconds
    if CLOSE:
        server.close()
    for filler in fillers:
        os.close(filler)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if CLOSE:
        await asyncio.sleep(1.2)  # the back-off ends, and nothing comes back
        assert not served
    else:
        while len(served) < 20:
            await asyncio.sleep(0.01)
        for client in clients:
            assert client.recv(2) == b"hi"
    for client in clients:
        client.close()
    server.close()
    await asyncio.sleep(0)

loop.run_until_complete(main())
loop.close()
print("ok")
