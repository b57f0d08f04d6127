"""What a WSGI application does with its connection: read the body, send the answer.

The application runs in a greenlet of its own while the connection's greenlet waits for it.
Both directions go straight to the socket, with watchers of their own, so that nothing is
kept here but one piece: an application that does not read is not sent more (the kernel's
buffer fills), and one that writes faster than its client takes waits.

Time limits: while it waits for the client's bytes, that client is judged by
`body_timeout_seconds` (a single wait) and `body_min_bytes_per_second` (all waits together);
while it waits for the client to take bytes, by the server's sweep, as for any answer. The
time the application takes in between is nobody's fault.

When the connection ends meanwhile, `break_off` wakes the application out of its wait with
`Gone`, and every later read or send raises it, too.

This module must not know WSGI.

Source: RFC 9110 section 10.1.1 (100 Continue), sendfile(2), posix_fadvise(2).
"""

from __future__ import annotations

import errno
import os
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import gevent
from gevent.hub import Waiter, get_hub

from ingest.answers import CONTINUE
from ingest.connection import READ, RECEIVE_BYTES, RESET, WRITE, Connection
from ingest.connection_files import CHUNK_BYTES
from ingest.connection_limits import RATE_GRACE_SECONDS, REQUEST_LIMITS
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.http.head import Head
    from ingest.metrics import Metrics
    from ingest.settings import Settings

_NOWHERE = bytearray(1 << 16)
#: Bytes received or sent without a wait, after which others have a turn.
TURN_BYTES = 256 << 10


