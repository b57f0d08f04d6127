"""`/metrics` of all workers, whichever of them is asked.

A worker asks the supervisor, which asks all of them and makes the text. Who asks this worker
while an answer is on its way waits for the next one, so that nobody is shown an old one; and
sending gets its share of the event loop's time, as in `endpoints_paced`.

This module must not know how workers talk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic

import gevent

from ingest.connection import Exchange
from ingest.encodings import compress, negotiate
from ingest.endpoints import EXPOSITIONS_MAX
from ingest.endpoints_paced import SHARE, SLICE_SECONDS, WAITING_MAX
from ingest.errors import IngestError
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.responder import Responder

log = get_logger(__name__)

#: Gives body and content type for an Accept field; blocks; None when there is none to be had.
Gather = Callable[["str | None"], "tuple[bytes, str] | None"]


class GatheredScrapes:
    """The endpoint.

    Args:
        gather: asks for the exposition.
        responder: sends the answers.
        metrics: where failures and compressed answers are counted.
        compress_min_bytes: smaller answers are not compressed.
    """

    def __init__(
        self, gather: Gather, responder: Responder, metrics: Metrics, compress_min_bytes: int
    ) -> None:
        self._gather = gather
        self._responder = responder
        self._metrics = metrics
        self._compress_min_bytes = compress_min_bytes
        self._asking: deque[Exchange] = deque()
        self._working = False

    def __call__(self, exchange: Exchange) -> None:
        """Answer soon.

        Raises:
            IngestError: overloaded; too many wait.
        """
        if len(self._asking) >= WAITING_MAX:
            raise self._responder.overloaded("Too many ask for this at once.")
        self._asking.append(exchange)
        if not self._working:
            self._working = True
            gevent.spawn(self._work)

    def _work(self) -> None:
        try:
            while self._asking:
                served, self._asking = self._asking, deque()
                self._serve(served)
        finally:
            self._working = False

    def _serve(self, served: deque[Exchange]) -> None:
        made: dict[str | None, tuple[bytes, str] | None] = {}
        coded: dict[tuple[str | None, str], bytes] = {}
        began = monotonic()
        while served:
            exchange = served.popleft()
            accept = exchange.head.headers.get("accept")
            if accept not in made:
                if len(made) >= EXPOSITIONS_MAX:
                    made.clear()
                    coded.clear()
                made[accept] = self._gather(accept)
                began = monotonic()
            try:
                self._answer(exchange, accept, made[accept], coded)
            except Exception as error:
                self._metrics.unhandled_errors.cell("endpoint").value += 1
                log.error("endpoint.unhandled_error", exc_info=error)
                self._responder.problem(exchange, IngestError("internal_error"))
            spent = monotonic() - began
            if spent >= SLICE_SECONDS:
                gevent.sleep(spent * (SHARE - 1))
                began = monotonic()

    def _answer(
        self,
        exchange: Exchange,
        accept: str | None,
        exposition: tuple[bytes, str] | None,
        coded: dict[tuple[str | None, str], bytes],
    ) -> None:
        if exposition is None:
            error = self._responder.overloaded("The supervisor does not answer.")
            self._responder.problem(exchange, error)
            return
        body, content_type = exposition
        headers = {"Vary": "Accept, Accept-Encoding"}
        coding = negotiate(exchange.head.headers.get("accept-encoding", ""))
        if coding and len(body) >= self._compress_min_bytes:
            if (accept, coding) not in coded:
                coded[accept, coding] = compress(body, coding)
            body = coded[accept, coding]
            headers["Content-Encoding"] = coding
            self._metrics.answers_compressed.cell(coding).value += 1
        self._responder.send(exchange, 200, body, content_type=content_type, headers=headers)
