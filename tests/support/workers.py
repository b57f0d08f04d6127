"""A gateway with several workers, and a client that never stops sending."""

from __future__ import annotations

import json
import os
import threading
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.events import metric
from tests.support.gateway import Client, Gateway
from tests.support.waiting import until

POST = "/v1/events/metrics"
JSON = {"Content-Type": "application/json"}


def events(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    """The log's lines with that event; the last line may still be on its way.

    A start that is refused says so in words, not in a line of the log.
    """
    lines = gateway.log().splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return [line for line in found if line["event"] == name]


def pids(gateway: Gateway) -> list[int]:
    """Pids of the newest process that serves, by worker."""
    newest = {line["worker"]: line["pid"] for line in events(gateway, "worker.started")}
    return [newest[number] for number in sorted(newest)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_ready(gateway: Gateway, workers: int) -> bool:
    """Whether every worker says of itself that it serves, and the one asked knows."""
    text = gateway.request("GET", "/readyz?verbose").body.decode()
    return all(f"[+]worker-{number} ok" in text for number in range(workers))


def kill(gateway: Gateway, worker: int, number: int) -> int:
    """Send a signal to a worker; returns its pid."""
    pid = pids(gateway)[worker]
    os.kill(pid, number)
    return pid


def post_each_on_its_own(gateway: Gateway, values: range) -> None:
    """One event on a connection of its own for each value; all must be accepted."""
    for value in values:
        assert gateway.post(POST, metric(value)).status == 202


def stored(gateway: Gateway, *flags: str) -> list[int]:
    """Values of the events in the journal."""
    return [event["data"]["metrics"][0]["value"] for event in gateway.journal(*flags)]


class Producers:
    """Clients that post one event after the other on connections they keep.

    Args:
        gateway: serves.
        clients: how many.
    """

    def __init__(self, gateway: Gateway, clients: int = 6) -> None:
        self.acknowledged: list[int] = []
        #: what was no 202, and connections that broke with a request on them
        self.failures: list[str] = []
        self._gateway = gateway
        self._values = count()
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> Producers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def more(self, events: int = 30) -> None:
        """Wait until so many more have been acknowledged."""
        wanted = len(self.acknowledged) + events
        until(lambda: len(self.acknowledged) >= wanted)

    def _send(self) -> None:
        client: Client | None = None
        while not self._done.is_set():
            value = next(self._values)
            try:
                client = client or self._gateway.connect()
                answer = client.request("POST", POST, json.dumps(metric(value)).encode(), JSON)
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
                client = None
                continue
            if answer.status == 202:
                self.acknowledged.append(value)
            else:
                self.failures.append(str(answer.status))
            if answer.headers.get("connection") == "close":
                client.sock.close()
                client = None
        if client is not None:
            client.sock.close()
