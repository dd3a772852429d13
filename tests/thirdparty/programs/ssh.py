"""asyncssh: a server and a client, commands, a shell's streams, a forwarded port, SFTP."""

import pathlib
import tempfile

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return False

    def connection_requested(self, *args):
        return True


async def command(process):
    async for line in process.stdin:
        process.stdout.write(line.upper())
    process.exit(5)


async def main(folder):
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[key], process_factory=command, sftp_factory=True
    )
    address = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
    async with asyncssh.connect(
        **address, known_hosts=None, client_keys=None, username="somebody", config=None
    ) as connection:
        text = "line\n" * 10_000
        done = await connection.run("anything", input=text)
        assert done.stdout == text.upper() and done.exit_status == 5
        results = await asyncio.gather(*(connection.run("x", input=f"{n}\n") for n in range(8)))
        assert [result.stdout for result in results] == [f"{n}\n" for n in range(8)]

        async def serve(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        behind = await asyncio.start_server(serve, "127.0.0.1", 0)
        forward = await connection.forward_local_port(
            "127.0.0.1", 0, *behind.sockets[0].getsockname()
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.get_port())
        writer.write(b"through\n")
        assert await reader.readline() == b"through\n"
        writer.close()
        forward.close()
        await forward.wait_closed()
        behind.close()

        (folder / "file").write_bytes(bytes(300_000))
        async with connection.start_sftp_client() as sftp:
            await sftp.get(str(folder / "file"), str(folder / "copy"))
        assert (folder / "copy").read_bytes() == bytes(300_000)
    server.close()
    await server.wait_closed()


loop = new_event_loop()
with tempfile.TemporaryDirectory() as name:
    loop.run_until_complete(main(pathlib.Path(name)))
loop.close()
