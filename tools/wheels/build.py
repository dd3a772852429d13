"""Builds the wheels: every supported Python on every target, on one machine, without emulation.

    python tools/wheels/build.py [--only TEXT] [--twice] [--out FOLDER]

`zig cc` compiles for each target, against the oldest C library that the wheel's tag promises. libev
is compiled in: from ASYNCLOOP_LIBEV_SOURCE, or else Debian's source package. Of an interpreter only
headers and some sizes are taken (describe.py). One that this machine lacks may be where
CHECK_ALL_WRAPPER leads, a command that runs `WRAPPER sh LINE`; else the run fails, unless
WHEELS_PYTHONS names the versions that are wanted.

The same tree gives the same bytes: --twice builds each wheel again, from nothing, and compares.
"""

import argparse
import concurrent.futures
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import check
import contents
import zopfli.zopfli as zopfli

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "wheels"
PYTHONS = "3.11 3.12 3.13 3.14 3.15 3.14t"
PACKAGE = "asyncloop"
JOBS = os.cpu_count()
# What runs in each turn and each step of a task: -O3, as in a build from source. The rest is
# compiled for size, which makes a tenth of the wheel; with nothing at -O3 a loop takes 3 % more
# instructions. With all of the rest at -Oz it would be up to 18 % more.
# Without a GIL, where locks make the code larger, all of it is at -Oz.
HOT = ("loop/loop.c", "loop/handle_run.c", "loop/ready.c", "tasks/task_step.c", "tasks/future.c")
# Besides these, what counts references where it stands. In all other files, and everywhere without
# a GIL, a function does so for all (src/base/references.h). That makes the extension smaller by a
# fortieth, for at most 5 instructions in a thousand.
WARM = (
    *("loop/handle.c", "loop/schedule.c", "loop/timer.c", "ops/sockop.c"),
    "tasks/task.c",
)
# What runs once in a process or a connection, or shows something: -Oz.
COLD = (
    *("base/standard.c", "base/state.c", "insides.c", "loop_attributes.c", "selector.c", "stats.c"),
    *("loop_type.c", "module.c", "nested.c", "item.c", "life.c", "verify.c"),
    *("loop/handle_type.c", "loop/overrides.c", "loop/page.c", "loop/watchdog.c", "loop/err.c"),
    *("loop/activity.c", "loop/liveness.c", "loop/owed.c", "loop/reserve.c", "loop/signals.c"),
    *("net/addr.c", "net/pipe.c", "net/transport_info.c", "ops/coroutine_method.c"),
    *("ops/thread_queue.c", "tasks/all_tasks.c", "tasks/owed_tasks.c"),
    *("net/io_methods.c", "net/proto.c", "net/transport.c", "net/stream.c"),
    *("loop/inbox.c", "loop/poll.c", "streams/stream_adopt.c", "streams/stream_api.c"),
    *("tls/tls.c", "tls/tls_direct.c", "tls/tls_engine.c", "tls/tls_portable.c"),
    *("tls/tls_read.c", "tls/tls_write.c"),
    *("net/clients.c", "net/server.c", "net/sockets.c", "net/transport_type.c"),
    *("ops/look_up.c", "ops/resolve.c", "ops/sockop_connect.c", "ops/operation_type.c"),
    *("tasks/executor.c", "tasks/future_type.c", "tasks/record.c", "tasks/trace.c"),
    *("tasks/task_type.c", "tasks/visible.c", "tls/tls_handshake.c", "tls/tls_libssl.c"),
    *("tls/tls_module.c", "tls/tls_object.c", "tls/tls_shipped.c", "tls/tls_type.c"),
    *("base/thread.c", "loop/lookout.c", "loop/owner.c", "loop/brief.c", "loop/turns.c"),
    *("loop/probe.c", "ops/sockop_accept.c"),
    *("net/datagram_addresses.c", "net/transport_attributes.c", "ops/sockop_socket.c"),
    *("tasks/introspect.c", "tasks/unbound.c", "tasks/task_foreign.c"),
    *("net/channel.c", "net/datagram.c"),
    *("net/stream_writelines.c", "readers.c", "loop_descriptors.c"),
    *("base/freelist.c", "loop/clock.c", "loop/wake.c", "tls/tls_inside.c"),
    *("base/args.c", "base/checked.c", "base/context.c", "base/instance.c", "loop/counters.c"),
    *("loop/scratch.c", "loop/watch.c", "net/transport_verify.c", "tasks/future_waiters.c"),
)


