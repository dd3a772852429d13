"""SIGTERM and SIGINT end a server in order: no new clients, the running ones finish, then the rest.

The example sends itself the signal while one client is served, so it ends by itself. Give it
`--serve` to keep it running and send the signal yourself.
"""

import asyncio
import os
import signal
import sys

PATIENCE = 5  # seconds for clients that are being served


class Server:
    def __init__(self) -> None:
        self.busy = asyncio.Event()
        self._clients: set[asyncio.Task[None]] = set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            name = (await reader.readline()).decode().strip()
            self.busy.set()
            await asyncio.sleep(0.2)  # the work that must not be cut off
            writer.write(f"done for {name}\n".encode())
            await writer.drain()
        finally:
            writer.close()

    async def run(self, stop: asyncio.Event, ready: asyncio.Future[int]) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        ready.set_result(server.sockets[0].getsockname()[1])
        await stop.wait()

        server.close()
        print("no new clients; being served:", len(self._clients), flush=True)
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=PATIENCE)
            for task in late:
                task.cancel()
            print("cut off:", len(late), flush=True)
        await server.wait_closed()


async def client(port: int, name: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{name}\n".encode())
    answer = (await reader.readline()).decode().strip()
    writer.close()
    await writer.wait_closed()
    return answer


async def main() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(received: signal.Signals) -> None:
        print("received", received.name, flush=True)
        stop.set()
        # A second signal ends the program at once, as if there were no handler.
        loop.remove_signal_handler(received)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)

    ready: asyncio.Future[int] = loop.create_future()
    server = Server()
    serving = asyncio.create_task(server.run(stop, ready))
    port = await ready
    if "--serve" in sys.argv:
        print("serving on port", port, "in process", os.getpid(), flush=True)
    else:
        asking = asyncio.create_task(client(port, "ann"))
        await server.busy.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        print("the client got:", await asking)
        await serving
        try:
            await client(port, "bob")
        except ConnectionRefusedError:
            print("afterwards: refused")
    await serving
    print("bye", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
