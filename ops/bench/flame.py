"""Where the server's time goes under load, seen from two sides.

py-spy samples the stacks of the event loop's thread without stopping it: the flame graph, and
Python functions by time. It tells wall time of that thread, so a function in which another
thread of ours got the core seems to take longer.

perf samples whatever is on the core, the kernel included: time by component. It knows no
Python functions. Where there is no perf, or the kernel does not allow it, that table is left
out.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ops.bench import flamegraph, install, wrk
from ops.bench.process import ServerFailed
from ops.bench.servers import CATALOGUE
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import table

HELP = "a flame graph of the server under load, its functions and components by time"
TAKING = "one recording by py-spy, one by perf, under 64 connections"
SERVER = "ingest-fsync"
LOAD = wrk.Load("flame", "flame", 64)
SAMPLES_PER_SECOND = 250
FUNCTIONS_SHOWN = 25
_LINE_NUMBER = re.compile(r":\d+\)$")
_SYSCALL = re.compile(r"__x64_sys_(\w+)|__arm64_sys_(\w+)")
#: Part of a library's file name -> what it is called here.
LIBRARIES = {
    "orjson": "orjson",
    "jsonschema_rs": "jsonschema-rs",
    "httptools": "httptools (llhttp)",
    "greenlet": "greenlet",
    "libev": "gevent and libev",
    "gevent": "gevent and libev",
    "crc32c": "CRC-32C",
    "_socket": "Python's socket module",
    "/libc.so": "C library",
    "/libm.so": "C library",
    "ld-linux": "C library",
    "vdso": "C library",
    "python3": "Python interpreter",
}
SYSCALLS = {"sendto": "send", "recvfrom": "recv", "futex": "futex (locks, waking threads)"}


def steps(stage: Stage) -> int:
    return 2


def measure(stage: Stage) -> Document:
    """Both recordings, of one started server."""
    spy = install.extras() / "bin" / "py-spy"
    seconds = max(2, stage.seconds * stage.rounds)
    remarks = []
    components: Counter[str] = Counter()
    with serving(CATALOGUE[SERVER], stage.cores.server, stage.schemas) as where:
        target = wrk.Target(
            where.process, where.launch.port, where.launch.body_file, stage.cores.client
        )
        wrk.run(target, LOAD, 1)
        stage.progress.step(f"py-spy, {seconds} s")
        stacks, rate = _spy(spy, where, target, seconds)
        stage.progress.note(f"{rate:,.0f}/s meanwhile")
        stage.progress.step(f"perf, {seconds} s")
        try:
            components = _perf(where, target, seconds)
        except install.Unavailable as error:
            remarks.append(f"no table by component: {error}")
    return {
        "server": SERVER,
        "requests_per_second": rate,
        "stacks": [[list(stack), count] for stack, count in stacks.most_common()],
        "components": components.most_common(),
        "remarks": remarks,
    }


def _spy(
    spy: Path, where: Serving, target: wrk.Target, seconds: int
) -> tuple[Counter[tuple[str, ...]], float]:
    """Stacks of the event loop's thread, and requests/s while they were taken."""
    output = where.launch.workspace / "stacks"
    command = [
        str(spy), "record", "--pid", str(where.process.pid), "--nonblocking", "--threads",
        "--function", "--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds),
        "--format", "raw", "--output", str(output),
    ]  # fmt: skip
    said, rate = _under_load(command, target, seconds)
    if not output.exists():
        raise ServerFailed(f"py-spy: {said[-500:]}")
    stacks = stacks_of(output.read_text().splitlines(), f"thread ({where.process.pid})")
    if not stacks:
        raise ServerFailed("py-spy saw nothing of the event loop")
    return stacks, rate


def _perf(where: Serving, target: wrk.Target, seconds: int) -> Counter[str]:
    """Samples by component.

    Raises:
        install.Unavailable: there is no perf, or it may not be used.
    """
    perf = install.program("perf", "linux-perf")
    output = where.launch.workspace / "perf.data"
    command = [
        perf, "record", "--freq", str(SAMPLES_PER_SECOND), "--call-graph", "fp", "--output",
        str(output), "--pid", str(where.process.pid), "--", "sleep", str(seconds),
    ]  # fmt: skip
    said, _ = _under_load(command, target, seconds)
    if not output.exists():
        raise install.Unavailable(said[-300:])
    script = subprocess.run(
        [perf, "script", "--input", str(output), "--fields", "ip,sym,dso"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    found = components_of(script.stdout.splitlines())
    if not found:
        raise install.Unavailable(f"perf: {script.stderr[-300:]}")
    return found


def _under_load(command: Sequence[str], target: wrk.Target, seconds: int) -> tuple[str, float]:
    """Run a recorder while wrk runs; what it says, and requests/s."""
    recorder = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    try:
        figures = wrk.run(target, LOAD, seconds + 1)
        said, _ = recorder.communicate(timeout=60)
    finally:
        recorder.kill()
        recorder.wait()
    return said, figures.requests_per_second


def stacks_of(lines: Iterable[str], thread: str) -> Counter[tuple[str, ...]]:
    """Stacks of one thread out of py-spy's raw format: frames from outside in, a count."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        root, *names = stack.split(";")
        if root.startswith(thread):
            found[tuple(_LINE_NUMBER.sub(")", name) for name in names)] += int(count)
    return found


def components_of(lines: Iterable[str]) -> Counter[str]:
    """Components out of `perf script`: a stack a paragraph, the innermost frame first."""
    found: Counter[str] = Counter()
    stack: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            stack.append(line)
        elif stack:
            found[_component(stack)] += 1
            stack = []
    return found


def _component(stack: Sequence[str]) -> str:
    library = stack[0].rpartition("(")[2].rstrip(")")
    if library.startswith("[") and library not in ("[vdso]", "[unknown]"):  # or a module of it
        for line in stack:
            if call := _SYSCALL.search(line):
                name = call[1] or call[2]
                return f"kernel: {SYSCALLS.get(name, name)}"
        return "kernel: interrupts, faults and switches"
    packaged = library.rpartition("site-packages/")[2]  # whole, where there is no such directory
    return next((name for part, name in LIBRARIES.items() if part in packaged), "other libraries")


def by_function(stacks: Iterable[tuple[Sequence[str], int]]) -> tuple[Counter[str], Counter[str]]:
    """Samples of every function: innermost, and anywhere in the stack."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks:
        if stack:
            own[stack[-1]] += count
        for name in set(stack):
            within[name] += count
    return own, within


def markdown(found: Document) -> str:
    parts = []
    if found["components"]:
        total = sum(count for _, count in found["components"])
        shares = ((name, f"{count / total:.1%}") for name, count in found["components"])
        parts.append(table(("component (perf: CPU time of all threads)", "share"), shares))
    own, within = by_function(found["stacks"])
    total = sum(count for _, count in found["stacks"])
    rows = (
        (f"`{name}`", f"{count / total:.1%}", f"{within[name] / total:.1%}")
        for name, count in own.most_common(FUNCTIONS_SHOWN)
    )
    head = ("function (py-spy: time of the event loop's thread)", "itself", "with what it calls")
    parts.append(table(head, rows))
    return "\n\n".join(parts)


def pictures(found: Document, stem: Path) -> list[Path]:
    path = stem.parent / f"{stem.name}.svg"
    stacks = {tuple(stack): count for stack, count in found["stacks"]}
    title = f"The event loop's thread at {found['requests_per_second']:,.0f} requests/s"
    path.write_text(flamegraph.svg(stacks, title), encoding="utf-8")
    return [path]