class Gone(ConnectionResetError):
    """The client has left, or its connection was ended: nobody reads an answer."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client has gone")


class BadBody(OSError):
    """The body of the request is not one, too long, or does not arrive.

    Args:
        error: what the client is told, unless the application has an answer.
    """

    def __init__(self, error: IngestError) -> None:
        super().__init__(errno.EIO, f"the request's body: {error}")
        self.error = error


class Channel:
    """One exchange's way to its connection.

    Args:
        connection: whose greenlet waits for the answer; nothing else is sent on it.
        head: of the request.
        settings: time limits.
        metrics: counts body bytes and time limits.

    Attributes:
        sent: bytes that the kernel took.
        gone: the connection has ended or is about to.
        failed: the body cannot be read any further.
        continue_due: the client waits for `100 Continue` before it sends the body.
        answering: the answer has begun, and nothing may come in between.
    """

    def __init__(
        self, connection: Connection, head: Head, settings: Settings, metrics: Metrics
    ) -> None:
        self._connection = connection
        self._sock = connection.sock
        self._parser = connection.parser
        self._settings = settings
        self._metrics = metrics
        self._hub = get_hub()
        self._watchers: dict[int, Any] = {}
        self._waiter: Any = None
        #: bytes sent since the client's taking of them was last looked at
        self._unjudged = 0
        #: bytes moved since the event loop last ran
        self._unshared = 0
        #: seconds spent waiting for the body, and bytes that came
        self._waited = 0.0
        self._received = 0
        self._sending = False
        self.sent = 0
        self.gone = False
        self.answering = False
        self.failed: IngestError | None = None
        self._stream: Any = None
        if head.chunked or head.content_length:
            self._stream = self._parser.stream()
        else:
            self._parser.body()
        self.continue_due = head.expect_continue and not (self._stream and self._stream.held)

    # -- reading -----------------------------------------------------------------------

    @property
    def left(self) -> int | None:
        """Bytes of the body that were not read; None where that is not known."""
        stream = self._stream
        return 0 if stream is None else stream.left

    def read(self) -> bytes:
        """The next bytes of the body, `b""` at its end; waits for them.

        Raises:
            Gone: the client left within the body.
            BadBody: there is no more to be had of it.
        """
        while True:
            stream = self._stream
            if stream is None:
                return b""
            if self.failed is not None:
                raise BadBody(self.failed)
            try:
                data = stream.piece()
            except IngestError as error:
                self._fail(error)
            if stream.complete():
                self._parser.end_stream()
                self._stream = None
            if data:
                self._metrics.request_bytes.value += len(data)
                return data
            if self._stream is not None:
                data = self._receive()
                stream.feed(data)
                self._moved(len(data))  # not before: what came must not be lost by a timeout

    def discard(self, most: int) -> bool:
        """Read what the application left of the body, so that the next request is reached.

        Args:
            most: bytes that are worth it.

        Returns:
            False where it is not: the connection cannot be kept.
        """
        if self._stream is None:
            return True
        if self.continue_due or (self.left or 0) > most:
            return False
        try:
            while data := self.read():
                most -= len(data)
                if most < 0:
                    return False
        except OSError:
            return False
        return True

    def _receive(self) -> bytes:
        """The next bytes of the connection; waits for them."""
        self._check()
        if self.continue_due and not self.answering:
            self.continue_due = False
            self.send(CONTINUE)
        while True:
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                self._wait_for_bytes()
                continue
            except OSError:
                data = b""
            if not data:
                self.gone = True
                raise Gone
            self._received += len(data)
            return data

    def _wait_for_bytes(self) -> None:
        limits = self._settings
        kind, seconds = "body", limits.body_timeout_seconds
        least = limits.body_min_bytes_per_second
        if least:
            patience = RATE_GRACE_SECONDS + self._received / least - self._waited
            if patience < seconds:
                kind, seconds = "body_rate", max(patience, 0.0)
        before = monotonic()
        in_time = self._wait(READ, seconds)
        self._waited += monotonic() - before
        if not in_time:
            self._metrics.timeouts.cell(kind).value += 1
            self._fail(IngestError("request_timeout", REQUEST_LIMITS[kind]))

    def _fail(self, error: IngestError) -> NoReturn:
        self.failed = error
        raise BadBody(error) from None

    # -- sending -----------------------------------------------------------------------

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send all of it; waits until the kernel has it.

        Args:
            flags: as for send(2).

        Raises:
            Gone: the client does not take it any more.
        """
        rest = memoryview(data)
        self._begin_to_send()
        while rest:
            self._check()
            try:
                count = self._sock.send(rest, flags)
            except BlockingIOError:
                self._wait_for_room()
                continue
            except OSError:
                self.gone = True
                raise Gone from None
            self._took(count)
            rest = rest[count:]
        self._end_to_send()

    def send_file(self, head: bytes, file: OwnFile, start: int, length: int) -> None:
        """Send a head and a part of a file, from the page cache.

        Raises:
            Gone: the client does not take it any more.
            EOFError: the file is shorter than that.
            OSError: it cannot be read.
        """
        self.send(head, socket.MSG_MORE if length else 0)
        self._begin_to_send()
        end = start + length
        while start < end:
            stop = min(end, start + CHUNK_BYTES)
            self._connection.stalled_since = 0.0
            self._hub.threadpool.apply(file.fetch, (start, stop - start))
            while start < stop:
                self._check()
                try:
                    count = self._connection.send_file(file.descriptor, start, stop - start)
                except BlockingIOError:
                    self._wait_for_room()
                    continue
                except (ConnectionError, TimeoutError):
                    self.gone = True
                    raise Gone from None
                if not count:
                    raise EOFError("the file is shorter than it was")
                start += count
                self._took(count)
        self._end_to_send()

    def _begin_to_send(self) -> None:
        """Until `_end_to_send` nothing else may be sent.

        What raises in between (a timeout of the application's own) leaves a part of
        something on the wire; whatever came behind it would be taken for the rest.
        """
        if self._sending:
            raise Gone
        self._sending = True

    def _end_to_send(self) -> None:
        self._sending = False
        self._connection.stalled_since = 0.0

    def _took(self, count: int) -> None:
        self.sent += count
        self._unjudged += count
        self._moved(count)

    def _moved(self, count: int) -> None:
        """Let the event loop run now and then, where the other side is as quick as this one."""
        self._unshared += count
        if self._unshared >= TURN_BYTES:
            self._unshared = 0
            gevent.sleep(0)

    def _wait_for_room(self) -> None:
        self._connection.not_taken(self._unjudged)
        self._unjudged = 0
        self._wait(WRITE)

    # -- waiting -----------------------------------------------------------------------

    def _check(self) -> None:
        if self.gone:
            raise Gone

    def _wait(self, event: int, seconds: float | None = None) -> bool:
        """Wait until the socket is ready. False: not within the time."""
        self._check()
        self._unshared = 0
        watcher = self._watchers.get(event)
        if watcher is None:
            watcher = self._watchers[event] = self._hub.loop.io(self._sock.fileno(), event)
        timer = None if seconds is None else self._hub.loop.timer(seconds)
        waiter: Any = Waiter(self._hub)
        self._waiter = waiter
        watcher.start(waiter.switch, True)
        try:
            if timer is not None:
                timer.start(waiter.switch, False)
            return waiter.get()
        finally:
            self._waiter = None
            if timer is not None:
                timer.close()
            if not self.gone:
                watcher.stop()

    def break_off(self) -> None:
        """The connection ends: whoever waits here is woken with `Gone`."""
        self.gone = True
        self.close()
        if self._waiter is not None:
            self._hub.loop.run_callback(self._waiter.throw, Gone())

    def cut(self) -> None:
        """See that the peer learns that its answer is not whole when the socket is closed."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def close(self) -> None:
        """Give the watchers back."""
        for watcher in self._watchers.values():
            watcher.stop()
            watcher.close()
        self._watchers.clear()
        self._connection.stalled_since = 0.0


class OwnFile:
    """A descriptor of our own for a file, so that its owner may close it at any time.

    Args:
        descriptor: the owner's.

    Raises:
        OSError: there are too many.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = os.dup(descriptor)

    def fetch(self, position: int, size: int) -> None:
        """Get bytes into the page cache, and the next ones under way; blocks."""
        os.posix_fadvise(self.descriptor, position, 2 * size, os.POSIX_FADV_WILLNEED)
        os.preadv(self.descriptor, [_NOWHERE] * -(-size // len(_NOWHERE)), position)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)
