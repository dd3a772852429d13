"""What an installed wheel is tried with, where there is neither compiler nor anything else.

    PYTHON trial.py CERTIFICATE KEY [EMULATOR...]

Prints one line, and exits with 1 if something went wrong. EMULATOR is what children are started
with. Without a module ssl the line says so, and the exit status is 3.
"""

import asyncio
import os
import signal
import socket
import sys

import asyncloop

CERTIFICATE, KEY, *EMULATOR = sys.argv[1:]
LARGE = os.urandom(300_000)


async def echo(server_context=None, client_context=None):
    async def serve(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    async with server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context
        )
        writer.write(LARGE)
        assert await reader.readexactly(len(LARGE)) == LARGE
        writer.close()
        await writer.wait_closed()


async def tls():
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE, KEY)
    client = ssl.create_default_context(cafile=CERTIFICATE)
    client.check_hostname = False
    await echo(server, client)


async def udp():
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            self.transport.sendto(data, address)

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, address):
            answer.set_result(data)

    server, _ = await loop.create_datagram_endpoint(Server, ("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, _ = await loop.create_datagram_endpoint(Client, remote_addr=address)
    client.sendto(b"datagram")
    assert await answer == b"datagram"
    client.close()
    server.close()


async def subprocess():
    program = "import sys; print(sys.stdin.read().upper()); sys.exit(7)"
    child = await asyncio.create_subprocess_exec(
        *EMULATOR,
        sys.executable,
        "-c",
        program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await child.communicate(b"text")
    assert (out, child.returncode) == (b"TEXT\n", 7), (out, child.returncode)


async def signals():
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, arrived.set_result, "signal")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await arrived == "signal"


async def threads():
    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(socket.gethostname) == socket.gethostname()
    assert await loop.getaddrinfo("127.0.0.1", 80)


async def main():
    assert type(asyncio.get_running_loop()) is asyncloop.Loop
    done, status = [], 0
    for step in (echo, tls, udp, subprocess, signals, threads):
        try:
            await asyncio.wait_for(step(), 60)
            done.append(step.__name__)
        except ModuleNotFoundError as error:
            done.append(f"{step.__name__} NOT TRIED ({error})")
            status = 3
    info = asyncloop.build_info()
    assert info["libev"] == "embedded" and info["backend"] == "epoll", info
    print(" ".join(done), f"on Python {info['python']}")
    return status


sys.exit(asyncloop.run(main()))
