"""The end of the interpreter, and of loops that nobody closed, with all kinds of things open.

Each in a child process, with the allocator of Python and with the one that finds writes to freed
memory. A child has to end by itself, with the status that it should have and no sign of trouble.
"""

import pytest

from tests.certificates import make_certificate
from tests.support import run_script

SIGNS_OF_TROUBLE = ("Fatal", "Debug memory", "AddressSanitizer", "runtime error", "Assertion",
                    "SystemError", "Segmentation", "refcount")

OPEN = """
import subprocess, ssl
warnings.simplefilter("ignore")
cert = sys.argv[1:]

def contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*cert)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client

class Quiet(asyncio.Protocol):
    pass

class Datagrams(asyncio.DatagramProtocol):
    pass

async def handle(reader, writer):
    while line := await reader.readline():
        writer.write(line)

async def forever():
    while True:
        await asyncio.sleep(0.001)

async def open_everything():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    kept = []
    server_context, client_context = contexts()
    for ssl_server, ssl_client in (None, None), (server_context, client_context):
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=ssl_server)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=ssl_client)
        writer.write(b"line\\n")
        assert await reader.readline() == b"line\\n"
        writer.write(b"x" * 1000000)
        kept += [server, reader, writer]
    kept.append(await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0)))
    read_end, write_end = os.pipe()
    kept.append(await loop.connect_read_pipe(Quiet, open(read_end, "rb", 0)))
    kept.append(await loop.connect_write_pipe(Quiet, open(write_end, "wb", 0)))
    kept.append(await asyncio.create_subprocess_exec("sleep", "1", stdin=subprocess.PIPE,
                                                     stdout=subprocess.PIPE))
    one, other = socket.socketpair()
    one.setblocking(False)
    kept += [one, other, loop.create_task(loop.sock_recv(one, 10))]
    loop.add_reader(other, print)
    loop.call_later(1000, print)
    loop.call_soon(print)
    loop.add_signal_handler(signal.SIGUSR1, print)
    kept += [loop.create_task(forever()), loop.create_future(),
             loop.run_in_executor(None, time.sleep, 0.01)]
    await asyncio.sleep(0.005)
    return kept
"""

ENDS = {
    "as it is": """
loop = new_event_loop()
kept = loop.run_until_complete(open_everything())
print("end")
""",
    "in a cycle": """
loop = new_event_loop()
kept = loop.run_until_complete(open_everything())
kept.append(kept)
loop.kept = kept
sys.kept = kept
print("end")
""",
    "loop closed": """
loop = new_event_loop()
kept = loop.run_until_complete(open_everything())
loop.close()
print("end")
""",
    "loop forgotten": """
loop = new_event_loop()
kept = loop.run_until_complete(open_everything())
del loop, kept
for _ in range(3):
    gc.collect()
print("end")
""",
    "things forgotten first": """
loop = new_event_loop()
kept = loop.run_until_complete(open_everything())
del kept
gc.collect()
loop.run_until_complete(asyncio.sleep(0.001))
print("end")
""",
    "inside the loop": """
loop = new_event_loop()

async def main():
    kept = await open_everything()
    print("end")
    sys.exit(0)

loop.run_until_complete(main())
""",
    "in a callback of the end": """
import atexit
loop = new_event_loop()
kept = loop.run_until_complete(open_everything())

@atexit.register
def end():
    loop.run_until_complete(asyncio.sleep(0.001))
    print("end")
""",
    "by destructors": """
class Late:
    def __init__(self, function):
        self.function = function
    def __del__(self):
        try:
            self.function()
        except BaseException:
            pass

loop = new_event_loop()
kept = loop.run_until_complete(open_everything())
sys.late = [Late(lambda: loop.call_soon(print)), Late(lambda: kept[2].write(b"late")),
            Late(lambda: loop.create_task(forever())), Late(lambda: kept[2].transport.abort()),
            Late(loop.close), Late(lambda: loop.create_future().cancel())]
print("end")
""",
    "beside a thread": """
loop = new_event_loop()
started = threading.Event()

async def main():
    global kept
    kept = await open_everything()
    started.set()
    await forever()

def work():
    loop.run_until_complete(main())

# no signal handlers in a thread
loop.add_signal_handler = print_nothing = lambda *args: None
threading.Thread(target=work, daemon=True).start()
started.wait()
print("end")
""",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("allocator", ["default", "debug"])
@pytest.mark.parametrize("end", ENDS)
def test_end(impl, end, allocator, certificate):
    if end == "by destructors" and not impl.ours:
        pytest.skip("what asyncio's modules make of themselves by then is theirs")
    done = run_script(
        impl,
        OPEN + ENDS[end],
        env={"PYTHONMALLOC": allocator},
        args=certificate,
        flags=(),
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.split()[-1:] == ["end"] or "end" in done.stdout, done.stdout + done.stderr
    for sign in SIGNS_OF_TROUBLE:
        assert sign not in done.stderr, done.stderr


@pytest.mark.parametrize("allocator", ["default", "debug"])
def test_a_hundred_forgotten_loops(impl, allocator):
    """Dropped with timers, readers and tasks, never closed: all descriptors come back."""
    done = run_script(
        impl,
        """
warnings.simplefilter("ignore")

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def once():
    loop = new_event_loop()
    one, other = socket.socketpair()
    loop.add_reader(one, print)
    loop.call_later(1000, loop.stop)
    loop.create_task(asyncio.sleep(1000))
    loop.call_soon(loop.stop)
    loop.run_forever()
    one.close()
    other.close()

once()
gc.collect()
before = descriptors()
for _ in range(100):
    once()
for _ in range(3):
    gc.collect()
assert descriptors() == before, (descriptors(), before)
""",
        env={"PYTHONMALLOC": allocator},
        flags=(),
    )
    assert done.returncode == 0, done.stderr
    for sign in SIGNS_OF_TROUBLE:
        assert sign not in done.stderr, done.stderr
