"""Completes exchanges: the answer's bytes, the counters, the access log.

Every answer of the service leaves through here, so that it is counted once and in one
way. The hot path is `accepted`, which answers everything that one commit made durable.

This module must not know sockets, JSON decoding or the journal.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

from ingest.answers import JSON, answer, problem
from ingest.connection import Connection, Exchange
from ingest.errors import IngestError
from ingest.peer import client_address
from ingest.tracing import trace_names, trace_of

if TYPE_CHECKING:
    from ingest.journal.record import IdSource
    from ingest.logs import AccessLog
    from ingest.metrics import Metrics
    from ingest.settings import Settings

#: Type label of requests that are not about an event type.
NO_TYPE = "-"
#: What a producer may choose as X-Request-Id; anything else is replaced by our own.
_REQUEST_ID = re.compile(r"[!-~]{1,128}")

#: An event's id is a UUID in text (RFC 9562 section 4), so this answer's length is fixed.
_ID_BYTES = 36
_ACCEPTED_START = b'{"accepted":1,"id":"'
_ACCEPTED_END = b'"}\n'
_ACCEPTED_HEAD = (
    b"HTTP/1.1 202 Accepted\r\nDate: %%s\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nX-Request-Id: "
    % (len(_ACCEPTED_START) + _ID_BYTES + len(_ACCEPTED_END))
)
_ACCEPTED_MIDDLE = b"\r\n\r\n" + _ACCEPTED_START


class Pieces(Protocol):
    """A body that is sent piece by piece.

    Attributes:
        length: bytes in it.
        sent: bytes of it that have left.
    """

    length: int
    sent: int

    def send(self, connection: Connection, head: bytes) -> None:
        """Send the head and the body behind it; blocks the connection's greenlet."""


