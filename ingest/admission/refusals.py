"""Refusals that cost less than a request: their bytes are made once and sent many times.

They have no request id, are counted as every answer is, and stand in the access log only where
that has all requests; the log says once a second how many there were. Their durations are not
observed: the histogram is about those that were let in.

This module must not know why somebody is refused, nor sockets.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ingest.answers import problem
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.metrics import Metrics
    from ingest.responder import Responder

#: How long the same bytes are sent; the Date field has whole seconds.
KEPT_SECONDS = 0.1
#: As many variants with a Retry-After of their own, so that clients do not return as one.
VARIANTS = 8


def whole_seconds(seconds: float, most: float) -> str:
    """A Retry-After: rounded up, never 0, and up to half of it more by chance.

    Args:
        most: never more than this.
    """
    least = max(1, math.ceil(min(seconds, most)))
    return str(min(random.randint(least, least + max(1, least // 2)), max(1, math.ceil(most))))


class Prepared:
    """The bytes of one refusal.

    Args:
        refusal: makes the error anew, with a Retry-After of its own each time.
    """

    __slots__ = ("_next", "_refusal", "_until", "_variants", "code", "status")

    def __init__(self, refusal: Callable[[], IngestError], code: str, status: int) -> None:
        self._refusal = refusal
        self._variants: list[bytes] = []
        self._next = 0
        self._until = 0.0
        self.code = code
        self.status = str(status)

    def error(self) -> IngestError:
        """The refusal for an answer that is made for one request."""
        return self._refusal()

    def bytes(self, now: float, date: Callable[[], bytes]) -> bytes:
        """One whole answer.

        Args:
            now: monotonic seconds.
        """
        if now >= self._until:
            self._until = now + KEPT_SECONDS
            day = date()
            self._variants = [problem(self._refusal(), date=day) for _ in range(VARIANTS)]
        self._next = (self._next + 1) % VARIANTS
        return self._variants[self._next]


class Refusals:
    """Sends prepared refusals and counts them.

    Args:
        responder: for answers that must be made for one request.
        metrics: counters.
    """

    def __init__(self, responder: Responder, metrics: Metrics) -> None:
        self._responder = responder
        self._requests = metrics.requests
        self._errors = metrics.errors
        self._bytes = metrics.response_bytes

    @property
    def quick(self) -> bool:
        """Whether a prepared answer will do."""
        return self._responder.terse

    def count(self, plan: Any, prepared: Prepared, size: int) -> None:
        """Count one that was sent without an exchange."""
        self._requests.cell(plan.type_name, prepared.status).value += 1
        self._errors.cell(prepared.code).value += 1
        self._bytes.value += size

    def bytes(self, prepared: Prepared, now: float) -> bytes:
        """The whole answer."""
        return prepared.bytes(now, self._responder.date)

    def answer(self, exchange: Any, prepared: Prepared) -> None:
        """Complete an exchange."""
        if exchange.close or not exchange.head.cacheable or not self._responder.terse:
            self._responder.problem(exchange, prepared.error())
            return
        data = self.bytes(prepared, exchange.started)
        self.count(exchange.plan, prepared, len(data))
        exchange.connection.complete(exchange, data)


def retry_fields(seconds: float, most: float) -> Mapping[str, str]:
    """The header field of a refusal that ends by itself."""
    return {"Retry-After": whole_seconds(seconds, most)}
