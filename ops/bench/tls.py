"""Requests and handshakes a second over TLS, beside nginx `return 202` with the same keys.

nginx speaks TLS 1.2 and 1.3 with its defaults; wrk takes what it is offered and resumes no session.
Handshakes are counted as requests with `Connection: close`, each on a connection of its own.
"""

from __future__ import annotations

import ssl
import statistics
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench import install, wrk
from ops.bench.checks import require_stored
from ops.bench.servers import PEERS, Launch, Spec, journal_directory, ours
from ops.bench.stage import Document, Stage, serving
from ops.bench.tables import figure, table

HELP = "requests and handshakes over TLS, beside nginx with the same keys"
TAKING = "median of {rounds} interleaved rounds of {seconds} s; failures: sum over the rounds"
#: Kinds of keys, and what openssl makes them with.
KEYS = {
    "ECDSA P-256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "RSA 2048": ("rsa:2048",),
}
SERVERS = ("nginx", "ingest, ack fsync", "ingest, ack write")
KINDS = {
    "requests": (wrk.Load("c64", "64 connections", 64), ()),
    "handshakes": (wrk.Load("c64", "64 at a time", 64), ("Connection: close",)),
}
LISTEN = "listen 127.0.0.1:@PORT@ backlog=4096;"


class Pair(NamedTuple):
    """A certificate and its key."""

    certificate: Path
    key: Path


def steps(stage: Stage) -> int:
    return stage.rounds * len(_keys(stage)) * len(SERVERS) * len(KINDS)


def _keys(stage: Stage) -> list[str]:
    return list(KEYS)[:1] if stage.quick else list(KEYS)


def measure(stage: Stage) -> Document:
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        pairs = {kind: _make(Path(directory), kind) for kind in _keys(stage)}
        for number in range(stage.rounds):
            for kind, pair in pairs.items():
                for server in SERVERS:
                    rounds += _visit(stage, number, kind, pair, server)
    return {
        "rounds": rounds,
        "remarks": [],
        "failed": [
            f"{row['server']}, {row['key']}, {row['kind']}: {row['failures']} failures"
            for row in rounds
            if row["failures"] and row["server"] != "nginx"
        ],
    }


def _make(directory: Path, kind: str) -> Pair:
    pair = Pair(directory / f"{kind[:3]}.pem", directory / f"{kind[:3]}.key")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-newkey", *KEYS[kind], "-keyout", str(pair.key), "-out", str(pair.certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return pair


def _spec(server: str, pair: Pair) -> Spec:
    if server != "nginx":
        flags = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key))
        return ours(server.rpartition(" ")[2], *flags)

    def command(launch: Launch) -> list[str]:
        text = (PEERS / "nginx.conf").read_text()
        assert LISTEN in text
        spoken = (
            f"{LISTEN.replace(' backlog', ' ssl backlog')} ssl_certificate {pair.certificate}; "
            f"ssl_certificate_key {pair.key}; ssl_protocols TLSv1.2 TLSv1.3;"
        )
        config = launch.workspace / "nginx.conf"
        config.write_text(text.replace(LISTEN, spoken).replace("@PORT@", str(launch.port)))
        return [install.nginx(), "-e", "stderr", "-p", str(launch.workspace), "-c", str(config)]

    return Spec("nginx", "nothing", install.nginx, lambda: "", command)


def _visit(stage: Stage, number: int, kind: str, pair: Pair, server: str) -> list[dict[str, Any]]:
    context = ssl.create_default_context(cafile=str(pair.certificate))
    context.check_hostname = False
    rows = []
    spec = _spec(server, pair)
    with serving(spec, stage.cores.server, stage.schemas, tls=context) as (process, launch):
        stored = 0
        for measured, (load, fields) in KINDS.items():
            stage.progress.step(f"round {number + 1}/{stage.rounds}, {kind}, {server}, {measured}")
            target = wrk.Target(
                process, launch.port, launch.body_file, stage.cores.client,
                scheme="https", fields=fields,
            )  # fmt: skip
            found = wrk.run(target, load, stage.seconds)
            stage.progress.note(f"{found.requests_per_second:,.0f}/s")
            stored += found.requests - found.failures
            rows.append({
                "round": number, "key": kind, "server": server, "kind": measured,
                **found._asdict(),
            })  # fmt: skip
        if spec.stores:
            require_stored(process, journal_directory(launch), stored)
    return rows


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Medians; a ratio is taken against nginx in the same round."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in found["rounds"]:
        groups.setdefault((row["key"], row["kind"], row["server"]), []).append(row)
    names = ("requests_per_second", "p50_ms", "p99_ms", "cpu_us", "core_share", "client_share")
    result = []
    for (key, kind, server), rows in groups.items():
        nginx = {row["round"]: row["requests_per_second"] for row in groups[key, kind, "nginx"]}
        result.append({
            "key": key, "kind": kind, "server": server,
            **{name: statistics.median(row[name] for row in rows) for name in names},
            "of_nginx": statistics.median(
                row["requests_per_second"] / nginx[row["round"]] for row in rows
            ),
            "failures": sum(row["failures"] for row in rows),
        })  # fmt: skip
    return sorted(result, key=lambda row: (row["key"], row["kind"]))


def markdown(found: Document) -> str:
    head = (
        "key", "measured", "server", "a second", "of nginx", "p50 ms", "p99 ms", "server CPU µs",
        "cores busy: server / client", "failures",
    )  # fmt: skip
    return table(
        head,
        (
            (
                row["key"],
                row["kind"],
                row["server"],
                figure(row["requests_per_second"], 0),
                figure(row["of_nginx"]),
                figure(row["p50_ms"]),
                figure(row["p99_ms"]),
                figure(row["cpu_us"], 1),
                f"{row['core_share']:.2f} / {row['client_share']:.2f}",
                str(row["failures"]),
            )
            for row in summary(found)
        ),
        left=3,
    )


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
