"""What becomes of CloudEvents between their request and its answer.

This module must not know sockets or files, nor how an event is judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.dedupe import Claim, Held, Window, packed_id
from ingest.errors import IngestError
from ingest.pipeline_dedupe_held import now_ms, tell
from ingest.rejected import Reason

if TYPE_CHECKING:
    from ingest.batch import Batch
    from ingest.cloudevents import CloudEvent
    from ingest.connection import Exchange
    from ingest.metrics_cells import Cell
    from ingest.routes import Target

#: Of the data, in the pointers of faults: they point into the event as a JSON object.
DATA_POINTER = "/data"


class Sent(NamedTuple):
    """An event whose attributes are good.

    Attributes:
        raw: the bytes of its data.
        value: the same, decoded.
    """

    event: CloudEvent
    target: Target
    raw: bytes
    value: Any


class Refused(Exception):
    """One event does not get in.

    Attributes:
        error: to answer it with, if it came alone.
        reason: for the rejected journal.
        faults: pointer, keyword and message of each, as far as they are listed.
        target: its type, if it could be told.
        raw: its data, as far as that could be told.
        event: its attributes, if they are good.
        whole: a handler failed, so nothing of its request is stored.
    """

    def __init__(
        self,
        error: IngestError,
        reason: Reason,
        *,
        faults: Sequence[tuple[str, str, str]] | None = None,
        target: Target | None = None,
        raw: bytes = b"",
        event: CloudEvent | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__(reason.message)
        self.error = error
        self.reason = reason
        self.faults = [reason[1:4]] if faults is None else faults
        self.target = target
        self.raw = raw
        self.event = event
        self.whole = whole

    def count(self) -> Cell | None:
        """The counter of its type and reason; None where a failed handler is counted."""
        target, code = self.target, self.reason.code
        if target is None or self.whole:
            return None
        return {
            "malformed": target.rejected_malformed,
            "schema": target.rejected_schema,
            "too_large": target.rejected_too_large,
            "handler": target.rejected_handler,
        }[code]


class Single(Held):
    """One event on its way, perhaps with a claim on its key; answered with its producer's id."""

    __slots__ = ("_claim", "_event_id", "_exchange", "_finish", "_window")

    def __init__(
        self, exchange: Exchange, event_id: str, finish: Callable[[Exchange, str], None]
    ) -> None:
        self._exchange = exchange
        self._event_id = event_id
        self._finish = finish
        self._claim: Claim | None = None
        self._window: Window

    def take(self, window: Window, digest: bytes) -> Claim | bytes | None:
        """Claim the event's key; returns what is known of it already, None if that is nothing."""
        found = window.look(digest, now_ms())
        if found is None:
            self._window = window
            self._claim = window.claim(digest, b"")
        return found

    def name(self, stored_id: bytes) -> None:
        """It has its id."""
        if self._claim is not None:
            self._claim.value = packed_id(stored_id)

    def stored(self) -> None:
        if self._claim is not None:
            tell(self._window.settle(self._claim, now_ms()), None)
        self._finish(self._exchange, self._event_id)

    def dropped(self, error: IngestError) -> None:
        if self._claim is not None:
            tell(self._window.release(self._claim), error)


class Many(Held):
    """The events of a batch on their way, each perhaps with a claim on its key.

    It is answered when its own events are stored and those that came first elsewhere are.

    Attributes:
        batch: what becomes of each.
        accepted: how many of each type are stored.
        duplicates: how many of each type came before, in this request or another one.
        error: why one that came first elsewhere was not stored.
        placed: index and type of each that is to be stored, in the order of the lines.
    """

    __slots__ = (
        "_claims", "_done", "_finish", "_pending", "accepted", "batch", "duplicates", "error",
        "exchange", "placed",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, batch: Batch, finish: Callable[[Many], None]) -> None:
        self.exchange = exchange
        self.batch = batch
        self.accepted: Counter[Target] = Counter()
        self.duplicates: Counter[Target] = Counter()
        self.error: IngestError | None = None
        self.placed: list[tuple[int, Target]] = []
        #: by digest, which no two types share
        self._claims: dict[bytes, tuple[Window, Claim]] = {}
        self._finish = finish
        self._pending = 1  # itself, until it is stored
        self._done = False

    def take(self, window: Window, digest: bytes) -> bool:
        """Claim the key of one event; returns whether it is a duplicate."""
        found = window.look(digest, now_ms())
        if found is None:
            self._claims[digest] = window, window.claim(digest, b"")
            return False
        if isinstance(found, Claim) and digest not in self._claims:
            found.waiters.append(self._first_is)
            self._pending += 1
        return True

    def name(self, digest: bytes, stored_id: bytes) -> None:
        """An event whose key was claimed has its id."""
        self._claims[digest][1].value = packed_id(stored_id)

    def give_back(self, digest: bytes) -> None:
        """An event whose key was claimed is not stored: its handler does not want it."""
        window, claim = self._claims.pop(digest)
        tell(window.release(claim), IngestError("first_not_stored"))

    def stored(self) -> None:
        claims, self._claims = self._claims, {}
        now = now_ms()
        for window, claim in claims.values():
            tell(window.settle(claim, now), None)
        self.less()

    def not_stored(self, failures: Mapping[int, IngestError]) -> None:
        """Some of its events are not durable.

        Args:
            failures: why, by the number of their lines.
        """
        for number, error in sorted(failures.items()):
            index, target = self.placed[number]
            self.accepted[target] -= 1
            self.batch.lost(index, error)

    def dropped(self, error: IngestError) -> None:
        self._done = True
        claims, self._claims = self._claims, {}
        for window, claim in claims.values():
            tell(window.release(claim), error)

    def _first_is(self, error: IngestError | None) -> None:
        self.error = self.error or error
        self.less()

    def less(self) -> None:
        """One of those it waits for is done."""
        self._pending -= 1
        if not self._pending and not self._done:
            self._done = True
            self._finish(self)
