"""Listening sockets for several loops: one of each worker's own, or those that systemd opened."""

import os
import socket
import stat
import sys
from collections.abc import Iterable

_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


def listen_sockets(
    host: str | Iterable[str] | None = None,
    port: int = 0,
    *,
    family: int = socket.AF_UNSPEC,
    backlog: int = 100,
    reuse_address: bool | None = None,
    reuse_port: bool = False,
) -> list[socket.socket]:
    """Return listening, non-blocking sockets, one for each address of `host` and `port`.

    They are for `loop.create_server(sock=)`, `asyncio.start_server(sock=)`,
    `uvicorn.Server.serve(sockets=)` and the like; the caller closes them. `host` is a name, an
    address, several of them, or None for all interfaces. With `port` 0 the system chooses one port,
    the same for all addresses. `backlog` is how many connections may wait to be accepted.

    With `reuse_port`, workers (threads or processes of one user) that each call this with the same
    address share its connections: Linux gives each connection to one of them, evenly by a hash of
    the peer's address. A worker that ends takes those with it that waited in its own socket.

    `reuse_address` sets SO_REUSEADDR; None does so on POSIX, as `loop.create_server` does.

    Raises OSError if an address cannot be bound or is not known, and ValueError for `reuse_port`
    where the system has none.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port is not supported by this system")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be 0 to 65535, not {port}")
    hosts = [host] if host is None or isinstance(host, str) else list(host)
    if not hosts:
        raise ValueError("there is no host")
    infos: dict[tuple[int, tuple[object, ...]], None] = {}
    for one in hosts:
        for info in socket.getaddrinfo(
            one or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
        ):
            infos[info[0], info[4]] = None
    sockets: list[socket.socket] = []
    try:
        for af, address in infos:
            if port == 0 and sockets:
                address = (address[0], sockets[0].getsockname()[1], *address[2:])
            try:
                sock = socket.socket(af, socket.SOCK_STREAM)
            except OSError:
                continue  # a family that the kernel does not have, as loop.create_server() does
            sockets.append(sock)
            _listen(sock, af, address, backlog, reuse_address, reuse_port)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise OSError(f"the system has no address family for {host!r}")
    return sockets


def _listen(
    sock: socket.socket,
    family: int,
    address: tuple[object, ...],
    backlog: int,
    reuse_address: bool | None,
    reuse_port: bool,
) -> None:
    if reuse_address or (reuse_address is None and os.name == "posix" and sys.platform != "cygwin"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        # So that the same port may be bound for IPv4 as well.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind(address)
    except OSError as exc:
        raise OSError(
            exc.errno, f"error while attempting to bind on address {address!r}: {exc.strerror}"
        ) from None
    sock.listen(backlog)
    sock.setblocking(False)


def inherited_sockets(name: str | None = None) -> list[socket.socket]:
    """Return the sockets that systemd (or who keeps to its protocol) has opened for this process.

    With `name`, those alone whose ``FileDescriptorName=`` it is. They are non-blocking and are not
    inherited by children; the caller closes them. A process that was given none gets an empty list.
    The environment is left as it is, so that the function may be called again; but a descriptor
    that was closed since is not there any more, and raises OSError.

    Source: sd_listen_fds(3), the variables LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES. Raises
    ValueError if they make no sense.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdigit()) or int(count) > 1 << 16:
        raise ValueError(f"LISTEN_FDS must be a number of descriptors, not {count!r}")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    names += ["unknown"] * (int(count) - len(names))
    sockets: list[socket.socket] = []
    try:
        for fd, fd_name in enumerate(names[: int(count)], _FIRST_INHERITED):
            if name is not None and fd_name != name:
                continue
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue  # systemd passes pipes and files in the same way
            os.set_inheritable(fd, False)
            sockets.append(socket.socket(fileno=fd))
            sockets[-1].setblocking(False)
    except BaseException:
        for sock in sockets:
            sock.detach()
        raise
    return sockets
