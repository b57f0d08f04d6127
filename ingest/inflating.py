"""Inflates the bodies of requests within the pool, without holding up the event loop.

Memory: a body takes its coded and its inflated size (twice that while its chunks are
joined) and one window of its coding. As many bodies are worked on at a time as there are
resident greenlets; types with a handler have greenlets of their own, so for them bodies
that take more than `STEPS_AT_ONCE` share that many places.

This module must not know JSON, the journal, or how a request is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from gevent.lock import BoundedSemaphore

from ingest.encodings import Bounds, inflate
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.connection import Exchange
    from ingest.metrics import Metrics
    from ingest.routes import Plan
    from ingest.settings import Settings

#: Steps of inflating that are made in one go: a millisecond, and all of most bodies.
STEPS_AT_ONCE = 4


class Inflater:
    """Undoes the content codings of requests.

    Args:
        settings: the bounds; how many large bodies there may be at a time.
        metrics: counts bytes and what is refused.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self.bound(settings)
        self._places = BoundedSemaphore(settings.pool_residents)

    def bound(self, settings: Settings) -> None:
        """Go by the bounds of these settings."""
        self._whole = Bounds(settings.request_body_max_bytes, settings.inflate_ratio_max)

    @contextmanager
    def inflated(self, exchange: Exchange, yield_turn: Callable[[], None]) -> Iterator[None]:
        """Replace the body of an exchange by what it inflates to, for as long as it is needed.

        Args:
            exchange: its plan names the codings.
            yield_turn: lets the event loop run; called between two chunks.

        Raises:
            IngestError: malformed_encoding, inflated_too_large or event_too_large.
        """
        with ExitStack() as place:
            try:
                exchange.body = self._inflate(exchange, yield_turn, place)
            except IngestError as error:
                self._count_refusal(exchange.plan, error)
                raise
            yield

    def _inflate(
        self, exchange: Exchange, yield_turn: Callable[[], None], place: ExitStack
    ) -> bytes:
        plan, metrics = exchange.plan, self._metrics
        coded, codings, bounds = exchange.body, plan.codings, self._bounds(plan)
        if not coded:
            return b""  # refused as any empty body is
        metrics.coded_bytes.value += len(coded)
        body = _at_once(inflate(coded, codings, bounds))
        if body is not None:
            metrics.inflated_bytes.value += len(body)
            return body
        # It takes longer, so others run in between. It starts over, because what waits for
        # a place must not hold a decoder: one has a window of up to 8 MiB.
        if plan.target.handler is not None:
            place.enter_context(self._places)
        chunks: list[bytes] = []
        for chunk in inflate(coded, codings, bounds):
            metrics.inflated_bytes.value += len(chunk)
            chunks.append(chunk)
            yield_turn()
        return b"".join(chunks)

    def _bounds(self, plan: Plan) -> Bounds:
        bounds = self._whole
        event_max_bytes: int = plan.target.event_max_bytes
        if plan.single and event_max_bytes < bounds.max_bytes:
            return Bounds(event_max_bytes, bounds.ratio_max, "event_too_large")
        return bounds

    @staticmethod
    def _count_refusal(plan: Plan, error: IngestError) -> None:
        if error.code == "malformed_encoding":
            plan.target.rejected_malformed.value += 1
        else:
            plan.target.rejected_too_large.value += 1


def _at_once(chunks: Iterator[bytes]) -> bytes | None:
    """All chunks, or None if there are more than can be had at once."""
    first = list(islice(chunks, STEPS_AT_ONCE + 1))
    return b"".join(first) if len(first) <= STEPS_AT_ONCE else None
