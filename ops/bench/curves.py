"""How the cost of an event grows: with its size, its schema and the connections.

Each curve changes one thing; the mode `batches` does it for the size of a batch. The schemas
are made here and served from a directory of their own. What is posted is accepted by each of
them: refusals are not measured.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench import bodies, charts, install, wrk
from ops.bench.servers import METRICS_SCHEMA, ROOT, Spec, ours
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import figure, table

HELP = "how cost grows with body size, schema and connections (batch size: --batches)"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
SIZES = (200, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
PROPERTIES = (3, 10, 30, 100, 300, 1000)
CONNECTIONS = (1, 8, 64, 256, 1000, 4000, 10_000)
#: What the schemas of the curve `keywords` say of each of their properties.
KEYWORD_PROPERTIES = 30
DEFAULT_CONNECTIONS = 64
#: Bodies in flight take this much memory together, at most.
IN_FLIGHT_BYTES = 16 << 20
#: Before each point, for what the last one's clients left behind unanswered.
REST_SECONDS = 0.5
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Case(NamedTuple):
    """One point of a curve.

    Attributes:
        curve: which; `line` is a line of it.
        x: where the point stands, a number or a word.
        type: the event type that is posted to.
        body: what is posted.
    """

    curve: str
    line: str
    x: float | str
    type: str
    body: bytes
    connections: int = DEFAULT_CONNECTIONS


# -- schemas and bodies -----------------------------------------------------------------------


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"$schema": DIALECT, "type": "object", "properties": dict(properties),
            "additionalProperties": False}  # fmt: skip


def _names(count: int) -> list[str]:
    return [f"property_{n:04}" for n in range(count)]


def _plain(count: int) -> dict[str, Any]:
    """Properties of three kinds in turn: a number, a word, one of a few words."""
    kinds = ({"type": "number", "minimum": 0}, {"type": "string", "maxLength": 255},
             {"enum": ["red", "green", "blue"]})  # fmt: skip
    return _object({name: kinds[n % 3] for n, name in enumerate(_names(count))})


def _members(count: int) -> bytes:
    values = (12.5, "some words", "green")
    return bodies.dumps({name: values[n % 3] for n, name in enumerate(_names(count))})


_KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    # Each takes the same body: properties that are numbers from 0 to 100.
    "type": lambda: {"type": "number"},
    "range": lambda: {"type": "number", "minimum": 0, "maximum": 100, "multipleOf": 0.5},
    "$ref": lambda: {"$ref": "#/$defs/percentage"},
    "$ref x 5": lambda: {"$ref": "#/$defs/link1"},
    "allOf 3": lambda: {"allOf": [{"type": "number"}, {"minimum": 0}, {"maximum": 100}]},
    "anyOf 3": lambda: {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "number"}]},
    "oneOf 3": lambda: {"oneOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}]},
    "oneOf 10": lambda: {
        "oneOf": [
            *({"type": "object", "required": [f"kind{n}"]} for n in range(9)),
            {"type": "number"},
        ]
    },
    "if then": lambda: {"if": {"minimum": 50}, "then": {"maximum": 100}, "else": {"minimum": 0}},
}
_DEFINITIONS = {
    "percentage": {"type": "number", "minimum": 0, "maximum": 100},
    **{f"link{n}": {"$ref": f"#/$defs/link{n + 1}"} for n in range(1, 5)},
    "link5": {"$ref": "#/$defs/percentage"},
}


def _keyword_schema(kind: str) -> dict[str, Any]:
    schema = _object({name: _KINDS[kind]() for name in _names(KEYWORD_PROPERTIES)})
    return {**schema, "$defs": _DEFINITIONS}


def _type_of(kind: str) -> str:
    return "keyword_" + "".join(filter(str.isalnum, kind)).lower()


def _metric_of_any_number() -> dict[str, Any]:
    """The schema of `metrics`, as long as one likes."""
    schema = json.loads((ROOT / "schemas" / METRICS_SCHEMA).read_text())
    del schema["x-ingest"], schema["examples"]
    del schema["properties"]["metrics"]["maxItems"]
    return dict(schema)


def _sized(size: int) -> bytes:
    """An event of metrics of nearly, and never more than, so many bytes."""
    source, metrics, used = random.Random(size), [], len(b'{"metrics":[]}')
    while True:
        metric = bodies.dumps(bodies.metric(source))
        if metrics and used + len(metric) + 1 > size:
            return b'{"metrics":[' + b",".join(metrics) + b"]}"
        metrics.append(metric)
        used += len(metric) + 1


def schemas() -> dict[str, dict[str, Any]]:
    """Every schema that is served, by its type."""
    return {
        "sized": _metric_of_any_number(),
        **{f"properties_{count}": _plain(count) for count in PROPERTIES},
        **{_type_of(kind): _keyword_schema(kind) for kind in _KINDS},
    }


def cases(quick: bool) -> list[Case]:
    """Every point of every curve."""

    def some(values: Iterable[Any]) -> list[Any]:
        found = list(values)
        return [found[0], found[-1]] if quick else found

    numbers = bodies.dumps(dict.fromkeys(_names(KEYWORD_PROPERTIES), 62.5))
    return [
        *(Case("size", "metrics", size, "sized", _sized(size)) for size in some(SIZES)),
        *(
            Case("properties", "3 of them sent", count, f"properties_{count}", _members(3))
            for count in some(PROPERTIES)
        ),
        *(
            Case("properties", "all of them sent", count, f"properties_{count}", _members(count))
            for count in some(PROPERTIES)
        ),
        *(Case("keywords", "keyword", k, _type_of(k), numbers) for k in some(_KINDS)),
        *(
            Case("connections", "metrics", count, "sized", _sized(276), count)
            for count in some(CONNECTIONS)
        ),
    ]


# -- the mode ---------------------------------------------------------------------------------


def steps(stage: Stage) -> int:
    return len(cases(stage.quick)) * stage.rounds


def measure(stage: Stage) -> Document:
    """All rounds, each with a server of its own.

    Answers 503 are remarks and no failures here: more connections than the pool and the line in
    front of it have places for are part of a curve.
    """
    rounds = []
    with tempfile.TemporaryDirectory(dir=_cache()) as name:
        directory = Path(name)
        (directory / "schemas").mkdir()
        (directory / "handlers").mkdir()
        for type_, schema in schemas().items():
            (directory / "schemas" / f"{type_}.json").write_text(json.dumps(schema))
        spec = ours("fsync", "--handlers", str(directory / "handlers"))
        for number in range(stage.rounds):
            rounds += _round(stage, spec, directory / "schemas", number)
    remarks = [
        f"{row['curve']} {row['x']}, {row['line']}: {row['failures']:,} of {row['requests']:,} "
        "requests failed (503, or a socket's error)"
        for row in rounds
        if row["failures"]
    ]
    return {"rounds": rounds, "remarks": remarks}


def _cache() -> Path:
    install.CACHE.mkdir(exist_ok=True)
    return install.CACHE


def _round(stage: Stage, spec: Spec, directory: Path, number: int) -> list[dict[str, Any]]:
    rows = []
    probe = {"body": _sized(200), "path": "/v1/events/sized"}
    with serving(spec, stage.cores.server, directory, **probe) as where:  # type: ignore[arg-type]
        for case in cases(stage.quick):
            text = f"{case.curve} {case.x}, {case.line}"
            stage.progress.step(f"round {number + 1}/{stage.rounds}, {text}")
            time.sleep(REST_SECONDS)
            found = _visit(stage, case, where)
            stage.progress.note(f"{found['cpu_us']:.1f} µs")
            rows.append(found)
    return rows


def _visit(stage: Stage, case: Case, where: Serving) -> dict[str, Any]:
    body_file = where.launch.workspace / "case"
    body_file.write_bytes(case.body)
    target = wrk.Target(
        where.process,
        where.launch.port,
        body_file,
        stage.cores.client,
        f"/v1/events/{case.type}",
    )
    connections = max(1, min(case.connections, IN_FLIGHT_BYTES // len(case.body)))
    found = wrk.run(target, wrk.Load("case", "case", connections), stage.seconds)
    return {
        "curve": case.curve, "line": case.line, "x": case.x, "bytes": len(case.body),
        "connections": connections, **found._asdict(),
    }  # fmt: skip


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Medians, one row a point."""
    groups: dict[tuple[str, str, Any], list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        groups.setdefault((row["curve"], row["line"], row["x"]), []).append(row)
    names = ("bytes", "connections", "requests_per_second", "cpu_us", "p50_ms", "p99_ms",
             "core_share", "client_share", "rss_bytes")  # fmt: skip
    return [
        {
            "curve": curve, "line": line, "x": x,
            **{name: statistics.median(row[name] for row in rows) for name in names},
            "failures": sum(row["failures"] for row in rows),
        }
        for (curve, line, x), rows in groups.items()
    ]  # fmt: skip


def markdown(found: Document) -> str:
    head = (
        "curve", "line", "at", "bytes", "connections", "requests/s", "MB/s", "server CPU µs",
        "p50 ms", "p99 ms", "core busy: server / client", "RSS MiB", "failures",
    )  # fmt: skip
    return table(
        head,
        (
            (
                row["curve"],
                row["line"],
                row["x"] if isinstance(row["x"], str) else f"{row['x']:,}",
                f"{row['bytes']:,.0f}",
                f"{row['connections']:,.0f}",
                figure(row["requests_per_second"], 0),
                figure(row["requests_per_second"] * row["bytes"] / 1e6, 1),
                figure(row["cpu_us"], 1),
                figure(row["p50_ms"]),
                figure(row["p99_ms"]),
                f"{row['core_share']:.0%} / {row['client_share']:.0%}",
                f"{row['rss_bytes'] / 2**20:.0f}",
                str(row["failures"]),
            )
            for row in summary(found)
        ),
        left=3,
    )


def _line(rows: list[dict[str, Any]], curve: str, y: str) -> dict[str, list[tuple[Any, Any]]]:
    lines: dict[str, list[tuple[Any, Any]]] = {}
    for row in rows:
        if row["curve"] == curve:
            lines.setdefault(row["line"], []).append((row["x"], row[y]))
    return lines


def pictures(found: Document, stem: Path) -> list[Path]:
    rows = summary(found)
    panels = [
        charts.Panel(
            "CPU by body size", "bytes", "server CPU, µs a request",
            _line(rows, "size", "cpu_us"), log_y=True,
        ),
        charts.Panel(
            "CPU by size of the schema", "properties in the schema", "server CPU, µs a request",
            _line(rows, "properties", "cpu_us"), log_y=True,
        ),
        charts.Panel(
            f"CPU by keyword, on each of {KEYWORD_PROPERTIES} properties", "",
            "server CPU, µs a request", _line(rows, "keywords", "cpu_us"), log_x=False,
        ),
        charts.Panel(
            "Requests/s by connections", "keep-alive connections", "requests a second",
            _line(rows, "connections", "requests_per_second"),
        ),
    ]  # fmt: skip
    path = stem.parent / f"{stem.name}.png"
    return [path] if charts.save(panels, path) else []
