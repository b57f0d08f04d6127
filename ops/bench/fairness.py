"""Two keys, one of which asks for ten times its share: what the other one notices.

Two shares are looked at: that of a key's quota, and, where no key has one, half of what the
server can do. Each is measured twice, with the greedy key at its share and at ten times as
much, beside the modest one, which sends somewhat less than its share all the time.

Both generators run on one core. The greedy one steps back for the other (nice), and the
modest one counts from when a request was due, so what it reports is what a client would see.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ingest.access.keys import Keys, new_key
from ingest.access.keys_file import save
from ingest.access.principal import Quota
from ops.bench import install, openloop
from ops.bench.checks import BODY, PATH
from ops.bench.client import request_bytes
from ops.bench.servers import ours
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import figure, table

HELP = "two keys, one at ten times its share: what the other one notices"
TAKING = "median of {rounds} rounds of {seconds} s"
BATCH_PATH = "/v1/batch/metrics"
#: Of what the modest key may send.
MODEST = 0.7
GREEDY_TIMES = 10
CONNECTIONS = 200
CLOSED = 64
SUCCESS_LEAST = 0.99
P99_MOST_TIMES = 2.0
NICE = 19


class Kind(NamedTuple):
    """What a share is.

    Attributes:
        title: its name in the table.
        events: how many a request holds.
        quota: events a second of each key; None where half of what can be done is a share.
    """

    title: str
    events: int
    quota: int | None


KINDS = (
    Kind("quota of 4,000 events/s", 1, 4_000),
    Kind("half of the capacity, batches of 100", 100, None),
)


def steps(stage: Stage) -> int:
    return stage.rounds * sum(2 if kind.quota else 3 for kind in KINDS)


def measure(stage: Stage) -> Document:
    """All rounds; the server is started anew for each."""
    install.compiled(openloop.SOURCE)
    rounds = []
    for number in range(stage.rounds):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as directory:
                keys_file = Path(directory) / "keys.json"
                tokens = _keys(keys_file, kind)
                headers = {"X-API-Key": tokens["greedy"]}
                spec = ours("fsync", "--keys-file", str(keys_file), "--queue-delay-max", "0.1s")
                cpu = stage.cores.server
                with serving(spec, cpu, stage.schemas, headers=headers) as where:
                    rounds.append({"round": number, **_visit(stage, number, kind, where, tokens)})
    found: Document = {"rounds": rounds}
    found["remarks"] = [
        f"{row['kind']}, {name}: {row[f'{name}_disturbed']}"
        for row in rounds
        for name in ("before", "during")
        if row[f"{name}_disturbed"]
    ]
    found["failed"] = [problem for row in rounds for problem in faults(row)]
    return found


def _keys(path: Path, kind: Kind) -> dict[str, str]:
    """A keys file with both keys; their tokens by name."""
    keys, tokens = Keys(), {}
    for name in ("modest", "greedy"):
        tokens[name], entry = new_key(
            name, types=(), rights=("send",), quota=Quota(kind.quota, None),
            now=time.time(), expires=None,
        )  # fmt: skip
        keys = keys.added(entry)
    save(path, keys)
    return tokens


def _visit(
    stage: Stage, number: int, kind: Kind, where: Serving, tokens: Mapping[str, str]
) -> dict[str, Any]:
    process, launch = where
    path, body = PATH, BODY
    if kind.events > 1:
        path, body = BATCH_PATH, b"[" + b",".join([BODY] * kind.events) + b"]"
    files = {}
    for name, token in tokens.items():
        files[name] = launch.workspace / name
        files[name].write_bytes(request_bytes(path, body, [("X-API-Key", token)]))
    text = f"round {number + 1}/{stage.rounds}, {kind.title}"

    def run(name: str, rate: float, connections: int = CONNECTIONS) -> openloop.Latency:
        return openloop.run(
            launch.port, files[name], connections=connections, rate=rate, seconds=stage.seconds,
            cpu=stage.cores.client, nice=NICE if name == "greedy" else 0,
        )  # fmt: skip

    if kind.quota:
        share = kind.quota / kind.events
    else:
        stage.progress.step(f"{text}, the rate that can be kept")
        share = run("modest", 200_000.0 / kind.events, CLOSED).achieved / 2
        stage.progress.note(f"{share * 2:,.0f}/s")
    row: dict[str, Any] = {"kind": kind.title, "share": share}
    for stretch, rate in (("before", share * MODEST), ("during", share * GREEDY_TIMES)):
        stage.progress.step(f"{text}, greedy {rate / share:.1f} of its share")
        with ThreadPoolExecutor(1) as beside:
            greedy = beside.submit(run, "greedy", rate)
            modest = run("modest", share * MODEST)
            other = greedy.result()
        stage.progress.note(f"p99 {modest.accepted_p99_ms:.2f} ms, {modest.refused:,} refused")
        row |= {
            f"{stretch}_p50_ms": modest.accepted_p50_ms,
            f"{stretch}_p99_ms": modest.accepted_p99_ms,
            f"{stretch}_success": 1 - modest.failures / modest.requests,
            f"{stretch}_greedy_success": 1 - other.failures / other.requests,
            f"{stretch}_greedy_rate": other.achieved / share,
            f"{stretch}_disturbed": modest.disturbed,
        }
    return {**row, "memory_bytes": process.usage().rss_bytes}


def faults(row: Mapping[str, Any]) -> list[str]:
    """What is not as it should be, as sentences."""
    found = []
    before, during = row["before_p99_ms"], row["during_p99_ms"]
    if during > P99_MOST_TIMES * before:
        found.append(f"the modest key's p99 rose from {before:.2f} to {during:.2f} ms")
    if row["during_success"] < SUCCESS_LEAST:
        found.append(f"only {row['during_success']:.2%} of the modest key's requests succeeded")
    return [f"{row['kind']}: {fault}" for fault in found]


def markdown(found: Document) -> str:
    rows = []
    for kind in dict.fromkeys(row["kind"] for row in found["rounds"]):
        group = [row for row in found["rounds"] if row["kind"] == kind]

        def median(name: str, group: list[dict[str, Any]] = group) -> float:
            return statistics.median(row[name] for row in group)

        rows.append((
            kind, figure(median("before_p99_ms")), figure(median("during_p99_ms")),
            f"{median('during_success'):.2%}", f"{median('during_greedy_rate'):.1f}",
            f"{median('during_greedy_success'):.1%}",
            f"{median('memory_bytes') / 2**20:.0f}",
        ))  # fmt: skip
    head = (
        "share", "p99 ms beside a modest one", "p99 ms beside a greedy one", "succeeded",
        "greedy: answers, in shares", "greedy: succeeded", "RSS MiB",
    )  # fmt: skip
    return table(head, rows, left=1)


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