@dataclasses.dataclass(frozen=True)
class Target:
    machine: str
    zig: str  # the target's name there
    multiarch: str  # in the extension's file name
    platforms: str  # in the wheel's

    @property
    def musl(self):
        return "musl" in self.zig

    @property
    def linux(self):
        return "linux" in self.zig


TARGETS = [
    target
    for machine in ("x86_64", "aarch64")
    for target in (
        Target(
            machine,
            f"{machine}-linux-gnu.2.17",
            f"{machine}-linux-gnu",
            f"manylinux2014_{machine}.manylinux_2_17_{machine}",
        ),
        Target(
            machine, f"{machine}-linux-musl", f"{machine}-linux-musl", f"musllinux_1_2_{machine}"
        ),
    )
]


def run(*command, **options):
    options.setdefault("cwd", ROOT)
    done = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, **options
    )
    if done.returncode:
        sys.exit(f"wheels: {shlex.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def load_flags():
    """What every build has: flags, and how libev is configured."""
    spec = importlib.util.spec_from_file_location("build_core", ROOT / "tools" / "build_core.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = load_flags()


def libev_source():
    named = os.environ.get("ASYNCLOOP_LIBEV_SOURCE")
    folder = pathlib.Path(named) if named else WORK / "libev"
    if not named and not (folder / "ev.c").exists():
        run(
            "tools/debian-source",
            folder,
            "libev",
            *os.environ.get("LIBEV_SUITES", "bookworm").split(),
        )
    for name in ("ev.c", "ev.h", "LICENSE"):
        if not (folder / name).exists():
            sys.exit(f"wheels: there is no {name} in {folder}")
    return folder.resolve()


def describe(version):
    """The folder with the headers of that Python and its python.json."""
    folder = WORK / "pythons" / version
    if version.endswith("t"):
        return describe_freethreaded(version, folder)
    names = [name for group in BUILD.BASES.values() for name in group]
    arguments = ["tools/wheels/describe.py", folder.relative_to(ROOT), *names]
    found = subprocess.run(["tools/find-python", version], cwd=ROOT, capture_output=True, text=True)
    wrapper = os.environ.get("CHECK_ALL_WRAPPER")
    if found.returncode == 0:
        run(found.stdout.strip(), *arguments)
    elif wrapper:
        run(*shlex.split(wrapper), "sh", shlex.join([f"python{version}", *map(str, arguments)]))
    else:
        sys.exit(
            f"wheels: there is no Python {version} here: name where it is with CHECK_ALL_WRAPPER, "
            "or the versions that you want with WHEELS_PYTHONS"
        )
    return folder


def describe_freethreaded(version, folder):
    """A free-threaded interpreter's own headers where there is one, else those of the ordinary one.

    Both have the same files; pyconfig.h says which it is. The sizes are at most so much larger:
    16 bytes for the head of each object, and a word for the thread that a Task belongs to. The core
    compares them with the interpreter at import.
    """
    named = os.environ.get("FREETHREADED_PYTHON")
    if named:
        names = [name for group in BUILD.BASES.values() for name in group]
        run(named, "tools/wheels/describe.py", folder.relative_to(ROOT), *names)
        return folder
    ordinary = describe(version.rstrip("t"))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ordinary, folder)
    with open(folder / "include" / "pyconfig.h", "a") as file:
        file.write("\n#define Py_GIL_DISABLED 1\n")
    about = json.loads((folder / "python.json").read_text())
    about["abi"] += "t"
    about["freethreaded"] = True
    about["sizes"] = {name: size + 16 + 8 for name, size in about["sizes"].items()}
    (folder / "python.json").write_text(json.dumps(about, indent=1) + "\n")
    return folder


def zig(*arguments, cache):
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
    }
    for name in ("CFLAGS", "CPPFLAGS", "LDFLAGS", "SOURCE_DATE_EPOCH"):
        environment.pop(name, None)
    run(sys.executable, "-m", "ziglang", *arguments, env=environment)


