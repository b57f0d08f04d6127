"""A gateway's life, recorded: load, rotation, a clean stop, a failed sync, a kill, restarts.

`record` gives what `tests.support.disk` replays.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.gateway import ROOT, Gateway
from tests.support.kills import SCHEMAS

#: Seconds; a hang is a failure.
PATIENCE = 300.0
#: What each of the gateways that follow one another goes through, and how it ends. The
#: numbers count all syncs, or writes, of the process.
LIVES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), "terminate"),
    (("--fail", "sync:25:EIO", "--fail", "write:18:ENOSPC"), "kill"),
    (("--fail", "sync:12:EIO",), "kill"),
    ((), "terminate"),
)  # fmt: skip


#: Closed segments are compressed at once, or nearly so.
FLAGS_OF_TYPES = (
    "--schemas", str(SCHEMAS), "--handlers", "none",
    "--segment-max", "48KiB", "--segment-compress-after", "0.1s",
)  # fmt: skip
FLAGS = (*FLAGS_OF_TYPES, "--disk-reserve", "0")


class Recording(NamedTuple):
    """Calls of the gateways and acknowledgements of the load, in one order.

    Attributes:
        log: lines as in `tests.support.recorder`.
        root: the directory in which the data directory was made.
    """

    log: list[dict[str, Any]]
    root: Path


def recorder(log: Path, *options: str) -> list[str]:
    """What an interpreter runs for a gateway that is recorded."""
    return ["-m", "tests.support.recorder", "--log", str(log), *options, "--"]


def read_log(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_bytes().splitlines()]


class Storming:
    """The load, from a process of its own."""

    def __init__(self, acks: Path, clients: int, batch_max: int, name: str = "r") -> None:
        self._acks = acks
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.storm", "--name", name, "--acks", str(acks),
             "--clients", str(clients), "--batch-max", str(batch_max)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def against(self, port: int) -> None:
        """Begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {PATIENCE}\n")
        self._process.stdin.flush()

    def wait_for(self, answers: int, gateway: Gateway) -> None:
        """Until that many more requests have been acknowledged."""
        self.wait_for_line(b'"call": "ack"', answers, gateway)

    def wait_for_line(self, word: bytes, lines: int, gateway: Gateway) -> None:
        """Until that many more answers have been written down with a word in them."""
        wanted = self._acks.read_bytes().count(word) + lines
        deadline = time.monotonic() + PATIENCE
        while self._acks.read_bytes().count(word) < wanted:
            assert time.monotonic() < deadline, f"too few answers; log:\n{gateway.log()}"
            time.sleep(0.002)

    def result(self) -> dict[str, Any]:
        """What became of the requests, once the gateway is gone."""
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def end(self) -> None:
        self._process.communicate(timeout=PATIENCE)


def wait_until_ready(gateway: Gateway, status: int = 200) -> None:
    """Until /readyz answers with this status."""
    deadline = time.monotonic() + PATIENCE
    while (answer := gateway.request("GET", "/readyz")).status != status:
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.02)


def wait_until_compressed(data: Path, gateway: Gateway, upto: int | None = None) -> None:
    """Until there are compressed segments.

    Args:
        upto: so that not more than this many closed ones are left; None: any.
    """
    partition = data / "journal" / "0"
    deadline = time.monotonic() + PATIENCE
    while True:
        closed = sorted(partition.glob("*.ndjson"))[:-1]
        if list(partition.glob("*.zst")) and (upto is None or len(closed) <= upto):
            return
        assert time.monotonic() < deadline, f"{closed} are not compressed; log:\n{gateway.log()}"
        time.sleep(0.005)


def record(directory: Path, answers: int, slow_seconds: float = 0.003) -> Recording:
    """Record all lives.

    Args:
        directory: empty; the data directory is made in it.
        answers: how many requests are acknowledged in each.
        slow_seconds: how long a sync takes.
    """
    log = directory / "log"
    log.touch()
    data = directory / "disk" / "data"
    data.parent.mkdir()
    storming = Storming(log, clients=5, batch_max=4)
    for options, end in LIVES:
        gateway = Gateway(
            data,
            *FLAGS,
            program=recorder(log, "--slow", str(slow_seconds), *options),
        )
        gateway.start()
        storming.against(gateway.port)
        storming.wait_for(answers, gateway)
        wait_until_compressed(data, gateway)
        if end == "kill":
            gateway.kill()
        else:
            assert gateway.stop() == 0, gateway.log()
        storming.result()
    storming.end()
    return Recording(read_log(log), data.parent)
