"""The ladder: more and more clients with a fixed number of requests each.

Where wrk measures for a time, this asks whether every single request is answered 2xx.
"""

from __future__ import annotations

from typing import NamedTuple

from ops.bench.checks import BODY, PATH
from ops.bench.client import LoadClient, Outcome, request_bytes

#: (clients, requests of each)
RUNGS = ((20, 50), (50, 100), (100, 100), (200, 100), (500, 100), (1000, 100))


class Rung(NamedTuple):
    """The outcome of one rung."""

    clients: int
    requests: int
    success_rate: float
    mean_ms: float
    requests_per_second: float


def judge(clients: int, requests: int, outcome: Outcome) -> Rung:
    """Success is a 2xx; a request that got no answer is as much a failure as a 5xx."""
    return Rung(
        clients,
        requests,
        success_rate=outcome.accepted / (clients * requests),
        mean_ms=outcome.latency_seconds / max(outcome.answered, 1) * 1e3,
        requests_per_second=outcome.answered / outcome.seconds,
    )


def climb(port: int, clients: int, requests: int) -> Rung:
    """Run one rung against a server."""
    client = LoadClient(port, request_bytes(PATH, BODY), clients=clients, requests=requests)
    return judge(clients, requests, client.run())
