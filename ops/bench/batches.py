"""Many events in one request, as NDJSON and as a JSON array, against one event a request.

Nothing repeats: the events of a body differ, and the bodies that clients send in turn differ.
Nothing is compressed.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench import bodies, charts, wrk
from ops.bench.checks import require_stored
from ops.bench.servers import CATALOGUE, journal_directory
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import figure, table

HELP = "events/s with 1 to 10,000 events a request, NDJSON and arrays, against single requests"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
SERVER = "ingest-fsync"
JUDGED_EVENTS = 1000
RATIO_LEAST, EVENTS_PER_SECOND_LEAST = 12.0, 500_000
#: metrics in one event -> what such an event is called
KINDS = {1: "one metric", 3: "three metrics"}
#: events a request -> connections: enough to keep the server busy, few enough for its memory
CONNECTIONS = {1: 64, 10: 64, 100: 32, 1000: 16, 10_000: 4}
#: how much the bodies that are sent in turn take together, at most
POOL_BYTES = 16 << 20
POOL_BODIES = 64


class Form(NamedTuple):
    """One way to send events."""

    title: str
    path: str
    media_type: str


FORMS = {
    "single": Form("single requests", "/v1/events/metrics", "application/json"),
    "ndjson": Form("NDJSON", "/v1/events/metrics", "application/x-ndjson"),
    "array": Form("JSON array", "/v1/batch/metrics", "application/json"),
}


class Point(NamedTuple):
    """One thing to measure."""

    form: str
    metrics: int
    events: int

    @property
    def title(self) -> str:
        return f"{FORMS[self.form].title}, {self.events} x {KINDS[self.metrics]}"


def points(stage: Stage) -> list[Point]:
    """Single requests first, for the others are compared with them."""
    sizes = (JUDGED_EVENTS,) if stage.quick else tuple(CONNECTIONS)
    found = []
    for metrics in KINDS:
        found.append(Point("single", metrics, 1))
        found += [Point(form, metrics, n) for form in ("ndjson", "array") for n in sizes]
    return found


def steps(stage: Stage) -> int:
    return stage.rounds * len(points(stage))


def body_pool(point: Point) -> list[bytes]:
    """The bodies that are sent in turn."""
    source = random.Random(f"{point}")
    pool: list[bytes] = []
    while len(pool) < 2 or (len(pool) < POOL_BODIES and sum(map(len, pool)) < POOL_BYTES):
        events = [bodies.event(source, point.metrics) for _ in range(point.events)]
        pool.append({"single": lambda e: e[0], "ndjson": bodies.ndjson, "array": bodies.array}[
            point.form
        ](events))  # fmt: skip
    return pool


def measure(stage: Stage) -> Document:
    """All rounds; the server is started anew for each point, with an empty journal."""
    rounds = []
    for number in range(stage.rounds):
        for point in points(stage):
            stage.progress.step(f"round {number + 1}/{stage.rounds}, {point.title}")
            with serving(CATALOGUE[SERVER], stage.cores.server, stage.schemas) as where:
                row = _visit(stage, point, where)
            stage.progress.note(f"{row['events_per_second']:,.0f} events/s")
            rounds.append({"round": number, **point._asdict(), **row})
    return {"rounds": rounds, "remarks": [], "failed": _failures(rounds)}


def _visit(stage: Stage, point: Point, where: Serving) -> dict[str, Any]:
    form = FORMS[point.form]
    files, sizes = [], []
    for n, body in enumerate(body_pool(point)):
        files.append(where.launch.workspace / f"body-{n}")
        files[-1].write_bytes(body)
        sizes.append(len(body))
    target = wrk.Target(
        where.process,
        where.launch.port,
        files[0],
        stage.cores.client,
        form.path,
        form.media_type,
        tuple(files[1:]),
    )
    load = wrk.Load("batch", point.title, CONNECTIONS[point.events])
    warm = wrk.run(target, load, 1)
    found = wrk.run(target, load, stage.seconds)
    stored = sum(run.requests - run.failures for run in (warm, found)) * point.events
    require_stored(where.process, journal_directory(where.launch), stored)
    return {
        **found._asdict(),
        "connections": load.connections,
        "bytes_per_event": statistics.mean(sizes) / point.events,
        "events_per_second": found.requests_per_second * point.events,
        "cpu_us_per_event": found.cpu_us / point.events,
    }


def _failures(rounds: list[dict[str, Any]]) -> list[str]:
    return [
        f"{Point(row['form'], row['metrics'], row['events']).title}: {row['failures']} failures"
        for row in rounds
        if row["failures"]
    ]


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Medians; the ratio is taken against the single requests of the same round."""
    groups: dict[Point, list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        point = Point(row["form"], row["metrics"], row["events"])
        groups.setdefault(point, []).append(row)
    result = []
    for point, rows in groups.items():
        single = {
            row["round"]: row["events_per_second"]
            for row in groups.get(Point("single", point.metrics, 1), ())
        }
        ratios = [
            row["events_per_second"] / single[row["round"]]
            for row in rows
            if row["round"] in single
        ]
        names = ("connections", "bytes_per_event", "events_per_second", "cpu_us_per_event",
                 "core_share", "client_share", "p50_ms", "p99_ms")  # fmt: skip
        result.append({
            **point._asdict(),
            **{name: statistics.median(row[name] for row in rows) for name in names},
            "of_single": statistics.median(ratios) if ratios else None,
            "failures": sum(row["failures"] for row in rows),
        })  # fmt: skip
    return result


def markdown(found: Document) -> str:
    head = (
        "form", "event", "events a request", "connections", "events/s", "against single",
        "MB/s", "server CPU µs/event", "core busy: server / client", "p50 ms", "p99 ms", "failures",
    )  # fmt: skip
    return table(
        head,
        (
            (
                FORMS[row["form"]].title,
                f"{KINDS[row['metrics']]}, {row['bytes_per_event']:.0f} bytes",
                f"{row['events']:,}",
                f"{row['connections']:.0f}",
                figure(row["events_per_second"], 0),
                figure(row["of_single"], 1),
                figure(row["events_per_second"] * row["bytes_per_event"] / 1e6, 1),
                figure(row["cpu_us_per_event"]),
                f"{row['core_share']:.0%} / {row['client_share']:.0%}",
                figure(row["p50_ms"]),
                figure(row["p99_ms"]),
                str(row["failures"]),
            )
            for row in summary(found)
        ),
        left=2,
    )


def panels(found: Document) -> list[charts.Panel]:
    """Events/s and CPU an event against events a request."""
    rate: dict[str, list[tuple[float, float]]] = {}
    cost: dict[str, list[tuple[float, float]]] = {}
    for row in summary(found):
        if row["form"] == "single":
            continue
        line = f"{FORMS[row['form']].title}, {KINDS[row['metrics']]}"
        rate.setdefault(line, []).append((row["events"], row["events_per_second"] / 1000))
        cost.setdefault(line, []).append((row["events"], row["cpu_us_per_event"]))
    return [
        charts.Panel("Events a second, one core", "events a request", "thousand events/s", rate),
        charts.Panel("Server CPU an event", "events a request", "µs", cost, log_y=True),
    ]


def pictures(found: Document, stem: Path) -> list[Path]:
    path = stem.parent / f"{stem.name}.png"
    if len({row["events"] for row in found["rounds"] if row["form"] != "single"}) < 2:
        return []
    return [path] if charts.save(panels(found), path) else []
