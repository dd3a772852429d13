"""What the benchmarks ask the operating system: cores, CPU time, memory, and a description."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


def cores() -> list[int]:
    """Return the cores that this process may use (empty where they cannot be chosen)."""
    if sys.platform != "linux":
        return []
    return sorted(os.sched_getaffinity(0))


def pin(core: int | None) -> None:
    """Keep this process on one core; None or a system without that call changes nothing."""
    if core is not None and sys.platform == "linux":
        os.sched_setaffinity(0, {core})


@dataclass(frozen=True)
class CpuTime:
    """CPU time that a process has used so far, in seconds.

    On most kernels the split into user and system time is sampled by timer ticks, so it is
    good only over many seconds; `total` is exact.
    """

    user: float
    system: float
    total: float

    def __sub__(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.user - other.user, self.system - other.system, self.total - other.total)

    def per_request(self, requests: float) -> dict[str, float]:
        """Return µs per request, as metrics ``user``, ``system`` and ``cpu``."""
        scale = 1e6 / requests
        return {
            "user": self.user * scale,
            "system": self.system * scale,
            "cpu": self.total * scale,
        }


def cpu_time(pid: int) -> CpuTime | None:
    """Read the CPU time of a process, or None where /proc does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    user, system = int(stat[11]) / tick, int(stat[12]) / tick
    total = 0
    try:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        total = 0
    return CpuTime(user, system, total / 1e9 if total else user + system)


def all_cpu_time() -> tuple[float, float]:
    """Return the CPU time of everything that runs here, and what the host took away (s)."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = (int(f) for f in fields)
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def own_cpu_time() -> float:
    """Return the CPU time of this process and of its children that have ended, in s."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def memory(pid: int | None = None) -> dict[str, int]:
    """Return the resident set of a process and its peak, in bytes (keys ``rss``, ``peak``)."""
    found = {}
    for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found["rss" if name == "VmRSS" else "peak"] = int(rest.split()[0]) * 1024
    return found


def describe() -> dict[str, object]:
    """Describe machine and interpreter, for a reader who compares two results."""
    return {
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "distribution": _distribution(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(cores()) or os.cpu_count(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "compiler": platform.python_compiler(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)
