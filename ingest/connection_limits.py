"""What a connection may be waiting for, how long, and how slow its peer may be.

None of the time limits is extended by a byte that arrives: they run from the first byte of a
head, from the end of a head to the end of its body, and from one answer to the next
request. Beside the total there is a least rate, for bodies that arrive and for answers that
leave, so that a peer which moves one byte at a time does not keep what it holds.

Source: RFC 9110 section 15.5.9: 408 when a request did not arrive in time. A connection that
is idle is closed without one, as RFC 9112 section 9.8 has it: there is no request to answer,
and a client that is about to send its next one might take the 408 for its answer.
"""

from __future__ import annotations

import enum
import fcntl
import struct
import termios

#: A body may take this long before its rate is looked at.
RATE_GRACE_SECONDS = 5.0
#: After a closing answer the peer's bytes are dropped for this long and this many, so
#: that a reset does not overtake the answer (RFC 9112 section 9.6).
LINGER_SECONDS = 2.0
LINGER_MAX_BYTES = 4 << 20

#: Time limits that end a request which has begun, with what its client is told.
REQUEST_LIMITS = {
    "header": "The header did not arrive in time.",
    "body": "The body did not arrive in time.",
    "body_rate": "The body arrives too slowly.",
}


class Phase(enum.IntEnum):
    """What the connection waits for from its peer; each has its own time limit."""

    IDLE = 0
    HEAD = 1
    BODY = 2
    LINGER = 3
    HANDSHAKE = 4


class Wait(enum.IntEnum):
    """What the greenlet waits for besides bytes; NOTHING while the watcher runs."""

    NOTHING = 0
    SLOT = 1
    ROOM = 2
    QUIET = 3
    MEMORY = 4
    TURN = 5
    FIRST = 6
    ALONE = 7


class Ending(Exception):
    """The connection ends, whatever its greenlet is about: nobody but `_run` may catch it."""


class Broken(Ending):
    """An answer that has begun cannot be finished.

    Args:
        reason: why, as the metric has it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Expired(Ending):
    """Thrown into the greenlet by the server's sweep: a time limit has passed.

    Args:
        kind: `header`, `body`, `body_rate`, `idle`, `write`, `handshake` or `linger`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Finished(Ending):
    """Thrown into the greenlet when the last answer of a closing connection has left."""


class Cut(Ending):
    """The connection is closed for the memory it holds: its peer does not take answers."""


def too_slow(count: int, seconds: float, least: int) -> bool:
    """Whether `count` bytes of a body in `seconds` are below the least rate.

    Args:
        least: bytes per second; 0 for any.
    """
    return count < least * (seconds - RATE_GRACE_SECONDS)


def unacknowledged(fd: int) -> int:
    """Bytes that the kernel keeps for the peer: not sent, or not acknowledged (tcp(7))."""
    try:
        answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0  # the connection is gone; it is ended as a stalled one
    return int(struct.unpack("i", answer)[0])
