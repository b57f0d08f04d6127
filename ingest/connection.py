"""One client connection: bytes in, exchanges handed over, answers out in order.

A connection is a greenlet and one persistent, level-triggered read watcher, started
once with the greenlet's own `switch`: when bytes arrive, the hub switches straight
here. The watcher is stopped while the greenlet waits for anything else; not reading
*is* the back-pressure. A connection is not read while

1. it waits in line for a slot of the pool (`Wait.SLOT`),
2. `PIPELINE_MAX` of its exchanges have no answer yet, or its peer does not take the
   answers it already has (`Wait.ROOM`),
3. all earlier answers must leave first: before `100 Continue`, before closing
   (`Wait.QUIET`).

Answers may be completed in any order; they leave in the order of the requests. Whoever
completes one sends it with the raw non-blocking `send`, without a switch to this
greenlet; what the kernel does not take stays in `_unsent` and a write watcher sends it.

This module must not know JSON, schemas or the journal.
"""

from __future__ import annotations

import enum
import socket
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

import greenlet
from gevent.hub import get_hub

from ingest.answers import CONTINUE
from ingest.errors import IngestError
from ingest.logs import get_logger

if TYPE_CHECKING:
    from ingest.http.head import Head
    from ingest.routes import Plan
    from ingest.server import Server

log = get_logger(__name__)

READ, WRITE = 1, 2

#: Bytes asked of the kernel at a time.
RECEIVE_BYTES = 65536
#: Exchanges of one connection without an answer; further requests stay unread.
PIPELINE_MAX = 256
#: The body of a refused request is read and dropped up to this size, so that the
#: connection can be kept; a larger one is answered at once and the connection closed.
DISCARD_MAX_BYTES = 65536
#: After a closing answer the peer's bytes are dropped for this long and this many, so
#: that a reset does not overtake the answer (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
LINGER_MAX_BYTES = 4 << 20


class Phase(enum.IntEnum):
    """What the connection waits for from its peer; each has its own time limit."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    LINGER = 3


class Wait(enum.IntEnum):
    """What the greenlet waits for besides bytes; NOTHING while the watcher runs."""

    NOTHING = 0
    SLOT = 1
    ROOM = 2
    QUIET = 3


class Expired(Exception):
    """Thrown into the greenlet by the server's sweep: a time limit has passed.

    Args:
        kind: `header`, `body`, `idle`, `write` or `linger`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Finished(Exception):
    """Thrown into the greenlet when the last answer of a closing connection has left."""


class Exchange:
    """One request and its answer; keeps its place in the connection's order.

    Attributes:
        connection: where the answer goes.
        head: the parsed head.
        plan: what the router decided.
        body: the request's content, whole.
        started: monotonic seconds when the request was complete.
        close: whether the connection ends after this answer.
        answer: the bytes of the answer; None until it is complete.
        context: what the pipeline keeps between validation and commit.
    """

    __slots__ = ("answer", "body", "close", "connection", "context", "head", "plan", "started")

    def __init__(
        self, connection: Connection, head: Head, plan: Plan, body: bytes, started: float
    ) -> None:
        self.connection = connection
        self.head = head
        self.plan = plan
        self.body = body
        self.started = started
        self.close = not head.keep_alive
        self.answer: bytes | None = None
        self.context: Any = None


