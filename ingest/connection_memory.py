"""A bound on what the process keeps for all its connections together.

Counted are the bytes that wait: heads and bodies that have not arrived whole, bodies larger
than one read until they are answered, requests behind a connection that is not read, and
answers that the peer has not taken or that wait for an earlier one. What passes through in
one turn of the event loop is not counted, so that the usual request costs nothing here.

There are two gates, each with a distance between closing and opening so that a crowd
does not wake for every byte:

    held      0 ........ 1/2 ........ 3/4 ........ 1/1 of `buffered_max_bytes`
    LARGE              opens <------ closes               bodies larger than one read
    SMALL                           opens <------ closes  bodies that fit into one read

What each gate does, mildest first:

1. LARGE closed: a large body that begins is refused with 503 before any of it is read;
   those that are being read pause (back-pressure). Small requests go on.
2. SMALL closed: small bodies that came in pieces pause, too. A request that came in one
   piece waits for nothing and is served.
3. Nothing is left (`full`): a head in pieces and a request that would stand in line for the
   pool are refused with 503, and of those who hold answers who has held some for the longest
   time is closed, and the next, until what they hold makes up for what is beyond the bound.

Why it resolves by itself: bodies that pause could wait for memory that only they hold.
So **one of them has the turn** and is read whatever is held; when it is whole, refused or
has run into a time limit, the next has the turn. It is one body at most that goes beyond
the gate, and `buffered_max_bytes` is at least four times `request_body_max_bytes`, so it
fits between 3/4 and the whole. Whoever has the turn and dribbles is ended by
`body_min_bytes_per_second` or `body_timeout_seconds`. The latter runs while a body
pauses, so after it at the latest everything that paused is gone, and what is left is held by
requests that the pool is at work on and by answers under the write time limit.

This module must not know sockets or HTTP.
"""

from __future__ import annotations

from typing import Protocol

from ingest.metrics import Metrics


class Holder(Protocol):
    """A connection, as far as it is known here."""

    def resume(self) -> None:
        """Its body, which paused, may be read on."""

    def cut(self) -> None:
        """End it at the next turn of the event loop."""


class Gate:
    """Closes when much is held and opens only when a good deal less is.

    Args:
        close_at: bytes held from which it is closed.
        open_below: bytes held below which it is open again.
    """

    __slots__ = ("close_at", "closed", "line", "open_below")

    def __init__(self, close_at: int, open_below: int) -> None:
        self.close_at = close_at
        self.open_below = open_below
        self.closed = False
        #: who waits in front of it, in order; a dict because who leaves may stand anywhere
        self.line: dict[Holder, None] = {}


class Memory:
    """What the connections of this process hold, and who has to wait for that.

    Args:
        limit_bytes: `buffered_max_bytes`.
        metrics: where it is shown and its effects are counted.

    Attributes:
        held: bytes counted now.
        leaving: those of them that are given back when who was cut has ended.
        refused: counter of requests answered 503, for whoever does that.
    """

    __slots__ = (
        "_closed", "_paused", "_turn", "answering", "held", "large", "leaving", "limit_bytes",
        "refused", "small",
    )  # fmt: skip

    def __init__(self, limit_bytes: int, metrics: Metrics) -> None:
        self.limit_bytes = limit_bytes
        self.held = 0
        self.leaving = 0
        self.large = Gate(limit_bytes * 3 // 4, limit_bytes // 2)
        self.small = Gate(limit_bytes, limit_bytes * 3 // 4)
        self.refused = metrics.buffered_full.cell("refused")
        #: accounts that hold answers, in the order in which they began to
        self.answering: dict[Account, None] = {}
        self._closed = metrics.buffered_full.cell("closed")
        self._paused = metrics.buffered_full.cell("paused")
        self._turn: Holder | None = None
        metrics.buffered_bytes.set_function(lambda: self.held)

    @property
    def full(self) -> bool:
        """Whether nothing further may be kept."""
        return self.held >= self.limit_bytes

    def change(self, by: int) -> None:
        """Count `by` bytes more, or fewer, and close or open the gates."""
        self.held += by
        held = self.held
        for gate in (self.small, self.large):
            if not gate.closed:
                gate.closed = held >= gate.close_at
            elif held < gate.open_below:
                gate.closed = False
                line, gate.line = gate.line, {}
                for reader in line:
                    reader.resume()

    def relieve(self) -> None:
        """When nothing is left, close those who do not take their answers."""
        while self.held - self.leaving >= self.limit_bytes and self.answering:
            account = next(iter(self.answering))
            del self.answering[account]
            account.leaving = account.input + account.body + account.answers
            self.leaving += account.leaving
            self._closed.value += 1
            account.holder.cut()

    def may_read(self, reader: Holder, large: bool) -> bool:
        """Whether a body may be read on now; takes the turn if nobody has it."""
        gate = self.large if large else self.small
        if not gate.closed:
            return True
        if self._turn is None:
            self._turn = reader
        return self._turn is reader

    def wait(self, reader: Holder, large: bool) -> None:
        """Stand in line until the gate opens or the turn comes; then `resume` is called."""
        self._paused.value += 1
        (self.large if large else self.small).line[reader] = None

    def leave(self, reader: Holder) -> None:
        """The reader's body has ended, however: it waits no more and passes the turn on."""
        self.small.line.pop(reader, None)
        self.large.line.pop(reader, None)
        if self._turn is not reader:
            return
        self._turn = None
        # The small ones first: they have the least way to go until they free what they hold.
        for gate in (self.small, self.large):
            for following in gate.line:
                del gate.line[following]
                self._turn = following
                following.resume()
                return


class Account:
    """What one connection holds, by what it is."""

    __slots__ = ("_memory", "answers", "body", "holder", "input", "leaving")

    def __init__(self, memory: Memory, holder: Holder) -> None:
        self._memory = memory
        self.holder = holder
        #: what has arrived and is no request yet
        self.input = 0
        #: a large body that is being worked on
        self.body = 0
        #: answers not taken by the peer, or waiting for an earlier one
        self.answers = 0
        #: what it held when it was cut
        self.leaving = 0

    def hold_input(self, size: int) -> None:
        """It holds `size` bytes of input now."""
        if size != self.input:
            by, self.input = size - self.input, size
            self._memory.change(by)

    def hold_body(self, size: int) -> None:
        """It holds a large body of `size` bytes now, 0 for none."""
        if size != self.body:
            by, self.body = size - self.body, size
            self._memory.change(by)

    def hold_answers(self, size: int) -> None:
        """It holds `size` bytes of answers now."""
        memory = self._memory
        by, self.answers = size - self.answers, size
        if not size:
            memory.answering.pop(self, None)
        elif by == size and not self.leaving:
            memory.answering[self] = None
        memory.change(by)
        if by > 0 and memory.full:
            memory.relieve()

    def close(self) -> None:
        """The connection has ended and holds nothing."""
        by = self.input + self.body + self.answers
        self.input = self.body = self.answers = 0
        memory = self._memory
        memory.answering.pop(self, None)
        memory.leaving -= self.leaving
        self.leaving = 0
        memory.change(-by)