class Responder:
    """Answers exchanges.

    Args:
        settings: `retry_after_seconds`.
        metrics: where answers are counted.
        ids: makes request ids for requests that bring none.
        access: the access log; None when it is off.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, ids: IdSource, access: AccessLog | None
    ) -> None:
        self.draining = False
        #: how long what there is to do takes, as far as that is known
        self.backlog_seconds: Callable[[], float] = lambda: 0.0
        self._settings = settings
        self._metrics = metrics
        self._ids = ids
        self._access = access
        self._date_second = 0
        self._date = b""
        self._accepted_head = b""
        self._new_second(int(time.time()))

    # -- what answers share -----------------------------------------------------------

    def _new_second(self, second: int) -> None:
        self._date_second = second
        self._date = formatdate(second, usegmt=True).encode()
        self._accepted_head = _ACCEPTED_HEAD % self._date

    def date(self) -> bytes:
        """The Date field's value, made once a second."""
        second = int(time.time())
        if second != self._date_second:
            self._new_second(second)
        return self._date

    def request_id(self, exchange: Exchange, otherwise: bytes = b"") -> str:
        """The id of a request: the same one each time it is asked for.

        Args:
            otherwise: what to use where the producer sent no usable X-Request-Id; a new
                id when empty.
        """
        if not exchange.request_id:
            given = exchange.head.headers.get("x-request-id", "")
            if _REQUEST_ID.fullmatch(given):
                exchange.request_id = given
            else:
                exchange.request_id = (otherwise or self._ids.next()).decode()
        return exchange.request_id

    def about(self, exchange: Exchange) -> dict[str, str]:
        """What a log line about a request says of it: its id, its type, its trace."""
        return {
            "request_id": self.request_id(exchange),
            "type": exchange.plan.type_name,
            **trace_names(exchange.head.headers),
        }

    def overloaded(self, detail: str) -> IngestError:
        """The refusal of a request for which there is no room now."""
        return IngestError("overloaded", detail, headers={"Retry-After": self.retry_after()})

    @property
    def terse(self) -> bool:
        """Whether a refusal may be one that was made before: without an id or a line of its own."""
        return not self.draining and self._settings.access_log != "all"

    def retry_after(self) -> str:
        """Whole seconds, at least 1, spread so that refused clients do not return as one."""
        least = max(1, math.ceil(max(self._settings.retry_after_seconds, self.backlog_seconds())))
        return str(random.randint(least, 2 * least))

    def _closes(self, exchange: Exchange) -> bool:
        """Whether this answer is the connection's last one."""
        connection = exchange.connection
        if exchange.close:
            return True
        if self.draining and connection.exchanges and connection.exchanges[-1] is exchange:
            connection.closing = True
            return True
        return False

    def _account(self, exchange: Exchange, status: int, size: int, request_id: str) -> None:
        metrics = self._metrics
        plan = exchange.plan
        metrics.requests.cell(plan.type_name, str(status)).value += 1
        metrics.response_bytes.value += size
        duration = time.monotonic() - exchange.started
        if not plan.alone:  # how long those take is their clients' choice
            metrics.request_duration.observe(duration)
            # A head that is cacheable has no traceparent.
            if not exchange.head.cacheable and (trace := trace_of(exchange.head.headers)):
                metrics.request_duration.example(duration, trace.trace_id, time.time())
        access = self._access
        if access is not None and access.wants(status):
            head = exchange.head
            access.record(
                address=client_address(exchange.connection, head.headers),
                method=head.method,
                target=head.target,
                status=status,
                request_bytes=head.size + (head.content_length or 0),
                response_bytes=size,
                duration_seconds=duration,
                request_id=request_id,
                type=plan.type_name,
                key=plan.principal.name,
                version=head.version,
                headers=head.headers,
            )

    # -- one answer ---------------------------------------------------------------------

    def send(
        self,
        exchange: Exchange,
        status: int,
        body: bytes,
        *,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Complete an exchange with an answer of any kind.

        Args:
            status: HTTP status code.
            body: the whole content.
        """
        request_id = self.request_id(exchange)
        data = answer(
            status,
            body,
            content_type=content_type,
            date=self.date(),
            request_id=request_id,
            headers=headers,
            close=self._closes(exchange),
            without_body=exchange.head.method == "HEAD",
        )
        self._account(exchange, status, len(data), request_id)
        exchange.connection.complete(exchange, data)

    def send_pieces(
        self,
        exchange: Exchange,
        status: int,
        pieces: Pieces,
        *,
        content_type: str,
        headers: Mapping[str, str],
    ) -> None:
        """Complete an exchange that is answered alone with a body sent piece by piece.

        Raises:
            Ending: the connection ends within the answer.
        """
        request_id = self.request_id(exchange)
        without_body = exchange.head.method == "HEAD" or not pieces.length
        head = answer(
            status,
            b"",
            content_type=content_type,
            date=self.date(),
            request_id=request_id,
            headers=headers,
            close=self._closes(exchange),
            length=pieces.length,
        )
        try:
            if without_body:
                exchange.connection.complete(exchange, head)
                return
            pieces.send(exchange.connection, head)
        finally:
            self._account(exchange, status, len(head) + pieces.sent, request_id)
        if self.draining:  # it began meanwhile
            exchange.connection.closing = True
        exchange.connection.complete(exchange, b"")

    def head_parts(self, exchange: Exchange) -> tuple[bytes, str, bool]:
        """What the head of every answer has: date, request id, whether the connection ends."""
        return self.date(), self.request_id(exchange), self._closes(exchange)

    def account(self, exchange: Exchange, status: int, size: int) -> None:
        """Count and log an answer that has left by another way, whole or in part."""
        self._account(exchange, status, size, self.request_id(exchange))
        if self.draining:
            exchange.connection.closing = True

    def problem(self, exchange: Exchange, error: IngestError) -> None:
        """Complete an exchange with problem+json."""
        request_id = self.request_id(exchange)
        self._metrics.errors.cell(error.code).value += 1
        target = exchange.plan.target
        if error.status >= 500 and target is not None and target.webhook is not None:
            target.webhook.failed(exchange)  # what is not stored may be sent again
        if error.failure.closes:
            exchange.close = True
            exchange.connection.closing = True
        data = problem(
            error,
            date=self.date(),
            request_id=request_id,
            close=self._closes(exchange),
            without_body=exchange.head.method == "HEAD",
        )
        self._account(exchange, error.status, len(data), request_id)
        exchange.connection.complete(exchange, data)

    def protocol_error(self, connection: Connection, error: IngestError) -> None:
        """Answer bytes that never became a request; the connection ends after it."""
        metrics = self._metrics
        metrics.errors.cell(error.code).value += 1
        metrics.requests.cell(NO_TYPE, str(error.status)).value += 1
        request_id = self._ids.next().decode()
        data = problem(error, date=self.date(), request_id=request_id, close=True)
        metrics.response_bytes.value += len(data)
        if self._access is not None and self._access.wants(error.status):
            self._access.record(
                address=connection.address,
                method="-",
                target=b"-",
                status=error.status,
                request_bytes=0,
                response_bytes=len(data),
                duration_seconds=0.0,
                request_id=request_id,
                type=NO_TYPE,
                key=NO_TYPE,
            )
        connection.exchanges.append(_last_word(connection, data))
        connection.flush()

    def refuse_connection(self, sock: Any, detail: str) -> None:
        """Tell one connection too many that it is one, as far as the kernel takes it."""
        error = self.overloaded(detail)
        self._metrics.errors.cell(error.code).value += 1
        self._metrics.requests.cell(NO_TYPE, "503").value += 1
        try:
            sock.send(problem(error, date=self.date(), close=True))
        except OSError:
            pass  # it is closed next, whatever it took

    # -- the hot path -----------------------------------------------------------------------

    def accepted(self, exchanges: Sequence[Exchange]) -> None:
        """Answer 202 to every exchange of a commit that carried one event each.

        `exchange.context` is the event's id. Its request id is the same one, unless
        the producer sent one: one id then finds the log line and the record.
        """
        self.date()
        head = self._accepted_head
        access = self._access
        # `gap` answers may go by before the access log wants to see one.
        special = self.draining or (access is not None and access.gap < len(exchanges))
        dirty: list[Connection] = []
        started: list[float] = []
        join = b"".join
        size = len(head) + len(_ACCEPTED_MIDDLE) + len(_ACCEPTED_END) + 2 * _ID_BYTES
        plan, run = exchanges[0].plan, 0  # counted by runs of one plan: most often there is one
        for exchange in exchanges:
            event_id = exchange.context
            # A head that is cacheable has no X-Request-Id.
            if special or exchange.close or not exchange.head.cacheable:
                self._accepted_slowly(exchange, event_id)
                continue
            if exchange.plan is not plan:
                plan.accepted(run)
                plan, run = exchange.plan, 0
            run += 1
            started.append(exchange.started)
            data = join((head, event_id, _ACCEPTED_MIDDLE, event_id, _ACCEPTED_END))
            connection = exchange.connection
            if len(connection.exchanges) == 1:
                connection.exchanges.popleft()
                connection.send(data)
            else:
                exchange.answer = data
                if not connection.dirty:
                    connection.dirty = True
                    dirty.append(connection)
        for connection in dirty:
            connection.dirty = False
            connection.flush()
        plan.accepted(run)
        self._metrics.response_bytes.value += size * len(started)
        self._metrics.request_duration.observe_ages(time.monotonic(), started)
        if access is not None and not special:
            access.gap -= len(exchanges)

    def _accepted_slowly(self, exchange: Exchange, event_id: bytes) -> None:
        exchange.plan.target.accepted.value += 1
        self.request_id(exchange, event_id)
        self.send(exchange, 202, _ACCEPTED_START + event_id + _ACCEPTED_END)


def _last_word(connection: Connection, data: bytes) -> Exchange:
    """An exchange that is already complete, to keep the answer's place in the order."""
    exchange: Any = Exchange.__new__(Exchange)
    exchange.connection = connection
    exchange.head = None
    exchange.answer = data
    exchange.close = True
    return exchange
