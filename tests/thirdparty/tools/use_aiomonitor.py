"""aiomonitor's console lists the tasks by name."""

import asyncio
import socket

import aiomonitor
from looped import run


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


async def main():
    loop = asyncio.get_running_loop()
    port = free_port()
    task = asyncio.create_task(asyncio.sleep(30), name="seen-by-monitor")
    with aiomonitor.start_monitor(
        loop=loop, port=port, webui_port=free_port(), console_port=free_port()
    ) as monitor:
        await asyncio.sleep(0.2)
        names = [info.name for info in monitor.format_running_task_list("", False)]
        assert "seen-by-monitor" in names, names
    task.cancel()


run(main())
print("works")
