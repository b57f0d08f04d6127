"""What is aimed at, what was measured, and whether that is enough."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ops.bench import batches, crowd, openloop, workers
from ops.bench.report import Results
from ops.bench.servers import CATALOGUE
from ops.bench.tables import figure, table
from ops.bench.wrk import Measurement

Document = Mapping[str, Any]
#: name of a result -> its document, None where there is none
Find = Callable[[str], "Document | None"]


class Aim(NamedTuple):
    """One row.

    Attributes:
        words: what is measured.
        least: what is aimed at.
        measured: what was found, `-` where nothing was.
        reached: None where nothing was found, or nothing is to be reached.
    """

    words: str
    least: str
    measured: str
    reached: bool | None

    def cells(self) -> tuple[str, str, str, str]:
        verdict = {None: "-", True: "yes", False: "**no**"}[self.reached]
        return self.words, self.least, self.measured, verdict


def markdown(find: Find) -> str:
    aims = [
        *against_servers(find("full")),
        *of_batches(find("batches")),
        of_workers(find("workers")),
        of_crowd(find("crowd")),
        *of_latency(find("open-loop")),
    ]
    head = ("measure", "at least", "measured", "reached")
    return table(head, (aim.cells() for aim in aims), left=4)


def results_of(document: Document) -> Results:
    """The measurements in a saved report."""
    return {
        name: {
            load: [Measurement(**m) if m else None for m in by_load["rounds"]]
            for load, by_load in server["loads"].items()
        }
        for name, server in document["servers"].items()
    }


def ratio(results: Results, load: str, mine: str, other: str) -> float | None:
    """Requests/s of one server by another's, the median of the ratios of each round."""
    pairs = zip(
        results.get(mine, {}).get(load, ()), results.get(other, {}).get(load, ()), strict=False
    )
    ratios = [a.requests_per_second / b.requests_per_second for a, b in pairs if a and b]
    return statistics.median(ratios) if ratios else None


class Comparison(NamedTuple):
    """Requests/s of two servers: what their ratio must be, under each load."""

    words: str
    mine: str
    other: str
    least: Mapping[str, float]


COMPARISONS = (
    Comparison(
        "against nginx `return 202`, 64 / 1000 connections, ack fsync",
        "ingest-fsync", "nginx", {"c64": 0.40, "c1000": 0.55},
    ),
    Comparison("the same, ack write", "ingest-write", "nginx", {"c64": 0.60, "c1000": 0.60}),
    Comparison(
        "16 requests pipelined, ack write, against nginx pipelined",
        "ingest-write", "nginx", {"p16": 1.0},
    ),
    Comparison(
        "against Fastify + ajv (stores nothing), ack fsync, 64 / 1000",
        "ingest-fsync", "fastify", {"c64": 1.6, "c1000": 2.0},
    ),
    Comparison(
        "against granian + Falcon + jsonschema-rs (stores nothing), ack fsync, 64 / 1000",
        "ingest-fsync", "granian", {"c64": 1.1, "c1000": 1.7},
    ),
    Comparison(
        "against gunicorn gevent + Flask + jsonschema, ack fsync, 64 / 1000",
        "ingest-fsync", "gunicorn", {"c64": 15, "c1000": 15},
    ),
)  # fmt: skip


def against_servers(document: Document | None) -> list[Aim]:
    """Ratios of requests/s, and the ladder."""
    results = results_of(document) if document else {}
    aims = []
    for words, mine, other, least in COMPARISONS:
        found = {load: ratio(results, load, mine, other) for load in least}
        aim = " / ".join(dict.fromkeys(f"{value:g}" for value in least.values()))
        aims.append(Aim(words, aim, *_compare(found, least)))
    rungs = document["servers"].get("ingest-fsync", {}).get("ladder", []) if document else []
    success = min((rung["success_rate"] for rung in rungs), default=None)
    measured = "-" if success is None else f"{success:.3%} at the worst of {len(rungs)} rungs"
    aims.append(
        Aim("the ladder to 1000 x 100, ack fsync", "100 % success", measured,
            None if success is None else success == 1)
    )  # fmt: skip
    return aims


def _compare(
    found: Mapping[str, float | None], least: Mapping[str, float]
) -> tuple[str, bool | None]:
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return "-", None
    measured = " / ".join(figure(value) for value in found.values())
    if len(known) < len(found):
        return measured, None
    return measured, all(value >= least[name] for name, value in known.items())


def of_batches(document: Document | None) -> list[Aim]:
    """NDJSON against single requests, for each kind of event."""
    rows = {
        row["metrics"]: row
        for row in (batches.summary(document) if document else ())
        if row["form"] == "ndjson" and row["events"] == batches.JUDGED_EVENTS
    }
    ratio_least, rate_least = batches.RATIO_LEAST, batches.EVENTS_PER_SECOND_LEAST
    aims = []
    for metrics, kind in batches.KINDS.items():
        measured, reached = "-", None
        if row := rows.get(metrics):
            of_single, rate = row["of_single"], row["events_per_second"]
            kind += f", {row['bytes_per_event']:.0f} bytes"
            measured = f"{figure(of_single, 1)} x and {rate:,.0f}/s"
            reached = of_single >= ratio_least and rate >= rate_least
        aims.append(
            Aim(
                f"NDJSON, {batches.JUDGED_EVENTS} events a request ({kind}), ack fsync: "
                "events/s per core against single requests/s",
                f"{ratio_least:g} x and {rate_least:,}/s",
                measured,
                reached,
            )
        )
    return aims


def of_workers(document: Document | None) -> Aim:
    rows: Sequence[Mapping[str, Any]] = workers.summary(document) if document else ()
    gains = [
        f"{row['of_one']:.2f} x (ack {row['ack']}, {row['connections']}"
        f"{', pipelined' if row['depth'] > 1 else ''})"
        for row in rows
        if row["workers"] > 1
    ]
    words = "two workers on two cores (client sharing them) against one"
    return Aim(words, "measured and explained", ", ".join(gains) or "-", True if gains else None)


def of_crowd(document: Document | None) -> Aim:
    words = f"{crowd.CONNECTIONS:,} connections over workers: resident in the server for each; "
    words += "answered, of one request on each"
    least = f"at most {crowd.KIB_MOST:g} KiB; 100 %"
    if document is None:
        return Aim(words, least, "-", None)
    share = document["answered_again"] / document["connections"]
    measured = f"{document['kib_each']:.1f} KiB; {share:.2%} of {document['connections']:,}"
    reached = (
        document["kib_each"] <= crowd.KIB_MOST
        and share == 1
        and document["connections"] >= crowd.CONNECTIONS
    )
    return Aim(words, least, measured, reached)


def of_latency(document: Document | None) -> list[Aim]:
    rows = [
        row
        for row in (openloop.summary(document) if document else ())
        if row["share"] == openloop.SHARE_JUDGED
    ]
    aims = []
    for name in openloop.SERVERS:
        p99s = [row["p99_ms"] for row in rows if row["server"] == name]
        aims.append(
            Aim(
                "p99 at half of the measured maximum rate, 64 / 1000 connections, "
                f"{CATALOGUE[name].title}",
                f"at most {openloop.P99_MOST_MS:g} ms",
                " / ".join(map(figure, p99s)) + " ms" if p99s else "-",
                max(p99s) <= openloop.P99_MOST_MS if p99s else None,
            )
        )
    return aims
