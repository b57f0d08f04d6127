"""One client connection: bytes in, exchanges handed over, answers out in order.

A connection is a greenlet and one persistent, level-triggered read watcher. When bytes
arrive, the hub switches here; only a request that came whole, with a head that was seen
before, is handed to the pool by the hub itself (`_on_readable`), while the greenlet goes on
waiting for what is not that simple. The watcher is stopped while the greenlet waits for
anything but bytes; not reading *is* the back-pressure. A connection is not read while

1. it waits in line for a slot of the pool (`Wait.SLOT`),
2. `PIPELINE_MAX` of its exchanges have no answer yet, or its peer does not take the
   answers it already has (`Wait.ROOM`),
3. all earlier answers must leave first: before `100 Continue`, before closing, and before
   the request behind a large body (`Wait.QUIET`),
4. its body would need memory that there is none of (`Wait.MEMORY`, see
   `connection_memory.py`),
5. its request is one that is answered alone: all earlier answers leave first (`Wait.FIRST`),
   then the endpoint has greenlet and socket for itself (`Wait.ALONE`).

Answers may be completed in any order; they leave in the order of the requests. Whoever
completes one sends it with the raw non-blocking `send`, without a switch to this
greenlet; what the kernel does not take stays in `_unsent` and a write watcher sends it.

This module must not know JSON, schemas or the journal.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import greenlet
from gevent.hub import get_hub

from ingest.access import proxy_protocol
from ingest.answers import CONTINUE
from ingest.connection_limits import (
    LINGER_MAX_BYTES,
    LINGER_SECONDS,
    REQUEST_LIMITS,
    Broken,
    Cut,
    Expired,
    Finished,
    Phase,
    Wait,
    too_slow,
    unacknowledged,
)
from ingest.connection_memory import Account
from ingest.errors import IngestError
from ingest.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingest.http.head import Head
    from ingest.http.parser import RequestParser
    from ingest.peer import Peer
    from ingest.pool import Judge
    from ingest.routes import Plan
    from ingest.server import Server
    from ingest.settings import Settings

log = get_logger(__name__)

READ, WRITE = 1, 2
#: SO_LINGER for a close that resets (socket(7)).
RESET = struct.pack("ii", 1, 0)

#: Bytes asked of the kernel at a time. A body beyond it is a large one: it is counted against
#: `buffered_max_bytes` until it is answered.
RECEIVE_BYTES = 65536
#: Exchanges of one connection without an answer; further requests stay unread.
PIPELINE_MAX = 256
#: The body of a refused request is read and dropped up to this size, so that the
#: connection can be kept; a larger one is answered at once and the connection closed.
DISCARD_MAX_BYTES = 65536


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
        request_id: once it is known; see `Responder.request_id`.
        context: what the pipeline keeps between validation and commit.
        times: when it passed from stage to stage; only where the slow-request log is on.
    """

    __slots__ = (
        "answer", "body", "close", "connection", "context", "head", "plan", "request_id", "started",
        "times",
    )  # fmt: skip

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
        self.request_id = ""
        self.times: list[float]  # unset, so that it costs nothing where it is not wanted


def _kept(exchange: Exchange) -> int:
    """Bytes kept for an exchange whose answer, if there is one, waits for an earlier one."""
    if exchange.answer is None:
        return 0
    return len(exchange.answer) + (exchange.head.size if exchange.head else 0)


