"""How the C core is compiled: flags, the switches that setup.py names, and where libev is.

For setup.py, and for tools/wheels, which compiles for other targets.
"""

import contextlib
import importlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from glob import glob

from setuptools import Extension
from setuptools.command.build_ext import build_ext

try:
    from setuptools.errors import CompileError
except ImportError:
    from distutils.errors import CompileError

FLAGS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wstrict-prototypes",
    "-Wundef",  # a macro of a header that is not included would count as 0
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
]

# How libev is configured where it is compiled in. Every file that includes ev.h sees the
# same values, since some of them change the layout of libev's structs. EV_STANDALONE means
# "no config.h", so that what the kernel offers has to be said here.
LIBEV_UNUSED = "ASYNC CHECK CHILD CLEANUP EMBED FORK IDLE PERIODIC PREPARE SIGNAL STAT WALK".split()
LIBEV_MACROS = {
    "EV_STANDALONE": "1",
    "EV_USE_MONOTONIC": "1",
    "EV_USE_REALTIME": "1",
    "EV_USE_NANOSLEEP": "1",
    # The core asks for epoll or kqueue (src/loop/poll.c).
    "EV_USE_SELECT": "0",
    "EV_USE_POLL": "0",
    # Watchers of descriptors and timers are all that the core has of libev; its checks of itself
    # are assertions, which are off.
    **{f"EV_{kind}_ENABLE": "0" for kind in LIBEV_UNUSED},
    "EV_VERIFY": "0",
}
LIBEV_MACROS_LINUX = {
    "EV_USE_CLOCK_SYSCALL": "0",
    "EV_USE_EPOLL": "1",
    "EV_USE_EVENTFD": "1",
    # The core has its own signals and timers, and io_uring and linuxaio are experimental.
    "EV_USE_LINUXAIO": "0",
    "EV_USE_IOURING": "0",
    "EV_USE_INOTIFY": "0",
    "EV_USE_SIGNALFD": "0",
    "EV_USE_TIMERFD": "0",
}
LIBEV_MACROS_BSD = {"EV_USE_KQUEUE": "1"}
# libev is compiled apart: its warnings are not ours, and its assertions would abort the
# interpreter for a descriptor that another thread has just closed.
LIBEV_FLAGS = ["-w", "-DNDEBUG", "-fvisibility=hidden", "-fno-strict-aliasing"]

# The types that the core's own derive from: their instances begin as theirs do.
BASES = {
    "ASYNCIO_FUTURE_SIZE": ["_asyncio.Future", "_asyncio.Task"],
    "ASYNCIO_TRANSPORT_SIZE": [
        "asyncio.transports._FlowControlMixin",
        "asyncio.transports.DatagramTransport",
        "asyncio.transports.Transport",
        "asyncio.transports.SubprocessTransport",
    ],
}

NO_LIBEV = (
    "asyncloop needs libev with its headers: "
    "`apt-get install libev-dev` on Debian and Ubuntu, `dnf install libev-devel` on Fedora, "
    "`apk add libev-dev` on Alpine, `brew install libev` on macOS."
)
NO_PYTHON_H = (
    "asyncloop needs the headers of Python {version}: "
    "`apt-get install python{version}-dev` on Debian and Ubuntu, "
    "`dnf install python{version}-devel` on Fedora, `apk add python3-dev` on Alpine; "
    "on macOS they come with `brew install python@{version}`."
)
NO_COMPILER = (
    "asyncloop needs a C compiler: "
    "`apt-get install gcc libc6-dev` on Debian and Ubuntu, `dnf install gcc` on Fedora, "
    "`apk add gcc musl-dev` on Alpine, `xcode-select --install` on macOS."
)


def switched_on(name):
    return os.environ.get(name, "").lower() not in ("", "0", "no", "off", "false")


def room_for(*sizes):
    """Where the core's own struct may begin behind instances of these sizes, in bytes.

    A word more, for one that an interpreter of the same series may add in a later bug-fix
    release; the core compares with the running interpreter at import.
    """
    word = struct.calcsize("P")
    return (max(sizes) + word - 1) // word * word + word


