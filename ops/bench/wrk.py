"""One measurement by wrk, on one core."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from ops.bench.checks import PATH
from ops.bench.process import ServerProcess, Usage

SCRIPT = Path(__file__).resolve().parent / "load.lua"
MARK = "FIGURES "
#: How long before wrk's end the memory is read: all connections are still open then.
RSS_LEAD_SECONDS = 0.2


class Load(NamedTuple):
    """One kind of load.

    Attributes:
        name: key in the JSON and on the progress line.
        title: heading in the table.
        connections: keep-alive connections.
        depth: requests sent in one piece (pipelining).
    """

    name: str
    title: str
    connections: int
    depth: int = 1


LOADS = {
    load.name: load
    for load in (
        Load("c64", "64 connections", 64),
        Load("c1000", "1000 connections", 1000),
        Load("p16", "64 connections, 16 requests pipelined", 64, 16),
    )
}


class Figures(NamedTuple):
    """What wrk counted, times in seconds."""

    requests: int
    seconds: float
    p50_seconds: float
    p99_seconds: float
    failures: int


class Measurement(NamedTuple):
    """One run of one load against one server.

    Attributes:
        p50_ms, p99_ms: None with pipelining, where wrk's figures mean nothing: it takes one
            sample a piece of 16 requests, but corrects them (for coordinated omission) as if
            each request had given one.
        cpu_us: the server's, user and system, for each request.
        core_share: the server's CPU time by wall time: below 1 it waited for something.
        client_share: wrk's CPU time by wall time: near 1 it was wrk that set the limit.
    """

    requests: int
    requests_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    failures: int
    cpu_us: float
    core_share: float
    client_share: float
    rss_bytes: int


def parse_figures(output: str) -> Figures:
    """Read the line that load.lua prints.

    Failures are answers that wrk counts as errors (status above 399) and every socket error,
    time-outs included.

    Raises:
        ValueError: there is no such line.
    """
    _, mark, rest = output.rpartition(MARK)
    if not mark:
        raise ValueError(f"wrk printed no figures but: {output[-500:]!r}")
    found = json.loads(rest.partition("\n")[0])
    return Figures(
        requests=found["requests"],
        seconds=found["seconds"],
        p50_seconds=found["p50_us"] / 1e6,
        p99_seconds=found["p99_us"] / 1e6,
        failures=sum(found[k] for k in ("non_2xx", "connect", "read", "write", "timeout")),
    )


class Run(NamedTuple):
    """What was seen of server and client around one run of wrk."""

    before: Usage
    after: Usage
    rss_bytes: int
    client_cpu_seconds: float


def measure(figures: Figures, load: Load, around: Run) -> Measurement:
    """Put wrk's counts and what was seen around its run together."""
    cpu_seconds = around.after.cpu_seconds - around.before.cpu_seconds
    timed = load.depth == 1
    return Measurement(
        requests=figures.requests,
        requests_per_second=figures.requests / figures.seconds,
        p50_ms=figures.p50_seconds * 1e3 if timed else None,
        p99_ms=figures.p99_seconds * 1e3 if timed else None,
        failures=figures.failures,
        cpu_us=cpu_seconds / max(figures.requests, 1) * 1e6,
        core_share=cpu_seconds / figures.seconds,
        client_share=around.client_cpu_seconds / figures.seconds,
        rss_bytes=around.rss_bytes,
    )


class Target(NamedTuple):
    """What wrk is run against, and how.

    Attributes:
        server: whose CPU time and memory are taken.
        port: where it listens on 127.0.0.1.
        body_file: file with the body to POST.
        cpu: the core for wrk, None for any.
        path: where to POST it.
        media_type: what it is.
        further_bodies: files with bodies to POST in turn with the first.
        scheme: http or https.
        fields: further header fields, as they are sent.
    """

    server: ServerProcess
    port: int
    body_file: Path
    cpu: int | None
    path: str = PATH
    media_type: str = "application/json"
    further_bodies: tuple[Path, ...] = ()
    scheme: str = "http"
    fields: tuple[str, ...] = ()


def run(target: Target, load: Load, seconds: int) -> Measurement:
    """Run wrk for so many seconds (it takes no fractions)."""
    server, cpu = target.server, target.cpu
    pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    command = [
        *pinned, "wrk", "--threads", "1", "--connections", str(load.connections),
        "--duration", f"{seconds}s", "--timeout", "5s", "--script", str(SCRIPT),
        *(word for field in target.fields for word in ("--header", field)),
        f"{target.scheme}://127.0.0.1:{target.port}{target.path}", "--", str(load.depth),
        target.media_type, str(target.body_file), *map(str, target.further_bodies),
    ]  # fmt: skip
    before, client_before = server.usage(), _cpu_of_ended_children()
    started = time.monotonic()
    client = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    try:
        time.sleep(max(0.0, started + seconds - RSS_LEAD_SECONDS - time.monotonic()))
        rss_bytes = server.usage().rss_bytes
        output, _ = client.communicate(timeout=60)
    finally:
        client.kill()
        client.wait()
    client_cpu_seconds = _cpu_of_ended_children() - client_before
    around = Run(before, server.usage(), rss_bytes, client_cpu_seconds)
    return measure(parse_figures(output), load, around)


def _cpu_of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
