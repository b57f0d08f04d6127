"""A closed-loop keep-alive client: N connections, M requests each, one after the other.

Bounded and of the standard library alone: one epoll loop, non-blocking sockets. It outlives
the server: a connection that breaks is counted, and the others go on. Used for the ladder
and, by `tests/support/load.py`, for tests that must know every acknowledged id.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

RECEIVE_BYTES = 65536
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class Answer(NamedTuple):
    """One HTTP answer and where it ends in the bytes it was read from."""

    status: int
    body: bytes
    end: int


def parse_answer(data: bytes) -> Answer | None:
    """Read one answer off the front; None when it has not arrived whole.

    Raises:
        ValueError: it is no HTTP/1 answer, or its length is not stated.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    status_line = _STATUS_LINE.match(data)
    if not status_line:
        raise ValueError(f"no status line: {data[:60]!r}")
    length = _CONTENT_LENGTH.search(data, 0, head_end)
    if not length:
        raise ValueError(f"no Content-Length: {data[:head_end]!r}")
    end = head_end + 4 + int(length[1])
    if len(data) < end:
        return None
    return Answer(int(status_line[1]), data[head_end + 4 : end], end)


def request_bytes(path: str, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A whole POST, of JSON unless the headers say otherwise."""
    fields = {
        "Host": "127.0.0.1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **dict(headers),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


class Outcome(NamedTuple):
    """What became of all requests.

    Attributes:
        statuses: answers by status.
        broken: connections that ended before their last answer, by the reason.
        unanswered: requests that got no answer, sent or not.
        seconds: wall time from the first connect to the last answer.
        latency_seconds: sum over the answered requests of the time from send to answer.
    """

    statuses: Counter[int]
    broken: Counter[str]
    unanswered: int
    seconds: float
    latency_seconds: float

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def accepted(self) -> int:
        return sum(n for status, n in self.statuses.items() if 200 <= status <= 299)


class _Connection:
    """One client: its socket, what it has still to send and to get."""

    __slots__ = ("left", "number", "received", "sent_at", "sock", "unsent")

    def __init__(self, number: int, sock: socket.socket, requests: int) -> None:
        self.number = number
        self.sock = sock
        self.left = requests
        self.unsent = b""
        self.received = b""
        self.sent_at = 0.0


class LoadClient:
    """Runs the clients in one epoll loop.

    Args:
        port: the server's, on 127.0.0.1.
        request: the bytes of the request that every client repeats, or what makes the next
            one for a client, given its number.
        clients: number of connections.
        requests: requests on each connection.
        on_answer: called with every answer (number of the client, status, body).
        on_pause: called when everything that has arrived is handled.
        deadline_seconds: after that, everything still open counts as broken.
    """

    def __init__(
        self,
        port: int,
        request: bytes | Callable[[int], bytes],
        *,
        clients: int,
        requests: int,
        on_answer: Callable[[int, int, bytes], None] | None = None,
        on_pause: Callable[[], None] | None = None,
        deadline_seconds: float = 120.0,
    ) -> None:
        self._address = ("127.0.0.1", port)
        self._next_request = request if callable(request) else lambda client: request
        self._clients = clients
        self._requests = requests
        self._on_answer = on_answer or (lambda client, status, body: None)
        self._on_pause = on_pause or (lambda: None)
        self._deadline_seconds = deadline_seconds
        self._open: dict[int, _Connection] = {}
        self._statuses: Counter[int] = Counter()
        self._broken: Counter[str] = Counter()
        self._unanswered = 0
        self._latency_seconds = 0.0

    def run(self) -> Outcome:
        """Run to the end and tell what became of every request."""
        started = time.perf_counter()
        with select.epoll() as self._epoll:
            for number in range(self._clients):
                self._connect(number)
            while self._open:
                left = started + self._deadline_seconds - time.perf_counter()
                if left <= 0:
                    break
                for fd, events in self._epoll.poll(left):
                    self._serve(self._open[fd], events)
                self._on_pause()
            for connection in list(self._open.values()):
                self._end(connection, "deadline")
        return Outcome(
            self._statuses,
            self._broken,
            self._unanswered,
            time.perf_counter() - started,
            self._latency_seconds,
        )

    def _connect(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(number, sock, self._requests)
        self._open[sock.fileno()] = connection
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT)
        connection.unsent = self._next_request(number)
        connection.sent_at = time.perf_counter()
        error = sock.connect_ex(self._address)
        if error not in (0, errno.EINPROGRESS):
            self._end(connection, errno.errorcode.get(error, str(error)))

    def _serve(self, connection: _Connection, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self._send(connection, was_waiting=True)
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive(connection)
        except BlockingIOError:
            return  # nothing there after all; epoll will say when
        except OSError as error:
            self._end(connection, errno.errorcode.get(error.errno or 0, str(error)))
        except ValueError as error:
            self._end(connection, str(error))

    def _send(self, connection: _Connection, *, was_waiting: bool = False) -> None:
        """Send what is left; wait for room in the socket buffer when it does not fit."""
        try:
            sent = connection.sock.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        connection.unsent = connection.unsent[sent:]
        if bool(connection.unsent) != was_waiting:
            wanted = select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0)
            self._epoll.modify(connection.sock, wanted)

    def _receive(self, connection: _Connection) -> None:
        data = connection.sock.recv(RECEIVE_BYTES)
        if not data:
            self._end(connection, "closed by the server")
            return
        connection.received += data
        answer = parse_answer(connection.received)
        if answer is None:
            return
        now = time.perf_counter()
        self._latency_seconds += now - connection.sent_at
        self._statuses[answer.status] += 1
        self._on_answer(connection.number, answer.status, answer.body)
        connection.received = connection.received[answer.end :]
        connection.left -= 1
        if connection.unsent:
            self._end(connection, "answered before it was asked in full")
        elif connection.left:
            connection.unsent = self._next_request(connection.number)
            connection.sent_at = now
            self._send(connection)
        else:
            self._end(connection, "")

    def _end(self, connection: _Connection, reason: str) -> None:
        """Close a connection; without a reason it has done all its requests."""
        del self._open[connection.sock.fileno()]
        connection.sock.close()
        self._unanswered += connection.left
        if reason:
            self._broken[reason] += 1
