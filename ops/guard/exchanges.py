"""What is exchanged with the gateway, in a way that makes it do the same each time.

The gateway does as much at once as has arrived when it looks, so the number of commits, turns
and wake-ups would depend on who of the two is faster. Therefore it is stopped (SIGSTOP) while
the requests are sent, so that it finds all of them there, and the next ones are sent when all
answers have come.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ops.bench import bodies
from ops.bench.checks import BODY, PATH
from ops.bench.client import parse_answer, request_bytes

ANSWER_SECONDS = 60.0
BATCH_EVENTS = 1000
NDJSON = ("Content-Type", "application/x-ndjson")


class Exchange(NamedTuple):
    """One kind of exchange.

    Attributes:
        title: how it is called in the table.
        requests: what is sent, on a connection each.
        rounds: how often.
        events: stored in one round.
    """

    title: str
    requests: Sequence[bytes]
    rounds: int
    events: int


def exchanges() -> dict[str, Exchange]:
    """All of them, by the name they have in baseline.json."""
    source = random.Random(1)
    batch = bodies.ndjson([bodies.event(source, 1) for _ in range(BATCH_EVENTS)])
    return {
        "event": Exchange(
            "one event a request, 64 connections", [request_bytes(PATH, BODY)] * 64, 20, 64
        ),
        "batch": Exchange(
            f"NDJSON, {BATCH_EVENTS} events a request",
            [request_bytes("/v1/events/metrics", batch, [NDJSON])],
            4,
            BATCH_EVENTS,
        ),
    }


@contextmanager
def connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many keep-alive connections."""
    socks = [
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) for _ in range(count)
    ]
    try:
        yield socks
    finally:
        for sock in socks:
            sock.close()


def run(exchange: Exchange, pid: int, socks: Sequence[socket.socket]) -> None:
    """All rounds of an exchange with the process `pid`.

    Raises:
        ValueError: an answer is not 202.
        OSError: an answer does not come.
    """
    for _ in range(exchange.rounds):
        # What does not fit into the socket's buffers is sent when it runs again.
        unsent = []
        os.kill(pid, signal.SIGSTOP)
        try:
            for sock, request in zip(socks, exchange.requests, strict=True):
                sent = sock.send(request)
                if sent < len(request):
                    unsent.append((sock, request[sent:]))
        finally:
            os.kill(pid, signal.SIGCONT)
        for sock, rest in unsent:
            sock.sendall(rest)
        for sock in socks:
            _read_answer(sock)


def _read_answer(sock: socket.socket) -> None:
    data = b""
    while (answer := parse_answer(data)) is None:
        more = sock.recv(65536)
        if not more:
            raise ValueError("the gateway has closed a connection")
        data += more
    if answer.status != 202:
        raise ValueError(f"answered {answer.status}: {answer.body[:300]!r}")
