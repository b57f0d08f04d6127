"""Load from a process of its own, which writes down every acknowledgement as it comes.

    python -m tests.support.load --port 8080 --clients 1000 --requests 100 --acks FILE

Each line of FILE is `<status> <id>` (`<status> -` for an answer without an id). The lines
are on disk's way (write, not fsync) before the loop turns again, so a server that is killed
takes none of them along, and this process ends by itself then. Exit code 0: every request
was answered, with whatever status; 1: some were not. A summary stands on stdout as JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import BinaryIO

from ops.bench.client import LoadClient, request_bytes
from tests.support.events import METRICS

_ID = re.compile(rb'"id":"([^"]*)"')


class Acknowledgements:
    """Collects answers and writes them out in whole lines."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines: list[bytes] = []

    def add(self, client: int, status: int, body: bytes) -> None:
        found = _ID.search(body)
        self._lines.append(b"%d %s\n" % (status, found[1] if found else b"-"))

    def write(self) -> None:
        if self._lines:
            self._file.write(b"".join(self._lines))
            self._lines.clear()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/metrics")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=100, help="of each client")
    parser.add_argument("--acks", type=Path, required=True, help="file to write")
    parser.add_argument("--body", type=Path, help="file with the body; three metrics if left out")
    parser.add_argument("--deadline", type=float, default=90.0, help="seconds")
    options = parser.parse_args(argv)
    body = options.body.read_bytes() if options.body else json.dumps(METRICS).encode()
    with options.acks.open("wb", buffering=0) as file:
        acknowledgements = Acknowledgements(file)
        outcome = LoadClient(
            options.port,
            request_bytes(options.path, body),
            clients=options.clients,
            requests=options.requests,
            on_answer=acknowledgements.add,
            on_pause=acknowledgements.write,
            deadline_seconds=options.deadline,
        ).run()
    summary = {
        "answered": outcome.answered,
        "unanswered": outcome.unanswered,
        "statuses": {str(status): n for status, n in sorted(outcome.statuses.items())},
        "broken": dict(outcome.broken),
        "seconds": round(outcome.seconds, 3),
        "requests_per_second": round(outcome.answered / outcome.seconds),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if outcome.unanswered else 0


if __name__ == "__main__":
    sys.exit(main())
