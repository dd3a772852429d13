"""dbus-fast: two programs on a bus of their own; it reads and writes by add_reader()."""

import subprocess

from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, method
from dbus_fast.service import signal as dbus_signal

daemon = subprocess.Popen(
    ["dbus-daemon", "--session", "--nofork", "--print-address", "--nosyslog"],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
)
address = daemon.stdout.readline().strip()


class Service(ServiceInterface):
    @method()
    def Upper(self, text: "s") -> "s":
        return text.upper()

    @dbus_signal()
    def News(self) -> "s":
        return "news"


async def main():
    service = Service("test.Interface")
    one = await MessageBus(bus_address=address).connect()
    one.export("/test", service)
    await one.request_name("test.name")
    other = await MessageBus(bus_address=address).connect()
    description = await other.introspect("test.name", "/test")
    interface = other.get_proxy_object("test.name", "/test", description).get_interface(
        "test.Interface"
    )
    heard = asyncio.get_running_loop().create_future()
    interface.on_news(heard.set_result)
    for n in range(100):
        assert await interface.call_upper(f"text {n}") == f"TEXT {n}"
    assert len(await interface.call_upper("x" * 200_000)) == 200_000
    service.News()
    assert await heard == "news"
    for bus in (one, other):
        bus.disconnect()
        await bus.wait_for_disconnect()


loop = new_event_loop()
try:
    loop.run_until_complete(main())
finally:
    loop.close()
    daemon.terminate()
    daemon.wait()
    daemon.stdout.close()
