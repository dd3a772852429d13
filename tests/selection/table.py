"""Which loop runs: program x way of switching it on, as a table.

    python -m tests.selection.table [--markdown] [NAME ...]

Each server is started as its users start it, and asked once; each tool prints the class itself. The
table in docs/switch-on.md is what `--markdown` prints.
"""

import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
BIN = Path(sys.executable).parent
STARTED_WITHIN = 60  # seconds
OURS = "asyncloop"

# How asyncloop is switched on, from outside of the program.
WAYS = {
    "asyncloop-run": [sys.executable, "-m", "asyncloop._run"],
    "asyncloop-run --as-uvloop": [sys.executable, "-m", "asyncloop._run", "--as-uvloop"],
}

SERVERS = {
    "uvicorn": "uvicorn selection_apps:asgi --port PORT",
    "uvicorn, workers": "uvicorn selection_apps:asgi --workers 2 --port PORT",
    "uvicorn, reload": "uvicorn selection_apps:asgi --reload --port PORT",
    "uvicorn, factory": (
        "uvicorn selection_apps:asgi --loop asyncloop:new_event_loop --port PORT"
    ),
    "uvicorn, UVICORN_LOOP": (
        "UVICORN_LOOP=asyncloop:new_event_loop uvicorn selection_apps:asgi --port PORT"
    ),
    "uvicorn, UVICORN_LOOP=asyncio": (
        "UVICORN_LOOP=asyncio uvicorn selection_apps:asgi --port PORT"
    ),
    "uvicorn --loop asyncio": "uvicorn selection_apps:asgi --loop asyncio --port PORT",
    "gunicorn, uvicorn's worker": (
        "gunicorn selection_apps:asgi -k uvicorn_worker.UvicornWorker -b 127.0.0.1:PORT"
    ),
    "gunicorn, our worker for uvicorn": (
        "gunicorn selection_apps:asgi -k asyncloop.gunicorn.UvicornWorker -b 127.0.0.1:PORT"
    ),
    "gunicorn, aiohttp's worker": (
        "gunicorn selection_apps:aiohttp_app -k aiohttp.GunicornWebWorker -b 127.0.0.1:PORT"
    ),
    "gunicorn, our worker for aiohttp": (
        "gunicorn selection_apps:aiohttp_app -k asyncloop.gunicorn.AiohttpWorker "
        "-b 127.0.0.1:PORT"
    ),
    "gunicorn, its own asgi worker": "gunicorn selection_apps:asgi -k asgi -b 127.0.0.1:PORT",
    "hypercorn": "hypercorn selection_apps:asgi -b 127.0.0.1:PORT",
    "hypercorn -k uvloop": "hypercorn selection_apps:asgi -k uvloop -b 127.0.0.1:PORT",
    "granian": "granian selection_apps:asgi --interface asgi --port PORT",
    "granian --loop asyncio": (
        "granian selection_apps:asgi --interface asgi --loop asyncio --port PORT"
    ),
    "daphne": "daphne selection_apps:asgi -p PORT",
    "sanic": "sanic selection_apps:sanic_app --single-process --port PORT",
    "sanic, workers": "sanic selection_apps:sanic_app --workers 2 --port PORT",
    "quart": "hypercorn selection_quart:app -b 127.0.0.1:PORT",
    "quart, run()": "python selection_apps.py quart PORT",
    "litestar run": "litestar --app selection_apps:litestar_app run --port PORT",
    "fastapi run": "fastapi run selection_apps.py --app fastapi_app --port PORT",
    "fastapi dev": "fastapi dev selection_apps.py --app fastapi_app --port PORT",
    "robyn": "python selection_apps.py robyn PORT",
    "aiohttp, run_app()": "python selection_apps.py aiohttp PORT",
    "python -m aiohttp.web": (
        "python -m aiohttp.web -H 127.0.0.1 -P PORT selection_apps:make_aiohttp_app"
    ),
    "tornado": "python selection_apps.py tornado PORT",
}

PYTEST = "pytest -q -s --noconftest -c OPTIONS"

TOOLS = {
    "asyncio.run()": "python selection_apps.py run",
    "asyncio's REPL": "python -m asyncio",
    "unittest": "python -m unittest selection_tests.Unit",
    "pytest-asyncio": f"{PYTEST} -k asyncio_plugin selection_tests.py",
    "anyio's plugin": f"{PYTEST} -p no:aiohttp -p no:asyncio -k anyio_plugin selection_tests.py",
    "pytest-aiohttp": f"{PYTEST} -k pytest_aiohttp selection_tests.py",
    "aiohttp's own plugin": (
        f"{PYTEST} -p no:aiohttp -p no:asyncio -p no:anyio -p aiohttp.pytest_plugin "
        "--aiohttp-loop pyloop -k own_aiohttp selection_tests.py"
    ),
    "IPython": "ipython --no-banner --simple-prompt --quick -c PROGRAM",
    "ipykernel": "python selection_apps.py kernel",
    "textual": "python selection_apps.py textual",
    "Dask: client, scheduler, worker": "python selection_apps.py dask",
}

