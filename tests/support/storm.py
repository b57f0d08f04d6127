"""Mixed load from a process of its own that outlives the gateways it is sent against.

    python -m tests.support.storm --name s0 --acks FILE [--clients 64] [--seed 1]

Each line on stdin, `<port> <seconds>`, is one gateway: the clients post to it, one request
after the other on each connection, until it is gone or the time is up; then a line of JSON
on stdout says what became of the requests. Single events and NDJSON batches, of a type that
is answered after fdatasync and of one that is answered after write, of many sizes.

Every acknowledgement is appended to FILE as it comes, as a line of JSON with the ids and the
keys of the events; what was answered otherwise has a line with its status. The lines of one
turn of the loop are written with one call, so another process may append to the same file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from ops.bench.client import LoadClient, request_bytes
from tests.support.events import signed

NDJSON = (("Content-Type", "application/x-ndjson"),)
SIZES = (0, 20, 100, 100, 300, 300, 700, 2000, 6000)


class Storm:
    """Makes requests and writes down what is acknowledged.

    Args:
        name: leads the keys of the events, so that those of several storms differ.
        acks: descriptor to append to.
        seed: of all that is left to chance.
        types: event type -> the ack that its schema asks for.
        batch_max: events in the largest batch.
    """

    def __init__(
        self,
        name: str,
        acks: int,
        seed: int,
        types: dict[str, str] | None = None,
        batch_max: int = 20,
    ) -> None:
        self._name = name
        self._acks = acks
        self._chance = random.Random(seed)
        self._types = types or {"durable": "fsync", "written": "write"}
        self._batch_max = batch_max
        self._numbers = count()
        self._asked: dict[int, tuple[str, list[str]]] = {}
        self._lines: list[bytes] = []

    def request(self, client: int) -> bytes:
        """The next request of a client."""
        chance = self._chance
        type_name, ack = chance.choice(list(self._types.items()))
        batch = chance.random() < 0.3 and self._batch_max > 1
        size = chance.randint(2, self._batch_max) if batch else 1
        keys = [f"{self._name}-{next(self._numbers)}" for _ in range(size)]
        self._asked[client] = (ack, keys)
        events = [json.dumps(signed(key, chance.choice(SIZES))).encode() for key in keys]
        path = f"/v1/events/{type_name}"
        if not batch:
            return request_bytes(path, events[0])
        return request_bytes(path, b"\n".join(events) + b"\n", NDJSON)

    def answered(self, client: int, status: int, body: bytes) -> None:
        """Take an answer; what it acknowledges is written out at the next pause."""
        ack, keys = self._asked[client]
        line: dict[str, Any] = {"call": "answer", "status": status}
        if 200 <= status <= 299:
            found = json.loads(body)
            ids = found["ids"] if "ids" in found else [found["id"]]
            line = {"call": "ack", "ack": ack, "stored": dict(zip(ids, keys, strict=True))}
        self._lines.append(json.dumps(line).encode() + b"\n")

    def pause(self) -> None:
        """Write out what was collected."""
        if self._lines:
            os.write(self._acks, b"".join(self._lines))
            self._lines.clear()

    def run(self, port: int, clients: int, seconds: float) -> dict[str, Any]:
        """One gateway; returns what became of the requests."""
        self._asked.clear()
        outcome = LoadClient(
            port,
            self.request,
            clients=clients,
            requests=1 << 30,
            on_answer=self.answered,
            on_pause=self.pause,
            deadline_seconds=seconds,
        ).run()
        return {
            "statuses": {str(status): n for status, n in sorted(outcome.statuses.items())},
            "broken": dict(outcome.broken),
        }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", required=True)
    parser.add_argument("--acks", type=Path, required=True, help="file to append to")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-max", type=int, default=20, help="events; 1 for no batches")
    options = parser.parse_args(argv)
    acks = os.open(options.acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    storm = Storm(options.name, acks, options.seed, batch_max=options.batch_max)
    emit: Callable[[str], int] = sys.stdout.write
    for line in sys.stdin:
        port, seconds = line.split()
        emit(json.dumps(storm.run(int(port), options.clients, float(seconds))) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
