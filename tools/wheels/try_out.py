"""Installs each wheel where there is no compiler and no header, and runs trial.py there.

    python tools/wheels/try_out.py [--only TEXT] [FOLDER]

Needs root (for chroot), debootstrap, and qemu-user-static for the machine that this one is not. A
wheel that could not be tried counts as failed, unless WHEELS_SKIP has a pattern for its name, as in
WHEELS_SKIP='*cp314t* *musllinux*'.

The systems are Debian's, one for each Python that a release of it has, below build/wheels/roots. A
Python that no release has is copied from this machine. On musl, CPython is compiled from Debian's
source by musl_python. A free-threaded Python is copied from where FREETHREADED_PYTHON is.
"""

import argparse
import dataclasses
import fnmatch
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "wheels"
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "forky", "3.15": "forky"}
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
MUSL_PYTHON = "3.13"
MUSL_FOLDER = "musl-python"  # of the root
INSTALL = ("install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-warn-script-location")


class NotTried(Exception):
    """There is nothing here to try a wheel on."""


@dataclasses.dataclass
class Place:
    root: pathlib.Path
    python: str  # as seen from inside
    emulator: list[str]
    has_pip: bool  # else this machine's pip installs: emulated, it takes minutes

    def run(self, *command):
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "PYTHONPATH": "/trial/site"}
        chroot = [shutil.which("chroot"), self.root, *self.emulator, self.python]
        return run([*chroot, *command], env=environment, timeout=600)


def run(command, **options):
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def command_output(*command):
    done = run(command)
    if done.returncode:
        raise NotTried(f"{shlex.join(map(str, command))}: {done.stdout.strip()[-300:]}")
    return done.stdout


def mirror():
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        if os.path.exists(path):
            found = re.search(
                r"^(?:URIs: *|deb (?:\[.*?\] )?)(\S+/debian/?)\s", open(path).read(), re.M
            )
            if found:
                return found[1]
    raise NotTried("no Debian mirror in this machine's apt sources")


def debian(suite, machine):
    """A root of that suite, unpacked and not configured: an interpreter needs no more."""
    folder = WORK / "roots" / f"{suite}-{machine}"
    if (folder / ".ready").exists():
        return folder
    if not shutil.which("debootstrap"):
        raise NotTried("debootstrap is not installed")
    if os.geteuid() != 0:
        raise NotTried("chroot and debootstrap need root")
    shutil.rmtree(folder, ignore_errors=True)
    command_output(
        "debootstrap",
        "--foreign",
        f"--arch={DEBIAN[machine]}",
        "--variant=minbase",
        f"--include={','.join(packages_of(suite))}",
        suite,
        folder,
        mirror(),
        "sid",
    )
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        archive = shlex.quote(str(package))
        into = f"tar -x -C {shlex.quote(str(folder))} --keep-directory-symlink"
        unpack = f"dpkg-deb --fsys-tarfile {archive} | {into}"
        command_output("sh", "-c", unpack)
        package.unlink()
    (folder / ".ready").touch()
    return folder


def emulator(machine, root):
    """What runs a program of that machine inside of the root."""
    if machine == platform.machine():
        return []
    name = f"qemu-{machine}-static"
    found = shutil.which(name)
    if not found:
        raise NotTried(f"{name} is not installed (Debian's qemu-user-static)")
    shutil.copy(found, root / "usr/bin" / name)
    return [f"/usr/bin/{name}"]