def basic_size(name):
    """Of a type of the running interpreter."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute).__basicsize__


def base_sizes(size_of=basic_size):
    return {macro: room_for(*map(size_of, names)) for macro, names in BASES.items()}


def libev_macros(linux=sys.platform == "linux"):
    """How libev is configured for a target: what builds it may be another system."""
    return {**LIBEV_MACROS, **(LIBEV_MACROS_LINUX if linux else LIBEV_MACROS_BSD)}


def package_manager_prefixes():
    """Prefixes of Homebrew and MacPorts, whose folders no compiler searches by itself."""
    brew = shutil.which("brew")
    if brew is not None:
        answer = subprocess.run([brew, "--prefix", "libev"], capture_output=True, text=True)
        if answer.returncode == 0 and answer.stdout.strip():
            yield answer.stdout.strip()
        yield os.path.dirname(os.path.dirname(brew))
    port = shutil.which("port")
    if port is not None:
        yield os.path.dirname(os.path.dirname(port))


def core_extension():
    macros = {"_GNU_SOURCE": None}
    macros.update((name, str(size)) for name, size in base_sizes().items())
    compile_args, link_args = list(FLAGS), []
    sources = sorted(glob("src/**/*.c", recursive=True))

    if switched_on("ASYNCLOOP_DEBUG"):
        compile_args += ["-O0", "-g3", "-UNDEBUG"]
        macros["ASYNCLOOP_DEBUG"] = "1"
    elif switched_on("ASYNCLOOP_COVERAGE"):
        compile_args += ["-O0", "-g", "--coverage", "-fprofile-update=atomic"]
        link_args += ["--coverage"]
        sources += ["tools/coverage_exit.c"]
    else:
        compile_args += ["-O3"]
    if switched_on("ASYNCLOOP_HOSTILE"):
        macros["ASYNCLOOP_HOSTILE"] = "1"
    sanitizers = os.environ.get("ASYNCLOOP_SANITIZE", "")
    if sanitizers:
        sanitize = [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer", "-g"]
        compile_args += sanitize
        link_args += sanitize
    if switched_on("ASYNCLOOP_WERROR"):
        compile_args += ["-Werror"]

    return Extension(
        "asyncloop._core",
        sources=sources,
        depends=[*sorted(glob("src/**/*.h", recursive=True)), "setup.py", "tools/build_core.py"],
        include_dirs=["src"],
        define_macros=list(macros.items()),
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


@contextlib.contextmanager
def silenced():
    """Drop what this process and its children write, by descriptor."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved, nowhere = (os.dup(1), os.dup(2)), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, nowhere):
            os.close(descriptor)


class BuildCore(build_ext):
    """build_ext that finds libev, or says in one line what to install."""

    def build_extension(self, ext):
        if not ext.sources:
            raise SystemExit("asyncloop: no C sources in src/; is this a whole checkout?")
        source = os.environ.get("ASYNCLOOP_LIBEV_SOURCE")
        if source:
            self.embed_libev(ext, source)
        else:
            self.find_libev(ext)
        super().build_extension(ext)

    def compiles(self, ext, code):
        """Whether `code` compiles with the include folders of the extension."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "probe.c")
            with open(path, "w") as file:
                file.write(code)
            # The command and the compiler's complaint would hide the one line that helps.
            with silenced():
                try:
                    self.compiler.compile(
                        [path], output_dir=folder, include_dirs=ext.include_dirs
                    )
                except CompileError:
                    return False
            return True

    def require_compiler_and_python(self, ext):
        if not self.compiles(ext, "int answer(void) { return 42; }\n"):
            raise SystemExit(NO_COMPILER)
        if not self.compiles(ext, "#include <Python.h>\n"):
            version = "{}.{}".format(*sys.version_info)
            raise SystemExit(NO_PYTHON_H.format(version=version))

    def find_libev(self, ext):
        ext.libraries.append("ev")
        code = "#include <ev.h>\n#if EV_VERSION_MAJOR != 4\n#error\n#endif\n"
        if self.compiles(ext, code):
            return
        self.require_compiler_and_python(ext)
        for prefix in package_manager_prefixes():
            ext.include_dirs.append(os.path.join(prefix, "include"))
            if self.compiles(ext, code):
                ext.library_dirs.append(os.path.join(prefix, "lib"))
                return
            ext.include_dirs.pop()
        raise SystemExit(NO_LIBEV)

    def embed_libev(self, ext, folder):
        folder = os.path.abspath(folder)
        ev_c = os.path.join(folder, "ev.c")
        if not os.path.exists(ev_c):
            raise SystemExit(f"ASYNCLOOP_LIBEV_SOURCE: there is no ev.c in {folder}")
        macros = [*libev_macros().items()]
        ext.include_dirs.insert(0, folder)
        ext.define_macros += [*macros, ("ASYNCLOOP_EMBED_LIBEV", "1")]
        optimise = "-O0" if switched_on("ASYNCLOOP_DEBUG") else "-O3"
        ext.extra_objects += self.compiler.compile(
            [ev_c],
            output_dir=self.build_temp,
            macros=macros,
            include_dirs=[folder],
            extra_postargs=[
                *LIBEV_FLAGS,
                optimise,
                "-g",
                *(arg for arg in ext.extra_link_args if arg.startswith("-fsanitize")),
            ],
            depends=sorted(glob(os.path.join(folder, "*.[ch]"))),
        )
        if sys.platform != "darwin":
            ext.libraries.append("m")
