"""What an exchange holds while its events are on their way: claims on their keys.

Each kind knows what to remember when the commit has succeeded, how to free its keys when
nothing was stored, and whom to tell.

This module must not know sockets or files, nor how an event is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time
from typing import TYPE_CHECKING, Any

from ingest.dedupe import Claim, Held, Outcome, Window, id_text, packed_id
from ingest.dedupe_records import request_member
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.batch import Batch
    from ingest.connection import Exchange


def now_ms() -> int:
    """Milliseconds since 1970."""
    return int(time() * 1000)


def tell(waiters: Sequence[Callable[[Any], None]], error: IngestError | None) -> None:
    """Tell those who wait for a first event how it ended.

    What refused the first for its own sake says nothing about them; they may come again.
    """
    if waiters and error is not None and error.status < 500:
        error = IngestError("first_not_stored")
    for waiter in waiters:
        waiter(error)


class Single(Held):
    """One event with a claim on its key."""

    __slots__ = ("_claim", "_event_id", "_window")

    def __init__(self, window: Window, claim: Claim, event_id: bytes) -> None:
        self._window = window
        self._claim = claim
        self._event_id = event_id

    def member(self, event_id: bytes) -> bytes:
        """Take the id of the event of a request with a key; returns what its line needs."""
        claim = self._claim
        outcome = Outcome.unpack(claim.value)._replace(event_id=packed_id(event_id))
        claim.value = outcome.pack()
        self._event_id = event_id
        return request_member(claim.digest, outcome)

    def stored(self) -> bytes | None:
        tell(self._window.settle(self._claim, now_ms()), None)
        return self._event_id

    def dropped(self, error: IngestError) -> None:
        tell(self._window.release(self._claim), error)


class Request(Held):
    """Many events in one request, with a claim on the request's key.

    Attributes:
        accepted: how many got in.
        status: of the answer.
        answer: its body.
    """

    __slots__ = (
        "_claim", "_finish", "_whole", "_window", "accepted", "answer", "exchange", "status",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        window: Window,
        claim: Claim,
        finish: Callable[[Request], None],
    ) -> None:
        self.exchange = exchange
        self.accepted = 0
        self.status = 0
        self.answer = b""
        self._window = window
        self._claim = claim
        self._finish = finish
        self._whole = b""

    def member(self, batch: Batch, list_ids: bool, whole_max_bytes: int) -> bytes:
        """Take what became of the events; returns what the first line needs."""
        claim = self._claim
        self.accepted = batch.size - batch.rejected
        self.status = 207 if batch.rejected else 202
        self.answer = batch.answer(list_ids)
        if len(self.answer) <= whole_max_bytes:
            self._whole = self.answer
        first = next(event_id for event_id in batch.ids if event_id is not None)
        outcome = Outcome(
            packed_id(first),
            Outcome.unpack(claim.value).fingerprint,
            self.status,
            self.accepted,
            batch.rejected,
        )
        claim.value = outcome.pack()
        return request_member(claim.digest, outcome, self._whole)

    def stored(self) -> None:
        self._window.settle(self._claim, now_ms(), self._whole)
        self._finish(self)

    def dropped(self, error: IngestError) -> None:
        self.give_up()

    def give_up(self) -> None:
        """Free the key; nobody waits for a request, they are answered 409."""
        self._window.release(self._claim)


class Events(Held):
    """Many events, each with a key of its own, some perhaps duplicates.

    It is answered when its own events are stored and those that came first elsewhere are.

    Attributes:
        duplicates: how many events came before, in this request or another one.
        error: why one that came first elsewhere was not stored.
    """

    __slots__ = (
        "_claims", "_done", "_elsewhere", "_finish", "_pending", "_window", "batch", "duplicates",
        "error", "exchange",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Exchange,
        batch: Batch,
        window: Window,
        finish: Callable[[Events], None],
    ) -> None:
        self.exchange = exchange
        self.batch = batch
        self.duplicates = 0
        self.error: IngestError | None = None
        self._claims: dict[bytes, Claim] = {}
        #: events whose first is on its way in another request, by position
        self._elsewhere: dict[int, Claim] = {}
        self._window = window
        self._finish = finish
        self._pending = 1  # itself, until it is stored
        self._done = False

    def take(self, digest: bytes, index: int, now: int) -> bool:
        """Claim the key of one event; returns whether it is a duplicate."""
        found = self._window.look(digest, now)
        if found is None:
            # its id is known when its handler has run; see `name`
            self._claims[digest] = self._window.claim(digest, b"")
            return False
        if not isinstance(found, Claim):
            self.batch.ids[index] = id_text(found)
        elif digest in self._claims:
            self.batch.ids[index] = id_text(found.value)
        else:
            found.waiters.append(self._first_is)
            self._elsewhere[index] = found
            self._pending += 1
        self.duplicates += 1
        return True

    def name(self, digest: bytes, index: int) -> None:
        """An event whose key was claimed has its id."""
        event_id = self.batch.ids[index]
        assert event_id is not None
        self._claims[digest].value = packed_id(event_id)

    def give_back(self, digest: bytes) -> None:
        """An event whose key was claimed is not stored: its handler does not want it."""
        waiters = self._window.release(self._claims.pop(digest))
        tell(waiters, IngestError("first_not_stored"))

    def stored(self) -> None:
        claims, self._claims = self._claims, {}
        now = now_ms()
        for claim in claims.values():
            tell(self._window.settle(claim, now), None)
        self.less()

    def dropped(self, error: IngestError) -> None:
        self._done = True
        claims, self._claims = self._claims, {}
        for claim in claims.values():
            tell(self._window.release(claim), error)

    def _first_is(self, error: IngestError | None) -> None:
        self.error = self.error or error
        self.less()

    def less(self) -> None:
        """One of those it waits for is done."""
        self._pending -= 1
        if self._pending or self._done:
            return
        self._done = True
        if self.error is None:
            for index, claim in self._elsewhere.items():
                self.batch.ids[index] = id_text(claim.value)
        self._finish(self)
