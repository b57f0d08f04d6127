"""Latency under a steady load: openloop.c, run at shares of the server's measured rate.

A closed loop, as wrk is, waits for an answer before it asks again: while a server stalls, the
requests that independent clients would have sent meanwhile are never sent, and their waiting
is in no percentile. openloop.c sends at a constant rate whatever happens, and counts each
latency from when its request was due.

The rate is a share of what wrk gets out of the same started server with as many connections.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench import charts, install, wrk
from ops.bench.checks import BODY, PATH, require_stored
from ops.bench.client import request_bytes
from ops.bench.servers import CATALOGUE, Launch, journal_directory
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import figure, table

HELP = "latency at a constant rate, at shares of the measured maximum (no coordinated omission)"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
SOURCE = Path(__file__).resolve().parent / "openloop.c"
SERVERS = ("ingest-fsync", "ingest-write")
CONNECTIONS = (64, 1000)
SHARES = (0.25, 0.5, 0.75, 0.9)
SHARE_JUDGED = 0.5
P99_MOST_MS = 5.0
WARM_SECONDS = 1.0
#: The generator has kept its rate when 99 of 100 requests whose connection was free were sent
#: within this, and nothing else ran on its core.
LATE_P99_MOST_US = 500.0
CORE_SHARE_LEAST = 0.95


class Latency(NamedTuple):
    """One run at a constant rate; times in milliseconds, from when a request was due.

    Attributes:
        rate: requests a second that were due.
        achieved: answers a second.
        failures: answers that are no 2xx, broken connections and requests without an answer.
        late_p99_ms, late_max_ms: the generator's own delay where the connection was free.
        core_share: how much of its core the generator had.
        accepted_p50_ms, accepted_p99_ms: of answers with a 2xx alone.
        refused: answers that are no 2xx; those without Retry-After are counted apart.
        lost: broken connections and requests without an answer.
    """

    rate: float
    achieved: float
    requests: int
    failures: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_p99_ms: float
    late_max_ms: float
    core_share: float
    accepted_p50_ms: float = 0.0
    accepted_p99_ms: float = 0.0
    refused: int = 0
    without_retry_after: int = 0
    lost: int = 0

    @property
    def disturbed(self) -> str:
        """Why the generator cannot be trusted; empty when it can."""
        if self.core_share < CORE_SHARE_LEAST:
            return f"the generator had only {self.core_share:.0%} of its core"
        if self.late_p99_ms * 1e3 > LATE_P99_MOST_US:
            return f"the generator itself was late, p99 {self.late_p99_ms:.2f} ms"
        return ""


class GeneratorFailed(Exception):
    """The generator could not run; the message is its own."""


def parse(output: str) -> Latency:
    """Read the line that openloop.c prints."""
    found = json.loads(output)
    latency, late = found["latency"], found["late"]
    return Latency(
        rate=found["rate"],
        achieved=found["achieved"],
        requests=found["requests"],
        failures=found["non_2xx"] + found["broken"] + found["unanswered"],
        p50_ms=latency["p50"] / 1e3,
        p90_ms=latency["p90"] / 1e3,
        p99_ms=latency["p99"] / 1e3,
        p999_ms=latency["p99.9"] / 1e3,
        max_ms=latency["max"] / 1e3,
        late_p99_ms=late["p99"] / 1e3,
        late_max_ms=late["max"] / 1e3,
        core_share=found["core_share"],
        accepted_p50_ms=found.get("accepted", latency)["p50"] / 1e3,
        accepted_p99_ms=found.get("accepted", latency)["p99"] / 1e3,
        refused=found["non_2xx"],
        without_retry_after=found.get("without_retry_after", 0),
        lost=found["broken"] + found["unanswered"],
    )


def run(
    port: int,
    request_file: Path,
    *,
    connections: int,
    rate: float,
    seconds: float,
    warm_seconds: float = WARM_SECONDS,
    cpu: int | None = None,
    nice: int = 0,
) -> Latency:
    """Run the generator against a server of 127.0.0.1.

    Args:
        port: the server's.
        request_file: the bytes of the request.
        connections: keep-alive connections that take turns.
        rate: requests a second over all of them.
        seconds: how long requests are counted.
        warm_seconds: how long they are sent before that.
        cpu: the generator's core, None for any.
        nice: how far it steps back for another one on the same core.

    Raises:
        install.Unavailable: the generator cannot be compiled.
        GeneratorFailed: it cannot connect, or what answers is not HTTP.
    """
    pinned = ["nice", "-n", str(nice)] if nice else []
    pinned += [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    numbers = [port, connections, rate, warm_seconds, seconds]
    done = subprocess.run(
        [*pinned, install.compiled(SOURCE), *map(str, numbers), str(request_file)],
        capture_output=True,
        encoding="utf-8",
        timeout=warm_seconds + seconds + 60,
    )
    if done.returncode:
        raise GeneratorFailed(done.stderr.strip())
    return parse(done.stdout)


# -- the mode ---------------------------------------------------------------------------------


def points(stage: Stage) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Numbers of connections and shares of the maximum to measure."""
    return CONNECTIONS, ((SHARE_JUDGED,) if stage.quick else SHARES)


def servers(stage: Stage) -> tuple[str, ...]:
    return stage.servers or SERVERS


def steps(stage: Stage) -> int:
    connections, shares = points(stage)
    return len(servers(stage)) * stage.rounds * len(connections) * (1 + len(shares))


