"""The machine a measurement was taken on, and which of its cores to use."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """One core for the server and one for the client; None: not pinned."""

    server: int | None
    client: int | None


def parse_cpu_list(text: str) -> set[int]:
    """Read a kernel CPU list such as `0-2,8`."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _siblings(cpu: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return parse_cpu_list(path.read_text())
    except OSError:
        return {cpu}


def choose_cores() -> Cores:
    """Two different physical cores where there are two; two hyper-threads otherwise."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2 or not shutil.which("taskset"):
        return Cores(None, None)
    server = allowed[0]
    siblings = _siblings(server)
    apart = [cpu for cpu in allowed if cpu not in siblings]
    return Cores(server, (apart or allowed[1:])[0])


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def file_system_of(directory: Path) -> str:
    """The type of the file system that holds a directory; `tmpfs` makes fdatasync free."""
    done = subprocess.run(
        ["stat", "--file-system", "--format", "%T", str(directory)],
        capture_output=True,
        encoding="utf-8",
    )
    return done.stdout.strip() or "unknown"


def describe(cores: Cores) -> dict[str, str]:
    """What a reader of the table has to know about the machine."""
    if cores.server is None:
        pinned = "not pinned: server and client share the cores"
    else:
        pinned = f"server on core {cores.server}, client on core {cores.client}"
    return {
        "processor": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "cores": pinned,
    }