def own_python(version):
    """The executable of this machine's Python of that version."""
    if version.endswith("t"):
        named = os.environ.get("FREETHREADED_PYTHON")
        if not named:
            raise NotTried("no free-threaded interpreter: FREETHREADED_PYTHON may name one")
        return named
    found = subprocess.run(["tools/find-python", version], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        raise NotTried(f"neither Debian nor this machine has a Python {version}")
    return found.stdout.strip()


def copy_python(version, root):
    """This machine's own, for a version that no release of Debian has; without its headers."""
    question = (
        "import sys, sysconfig; print(sys.base_prefix); "
        "print('%d.%d' % sys.version_info[:2], end=''); "
        "print('t' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    )
    where, is_version = command_output(own_python(version), "-c", question).split()
    if is_version != version:
        raise NotTried(f"{own_python(version)} is Python {is_version}, not {version}")
    prefix = pathlib.Path(where)
    target = root / prefix.relative_to("/")
    if not target.exists():
        shutil.copytree(
            prefix,
            target,
            symlinks=True,
            ignore=shutil.ignore_patterns(
                "include", "share", "site-packages", "test", "__pycache__", "*.a"
            ),
        )
    return str(prefix / "bin" / f"python{version}")


def place(version, machine, musl):
    """Where a wheel for that Python, machine and C library can be tried."""
    if musl:
        if version != MUSL_PYTHON:
            raise NotTried(f"on musl there is only a Python {MUSL_PYTHON}")
        if machine != platform.machine():
            raise NotTried(f"no Python for musl on {machine}")
        root = debian(SUITES[MUSL_PYTHON], machine)
        if not (root / MUSL_FOLDER).exists():
            variables = ("env", f"PYTHON={sys.executable}")
            command_output(*variables, "tools/wheels/musl_python", MUSL_PYTHON, root, MUSL_FOLDER)
        python = f"/{MUSL_FOLDER}/bin/python{version}"
        return Place(root, python, emulator(machine, root), False)
    suite = SUITES.get(version)
    if suite is None:
        if machine != platform.machine():
            raise NotTried(f"no release of Debian has a Python {version} for {machine}")
        root = debian("bookworm", machine)
        return Place(root, copy_python(version, root), [], True)
    root = debian(suite, machine)
    command = emulator(machine, root)
    return Place(root, f"/usr/bin/python{version}", command, not command)


def packages_of(suite):
    pythons = [f"python{version}" for version, one in SUITES.items() if one == suite]
    return [*pythons, "musl"]


def assert_bare(root):
    """What the trial is about: nothing there could compile anything."""
    for name in ("usr/bin/cc", "usr/bin/gcc", "usr/include/stdio.h", "usr/include/python3.11"):
        if (root / name).exists():
            raise NotTried(f"{root} has {name}")


def certificate(folder):
    if not (folder / "key.pem").exists():
        command_output(
            *("openssl", "req", "-x509", "-nodes", "-days", "3650", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        )


def pip_folder():
    """pip, unpacked, so that any interpreter can run it as it is."""
    version = importlib.metadata.version("pip")
    folder = WORK / f"pip-{version}"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as downloads:
            command_output(
                *(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", downloads),
                f"pip=={version}",
            )
            (wheel,) = pathlib.Path(downloads).glob("*.whl")
            shutil.unpack_archive(wheel, folder, "zip")
    return folder


def try_one(wheel, where):
    """(whether all is well, what to say)"""
    assert_bare(where.root)
    trial = where.root / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    trial.mkdir()
    certificate(WORK)
    for path in (wheel, WORK / "key.pem", WORK / "certificate.pem", ROOT / "tools/wheels/trial.py"):
        shutil.copy(path, trial)
    if where.has_pip:
        shutil.rmtree(where.root / "pip", ignore_errors=True)
        shutil.copytree(pip_folder(), where.root / "pip")
        done = where.run("/pip/pip", *INSTALL, "--target", "/trial/site", f"/trial/{wheel.name}")
    else:
        _, _, tag, abi, platforms = wheel.stem.split("-")
        as_if = [
            f"--platform={platforms.split('.')[0]}",
            f"--python-version={tag[2:]}",
            f"--abi={abi}",
        ]
        pip = [sys.executable, "-m", "pip", *INSTALL, "--only-binary=:all:", *as_if]
        done = run([*pip, "--target", trial / "site", wheel])
    if done.returncode:
        return False, "not installed: " + done.stdout.strip()
    done = where.run("/trial/trial.py", "/trial/certificate.pem", "/trial/key.pem", *where.emulator)
    lines = done.stdout.strip().splitlines()
    return done.returncode in (0, 3), lines[-1] if done.returncode in (0, 3) else "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=ROOT / "dist" / "wheels")
    parser.add_argument("--only", default="", help="wheels whose name contains this")
    options = parser.parse_args()
    skip = os.environ.get("WHEELS_SKIP", "").split()
    count = {"passed": 0, "failed": 0, "skipped": 0}
    wheels = [one for one in sorted(options.folder.glob("*.whl")) if options.only in one.name]
    if not wheels:
        sys.exit(f"there are no wheels in {options.folder}: make wheels")
    for wheel in wheels:
        begin = time.monotonic()
        _, _, tag, abi, platforms = wheel.stem.split("-")
        version = f"{tag[2]}.{tag[3:]}" + ("t" if abi.endswith("t") else "")
        machine = "aarch64" if "aarch64" in platforms else "x86_64"
        try:
            fine, text = try_one(wheel, place(version, machine, "musl" in platforms))
            outcome = "passed" if fine else "failed"
        except NotTried as error:
            skipped = any(fnmatch.fnmatch(wheel.name, pattern) for pattern in skip)
            outcome, text = "skipped" if skipped else "failed", f"not tried: {error}"
        count[outcome] += 1
        name = f"{tag}-{abi}-{platforms.split('.')[0]}"
        print(f"{outcome:8} {name:40} {time.monotonic() - begin:6.1f} s  {text}", flush=True)
    print(", ".join(f"{number} {outcome}" for outcome, number in count.items()))
    return count["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
