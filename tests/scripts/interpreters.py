if sys.version_info >= (3, 13):
    import _interpreters

    def create(kind="isolated"):
        return _interpreters.create(kind)

    def execute(interpreter, code):
        failure = _interpreters.exec(interpreter, code)
        if failure is not None:
            raise RuntimeError(failure.errdisplay)

    destroy = _interpreters.destroy
else:
    import _xxsubinterpreters

    def create(kind="isolated"):
        return _xxsubinterpreters.create(isolated=kind == "isolated")

    execute = _xxsubinterpreters.run_string
    destroy = _xxsubinterpreters.destroy

WORK = '''
import asyncio, os, socket, time
import asyncloop

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, address):
        self.transport.sendto(data, address)

async def handle(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    assert type(loop) is asyncloop.Loop
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async def client(n):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for i in range(20):
            writer.write(b"%d %d\\n" % (n, i))
            assert await reader.readline() == b"%d %d\\n" % (n, i)
            await asyncio.sleep(0.0005)
        writer.close()
        await writer.wait_closed()
        return n
    assert await asyncio.gather(*(client(n) for n in range(5))) == list(range(5))
    transport, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    await loop.sock_sendto(sock, b"there", transport.get_extra_info("sockname"))
    assert await loop.sock_recv(sock, 100) == b"there"
    sock.close()
    transport.close()
    assert len(asyncio.all_tasks()) >= 1 and asyncio.current_task() is not None
    task = loop.create_task(asyncio.sleep(100))
    assert asyncio.Task.cancel(task) and asyncio.Future._state.__get__(task) == "PENDING"
    assert asyncio.Task.__repr__(task) == repr(task)
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.001)
    except TimeoutError:
        pass
    server.close()
    await server.wait_closed()

asyncloop.run(main())
'''