def compile_core(python, target, libev, output, cache):
    about = json.loads((python / "python.json").read_text())
    macros = {
        **BUILD.libev_macros(linux=target.linux),
        **BUILD.base_sizes(about["sizes"].__getitem__),
        "_GNU_SOURCE": "1",
        "NDEBUG": "1",
        "ASYNCLOOP_EMBED_LIBEV": "1",
    }
    common = [
        *("-target", target.zig, "-g0", "-fPIC"),
        # A tenth of the size, for a debugger that has no symbols here in any case; and a hundredth
        # for frame pointers, which cost instructions as well.
        *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fomit-frame-pointer"),
        *("-ffunction-sections", "-fdata-sections", f"-ffile-prefix-map={ROOT}=."),
        *(f"-D{name}={value}" for name, value in macros.items()),
        *(f"-I{name}" for name in (*BUILD.core_extension().include_dirs, libev)),
        f"-isystem{python / 'include'}",
        # Functions made of what others have in common are smaller, but packed they are larger: 1 %.
        *(["-mno-outline"] if target.machine == "aarch64" else []),
        # Variables of a thread without the loader's help; musl's has that for no library that is
        # loaded later.
        *([] if target.musl or not target.linux else ["-ftls-model=initial-exec"]),
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ThreadPoolExecutor(JOBS) as pool,
    ):
        folder = pathlib.Path(folder)

        def compile_one(source):
            flags = BUILD.LIBEV_FLAGS if source == libev / "ev.c" else BUILD.FLAGS
            compiled = folder / (str(source).replace("/", "-") + ".o")
            name = str(source)
            hot = name.endswith(HOT) and not about["freethreaded"]
            level = ["-O3"] if hot else ["-Os"]
            if name.endswith(COLD) or about["freethreaded"]:
                # zig takes -Oz for -Os, unless the compiler behind it is told.
                level += ["-Xclang", "-Oz"]
            if about["freethreaded"] or not name.endswith(HOT + WARM):
                level.append("-DASYNCLOOP_SMALL=1")
            zig("cc", *common, *flags, *level, "-c", source, "-o", compiled, cache=cache)
            return compiled

        objects = pool.map(compile_one, [libev / "ev.c", *BUILD.core_extension().sources])
        link = ["cc", "-target", target.zig, "-shared"]
        if target.musl:
            # zig's musl calls itself libc.so; in a real system its name has the machine in it.
            empty = folder / "empty.c"
            empty.touch()
            libc = folder / f"libc.musl-{target.machine}.so.1"
            zig(*link, "-nostdlib", f"-Wl,-soname,{libc.name}", empty, "-o", libc, cache=cache)
            link += ["-nostdlib", "-Wl,--no-as-needed", libc]
        if target.linux:
            link += ["-s", "-Wl,--gc-sections", "-Wl,--hash-style=gnu"]
        else:
            link += ["-Wl,-undefined,dynamic_lookup"]
        zig(*link, *objects, "-o", output, cache=cache)


def pure_part(folder):
    """The package's Python files and the metadata, as setuptools makes them."""
    shutil.rmtree(folder, ignore_errors=True)
    run(
        sys.executable,
        "setup.py",
        "-q",
        "build_py",
        "--build-lib",
        folder / "lib",
        "dist_info",
        "--output-dir",
        folder / "lib",
    )
    (info,) = (folder / "lib").glob("*.dist-info")
    return folder / "lib", info


def zopfli_deflate(data):
    """A twentieth smaller than zlib's."""
    header, checksum = 2, 4
    return zopfli.compress(data, numiterations=150, blocksplittingmax=0)[header:-checksum]


