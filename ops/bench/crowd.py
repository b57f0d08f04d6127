"""100,000 keep-alive connections over the workers: what each costs, and that each is answered.

The clients are processes of their own (crowd_client.py), because one process may have only
some 20,000 descriptors, and each has an address of its own (127.0.0.2 and on), because one
address has only some 28,000 ports towards the server. Every client sends one request when it
connects; when all have done so, the server's memory is taken; then each sends another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ops.bench import wrk
from ops.bench.process import ServerFailed, session_stats
from ops.bench.servers import ROOT, ours
from ops.bench.stage import Document, Serving, Stage, on_both_cores, serving
from ops.bench.tables import figure, table

HELP = "100,000 keep-alive connections over 8 workers: memory of each, one request on each"
TAKING = "one run"
CLIENTS, CONNECTIONS, WORKERS = 8, 100_000, 8
QUICK_CLIENTS, QUICK_CONNECTIONS, QUICK_WORKERS = 2, 2000, 1
KIB_MOST = 12.0
#: The server gives memory back and closes nothing meanwhile.
REST_SECONDS = 2.0


def steps(stage: Stage) -> int:
    return 3


def resident_bytes(session: int) -> int:
    """Memory of all processes of a session; pages they share count once."""
    total = 0
    for stat in session_stats(session):
        try:
            text = Path(f"/proc/{stat.pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended
        for line in text.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def measure(stage: Stage) -> Document:
    """One run; it is not repeated, for it has no rate to take a median of."""
    clients, connections, workers = (
        (QUICK_CLIENTS, QUICK_CONNECTIONS, QUICK_WORKERS)
        if stage.quick
        else (CLIENTS, CONNECTIONS, WORKERS)
    )
    flags = () if workers == 1 else ("--workers", str(workers))
    with (
        on_both_cores(stage.cores),
        serving(ours("fsync", *flags), None, stage.schemas) as where,
        ExitStack() as ends,
    ):
        target = wrk.Target(where.process, where.launch.port, where.launch.body_file, None)
        wrk.run(target, wrk.Load("warm", "warm", 64 * workers), 2)
        time.sleep(REST_SECONDS)
        before = resident_bytes(where.process.pid)
        stage.progress.step(f"{connections:,} connections, one request on each")
        crowd = [_client(where, n, connections // clients, ends) for n in range(clients)]
        opened = [_hear(client) for client in crowd]
        time.sleep(REST_SECONDS)
        idle = resident_bytes(where.process.pid)
        stage.progress.step("one more request on each")
        for client in crowd:
            _tell(client)
        again = [_hear(client) for client in crowd]
        stage.progress.step("memory at rest")
        time.sleep(REST_SECONDS)
        rested = resident_bytes(where.process.pid)
    return _document(connections, workers, clients, opened, again, (before, idle, rested))


def _client(where: Serving, number: int, count: int, ends: ExitStack) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "ops.bench.crowd_client", "--port", str(where.launch.port),
        "--source", f"127.0.0.{number + 2}", "--connections", str(count),
    ]  # fmt: skip
    client = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT
    )
    ends.callback(client.wait)
    ends.callback(client.kill)
    return client


def _hear(client: subprocess.Popen[str]) -> dict[str, Any]:
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line:
        raise ServerFailed(f"a client ended with {client.wait()}")
    return dict(json.loads(line))


def _tell(client: subprocess.Popen[str]) -> None:
    assert client.stdin is not None
    client.stdin.write("go\n")
    client.stdin.flush()


def _document(
    connections: int,
    workers: int,
    clients: int,
    opened: list[dict[str, Any]],
    again: list[dict[str, Any]],
    bytes_: tuple[int, int, int],
) -> Document:
    before, idle, rested = bytes_
    answered = sum(report["answered"] for report in again)
    found: Document = {
        "connections": connections,
        "workers": workers,
        "clients": clients,
        "open": sum(report["open"] for report in opened),
        "answered_first": sum(report["answered"] for report in opened),
        "answered_again": answered,
        "seconds_first": max(report["seconds"] for report in opened),
        "seconds_again": max(report["seconds"] for report in again),
        "resident_before_bytes": before,
        "kib_each_first": (idle - before) / connections / 1024,
        "kib_each": (rested - before) / connections / 1024,
        "errors": sorted({error for report in opened + again for error in report["errors"]}),
        "remarks": [],
    }
    missing = connections - answered
    found["failed"] = [f"{missing} connections had no answer"] if missing else []
    return found


def markdown(found: Document) -> str:
    head = ("connections", "workers", "opened", "answered, 1st request", "in s",
            "answered, 2nd request", "in s", "server KiB each, after 1st", "after 2nd")  # fmt: skip
    row = (
        f"{found['connections']:,}",
        str(found["workers"]),
        f"{found['open']:,}",
        f"{found['answered_first']:,}",
        figure(found["seconds_first"], 1),
        f"{found['answered_again']:,}",
        figure(found["seconds_again"], 1),
        figure(found["kib_each_first"], 1),
        figure(found["kib_each"], 1),
    )
    return table(head, [row], left=0)


def pictures(found: Document, stem: Path) -> list[Path]:
    return []