def measure(stage: Stage) -> Document:
    """All rounds; every server is started anew in each."""
    install.compiled(SOURCE)
    rounds: list[dict[str, Any]] = []
    for number in range(stage.rounds):
        for name in servers(stage):
            spec = CATALOGUE[name]
            spec.prepare()
            with serving(spec, stage.cores.server, stage.schemas) as (process, launch):
                rounds += _visit(stage, name, number, Serving(process, launch))
    found: Document = {"rounds": rounds, "remarks": _remarks(rounds)}
    found["failed"] = [
        f"{row['server']}, {row['connections']} connections, {row['share']:.0%}: "
        "the generator could not keep the rate in any round"
        for row in summary(found)
        if row["disturbed"] == row["rounds"]
    ]
    return found


def _visit(stage: Stage, name: str, number: int, where: Serving) -> list[dict[str, Any]]:
    """One server in one round; its rows."""
    process, launch = where
    request_file = _request_file(launch)
    target = wrk.Target(process, launch.port, launch.body_file, stage.cores.client)
    warm = wrk.run(target, wrk.Load("warm", "warm", 64), 1)
    stored = warm.requests - warm.failures
    rows = []
    for connections in points(stage)[0]:
        text = f"round {number + 1}/{stage.rounds}, {name}, {connections} connections"
        stage.progress.step(f"{text}, maximum")
        most = wrk.run(target, wrk.Load("most", "most", connections), stage.seconds)
        stored += most.requests - most.failures
        stage.progress.note(f"{most.requests_per_second:,.0f}/s")
        for share in points(stage)[1]:
            stage.progress.step(f"{text}, {share:.0%} of it")
            found = run(
                launch.port,
                request_file,
                connections=connections,
                rate=most.requests_per_second * share,
                seconds=stage.seconds,
                cpu=stage.cores.client,
            )
            stored += found.requests - found.failures
            stage.progress.note(f"p99 {found.p99_ms:.2f} ms  {found.disturbed}")
            rows.append({
                "server": name, "connections": connections, "share": share,
                "maximum": most.requests_per_second, **found._asdict(),
                "disturbed": found.disturbed,
            })  # fmt: skip
    if CATALOGUE[name].stores:
        require_stored(process, journal_directory(launch), stored)
    return rows


def _request_file(launch: Launch) -> Path:
    path = launch.workspace / "request"
    path.write_bytes(request_bytes(PATH, BODY))
    return path


def _remarks(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What makes a figure doubtful, as sentences."""
    return [
        f"{row['server']}, {row['connections']} connections, {row['share']:.0%}: {row['disturbed']}"
        for row in rounds
        if row["disturbed"]
    ]


def summary(found: Document) -> list[dict[str, Any]]:
    """One row a server, number of connections and share: medians, and sums of failures.

    Rounds in which the generator was disturbed count only where there are no others.
    """
    groups: dict[tuple[str, int, float], list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        groups.setdefault((row["server"], row["connections"], row["share"]), []).append(row)
    result = []
    for (server, connections, share), rows in groups.items():
        good = [row for row in rows if not row["disturbed"]] or rows
        names = ("maximum", "rate", "achieved", "p50_ms", "p99_ms", "p999_ms", "max_ms",
                 "late_p99_ms", "late_max_ms")  # fmt: skip
        result.append({
            "server": server, "connections": connections, "share": share,
            **{name: statistics.median(row[name] for row in good) for name in names},
            "failures": sum(row["failures"] for row in rows),
            "disturbed": sum(bool(row["disturbed"]) for row in rows),
            "rounds": len(rows),
        })  # fmt: skip
    return result


def markdown(found: Document) -> str:
    head = (
        "server", "connections", "share of maximum", "maximum /s", "rate /s", "achieved /s",
        "p50 ms", "p99 ms", "p99.9 ms", "max ms", "failures", "generator late p99 / max ms",
        "rounds disturbed",
    )  # fmt: skip
    return table(
        head,
        (
            (
                CATALOGUE[row["server"]].title,
                str(row["connections"]),
                f"{row['share']:.0%}",
                *(figure(row[name], 0) for name in ("maximum", "rate", "achieved")),
                *(figure(row[name]) for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms")),
                str(row["failures"]),
                f"{row['late_p99_ms']:.2f} / {row['late_max_ms']:.2f}",
                f"{row['disturbed']} of {row['rounds']}",
            )
            for row in summary(found)
        ),
    )


def pictures(found: Document, stem: Path) -> list[Path]:
    """p99 against the share of the maximum."""
    rows = summary(found)
    if len({row["share"] for row in rows}) < 2:
        return []
    panels = []
    for connections in sorted({row["connections"] for row in rows}):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            if row["connections"] == connections:
                title = CATALOGUE[row["server"]].title
                lines.setdefault(f"{title}, p99", []).append((row["share"] * 100, row["p99_ms"]))
                lines.setdefault(f"{title}, p50", []).append((row["share"] * 100, row["p50_ms"]))
        panels.append(
            charts.Panel(
                f"{connections} connections",
                "% of the maximum rate",
                "latency, ms",
                lines,
                log_x=False,
                log_y=True,
                limit=(P99_MOST_MS, "the aim at 50 %"),
            )
        )
    path = stem.parent / f"{stem.name}.png"
    return [path] if charts.save(panels, path) else []
