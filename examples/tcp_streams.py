"""A server and a client with streams: a line protocol, many clients, HTTP by hand."""

import asyncio

from local_http import LocalServer


async def calculate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Adds up the numbers of each line until the client has no more."""
    try:
        async for line in reader:
            try:
                answer = str(sum(int(word) for word in line.split()))
            except ValueError:
                answer = "error: not a number"
            writer.write(f"{answer}\n".encode())
            await writer.drain()
    finally:
        writer.close()


async def ask(port: int, *lines: str) -> list[str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for line in lines:
        writer.write(f"{line}\n".encode())
    writer.write_eof()  # no more questions; the answers still come
    answers = (await reader.read()).decode().splitlines()
    writer.close()
    await writer.wait_closed()
    return answers


async def main() -> None:
    server = await asyncio.start_server(calculate, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        print("one client:", await ask(port, "1 2 3", "forty two", "40 2"))
        many = await asyncio.gather(*(ask(port, f"{n} {n}") for n in range(50)))
        print("fifty clients:", many == [[str(2 * n)] for n in range(50)])
    try:
        await ask(port, "1")
    except ConnectionRefusedError:
        print("closed: refused")

    async with LocalServer() as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        writer.write(b"GET /items/1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        print("HTTP:", (await reader.readline()).decode().strip())
        head = await reader.readuntil(b"\r\n\r\n")
        print("headers:", head.decode().split("\r\n")[:-2])
        writer.close()
        await writer.wait_closed()


if __name__ == "__main__":
    asyncio.run(main())
