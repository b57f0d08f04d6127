"""Sends a file as the body of an answer: from the page cache into the socket, by sendfile.

The event loop must wait neither for the disk nor for the peer:

    native thread   fetch a chunk ─┐              fetch the next ─┐
    greenlet                       └▶ sendfile, sendfile, … ──────┴▶ …
                                        ▲ wait until the peer takes more

sendfile blocks on a page that is not in memory, so each chunk is fetched into the page cache
in a native thread first. Nothing of the file is kept in this process; what it holds per
answer is a descriptor (and a piece at a time where the connection encrypts). A peer that does
not take what is sent is judged by the same time limit and rate as with any other answer; while
we wait for the disk, it is not.

This module must not know what the file is.

Source: sendfile(2), posix_fadvise(2), tcp(7) (MSG_MORE: head and first bytes in one packet).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from gevent.hub import get_hub

from ingest.connection import RESET, WRITE, Connection
from ingest.connection_limits import Broken
from ingest.logs import get_logger

log = get_logger(__name__)

#: Fetched ahead of the sending at a time.
CHUNK_BYTES = 1 << 20


class File(Protocol):
    """An open file; it is closed when nobody refers to it any more."""

    @property
    def descriptor(self) -> int: ...

    def fetch(self, position: int, size: int) -> None:
        """Get bytes into the page cache; blocks."""


class FileBody:
    """Bytes of a file as the body of an answer.

    Args:
        file: that is sent.
        start: its first byte that is sent.
        length: bytes that are sent.
        run: calls a function in a native thread and waits for it.

    Attributes:
        length: bytes that are sent.
        sent: bytes that have left so far.
    """

    def __init__(self, file: File, start: int, length: int, run: Callable[..., Any]) -> None:
        self._file = file
        self._start = start
        self._run = run
        self._unjudged = 0
        self.length = length
        self.sent = 0

    def send(self, connection: Connection, head: bytes) -> None:
        """Send the head and the bytes; blocks the connection's greenlet.

        Raises:
            Ending: the connection has to end within the answer.
        """
        watcher = get_hub().loop.io(connection.sock.fileno(), WRITE)
        try:
            self._send(connection, head, watcher)
        except (ConnectionError, TimeoutError):
            raise Broken("client") from None
        except (OSError, EOFError) as error:
            # The head has promised more than can be read: all that is left is to cut it off.
            log.error("file.read_failed", error=str(error), sent=self.sent, length=self.length)
            raise Broken("error") from error
        finally:
            watcher.close()
            if self.sent < self.length:
                # The peer is to learn that the answer is not whole, the kernel not to keep it.
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.stalled_since = 0.0

    def _send(self, connection: Connection, head: bytes, watcher: Any) -> None:
        sock = connection.sock
        while head:
            try:
                head = head[sock.send(head, socket.MSG_MORE) :]
            except BlockingIOError:
                self._wait(connection, watcher)
        source = self._file.descriptor
        while self.sent < self.length:
            chunk = min(CHUNK_BYTES, self.length - self.sent)
            connection.stalled_since = 0.0
            self._run(self._file.fetch, self._start + self.sent, chunk)
            while chunk:
                try:
                    count = connection.send_file(source, self._start + self.sent, chunk)
                except BlockingIOError:
                    self._wait(connection, watcher)
                    continue
                if not count:
                    raise EOFError("the file is shorter than it was")
                chunk -= count
                self.sent += count
                self._unjudged += count

    def _wait(self, connection: Connection, watcher: Any) -> None:
        """Wait until the peer's side takes more."""
        connection.not_taken(self._unjudged)
        self._unjudged = 0
        get_hub().wait(watcher)