# A program that names a loop keeps it: the loop that runs, by the start of its module.
NAMES_ANOTHER = {
    "uvicorn --loop asyncio": "asyncio.",
    "uvicorn, UVICORN_LOOP=asyncio": "asyncio.",
}
# Programs that take uvloop by themselves where it is installed, or know no other word.
TAKES_UVLOOP = {
    *("uvicorn", "uvicorn, workers", "uvicorn, reload", "gunicorn, uvicorn's worker"),
    *("gunicorn, its own asgi worker", "granian", "sanic", "sanic, workers", "litestar run"),
    *("fastapi run", "fastapi dev", "robyn"),
}
NEEDS_UVLOOP = {"hypercorn -k uvloop", "robyn"}


def hide_uvloop(folder):
    """What PYTHONPATH has to have in it so that uvloop is not installed."""
    hidden = Path(folder, "without-uvloop")
    hidden.mkdir(exist_ok=True)
    (hidden / "uvloop.py").write_text("raise ModuleNotFoundError('hidden', name='uvloop')\n")
    return str(hidden)


def command(name, port):
    """The words of the command, without the variables before it."""
    words = (SERVERS.get(name) or TOOLS[name]).split()
    words = words[len(variables(name)) :]
    words = [word.replace("PORT", str(port)) for word in words]
    if "PROGRAM" in words:
        words[words.index("PROGRAM")] = "import selection_apps as s; print(await s.name())"
    words = [os.devnull if word == "OPTIONS" else word for word in words]
    words[0] = str(BIN / words[0])
    return words


def variables(name):
    """The variables that are set before the command, as a shell has it."""
    words = (SERVERS.get(name) or TOOLS[name]).split()
    settings = itertools.takewhile(lambda word: word.partition("=")[0].isupper(), words)
    return dict(word.split("=", 1) for word in settings)


def environment(*path):
    env = {key: value for key, value in os.environ.items() if not key.startswith("ASYNCLOOP_")}
    env["PYTHONPATH"] = os.pathsep.join([*path, str(HERE), str(CHECKOUT)])
    env.pop("PYTHONSAFEPATH", None)
    return env


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def server_loop(name, way, env):
    """The module and class of the loop inside a request, and what the server wrote."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [*way, *command(name, port)],
            cwd=HERE,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            answer = ask(port, server)
        finally:
            stop(server)
        log.seek(0)
        return answer, log.read().decode(errors="replace")


def ask(port, server):
    deadline = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
                return response.read().decode()
        except OSError:
            time.sleep(0.1)
    return "no answer"


def stop(server):
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def tool_loop(name, way, env):
    """As server_loop(): the line of the output that begins with `loop: `."""
    program = "import selection_apps as s\nprint(await s.name())\n"
    done = subprocess.run(
        [*way, *command(name, 0)],
        cwd=HERE,
        env=env,
        input=program if name == "asyncio's REPL" else "",
        capture_output=True,
        text=True,
        timeout=2 * STARTED_WITHIN,
    )
    found = [line.partition("loop: ")[2] for line in done.stdout.splitlines() if "loop: " in line]
    loops = sorted({line.strip() for line in found})
    return ", ".join(loops) or "nothing", done.stdout + done.stderr


def running_loop(name, way=(), *path):
    find = server_loop if name in SERVERS else tool_loop
    return find(name, way, environment(*path) | variables(name))


# -- the table ---------------------------------------------------------------------------


def short(answer):
    if answer.startswith(OURS):
        return "asyncloop"
    return {"uvloop.Loop": "uvloop", "asyncio.unix_events._UnixSelectorEventLoop": "asyncio"}.get(
        answer, answer
    )


def main(args):
    names = [name for name in [*SERVERS, *TOOLS] if not args or name in args]
    with tempfile.TemporaryDirectory() as folder:
        hidden = hide_uvloop(folder)
        columns = {
            "plain, uvloop installed": ((), ()),
            "asyncloop-run, uvloop installed": (WAYS["asyncloop-run"], ()),
            "asyncloop-run, no uvloop": (WAYS["asyncloop-run"], (hidden,)),
            "asyncloop-run --as-uvloop": (WAYS["asyncloop-run --as-uvloop"], ()),
        }
        print("| program |", " | ".join(columns), "|")
        print("|---" * (1 + len(columns)) + "|")
        for name in names:
            row = [short(running_loop(name, way, *path)[0]) for way, path in columns.values()]
            print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main([word for word in sys.argv[1:] if word != "--markdown"])