class Connection:
    """A greenlet that serves one socket until either side ends it.

    Args:
        server: who accepted it and owns its greenlet.
        sock: the raw non-blocking socket.
        address: the peer's address, as accept gave it.
    """

    __slots__ = (
        "_loop", "_server", "_switch_to_hub", "_unsent", "_wait", "_write_watcher", "address",
        "closing", "dirty", "exchanges", "finished", "greenlet", "parser", "phase", "since", "sock",
        "stalled_since", "watcher",
    )  # fmt: skip

    def __init__(self, server: Server, sock: socket.socket, address: Any) -> None:
        hub = get_hub()
        self._server = server
        self._loop = hub.loop
        self._switch_to_hub = hub.switch
        self.sock = sock
        self.address = address
        self.parser = server.new_parser()
        self.exchanges: deque[Exchange] = deque()
        self._unsent: bytes = b""
        self._wait = Wait.NOTHING
        self._write_watcher: Any = None
        self.closing = False
        self.finished = False
        #: set while the committer has this connection on its list to flush
        self.dirty = False
        self.phase = Phase.IDLE
        #: when the phase began, by the monotonic clock
        self.since: float = monotonic()
        #: when the peer stopped taking answers; 0.0 while it takes them
        self.stalled_since = 0.0
        self.greenlet = greenlet.greenlet(self._run, hub)
        self.watcher = self._loop.io(sock.fileno(), READ)
        self.watcher.start(self.greenlet.switch)

    # -- the greenlet -------------------------------------------------------------

    def _run(self) -> None:
        reason = "error"
        try:
            reason = self._serve()
        except Finished:
            reason = self._end("drain")
        except Expired as expired:
            reason = self._expire(expired)
        except OSError as error:
            log.debug("connection.lost", error=str(error))
            reason = "client"
        except greenlet.GreenletExit:
            reason = "drain"
        except Exception as error:  # noqa: BLE001 - counted and logged: the service goes on
            self._server.unhandled("connection", error)
        finally:
            self._dispose(reason)

    def _serve(self) -> str:
        """Serve requests until the connection ends; returns why it ended.

        The body of this loop is the hot path: what it needs is looked up once.
        """
        server, pool, parser = self._server, self._server.pool, self.parser
        exchanges = self.exchanges
        next_head, next_body, feed = parser.head, parser.body, parser.feed
        receive, switch_to_hub, clock = self.sock.recv, self._switch_to_hub, monotonic
        woken = True  # the watcher's first event is what started this greenlet
        now = clock()
        try:
            while True:
                head = next_head()
                while head is None:
                    if not woken:
                        if parser.begun and self.phase is not Phase.HEAD:
                            self.phase = Phase.HEAD
                            self.since = now
                        switch_to_hub()
                    woken = False
                    try:
                        data = receive(RECEIVE_BYTES)
                    except BlockingIOError:
                        continue
                    if not data:
                        self._wait_until_quiet()
                        return "client"
                    now = clock()
                    feed(data)
                    head = next_head()
                self.phase = Phase.IDLE
                self.since = now
                plan = head.plan
                if plan is None:
                    plan = server.plan(head)
                body = next_body()
                if body is None:
                    body = self._receive_body(head, plan)
                    now = clock()
                exchange = Exchange(self, head, plan, body, now)
                exchanges.append(exchange)
                if plan.immediate:
                    server.answer_now(exchange)
                elif pool.in_use < pool.size:
                    pool.in_use += 1
                    plan.submit(exchange)
                elif self._wait_for_slot():
                    plan.submit(exchange)
                else:
                    server.refuse(exchange)
                if exchange.close:
                    self._wait_until_quiet()
                    return self._end("client")
                if self._unsent or len(exchanges) >= PIPELINE_MAX:
                    self._park(Wait.ROOM)
        except IngestError as error:
            # Raised by the parser, or for a body that is not worth reading: the stream's
            # next request cannot be found, so this is the last answer.
            self.phase = Phase.IDLE
            server.answer_error(self, error)
            self._wait_until_quiet()
            return self._end("protocol")

    # -- receiving ------------------------------------------------------------------

    def _receive_now(self) -> bool:
        """Feed what the watcher announced. False: the peer has closed its side."""
        while True:
            try:
                data = self.sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                self._switch_to_hub()
                continue
            self.parser.feed(data)
            return bool(data)

    def _receive_body(self, head: Head, plan: Plan) -> bytes:
        """Read the rest of a request's body.

        Raises:
            IngestError: the request is refused and its body is not worth reading.
            ConnectionResetError: the peer closed within the body.
        """
        if plan.refusal is not None and (
            head.expect_continue
            or head.content_length is None
            or head.content_length > DISCARD_MAX_BYTES
        ):
            raise plan.refusal
        if head.expect_continue and not self.parser.buffered:
            # RFC 9110 section 10.1.1: only while the client still waits for it.
            self._wait_until_quiet()
            self.send(CONTINUE)
        self.phase = Phase.BODY
        self.since = monotonic()
        next_body = self.parser.body
        body = None
        while body is None:
            self._switch_to_hub()
            if not self._receive_now():
                raise ConnectionResetError("the peer closed within a body")
            body = next_body()
        self.phase = Phase.IDLE
        return body

    # -- waiting for something other than bytes -----------------------------------------

    def _park(self, wait: Wait) -> None:
        self.watcher.stop()
        self._wait = wait
        try:
            self._switch_to_hub()
        finally:
            self._wait = Wait.NOTHING
        self.watcher.start(self.greenlet.switch)

    def _wait_for_slot(self) -> bool:
        """Stand in line for a slot. False: the line is full, refuse."""
        pool = self._server.pool
        if not pool.wait_in_line(self):
            return False
        self.phase = Phase.IDLE
        try:
            self._park(Wait.SLOT)
        except BaseException:
            if not pool.leave_line(self):
                pool.release()  # it was granted in the same turn in which this ended
            raise
        return True

    def resume(self) -> None:
        """The pool grants the slot this connection stood in line for."""
        self._loop.run_callback(self.greenlet.switch)

    def _wait_until_quiet(self) -> None:
        """Wait until every answer so far has left."""
        if self.exchanges or self._unsent:
            self._park(Wait.QUIET)

    def _after_send(self) -> None:
        """Answers left: wake the greenlet if that is what it waits for."""
        wait = self._wait
        if wait is Wait.ROOM:
            ready = not self._unsent and len(self.exchanges) < PIPELINE_MAX
        else:
            ready = wait is Wait.QUIET and not self._unsent and not self.exchanges
        if ready:
            self._wait = Wait.NOTHING
            self._loop.run_callback(self.greenlet.switch)
        elif self.closing and not self.finished and not (self._unsent or self.exchanges):
            # The server decided to close after this answer (drain) while the greenlet
            # waits for the next request.
            self.finished = True
            if wait is Wait.NOTHING:
                self.interrupt(Finished())

    # -- sending ----------------------------------------------------------------------

    def complete(self, exchange: Exchange, answer: bytes) -> None:
        """Give an exchange its answer and send what is next in order."""
        exchange.answer = answer
        if self.exchanges and self.exchanges[0] is exchange:
            self.flush()

    def flush(self) -> None:
        """Send every answer that is complete and next in order, in one go."""
        exchanges = self.exchanges
        ready = []
        while exchanges:
            answer = exchanges[0].answer
            if answer is None:
                break
            ready.append(answer)
            exchanges.popleft()
        if ready:
            self.send(ready[0] if len(ready) == 1 else b"".join(ready))

    def send(self, data: bytes) -> None:
        """Send now what the kernel takes and keep the rest; never blocks, never raises."""
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(data)  # the peer is gone; the greenlet learns it when it reads
        if sent != len(data):
            self._unsent = data[sent:]
            self.stalled_since = monotonic()
            self._write_watcher = self._loop.io(self.sock.fileno(), WRITE)
            self._write_watcher.start(self._on_writable)
        elif self._wait or self.closing:
            self._after_send()

    def _on_writable(self) -> None:
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        self.stalled_since = monotonic()
        if not self._unsent:
            self._stop_writing()
            self._after_send()

    def _stop_writing(self) -> None:
        self.stalled_since = 0.0
        if self._write_watcher is not None:
            self._write_watcher.stop()
            self._write_watcher.close()
            self._write_watcher = None

    # -- ending -----------------------------------------------------------------------

    def _expire(self, expired: Expired) -> str:
        """A time limit has passed: answer 408 where a request had begun, then close."""
        kind = expired.kind
        if kind in ("header", "body"):
            try:
                self._server.answer_error(
                    self, IngestError("request_timeout", f"The {kind} did not arrive in time.")
                )
                return self._end("timeout")
            except (Expired, OSError):
                return "timeout"
        return "idle" if kind == "idle" else "timeout"

    def _end(self, reason: str) -> str:
        """Close our side and drop what the peer still sends, for a bounded time."""
        try:
            self.phase = Phase.LINGER
            self.since = monotonic()
            self.sock.shutdown(socket.SHUT_WR)
            dropped = 0
            while dropped < LINGER_MAX_BYTES:
                self._switch_to_hub()
                try:
                    data = self.sock.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    continue
                if not data:
                    break
                dropped += len(data)
        except (OSError, Expired):
            pass  # the peer went first, or the time is over: either way it is closed now
        return reason

    def _dispose(self, reason: str) -> None:
        self.watcher.stop()
        self.watcher.close()
        self._stop_writing()
        self._unsent = b""
        self.sock.close()
        self._server.forget(self, reason)

    def overdue(self, now: float, server: Server) -> str | None:
        """Which time limit has passed, if any; asked by the server's sweep.

        Args:
            now: monotonic seconds.
        """
        limits = server.settings
        if self.stalled_since and now - self.stalled_since > limits.write_timeout_seconds:
            return "write"
        if self._wait or self.exchanges:
            return None
        waited = now - self.since
        phase = self.phase
        if phase is Phase.IDLE:
            # One that has never sent a byte gets only as long as a head may take.
            fresh = not self.greenlet
            limit = limits.header_timeout_seconds if fresh else limits.idle_timeout_seconds
            return "idle" if waited > limit else None
        if phase is Phase.HEAD:
            return "header" if waited > limits.header_timeout_seconds else None
        if phase is Phase.BODY:
            return "body" if waited > limits.body_timeout_seconds else None
        return "linger" if waited > LINGER_SECONDS else None

    def interrupt(self, event: BaseException) -> None:
        """Throw `Expired`, `Finished` or `GreenletExit` into the greenlet, next turn."""
        if self.greenlet:
            self._loop.run_callback(self.greenlet.throw, event)
        elif not self.greenlet.dead:  # no byte ever came, so it was never switched to
            self._dispose("idle" if isinstance(event, Expired) else "drain")

    def idle(self) -> bool:
        """Whether it has no request in flight and none half received."""
        return not self.exchanges and not self._unsent and self.phase is Phase.IDLE
