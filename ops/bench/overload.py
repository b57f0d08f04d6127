"""Twice as much as can be done: who is let in is answered as fast as before, the others at once.

The rate that can be kept is what a closed loop of CLOSED connections gets. Then openloop.c
sends 0.8 of it, twice as much, and 0.8 of it again, while somebody watches /metrics. The server
is told that a request must not wait longer than QUEUE_DELAY: that is less than so many
connections would wait if nobody were refused, and more than they wait below the limit.

Three loads: events for a handler that waits, batches, and single events without a handler, of
which a refusal costs more than half of an accepted one.
"""

from __future__ import annotations

import http.client
import re
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench import install, openloop
from ops.bench.checks import BODY, PATH
from ops.bench.client import request_bytes
from ops.bench.process import ServerFailed
from ops.bench.servers import PEERS, Launch, ours
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import figure, table

HELP = "twice the rate that can be kept: p99 of what is admitted, refusals, memory, recovery"
TAKING = "median of {rounds} rounds of {seconds} s"
BATCH_PATH = "/v1/batch/metrics"
CONNECTIONS = 2000
CLOSED = 64
BELOW, ABOVE = 0.8, 2.0
P99_MOST_TIMES = 2.0
NORMAL_MOST_SECONDS = 2.0
LOOK_SECONDS = 0.05
_SAMPLE = re.compile(r"^ingest_(admission_shedding|requests_total\{[^}]*\}) (\S+)$", re.MULTILINE)


class Kind(NamedTuple):
    """A load.

    Attributes:
        title: its name in the table.
        events: how many a request holds.
        queue_delay: the server's `queue_delay_max_seconds`.
        flags: more of the server's.
        closed: connections of the closed loop that finds the rate; as many as are served at once.
    """

    title: str
    events: int
    queue_delay: str
    flags: tuple[str, ...] = ()
    closed: int = CLOSED


#: The handler takes 20 ms.
HANDLERS = str(PEERS / "handlers")
KINDS = (
    Kind("a handler that waits", 1, "0.02s", ("--handlers", HANDLERS, "--pool-size", "200"), 200),
    Kind("batches of 100", 100, "0.1s"),
    Kind("single events", 1, "0.02s"),
)


def steps(stage: Stage) -> int:
    return stage.rounds * len(KINDS) * 4


def measure(stage: Stage) -> Document:
    """All rounds; the server is started anew for each."""
    install.compiled(openloop.SOURCE)
    rounds = []
    for number in range(stage.rounds):
        for kind in KINDS:
            spec = ours("fsync", "--queue-delay-max", kind.queue_delay, *kind.flags)
            with serving(spec, stage.cores.server, stage.schemas) as where:
                rounds.append({"round": number, **_visit(stage, number, kind, where)})
    found: Document = {"rounds": rounds, "remarks": _remarks(rounds)}
    found["failed"] = [problem for row in rounds for problem in faults(row)]
    return found


def _request(kind: Kind, launch: Launch) -> Path:
    path = launch.workspace / "request"
    if kind.events == 1:
        path.write_bytes(request_bytes(PATH, BODY))
    else:
        array = b"[" + b",".join([BODY] * kind.events) + b"]"
        path.write_bytes(request_bytes(BATCH_PATH, array))
    return path


