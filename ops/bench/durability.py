"""What durability costs: answers after fdatasync, after write, and with nothing written at all.

The third is this server with a journal that drops its bytes (no_journal.py): what is left is
HTTP, JSON, validation and the way to the native thread and back. How many records share a
commit, and how long a commit takes, is read from /metrics around each measurement.
"""

from __future__ import annotations

import http.client
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.bench import wrk
from ops.bench.checks import require_stored, stored_events
from ops.bench.process import ServerFailed
from ops.bench.servers import Launch, Spec, journal_directory, ours
from ops.bench.stage import Document, Stage, serving
from ops.bench.tables import figure, table

HELP = "the cost of durability: ack fsync, ack write, no journal; with commit sizes"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
CONNECTIONS = (1, 64, 1000)
NO_JOURNAL = "none"
_HISTOGRAM = re.compile(
    r"^ingest_journal_(commit_records|commit_seconds|sync_seconds)_(sum|count) (\S+)$", re.MULTILINE
)


def _without_journal() -> Spec:
    def command(launch: Launch) -> list[str]:
        words = list(ours("fsync").command(launch))
        words[words.index("-m") + 1] = "ops.bench.no_journal"
        return words

    return ours("fsync")._replace(
        title="ingest, no journal", does="parse, validate", command=command, stores=False
    )


#: what is waited for -> server
VARIANTS: Mapping[str, Spec] = {
    "fsync": ours("fsync"),
    "write": ours("write"),
    NO_JOURNAL: _without_journal(),
}


def steps(stage: Stage) -> int:
    return stage.rounds * len(VARIANTS) * len(CONNECTIONS)


def measure(stage: Stage) -> Document:
    """All rounds; each begins with another variant."""
    names = list(VARIANTS)
    rounds = []
    for number in range(stage.rounds):
        first = number % len(names)
        for ack in names[first:] + names[:first]:
            rounds += _visit(stage, number, ack)
    return {
        "rounds": rounds,
        "remarks": [],
        "failed": [
            f"{row['ack']}, {row['connections']} connections: {row['failures']} failures"
            for row in rounds
            if row["failures"]
        ],
    }


def _visit(stage: Stage, number: int, ack: str) -> list[dict[str, Any]]:
    rows = []
    with serving(VARIANTS[ack], stage.cores.server, stage.schemas) as (process, launch):
        target = wrk.Target(process, launch.port, launch.body_file, stage.cores.client)
        warm = wrk.run(target, wrk.Load("warm", "warm", 64), 1)
        stored = warm.requests - warm.failures
        for connections in CONNECTIONS:
            stage.progress.step(f"round {number + 1}/{stage.rounds}, {ack}, {connections}")
            before = scrape(launch.port)
            found = wrk.run(target, wrk.Load("load", "load", connections), stage.seconds)
            seen = between(before, scrape(launch.port))
            stage.progress.note(
                f"{found.requests_per_second:,.0f}/s, {figure(seen['records'], 1)} a commit"
            )
            stored += found.requests - found.failures
            rows.append({
                "round": number, "ack": ack, "connections": connections,
                **found._asdict(), **seen,
            })  # fmt: skip
        directory = journal_directory(launch)
        require_stored(process, directory, 0 if ack == NO_JOURNAL else stored)
        if ack == NO_JOURNAL and stored_events(directory):
            raise ServerFailed("the server without a journal has stored events")
    return rows


def scrape(port: int) -> dict[str, float]:
    """Sums and counts of the journal's histograms, by their names without `ingest_journal_`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return {f"{name}_{kind}": float(value) for name, kind, value in _HISTOGRAM.findall(text)}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float | None]:
    """Means over what was committed between two scrapes; None where nothing was.

    Returns:
        `records` of a commit; `commit_ms`, all of it; `sync_ms`, its fdatasync.
    """

    def mean(name: str, factor: float) -> float | None:
        count = after[f"{name}_count"] - before[f"{name}_count"]
        total = after[f"{name}_sum"] - before[f"{name}_sum"]
        return total / count * factor if count else None

    return {
        "records": mean("commit_records", 1.0),
        "commit_ms": mean("commit_seconds", 1e3),
        "sync_ms": mean("sync_seconds", 1e3),
    }


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Medians; a ratio is taken against the server without a journal in the same round."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        groups.setdefault((row["connections"], row["ack"]), []).append(row)
    names = ("requests_per_second", "p50_ms", "p99_ms", "cpu_us", "core_share", "client_share",
             "records", "commit_ms", "sync_ms")  # fmt: skip
    result = []
    for connections in dict.fromkeys(connections for connections, _ in groups):
        free = {r["round"]: r["requests_per_second"] for r in groups[connections, NO_JOURNAL]}
        for ack in VARIANTS:
            rows = groups[connections, ack]
            result.append({
                "connections": connections, "ack": ack,
                **{name: _median(row[name] for row in rows) for name in names},
                "of_free": _median(r["requests_per_second"] / free[r["round"]] for r in rows),
                "failures": sum(row["failures"] for row in rows),
            })  # fmt: skip
    return result


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def markdown(found: Document) -> str:
    head = (
        "connections", "answered after", "requests/s", "of no journal", "p50 ms", "p99 ms",
        "records a commit", "ms a commit", "ms an fdatasync", "server CPU µs",
        "cores busy: server / client", "failures",
    )  # fmt: skip
    words = {"fsync": "fdatasync", "write": "write", NO_JOURNAL: "nothing: no journal"}
    return table(
        head,
        (
            (
                f"{row['connections']:,}",
                words[row["ack"]],
                figure(row["requests_per_second"], 0),
                figure(row["of_free"]),
                figure(row["p50_ms"]),
                figure(row["p99_ms"]),
                figure(row["records"], 1),
                figure(row["commit_ms"], 3),
                figure(row["sync_ms"], 3),
                figure(row["cpu_us"], 1),
                f"{row['core_share']:.2f} / {row['client_share']:.2f}",
                str(row["failures"]),
            )
            for row in summary(found)
        ),
        left=2,
    )


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