def build(python, target, libev, pure, out, cache):
    """One wheel; its path."""
    about = json.loads((python / "python.json").read_text())
    lib, info = pure
    name, version = info.name.removesuffix(".dist-info").split("-")
    tags = f"{about['tag']}-{about['abi']}-{target.platforms}"
    with tempfile.TemporaryDirectory() as folder:
        core = pathlib.Path(folder) / "core.so"
        compile_core(python, target, libev, core, cache)
        binary = core.read_bytes()

    files = {
        str(path.relative_to(lib)): path.read_bytes()
        for path in lib.rglob("*")
        if path.is_file() and path.name != "top_level.txt"  # of setuptools; no standard knows it
    }
    public = contents.exported(files[f"{PACKAGE}/__init__.py"].decode())
    for one, data in files.items():
        if one.endswith((".py", ".pyi")):
            text = contents.narrow(contents.without_comments(data.decode()))
            module = pathlib.Path(one).stem
            text = contents.without_private_docstrings(text, module, public)
            if one.endswith(".pyi"):
                text = contents.without_private_types(text)
            else:
                text = contents.without_private_annotations(text, module, public)
                text = contents.without_local_annotations(text)
                text = contents.without_ways_of_checkers(text, module)
                text = contents.without_unused_types(text)
            files[one] = text.encode()
    abi = about["abi"].replace("cp", "cpython-")
    files[f"{PACKAGE}/_core.{abi}-{target.multiarch}.so"] = binary
    metadata = files[f"{info.name}/METADATA"].decode()
    files[f"{info.name}/METADATA"] = contents.add_libev(metadata).encode()
    files[f"{info.name}/licenses/libev/LICENSE"] = (libev / "LICENSE").read_bytes()
    bill = contents.bill_of_materials(version, libev, importlib.metadata.version("ziglang"))
    files[f"{info.name}/sboms/asyncloop.cdx.json"] = (json.dumps(bill, indent=1) + "\n").encode()
    expanded = [
        f"Tag: {about['tag']}-{about['abi']}-{one}\n" for one in target.platforms.split(".")
    ]
    files[f"{info.name}/WHEEL"] = (
        "Wheel-Version: 1.0\nGenerator: asyncloop tools/wheels\nRoot-Is-Purelib: false\n"
        + "".join(expanded)
    ).encode()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}-{version}-{tags}.whl"
    contents.pack(path, files, info.name, zopfli_deflate)
    return path


def same_again(path, *what):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        return build(*what, folder, folder / "zig-cache").read_bytes() == path.read_bytes()


def compile_for_macos(python, libev):
    """Nothing here can run it. An error ends the program."""
    target = Target("arm64", "aarch64-macos.11.0", "darwin", "macosx_11_0_arm64")
    with tempfile.TemporaryDirectory() as folder:
        compile_core(python, target, libev, pathlib.Path(folder) / "core.so", WORK / "zig-cache")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist" / "wheels")
    parser.add_argument("--only", default="", help="wheels whose name contains this")
    parser.add_argument(
        "--twice", action="store_true", help="build each again and compare the bytes"
    )
    options = parser.parse_args()
    started = time.monotonic()
    libev = libev_source()
    pythons = [describe(version) for version in os.environ.get("WHEELS_PYTHONS", PYTHONS).split()]
    pure = pure_part(WORK / "pure")
    shutil.rmtree(options.out, ignore_errors=True)
    failed = 0
    print(check.HEAD)
    for python in pythons:
        about = json.loads((python / "python.json").read_text())
        for target in TARGETS:
            if options.only not in f"{about['tag']}-{about['abi']}-{target.platforms}":
                continue
            begin = time.monotonic()
            path = build(python, target, libev, pure, options.out, WORK / "zig-cache")
            problems, row = check.look(path, target)
            if options.twice and not same_again(path, python, target, libev, pure):
                problems.append("a second build gives other bytes")
            print(f"{row} {time.monotonic() - begin:8.1f}", *problems, sep="\n    ", flush=True)
            failed += bool(problems)
    if not options.only:
        compile_for_macos(pythons[0], libev)
        print("macOS, arm64: compiles and links, not packed")
    print(f"{time.monotonic() - started:.0f} s; wheels with problems: {failed}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
