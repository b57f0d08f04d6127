"""Some thousand keep-alive connections from one address, for crowd.py.

    python -m ops.bench.crowd_client --port 8080 --source 127.0.0.2 --connections 12500

Opens them, sends a request on each, and prints a line of JSON; for each line on stdin it sends
another on each and prints the next; it ends with stdin.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import sys
import time
from collections.abc import Iterator

from ops.bench.checks import BODY, PATH
from ops.bench.client import parse_answer, request_bytes

#: So many requests are under way at once.
AT_ONCE = 200
ANSWER_SECONDS = 30.0
REQUEST = request_bytes(PATH, BODY)


def ask(socks: list[socket.socket]) -> Iterator[str]:
    """One request on each; what went wrong on any."""
    for first in range(0, len(socks), AT_ONCE):
        some = socks[first : first + AT_ONCE]
        for sock in some:
            try:
                sock.sendall(REQUEST)
            except OSError:
                continue  # the answer will not come, and that is told below
        for sock in some:
            if error := _answer_of(sock):
                yield error


def _answer_of(sock: socket.socket) -> str:
    """Empty when the answer is 202, otherwise what came instead."""
    data = b""
    try:
        while (answer := parse_answer(data)) is None:
            more = sock.recv(4096)
            if not more:
                return "closed"
            data += more
    except (OSError, ValueError) as error:
        return str(error)
    return "" if answer.status == 202 else f"status {answer.status}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--connections", type=int, required=True)
    options = parser.parse_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    socks: list[socket.socket] = []
    errors: list[str] = []
    started = time.monotonic()
    while len(socks) < options.connections and not errors:
        fresh = []
        for _ in range(min(AT_ONCE, options.connections - len(socks))):
            try:
                fresh.append(
                    socket.create_connection(
                        ("127.0.0.1", options.port), ANSWER_SECONDS, (options.source, 0)
                    )
                )
            except OSError as error:
                errors.append(str(error))
                break
        errors += ask(fresh)
        socks += fresh
    report(len(socks), errors, started)
    for _ in sys.stdin:
        started = time.monotonic()
        report(len(socks), list(ask(socks)), started)
    return 0


def report(count: int, errors: list[str], started: float) -> None:
    line = {
        "open": count,
        "answered": max(0, count - len(errors)),
        "errors": sorted(set(errors)),
        "seconds": round(time.monotonic() - started, 3),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
