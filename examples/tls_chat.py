"""A chat server over TLS and a few people who talk there.

The certificate is made for the run by the `openssl` program; clients trust it and nothing else.
"""

import asyncio
import contextlib
import ssl
import tempfile
from pathlib import Path


class ChatServer:
    """Each line of a member goes to everyone, beginning with the member's name."""

    def __init__(self) -> None:
        self._members: dict[str, asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        try:
            name = (await reader.readline()).decode().strip()
            if not name or name in self._members:
                writer.write(b"* this name is taken\n")
                return
            self._members[name] = writer
            await self._tell_all(f"* {name} joined")
            async for line in reader:
                await self._tell_all(f"{name}: {line.decode().rstrip()}")
        except ConnectionError:
            pass
        finally:
            if self._members.get(name) is writer:
                del self._members[name]
                await self._tell_all(f"* {name} left")
            writer.close()

    async def _tell_all(self, line: str) -> None:
        for writer in self._members.values():
            writer.write(f"{line}\n".encode())
        # One who does not read must not hold up the others for ever.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(
                    *(writer.drain() for writer in self._members.values()), return_exceptions=True
                )


class Member:
    """A client; a context manager that is in the room as long as the block runs."""

    def __init__(self, name: str, port: int, trust: ssl.SSLContext) -> None:
        self._name, self._port, self._trust = name, port, trust

    async def __aenter__(self) -> "Member":
        self._reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._trust, server_hostname="localhost"
        )
        self.say(self._name)
        await self.hears()
        return self

    async def __aexit__(self, *_) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def say(self, text: str) -> None:
        self.writer.write(f"{text}\n".encode())

    async def hears(self) -> None:
        line = (await self._reader.readline()).decode().rstrip()
        print(f"{self._name} hears: {line}")


async def make_certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    process = await asyncio.create_subprocess_exec(
        *"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split(),
        *"-days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(),
        *"-addext keyUsage=digitalSignature,keyCertSign".split(),
        *("-out", certificate, "-keyout", key),
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        raise RuntimeError("openssl could not make a certificate")
    return certificate, key


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = await make_certificate(Path(folder))
        identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        identity.load_cert_chain(certificate, key)
        trust = ssl.create_default_context(cafile=certificate)

    server = await asyncio.start_server(ChatServer().serve, "127.0.0.1", 0, ssl=identity)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Member("ann", port, trust) as ann:
            session = ann.writer.get_extra_info("ssl_object")
            print(session.version(), "with", ann.writer.get_extra_info("peercert")["subject"][0][0])
            async with Member("bob", port, trust) as bob:
                await ann.hears()
                ann.say("hello")
                await bob.hears()
                await ann.hears()
                bob.say("hello yourself")
                await ann.hears()
                await bob.hears()
            await ann.hears()
            async with Member("ann", port, trust):
                pass

        try:
            async with Member("eve", port, ssl.create_default_context()):
                print("never printed")
        except ssl.SSLCertVerificationError as error:
            print("eve does not trust this server:", error.verify_message)


if __name__ == "__main__":
    asyncio.run(main())