class Connection:
    """A greenlet that serves one socket until either side ends it.

    Args:
        server: who accepted it and owns its greenlet.
        sock: the raw non-blocking socket.
        address: the peer's address, as accept gave it.
        peer: what is known of the other side.
    """

    __slots__ = (
        "_account", "_behind", "_loop", "_rated_since", "_receive", "_received", "_resting",
        "_server", "_stalled_left", "_switch_to_hub", "_unsent", "_wait", "_whole",
        "_write_watcher", "address", "closing", "counted", "dirty", "exchanges", "finished",
        "greenlet", "parser", "peer", "phase", "since", "sock", "stalled_since", "watcher",
    )  # fmt: skip

    def __init__(self, server: Server, sock: socket.socket, address: Any, peer: Peer) -> None:
        hub = get_hub()
        self._server = server
        self._loop = hub.loop
        self._switch_to_hub = hub.switch
        self.sock = sock
        self.address = address
        self.peer = peer
        #: among the connections of its address, which are limited
        self.counted = False
        self.parser: RequestParser = server.new_parser(peer)
        self.exchanges: deque[Exchange] = deque()
        self._unsent: bytes = b""
        #: bytes of answers that are complete and wait for an earlier one
        self._behind = 0
        self._account = Account(server.memory, self)
        #: bytes of a body since `_rated_since`, which its rate is judged by
        self._received = 0
        self._rated_since = 0.0
        self._wait = Wait.NOTHING
        self._write_watcher: Any = None
        self.closing = False
        self.finished = False
        #: set while the committer has this connection on its list to flush
        self.dirty = False
        self.phase = Phase.IDLE
        #: when the phase began, by the monotonic clock
        self.since: float = monotonic()
        #: since when its taking of answers is judged; 0.0 while the kernel has them all
        self.stalled_since = 0.0
        #: what it had not taken then, and what was added since, in bytes
        self._stalled_left = 0
        self.greenlet = greenlet.greenlet(self._run, hub)
        #: the greenlet waits for the next request, and the hub may take it for it
        self._resting = False
        self._whole = self.parser.whole
        self._receive = sock.recv
        self.watcher = self._loop.io(sock.fileno(), READ)
        self.watcher.start(self._on_readable)

    # -- the hub ------------------------------------------------------------------

    def _on_readable(self) -> None:
        """Bytes have come: take a request that is whole and simple, or wake the greenlet.

        Most requests come in one piece, with a head that was seen before, while the greenlet
        waits for just that. They are handed to the pool from here: to switch to the greenlet
        and back would bring its stack into the cache for nothing.
        """
        data = None
        if self._resting:
            try:
                data = self._receive(RECEIVE_BYTES)
                if self._take(data):
                    return
            except BlockingIOError:
                return
            except Exception as error:  # noqa: BLE001 - the greenlet counts and logs it, and ends
                self._throw(error)
                return
        self.greenlet.switch(data)

    def _take(self, data: bytes) -> bool:
        """Hand a request to the pool if these bytes are one, whole and simple."""
        request = self._whole(data)
        if request is None or self.closing or self._unsent:
            return False
        head, body = request
        plan = head.plan
        exchanges = self.exchanges
        pool = self._server.pool
        if (
            plan is None
            or plan.immediate
            or not head.keep_alive
            or pool.in_use >= pool.limit
            or len(exchanges) >= PIPELINE_MAX - 1
        ):
            short = pool.short
            if short is None or plan is None or plan.immediate or not head.keep_alive:
                return False
            return self._take_if_short(short, head, plan, body)
        self.since = now = monotonic()
        exchange = Exchange(self, head, plan, body, now)
        exchanges.append(exchange)
        pool.in_use += 1
        plan.submit(exchange)
        return True

    def _take_if_short(self, short: Judge, head: Head, plan: Plan, body: bytes) -> bool:
        """The same while there is too much to do: most requests end here, as cheaply as can be."""
        pool = self._server.pool
        if self.exchanges or pool.in_use >= pool.size or not short.quick:
            return False
        self.since = now = monotonic()
        refusal = short.take(self, head, plan)
        if refusal is not None:
            self.send(refusal)
            return True
        exchange = Exchange(self, head, plan, body, now)
        self.exchanges.append(exchange)
        pool.in_use += 1
        plan.submit(exchange)
        return True

    # -- the greenlet -------------------------------------------------------------

    def _run(self, _: None = None) -> None:
        reason = "error"
        try:
            door = self._server.door
            if door is not None and door.introduces and not self.peer.admin:
                self._be_introduced()
            reason = self._serve()
        except Finished:
            reason = self._end("drain")
        except Expired as expired:
            reason = self._expire(expired)
        except Cut:
            reason = "limit"
        except Broken as broken:
            reason = broken.reason
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
        room = PIPELINE_MAX
        data: Any
        exchange: Any
        woken = True  # the watcher's first event is what started this greenlet
        now = clock()
        try:
            while True:
                body = None
                head = next_head() if parser.buffer else None
                while head is None:
                    if not woken:
                        if parser.buffer and parser.begun:
                            head = self._receive_head()
                            if head is None:
                                self._wait_until_quiet()
                                return "client"
                            now = clock()
                            break
                        exchange = body = data = None  # who is idle keeps nothing
                        self._resting = True
                        data = switch_to_hub()
                        self._resting = False
                    else:
                        woken = False
                        try:
                            data = receive(RECEIVE_BYTES)
                        except BlockingIOError:
                            continue
                    if not data:
                        self._wait_until_quiet()
                        return "client"
                    if self.closing:  # the last answer has left; this was not for us to read
                        return self._end("drain")
                    now = clock()
                    feed(data)
                    head = next_head()
                self.phase = Phase.IDLE
                self.since = now
                plan = head.plan
                if plan is None:
                    plan = server.plan(head, self.peer)
                if body is None:
                    body = b"" if plan.streamed else next_body()
                    if body is None:
                        body = self._receive_body(head, plan)
                        now = clock()
                        if len(body) > RECEIVE_BYTES:
                            room = 0
                exchange = Exchange(self, head, plan, body, now)
                exchanges.append(exchange)
                if plan.immediate:
                    if plan.alone:
                        self._answer_alone(exchange)
                    else:
                        server.answer_now(exchange)
                    if parser.buffered:
                        self._yield_turn()
                elif pool.in_use < pool.limit:
                    pool.in_use += 1
                    plan.submit(exchange)
                elif self._wait_for_slot():
                    plan.submit(exchange)
                else:
                    server.refuse(exchange)
                if exchange.close or self.closing:
                    self._wait_until_quiet()
                    return self._end("client" if exchange.close else "drain")
                if self._unsent or len(exchanges) >= room:
                    room = self._make_room(room)
        except IngestError as error:
            # Raised by the parser, or for a body that is not worth reading: the stream's
            # next request cannot be found, so this is the last answer.
            self.phase = Phase.IDLE
            server.answer_error(self, error)
            self._wait_until_quiet()
            return self._end("protocol")

    # -- receiving ------------------------------------------------------------------

    def belongs_to(self, peer: Peer, address: Any) -> None:
        """From here on the other side is somebody else, who has sent nothing yet."""
        self.peer = peer
        self.address = address
        self.parser = self._server.new_parser(peer)
        self._whole = self.parser.whole

    def _be_introduced(self) -> None:
        """Read the proxy's header, which stands before everything else.

        Raises:
            Broken: it is none, or does not come in time, or its client may not come in. Nobody
                is answered: it is not known to whom, and in which language.
        """
        self.phase = Phase.HEAD
        data = b""
        try:
            while (found := proxy_protocol.parse(data)) is None:
                try:
                    received = self.sock.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    self._switch_to_hub()
                    continue
                if not received:
                    raise Broken("client")
                data += received
        except proxy_protocol.ProxyError as error:
            log.debug("connection.not_introduced", error=str(error))
            self._server.not_introduced()
            raise Broken("protocol") from None
        except Expired:
            self._server.not_introduced()
            raise Broken("timeout") from None
        self._server.introduced(self, found.client)
        self.phase = Phase.IDLE
        if len(data) > found.size:
            self._behind_introduction(data[found.size :])

    def _behind_introduction(self, data: bytes) -> None:
        self.parser.feed(data)

    def _receive_now(self) -> bool:
        """Feed what the watcher announced. False: the peer has closed its side."""
        while True:
            try:
                data = self.sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                self._switch_to_hub()
                continue
            self._received += len(data)
            self.parser.feed(data)
            return bool(data)

    def _receive_head(self) -> Head | None:
        """Read the rest of a request's head, of which the beginning is here.

        Returns:
            None: the peer closed within it.

        Raises:
            IngestError: it is no head, or there is no memory left to keep its beginning in.
        """
        self.phase = Phase.HEAD
        self.since = monotonic()
        parser, account, memory = self.parser, self._account, self._server.memory
        head = None
        while head is None:
            account.hold_input(parser.buffered)
            if memory.full:
                raise self._server.out_of_memory()
            self._switch_to_hub()
            if not self._receive_now():
                return None
            head = parser.head()
        account.hold_input(0)
        return head

    def _receive_body(self, head: Head, plan: Plan) -> bytes:
        """Read the rest of a request's body.

        Raises:
            IngestError: the request is refused and its body is not worth reading.
            ConnectionResetError: the peer closed within the body.
        """
        if (
            head.expect_continue
            or head.content_length is None
            or head.content_length > DISCARD_MAX_BYTES
        ):
            refusal = plan.refusal
            if refusal is None and plan.early is not None:
                refusal = plan.early(self, head.content_length or 0)
            if refusal is not None:
                raise refusal
        memory, account = self._server.memory, self._account
        large = (head.content_length or 0) > RECEIVE_BYTES
        if large and memory.large.closed:
            raise self._server.out_of_memory()
        if head.expect_continue and not self.parser.buffered:
            # RFC 9110 section 10.1.1: only while the client still waits for it.
            self._wait_until_quiet()
            self.send(CONTINUE)
        self.phase = Phase.BODY
        self.since = self._rated_since = monotonic()
        self._received = 0
        parser = self.parser
        body = None
        try:
            while body is None:
                held = parser.buffered
                account.hold_input(held)
                self._switch_to_hub()
                large = large or held > RECEIVE_BYTES
                if not memory.may_read(self, large):
                    self._wait_for_memory(large)
                    continue
                if not self._receive_now():
                    self._wait_until_quiet()  # it may still read the answers it is due
                    raise ConnectionResetError("the peer closed within a body")
                body = parser.body()
        finally:
            memory.leave(self)
        account.hold_input(0)
        if len(body) > RECEIVE_BYTES:
            account.hold_body(len(body))
        self.phase = Phase.IDLE
        return body

    # -- waiting for something other than bytes -----------------------------------------

    def _park(
        self, wait: Wait, beside: int = 0, meanwhile: Callable[[], object] | None = None
    ) -> None:
        """Switch away, unread, until it is over what this connection waits for.

        Args:
            beside: bytes that are kept meanwhile beside what the parser holds.
            meanwhile: what is done unread, instead of waiting to be switched to.
        """
        account, memory = self._account, self._server.memory
        before = account.input
        account.hold_input(self.parser.buffered + beside)
        if memory.full:
            memory.relieve()
        self.watcher.stop()
        self._wait = wait
        try:
            (meanwhile or self._switch_to_hub)()
        finally:
            self._wait = Wait.NOTHING
            self.watcher.start(self._on_readable)
        account.hold_input(before)

    def _make_room(self, room: int) -> int:
        """Wait until the next request may be read.

        Args:
            room: 0 behind a large body: it is answered first, so that it is known when it
                is no longer held.

        Returns:
            how many exchanges may be without an answer from now on.
        """
        if room:
            self._park(Wait.ROOM)
        else:
            self._wait_until_quiet()
            self._account.hold_body(0)
        return PIPELINE_MAX

    def _wait_for_memory(self, large: bool) -> None:
        """Pause a body; its rate is judged anew afterwards, because it was not read."""
        self._server.memory.wait(self, large)
        self._park(Wait.MEMORY)
        self._rated_since = monotonic()
        self._received = 0

    def _yield_turn(self) -> None:
        """Let the event loop run between two pipelined requests that nothing else bounds."""
        self._loop.run_callback(self.greenlet.switch)
        self._park(Wait.TURN)

    def _wait_for_slot(self) -> bool:
        """Stand in line for a slot. False: the line is full, refuse."""
        server = self._server
        pool = server.pool
        if server.memory.full:
            return False
        if pool.short is not None:
            asking = self.exchanges[-1]
            admitted = pool.short.admits(self, asking.head, asking.plan)
            if admitted is not None:
                pool.in_use += admitted
                return admitted
        if not pool.wait_in_line(self):
            return False
        self.phase = Phase.IDLE
        try:
            self._park(Wait.SLOT, len(self.exchanges[-1].body))
        except BaseException:
            if not pool.leave_line(self):
                pool.release()  # it was granted in the same turn in which this ended
            raise
        return True

    def resume(self) -> None:
        """It got what it stood in line for: a slot, or memory."""
        self._loop.run_callback(self.greenlet.switch)

    def _answer_alone(self, exchange: Exchange) -> None:
        """Answer from this greenlet, which may wait for the disk, a commit or the peer."""
        while len(self.exchanges) > 1 or self._unsent:
            self._park(Wait.FIRST)
        if exchange.plan.streamed and not self._slot_for(exchange):
            return
        self._park(Wait.ALONE, meanwhile=partial(self._server.answer_now, exchange))

    def _slot_for(self, exchange: Exchange) -> bool:
        """Take a slot for a request that reads its body itself; False: it was refused."""
        pool = self._server.pool
        if pool.in_use < pool.limit:
            pool.in_use += 1
            return True
        if self._wait_for_slot():
            return True
        if exchange.head.chunked or exchange.head.content_length:
            exchange.close = True  # nobody is going to read it
        else:
            self.parser.body()
        self._server.refuse(exchange)
        return False

    def _wait_until_quiet(self) -> None:
        """Wait until every answer so far has left."""
        while self.exchanges or self._unsent:
            self._park(Wait.QUIET)

    def _after_send(self) -> None:
        """Answers left: wake the greenlet if that is what it waits for."""
        wait = self._wait
        if wait is Wait.ROOM:
            ready = not self._unsent and len(self.exchanges) < PIPELINE_MAX
        elif wait is Wait.FIRST:
            ready = not self._unsent and len(self.exchanges) == 1
        else:
            ready = wait is Wait.QUIET and not self._unsent and not self.exchanges
        if ready:
            self._wait = Wait.NOTHING
            self._loop.run_callback(self.greenlet.switch)
        elif self.closing and not self.finished and not (self._unsent or self.exchanges):
            # Whoever answered decided to close after it (drain) while the greenlet waits
            # for the next request. If the greenlet itself answers, it knows.
            waits = wait is Wait.NOTHING or wait is Wait.MEMORY
            if waits and greenlet.getcurrent() is not self.greenlet:
                self.finished = True
                self.interrupt(Finished())

    # -- sending ----------------------------------------------------------------------

    def complete(self, exchange: Exchange, answer: bytes) -> None:
        """Give an exchange its answer and send what is next in order."""
        exchange.answer = answer
        exchanges = self.exchanges
        if not exchanges:
            return  # the connection has ended meanwhile
        if exchanges[0] is exchange:
            self.flush()
        else:
            self._behind += _kept(exchange)
            self._hold_answers()

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
        if self._behind:
            self._behind = sum(map(_kept, exchanges))
            self._hold_answers()
        if ready:
            self.send(ready[0] if len(ready) == 1 else b"".join(ready))

    def send(self, data: bytes) -> None:
        """Send now what the kernel takes and keep the rest; never blocks, never raises."""
        if self._unsent:
            self._unsent += data
            self._stalled_left += len(data)
            self._hold_answers()
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
            self._stalled_left = self._left()
            self._hold_answers()
            self._write_watcher = self._loop.io(self.sock.fileno(), WRITE)
            self._write_watcher.start(self._on_writable)
        elif self._wait or self.closing:
            self._after_send()

    def send_file(self, descriptor: int, position: int, size: int) -> int:
        """Send now what the kernel takes of a file that is in the page cache.

        Returns:
            how many bytes; 0 where the file ends.

        Raises:
            BlockingIOError: it takes none.
            OSError: the connection is broken, or the file cannot be read.
        """
        return os.sendfile(self.sock.fileno(), descriptor, position, size)

    def _on_writable(self) -> None:
        try:
            sent = self.sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        self._hold_answers()
        if not self._unsent:
            self._stop_writing()
            self._after_send()

    def not_taken(self, sent: int) -> None:
        """The peer does not take what is sent piece by piece: its rate is judged from now on.

        Args:
            sent: bytes that went out since this was last called.
        """
        if self.stalled_since:
            self._stalled_left += sent
        else:
            self.stalled_since = monotonic()
            self._stalled_left = self._left()

    def _left(self) -> int:
        """Bytes of answers that the peer has not acknowledged."""
        return len(self._unsent) + unacknowledged(self.sock.fileno())

    def _hold_answers(self) -> None:
        self._account.hold_answers(len(self._unsent) + self._behind)

    def cut(self) -> None:
        """End this connection for the memory it holds: its peer does not take answers."""
        self.interrupt(Cut())

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
        if kind in REQUEST_LIMITS:
            try:
                self.phase = Phase.IDLE
                error = IngestError("request_timeout", REQUEST_LIMITS[kind])
                self._server.answer_error(self, error)
                self._wait_until_quiet()
                return self._end("timeout")
            except (Expired, Cut, OSError):
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
        except (OSError, Expired, Cut):
            pass  # the peer went first, or the time is over: either way it is closed now
        return reason

    def _dispose(self, reason: str) -> None:
        self.watcher.stop()
        self.watcher.close()
        self._stop_writing()
        if self._unsent:
            # The peer is to learn that the answer is not whole, and the kernel not to keep it.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._unsent = b""
        self.exchanges.clear()
        self._account.close()
        self.sock.close()
        self._server.forget(self, reason)

    def overdue(self, now: float, server: Server) -> str | None:
        """Which time limit has passed, if any; asked by the server's sweep.

        Args:
            now: monotonic seconds.
        """
        limits = server.settings
        if self.stalled_since and self._stalls(now, limits):
            return "write"
        wait = self._wait
        if wait and wait is not Wait.MEMORY:
            return None
        waited = now - self.since
        phase = self.phase
        if phase is Phase.IDLE:
            if self.exchanges:
                return None
            # One that has never sent a byte gets only as long as a head may take.
            fresh = not self.greenlet
            limit = limits.header_timeout_seconds if fresh else limits.idle_timeout_seconds
            return "idle" if waited > limit else None
        if phase is Phase.HEAD:
            return "header" if waited > limits.header_timeout_seconds else None
        if phase is Phase.BODY:
            if waited > limits.body_timeout_seconds:
                return "body"
            slow = too_slow(
                self._received, now - self._rated_since, limits.body_min_bytes_per_second
            )
            return "body_rate" if slow and not wait else None
        return "linger" if waited > LINGER_SECONDS else None

    def _stalls(self, now: float, limits: Settings) -> bool:
        """Whether the peer took too little of its answers in the last while.

        Judged is what the peer's kernel has acknowledged, because ours takes and gives in
        lumps; and anew for each `write_timeout_seconds`, so that nobody saves up.
        """
        waited = now - self.stalled_since
        if waited <= limits.write_timeout_seconds:
            return False
        left = self._left()
        if self._stalled_left - left <= limits.answer_min_bytes_per_second * waited:
            return True
        self.stalled_since = now
        self._stalled_left = left
        return False

    def interrupt(self, event: BaseException) -> None:
        """Throw `Expired`, `Finished` or `GreenletExit` into the greenlet, next turn."""
        if self.greenlet:
            self._loop.run_callback(self._throw, event)
        elif not self.greenlet.dead:  # no byte ever came, so it was never switched to
            self._dispose("idle" if isinstance(event, Expired) else "drain")

    def _throw(self, event: BaseException) -> None:
        if not self.greenlet.dead:  # it may have ended between the call and this turn
            self._resting = False
            self.greenlet.throw(event)

    def retire(self) -> None:
        """Close it at the next turn if it is idle then, and no request has come by then."""
        self._loop.run_callback(self._retire)

    def _retire(self) -> None:
        if self.greenlet.dead or not self.idle():
            return  # a request has come: its answer says that the connection ends
        try:
            if self.sock.recv(1, socket.MSG_PEEK):
                return  # one is here and not yet read
        except OSError:
            pass  # nothing is here, or the peer has gone
        self.interrupt(greenlet.GreenletExit())

    def idle(self) -> bool:
        """Whether it has no request in flight and none half received."""
        return not self.exchanges and not self._unsent and self.phase is Phase.IDLE
