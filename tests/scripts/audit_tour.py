import contextlib
import os
import tempfile

log = []

def plain(value):
    if isinstance(value, socket.socket):
        return "socket"
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, (int, str, bytes, type(None))):
        return value
    return type(value).__name__

hooked = False
def hook(event, args):
    if hooked and event.split(".")[0] in ("socket", "subprocess"):
        # the ports that the kernel chose are another matter
        text = repr(plain(args))
        for port, name in ports.items():
            text = text.replace(port, name)
        log.append((event, text))

ports = {}
sys.addaudithook(hook)

async def tour():
    global hooked
    loop = asyncio.get_running_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    ports[str(address[1])] = "PORT"
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "unix")
    ports[path] = "PATH"
    server = await loop.create_server(asyncio.Protocol, sock=listening)
    hooked = True

    async def step(name):
        log.append(name)

    await step("connect")
    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
    transport.write(b"data")
    transport.writelines([b"a", b"b"])
    await asyncio.sleep(0.02)
    transport.abort()
    await step("connect from an address")
    transport, _ = await loop.create_connection(
        asyncio.Protocol, *address, local_addr=("127.0.0.1", 0))
    transport.abort()
    await step("a name")
    await loop.getaddrinfo("localhost", address[1], type=socket.SOCK_STREAM)
    await loop.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    await step("sockets")
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, b"x")
    await step("datagrams")
    receiver = socket.socket(type=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    target = receiver.getsockname()
    ports[str(target[1])] = "UDP"
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    transport.sendto(b"x", target)
    transport.close()
    await asyncio.sleep(0)
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=target)
    transport.sendto(b"x")
    transport.close()
    receiver.close()
    await step("unix")
    unix = await loop.create_unix_server(asyncio.Protocol, path)
    transport, _ = await loop.create_unix_connection(asyncio.Protocol, path)
    transport.abort()
    unix.close()
    await step("a child")
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    await asyncio.sleep(0.02)
    hooked = False
    server.close()
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    os.rmdir(folder)

loop = new_event_loop()
loop.run_until_complete(tour())
loop.close()
for entry in log:
    print(entry)
