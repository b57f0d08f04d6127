"""The way to Kafka: `ack: remote` against the journal, batches against a plain producer loop.

Brokers are librdkafka's pretended ones, on the client's core: they cost little and store nothing,
so that what is measured is the gateway. The last rows say how long calls into librdkafka held the
event loop up.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.bench import bodies, wrk
from ops.bench.checks import require_stored
from ops.bench.process import ServerFailed
from ops.bench.servers import ROOT, Launch, Spec, journal_directory, ours
from ops.bench.stage import Document, Serving, Stage, serving
from ops.bench.tables import figure, table

HELP = "ack remote against ack fsync, batches against a plain producer loop, hub lag"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
CONNECTIONS, BATCH_CONNECTIONS, BATCH_EVENTS = 1000, 16, 1000
SINGLE_LEAST, BATCH_LEAST = 0.7, 0.5
#: what is measured, in the order of a round
ROWS = {
    "fsync": f"ack fsync, {CONNECTIONS} connections",
    "remote": f"ack remote, {CONNECTIONS} connections",
    "plain": "plain producer loop, the same messages",
    "ndjson": f"ack remote, NDJSON of {BATCH_EVENTS} events, {BATCH_CONNECTIONS} connections",
    "held-single": f"the event loop, {CONNECTIONS} connections",
    "held-ndjson": "the event loop, NDJSON",
}
HELD = "the event loop, "
#: what is timed on the event loop, by its name in the result
CALLS = {
    "produce": "`produce`",
    "poll": "`poll`, with the reports",
    "garbage collection": "Python's garbage collection",
}


def steps(stage: Stage) -> int:
    return stage.rounds * len(ROWS)


@contextmanager
def _brokers(cpu: int | None) -> Iterator[str]:
    pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    command = [*pinned, sys.executable, "-m", "ops.bench.kafka_brokers"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    try:
        addresses = process.stdout.readline().strip()
        if not addresses:
            raise ServerFailed("the pretended brokers do not start: is confluent-kafka there?")
        yield addresses
    finally:
        process.kill()
        process.communicate()


def _remote(addresses: str, module: str = "ingest") -> Spec:
    spec = ours("remote", "--sink", "kafka", "--kafka-brokers", addresses)

    def command(launch: Launch) -> list[str]:
        words = spec.command(launch)
        words[words.index("-m") + 1] = module
        return words

    return spec._replace(
        title="ingest, ack remote",
        does="parse, validate, Kafka",
        command=command,
        environment=lambda launch: {"KAFKA_TIMES": str(launch.workspace / "times")},
        stores=False,
    )


def _lines() -> list[bytes]:
    source = random.Random("kafka")
    return [bodies.event(source, 1) for _ in range(BATCH_EVENTS)]


def measure(stage: Stage) -> Document:
    """All rounds; the server is started anew for each row."""
    rounds = []
    for number in range(stage.rounds):
        for name, words in ROWS.items():
            stage.progress.step(f"round {number + 1}/{stage.rounds}, {words}")
            row = _visit(stage, name)
            if "events_per_second" in row:
                stage.progress.note(f"{row['events_per_second']:,.0f}/s")
            rounds.append({"round": number, "row": name, **row})
    return {"rounds": rounds, "remarks": [], "failed": _failed(rounds)}


def _visit(stage: Stage, name: str) -> dict[str, Any]:
    if name == "fsync":
        with serving(ours("fsync"), stage.cores.server, stage.schemas) as where:
            row, answered = _load(stage, where, batch=False)
            require_stored(where.process, journal_directory(where.launch), answered)
        return row
    with _brokers(stage.cores.client) as addresses:
        if name == "plain":
            return _plain(stage, addresses)
        held = name.startswith("held-")
        spec = _remote(addresses, "ops.bench.kafka_timed" if held else "ingest")
        with serving(spec, stage.cores.server, stage.schemas) as where:
            row, _ = _load(stage, where, batch=name.endswith("ndjson"))
            if not held:
                return row
            where.process.terminate()
            times = json.loads((where.launch.workspace / "times").read_text())
            return {"failures": row["failures"], **times}


def _load(stage: Stage, where: Serving, batch: bool) -> tuple[dict[str, Any], int]:
    file, media = where.launch.body_file, "application/json"
    events, connections = 1, CONNECTIONS
    if batch:
        file, media = where.launch.workspace / "lines", "application/x-ndjson"
        file.write_bytes(bodies.ndjson(_lines()))
        events, connections = BATCH_EVENTS, BATCH_CONNECTIONS
    target = wrk.Target(
        where.process, where.launch.port, file, stage.cores.client, media_type=media
    )
    load = wrk.Load("load", "load", connections)
    warm = wrk.run(target, load, 1)
    found = wrk.run(target, load, stage.seconds)
    answered = sum(run.requests - run.failures for run in (warm, found)) * events
    row = {**found._asdict(), "events_per_second": found.requests_per_second * events}
    return row, answered


def _plain(stage: Stage, addresses: str) -> dict[str, Any]:
    cpu = stage.cores.server
    pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(bodies.ndjson(_lines()))
        file.flush()
        command = [*pinned, sys.executable, "-m", "ops.bench.kafka_plain"]
        done = subprocess.run(
            [*command, addresses, str(stage.seconds), file.name],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise ServerFailed(f"the plain producer ended with {done.returncode}: {done.stderr}")
    found = json.loads(done.stdout)
    return {"events_per_second": found["messages_per_second"], "failures": found["failures"]}


def _failed(rounds: list[dict[str, Any]]) -> list[str]:
    return [f"{ROWS[row['row']]}: {row['failures']} failures" for row in rounds if row["failures"]]


def ratios(found: Mapping[str, Any]) -> dict[str, float]:
    """Of `remote` by `fsync` and of `ndjson` by `plain`: medians of the ratios of each round."""
    by_round: dict[int, dict[str, float]] = {}
    for row in found["rounds"]:
        if "events_per_second" in row:
            by_round.setdefault(row["round"], {})[row["row"]] = row["events_per_second"]
    return {
        mine: statistics.median(seen[mine] / seen[other] for seen in by_round.values())
        for mine, other in (("remote", "fsync"), ("ndjson", "plain"))
    }


def markdown(found: Document) -> str:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        rows.setdefault(row["row"], []).append(row)
    against = ratios(found)
    least = {"remote": SINGLE_LEAST, "ndjson": BATCH_LEAST}
    other = {"remote": "ack fsync", "ndjson": "the plain loop"}
    rates = table(
        ("what", "events/s", "against", "at least", "p50 ms", "p99 ms", "server CPU µs/event"),
        (
            (
                ROWS[name],
                figure(statistics.median(row["events_per_second"] for row in seen), 0),
                f"{against[name]:.2f} of {other[name]}" if name in against else "-",
                figure(least.get(name)),
                figure(_median(seen, "p50_ms")),
                figure(_median(seen, "p99_ms")),
                figure(_cpu_us(seen)),
            )
            for name, seen in rows.items()
            if "events_per_second" in seen[0]
        ),
    )
    held = table(
        ("on the event loop", "calls", "mean µs", "longest ms", "of it CPU ms", "above 10 ms"),
        (
            (
                f"{title}: {ROWS[name].removeprefix(HELD)}",
                figure(sum(row[call]["calls"] for row in seen), 0),
                figure(statistics.median(row[call]["mean_us"] for row in seen), 1),
                figure(max(row[call]["longest_ms"] for row in seen)),
                figure(max(row[call]["longest_cpu_ms"] for row in seen)),
                str(sum(row[call]["above_10_ms"] for row in seen)),
            )
            for name, seen in rows.items()
            if name.startswith("held-")
            for call, title in CALLS.items()
        ),
    )
    return f"{rates}\n\n{held}"


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return statistics.median(values) if values else None


def _cpu_us(rows: list[dict[str, Any]]) -> float | None:
    """The server's CPU time for each event."""
    values = [row["core_share"] / row["events_per_second"] * 1e6 for row in rows
              if "core_share" in row]  # fmt: skip
    return statistics.median(values) if values else None


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