def _visit(stage: Stage, number: int, kind: Kind, where: Serving) -> dict[str, Any]:
    process, launch = where
    request, port = _request(kind, launch), launch.port
    text = f"round {number + 1}/{stage.rounds}, {kind.title}"

    def run(rate: float, seconds: float, warm: float, connections: int) -> openloop.Latency:
        return openloop.run(
            port, request, connections=connections, rate=rate, seconds=seconds,
            warm_seconds=warm, cpu=stage.cores.client,
        )  # fmt: skip

    stage.progress.step(f"{text}, the rate that can be kept")
    # More than can be done over few connections is a closed loop: each waits for its answer.
    most = run(200_000.0 / kind.events, max(1.0, stage.seconds / 2), 0.5, kind.closed)
    kept = most.achieved
    # What is due and not sent in time counts, so the rate is found by answers alone.
    stage.progress.note(f"{kept:,.0f}/s")
    stage.progress.step(f"{text}, {BELOW:.0%} of it")
    before = run(kept * BELOW, stage.seconds, 1.0, CONNECTIONS)
    memory_before = process.usage().rss_bytes
    stage.progress.note(f"p99 {before.accepted_p99_ms:.2f} ms")
    stage.progress.step(f"{text}, {ABOVE:.0%} of it")
    during = run(kept * ABOVE, stage.seconds, 1.0, CONNECTIONS)
    memory = process.usage().rss_bytes
    stage.progress.note(f"p99 {during.accepted_p99_ms:.2f} ms, {during.refused:,} refused")
    stage.progress.step(f"{text}, {BELOW:.0%} of it again")
    with ThreadPoolExecutor(1) as beside:
        watch = beside.submit(_seconds_until_normal, port)
        after = run(kept * BELOW, stage.seconds, NORMAL_MOST_SECONDS, CONNECTIONS)
    stage.progress.note(f"p99 {after.accepted_p99_ms:.2f} ms")
    return {
        "kind": kind.title, "kept": kept,
        **_named("before", before), **_named("during", during), **_named("after", after),
        "normal_seconds": watch.result(), "memory_bytes_before": memory_before,
        "memory_bytes": memory,
    }  # fmt: skip


def _named(name: str, found: openloop.Latency) -> dict[str, Any]:
    fields = ("rate", "requests", "accepted_p50_ms", "accepted_p99_ms", "refused",
              "without_retry_after", "lost", "disturbed")  # fmt: skip
    return {f"{name}_{field}": getattr(found, field) for field in fields}


def _seconds_until_normal(port: int) -> float:
    """How long load is still shed from now on."""
    began = time.monotonic()
    while scrape(port)["admission_shedding"]:
        if time.monotonic() - began > 30:
            raise ServerFailed("load is shed for 30 s after an overload")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


def scrape(port: int) -> dict[str, float]:
    """What /metrics says of admission."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {name: float(value) for name, value in _SAMPLE.findall(text)}


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is not as it should be, as sentences."""
    found = []
    before, during = row["before_accepted_p99_ms"], row["during_accepted_p99_ms"]
    if during > P99_MOST_TIMES * before:
        found.append(f"p99 of what is admitted rose from {before:.2f} to {during:.2f} ms")
    if row["during_without_retry_after"]:
        found.append(f"{row['during_without_retry_after']} refusals had no Retry-After")
    if row["during_lost"] or row["after_lost"]:
        found.append(f"{row['during_lost'] + row['after_lost']} requests had no answer")
    if row["after_refused"]:
        found.append(f"{row['after_refused']} requests were refused afterwards")
    if row["normal_seconds"] > NORMAL_MOST_SECONDS:
        found.append(f"load was shed for {row['normal_seconds']:.1f} s afterwards")
    return [f"{row['kind']}: {fault}" for fault in found]


def _remarks(rounds: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['kind']}, {name}: {row[f'{name}_disturbed']}"
        for row in rounds
        for name in ("before", "during", "after")
        if row[f"{name}_disturbed"]
    ]


def markdown(found: Document) -> str:
    rows = []
    for kind in dict.fromkeys(row["kind"] for row in found["rounds"]):
        group = [row for row in found["rounds"] if row["kind"] == kind]

        def median(name: str, group: list[dict[str, Any]] = group) -> float:
            return statistics.median(row[name] for row in group)

        admitted = statistics.median(
            1 - row["during_refused"] / row["during_requests"] for row in group
        )
        rows.append((
            kind, figure(median("kept"), 0),
            figure(median("before_accepted_p99_ms")), figure(median("during_accepted_p99_ms")),
            figure(median("after_accepted_p99_ms")), f"{admitted:.0%}",
            figure(median("normal_seconds")),
            f"{median('memory_bytes_before') / 2**20:.0f} / {median('memory_bytes') / 2**20:.0f}",
            str(sum(row["during_lost"] + row["after_refused"] for row in group)),
        ))  # fmt: skip
    head = (
        "load", "kept /s", "p99 ms at 0.8", "p99 ms of admitted at 2", "p99 ms at 0.8 again",
        "admitted at 2", "s until normal", "RSS MiB before / at 2", "lost, or refused afterwards",
    )  # fmt: skip
    return table(head, rows, left=1)


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
