"""kill -9 of each process of the tree in turn, under load: service comes back, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.waiting import until
from tests.support.workers import Producers, alive, all_ready, events, pids, stored

WORKERS = 2
HANDLER = """
import ingest

@ingest.offload(process=True)
def square(number):
    return number * number

def handle(event):
    event.data["square"] = square(12)
    return event.data
"""


class Restarter:
    """What systemd is for a service: starts it again whenever it has ended.

    Args:
        gateway: has been started.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._ending = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Restarter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        if self.gateway.alive():
            self.gateway.send_signal(signal.SIGTERM)
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.gateway.wait()
            if self._ending:
                return
            # Refused as long as the workers of the last one have the data and the port.
            self.gateway.spawn()
            self.gateway.listens()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "metrics.json").write_text(json.dumps({"type": "object"}))
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "metrics.py").write_text(HANDLER)
    made = Gateway(
        tmp_path / "data", "--workers", str(WORKERS), "--offload-processes", "1",
        "--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers",
    )  # fmt: skip
    made.start()
    made.bind = f"127.0.0.1:{made.port}"
    yield made
    if made.alive():
        made.kill()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def offloaded(gateway: Gateway, number: int) -> int:
    """The process for offloaded functions of a worker; there once one was called."""
    worker = pids(gateway)[number]
    until(lambda: children(worker))
    return children(worker)[0]


def serves(gateway: Gateway) -> bool:
    """Whether all workers do, and each has its process for offloaded functions."""
    try:
        return all_ready(gateway, WORKERS)
    except (OSError, EOFError):
        return False


PROCESSES: dict[str, Callable[[Gateway], int]] = {
    "supervisor": lambda gateway: gateway.pid,
    **{f"worker {n}": lambda gateway, n=n: pids(gateway)[n] for n in range(WORKERS)},  # type: ignore[misc]
    **{f"offload of {n}": lambda gateway, n=n: offloaded(gateway, n) for n in range(WORKERS)},  # type: ignore[misc]
}


def test_each_process_in_turn_is_killed_and_nothing_that_was_acknowledged_is_lost(
    gateway: Gateway,
) -> None:
    with Restarter(gateway):
        until(lambda: serves(gateway))
        with Producers(gateway, 8) as producers:
            for who, pid_of in PROCESSES.items():
                producers.more(100)
                starts = len(events(gateway, "supervisor.started"))
                pid = pid_of(gateway)
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: not alive(pid))
                if who == "supervisor":
                    until(lambda n=starts: len(events(gateway, "supervisor.started")) > n)
                until(lambda: serves(gateway))
                producers.more(100)
    acknowledged, found = producers.acknowledged, stored(gateway)
    assert len(acknowledged) >= 2 * 100 * len(PROCESSES)
    assert set(acknowledged) <= set(found)
    assert len(set(found)) == len(found)
    assert [line["number"] for line in events(gateway, "supervisor.worker_died")] == [0, 1]
