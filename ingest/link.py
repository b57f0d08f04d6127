"""What the supervisor and a worker say to each other: messages over a pair of sockets.

    frame:  bytes of JSON, bytes of blob, number of descriptors │ JSON │ blob
            4                4              2

A message has a kind, fields (JSON), a blob that is passed on unread, and descriptors, which
travel beside the frame's first byte (SCM_RIGHTS, unix(7)). The end of the stream says that
the other process is gone, however it went: the kernel closes the socket.

This module must not know what the messages mean.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import Any, NamedTuple

import orjson
from gevent.lock import BoundedSemaphore
from gevent.socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    SCM_RIGHTS,
    SO_SNDBUF,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
    socketpair,
)

_FRAME = struct.Struct("!IIH")
#: Most descriptors of one message; the kernel takes 253 (SCM_MAX_FD).
DESCRIPTORS_MAX = 64
#: Longest JSON or blob. Both ends are ours: what is longer is a fault of ours.
PART_MAX_BYTES = 64 << 20
RECEIVE_BYTES = 65536
#: A scrape of a worker fits in, so that it does not wait for the other side to read it.
BUFFER_BYTES = 1 << 20


class LinkBroken(OSError):
    """The other side is gone, or what it sends are no messages."""


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: what it is.
        fields: by name.
        blob: bytes that go with it.
        descriptors: open files, which are the receiver's to close.
    """

    kind: str
    fields: dict[str, Any]
    blob: bytes
    descriptors: list[int]


class Link:
    """One end.

    Args:
        sock: a connected stream socket of the Unix domain, which this object owns.
        received: what came before.
    """

    def __init__(self, sock: socket, received: bytes = b"") -> None:
        self._sock = sock
        self._sending = BoundedSemaphore(1)
        self._buffer = bytearray(received)
        self._descriptors: deque[int] = deque()

    @property
    def busy(self) -> bool:
        """Whether a message is being sent that the other side does not take yet."""
        return self._sending.locked()

    def send(
        self, kind: str, *, blob: bytes = b"", descriptors: list[int] | None = None, **fields: Any
    ) -> None:
        """Send a message; waits for the other side to take it, and for those before it.

        Args:
            descriptors: the receiver gets copies; these stay the caller's.

        Raises:
            LinkBroken: the other side is gone.
        """
        passed = descriptors or []
        if len(passed) > DESCRIPTORS_MAX:
            raise ValueError(f"{len(passed)} descriptors in one message")
        text = orjson.dumps({"kind": kind, **fields})
        data = _FRAME.pack(len(text), len(blob), len(passed)) + text + blob
        ancillary = []
        if passed:
            ancillary = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(passed)}i", *passed))]
        with self._sending:
            try:
                sent = self._sock.sendmsg([data], ancillary)
                self._sock.sendall(memoryview(data)[sent:])
            except OSError as error:
                raise LinkBroken(str(error)) from error

    def receive(self) -> Message | None:
        """Wait for the next message; one greenlet at a time.

        Returns:
            None: the other side is gone.

        Raises:
            LinkBroken: what came is no message.
        """
        if not self._fill(_FRAME.size):
            return None
        text_size, blob_size, count = _FRAME.unpack_from(self._buffer)
        if max(text_size, blob_size) > PART_MAX_BYTES:
            raise LinkBroken(f"a frame of {text_size} and {blob_size} bytes")
        size = _FRAME.size + text_size + blob_size
        if not self._fill(size) or len(self._descriptors) < count:
            return None
        text = self._buffer[_FRAME.size : _FRAME.size + text_size]
        blob = bytes(self._buffer[_FRAME.size + text_size : size])
        del self._buffer[:size]
        fields = orjson.loads(text)
        kind = fields.pop("kind")
        return Message(kind, fields, blob, [self._descriptors.popleft() for _ in range(count)])

    def _fill(self, size: int) -> bool:
        """Read until so many bytes are there. False: the other side is gone."""
        while len(self._buffer) < size:
            space = CMSG_SPACE(DESCRIPTORS_MAX * 4)
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(
                    RECEIVE_BYTES, space, MSG_CMSG_CLOEXEC
                )
            except OSError:
                return False
            for level, kind, packed in ancillary:
                if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                    whole = len(packed) // 4 * 4
                    self._descriptors.extend(struct.unpack(f"{whole // 4}i", packed[:whole]))
            if flags & MSG_CTRUNC:
                raise LinkBroken("descriptors were lost: too many are open")
            if not data:
                return False
            self._buffer += data
        return True

    def let_go(self) -> tuple[int, bytes]:
        """Give this end away, at a place between two messages that are sent.

        Returns:
            a descriptor, the caller's, and what was received of the next message.
        """
        return os.dup(self._sock.fileno()), bytes(self._buffer)

    def close(self) -> None:
        """Close this end, and the descriptors that nobody took."""
        self._sock.close()
        while self._descriptors:
            os.close(self._descriptors.popleft())


def pair() -> tuple[Link, socket]:
    """This process's end, and the socket for the other's; both are closed by an exec."""
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    for sock in (ours, theirs):
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES)
    return Link(ours), theirs


def inherited(descriptor: int, received: bytes = b"") -> Link:
    """The end that was inherited as a descriptor.

    Args:
        received: what was received of the next message.

    Raises:
        OSError: it is no socket.
    """
    os.set_inheritable(descriptor, False)
    return Link(socket(fileno=descriptor), received)
