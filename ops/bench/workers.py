"""Two workers on two cores against one, where the client shares the cores.

Server and wrk share the two cores that the table gives to one of them each, as in a small
container. So the gain is less than twofold by what the client takes; its share stands in the
table.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.bench import wrk
from ops.bench.checks import require_stored
from ops.bench.servers import journal_directory, ours
from ops.bench.stage import Document, Stage, on_both_cores, serving
from ops.bench.tables import figure, table

HELP = "two workers against one, on two cores together with the client"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
WORKERS = (1, 2)
#: Connections, and requests sent in one piece. Pipelined ones cost the client little, so its share
#: of the cores is small.
LOADS = ((64, 1), (1000, 1), (64, 16))
ACKS = ("fsync", "write")


def steps(stage: Stage) -> int:
    return stage.rounds * len(ACKS) * len(WORKERS) * len(LOADS)


def measure(stage: Stage) -> Document:
    rounds = []
    with on_both_cores(stage.cores):
        for number in range(stage.rounds):
            for ack in ACKS:
                for workers in WORKERS:
                    rounds += _visit(stage, number, ack, workers)
    return {
        "rounds": rounds,
        "remarks": [],
        "failed": [
            f"{row['workers']} workers, ack {row['ack']}, {row['connections']} connections: "
            f"{row['failures']} failures"
            for row in rounds
            if row["failures"]
        ],
    }


def _visit(stage: Stage, number: int, ack: str, workers: int) -> list[dict[str, Any]]:
    rows = []
    flags = () if workers == 1 else ("--workers", str(workers))
    with serving(ours(ack, *flags), None, stage.schemas) as (process, launch):
        target = wrk.Target(process, launch.port, launch.body_file, None)
        warm = wrk.run(target, wrk.Load("warm", "warm", 64), 1)
        stored = warm.requests - warm.failures
        for connections, depth in LOADS:
            stage.progress.step(
                f"round {number + 1}/{stage.rounds}, ack {ack}, {workers} workers, "
                f"{connections} x {depth}"
            )
            load = wrk.Load("load", "load", connections, depth)
            found = wrk.run(target, load, stage.seconds)
            stage.progress.note(f"{found.requests_per_second:,.0f}/s")
            stored += found.requests - found.failures
            rows.append({
                "round": number, "ack": ack, "workers": workers, "connections": connections,
                "depth": depth, **found._asdict(),
            })  # fmt: skip
        require_stored(process, journal_directory(launch), stored)
    return rows


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Medians; a ratio is taken against one worker in the same round."""
    groups: dict[tuple[str, int, int, int], list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        key = (row["ack"], row["depth"], row["connections"], row["workers"])
        groups.setdefault(key, []).append(row)
    names = ("requests_per_second", "cpu_us", "core_share", "client_share", "rss_bytes")
    result = []
    for (ack, depth, connections, workers), rows in sorted(groups.items()):
        alone = groups[ack, depth, connections, 1]
        one = {row["round"]: row["requests_per_second"] for row in alone}
        times = () if depth > 1 else ("p50_ms", "p99_ms")
        result.append({
            "ack": ack, "connections": connections, "depth": depth, "workers": workers,
            "p50_ms": None, "p99_ms": None,
            **{name: statistics.median(row[name] for row in rows) for name in times},
            **{name: statistics.median(row[name] for row in rows) for name in names},
            "of_one": statistics.median(
                row["requests_per_second"] / one[row["round"]] for row in rows
            ),
            "failures": sum(row["failures"] for row in rows),
        })  # fmt: skip
    return result


def markdown(found: Document) -> str:
    head = (
        "ack", "connections", "workers", "requests/s", "against one", "p50 ms", "p99 ms",
        "server CPU µs", "cores busy: server / client", "RSS MiB", "failures",
    )  # fmt: skip
    return table(
        head,
        (
            (
                row["ack"],
                str(row["connections"]) + (", pipelined" if row["depth"] > 1 else ""),
                str(row["workers"]),
                figure(row["requests_per_second"], 0),
                figure(row["of_one"]),
                "-" if row["p50_ms"] is None else figure(row["p50_ms"]),
                "-" if row["p99_ms"] is None else figure(row["p99_ms"]),
                figure(row["cpu_us"], 1),
                f"{row['core_share']:.2f} / {row['client_share']:.2f}",
                f"{row['rss_bytes'] / 2**20:.0f}",
                str(row["failures"]),
            )
            for row in summary(found)
        ),
    )


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
