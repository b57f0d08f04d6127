"""The outcome of a request with many events: what got in, what did not and why.

PURE: no sockets, no clock, no journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.codec import DecodeError, dumps
from ingest.errors import IngestError
from ingest.journal.record import IdRun

if TYPE_CHECKING:
    from ingest.routes import Target
    from ingest.validation import Validator


class Fault(NamedTuple):
    """One thing wrong with one event.

    Attributes:
        position: index of the event in the request, from 0; -1 when there is only one.
        pointer: JSON Pointer (RFC 6901) into the event, `""` for the whole of it.
        keyword: the schema keyword that failed, or `json`, `max_event_bytes`, `handler`.
        message: for a person.
    """

    position: int
    pointer: str
    keyword: str
    message: str

    def document(self) -> dict[str, Any]:
        """As it stands in an answer."""
        document = {"pointer": self.pointer, "keyword": self.keyword, "message": self.message}
        return document if self.position < 0 else {"index": self.position, **document}


def fault_members(faults: list[Fault], total: int) -> dict[str, Any]:
    """The members `errors` and `errors_total` of an answer; the list may be cut."""
    return {"errors": [fault.document() for fault in faults], "errors_total": total}


def split_lines(body: bytes, most: int) -> list[bytes] | None:
    """The lines of NDJSON that hold anything.

    Args:
        most: line ends there may be.

    Returns:
        None when there are more; no object was made for each then.

    Only LF ends a line (a CR before it is JSON white space); lines of nothing but
    white space are passed over, as the NDJSON specification allows.
    """
    lines = body.split(b"\n", most + 1)
    if len(lines) > most + 1:
        return None
    if not lines[-1]:
        lines.pop()
    # isspace is asked only of lines that could be blank: a JSON text that starts with
    # white space is rare, and a line's first byte tells the others apart.
    return [line for line in lines if line and (line[0] > 32 or line.strip(b" \t\r"))]


class Batch:
    """Collects the outcome event by event.

    Args:
        errors_max: how many faults are kept to be listed; all are counted.
        size: how many events the request holds.

    Attributes:
        size: how many events the request holds.
    """

    __slots__ = (
        "_errors_max", "_ids", "_runs", "_runs_end", "faults", "faults_total", "malformed_count",
        "not_stored_count", "rejected_count", "size", "too_large_count", "violation_count",
    )  # fmt: skip

    def __init__(self, errors_max: int, size: int) -> None:
        self._errors_max = errors_max
        self.size = size
        self._ids: list[bytes | None] = []
        #: ids of the first events, up to a position; they are not in `_ids` then
        self._runs: list[IdRun] = []
        self._runs_end = 0
        self.faults: list[Fault] = []
        self.faults_total = 0
        self.malformed_count = 0
        self.violation_count = 0
        self.rejected_count = 0
        self.too_large_count = 0
        self.not_stored_count = 0

    @property
    def ids(self) -> list[bytes | None]:
        """The id of each event by position, None for those that did not get in."""
        ids = self._ids
        if not ids:
            for start, ends in self._runs:
                ids += [start + end for end in ends]
            ids += [None] * (self.size - len(ids))
            self._runs.clear()
        return ids

    def stored_as(self, index: int, ids: IdRun) -> None:
        """The events from a position on got in, under these ids."""
        if not self._ids and index == self._runs_end:
            self._runs.append(ids)
            self._runs_end += len(ids[1])
        else:
            start, ends = ids
            self.ids[index : index + len(ends)] = [start + end for end in ends]

    @property
    def rejected(self) -> int:
        """How many events did not get in."""
        return (
            self.malformed_count + self.violation_count + self.rejected_count
            + self.too_large_count + self.not_stored_count
        )  # fmt: skip

    def _add(self, fault: Fault) -> None:
        self.faults_total += 1
        if len(self.faults) < self._errors_max:
            self.faults.append(fault)

    def malformed(self, index: int, error: DecodeError) -> None:
        """The event is not JSON."""
        self.malformed_count += 1
        self._add(Fault(index, "", "json", f"{error.message} (column {error.column})"))

    def too_large(self, index: int, size: int, limit: int) -> None:
        """The event is longer than its type allows; sizes in bytes."""
        self.too_large_count += 1
        self._add(Fault(index, "", "max_event_bytes", f"{size} bytes; at most {limit}"))

    def violation(self, index: int, validator: Validator, value: Any) -> Fault:
        """The event does not match its schema; returns the first of its faults."""
        self.violation_count += 1
        unexplained = Fault(index, "", "", "It does not match the schema.")
        left = self.room
        if left <= 0:
            self.faults_total += 1  # not explained: explaining costs 100 times the verdict
            return unexplained
        faults, total = validator.explain(value, left)
        for pointer, keyword, message in faults:
            self._add(Fault(index, pointer, keyword, message))
        self.faults_total += total - len(faults)
        return Fault(index, *faults[0]) if faults else unexplained

    def handler_rejected(self, index: int, pointer: str, reason: str) -> None:
        """The type's handler raised Reject."""
        self.rejected_count += 1
        self._add(Fault(index, pointer, "handler", reason))

    def refused(self, index: int, faults: Sequence[tuple[str, str, str]], total: int) -> None:
        """The event is refused for reasons that somebody else counts by its type."""
        self.violation_count += 1
        for pointer, keyword, message in faults[: self.room]:
            self._add(Fault(index, pointer, keyword, message))
            total -= 1
        self.faults_total += total

    def not_stored(self, failures: Mapping[int, IngestError]) -> None:
        """Good events that are not durable for all that.

        Args:
            failures: why, by their number among the good ones.
        """
        good = [index for index, event_id in enumerate(self.ids) if event_id is not None]
        for number, error in sorted(failures.items()):
            self.lost(good[number], error)

    def lost(self, index: int, error: IngestError) -> None:
        """A good event that is not durable for all that."""
        self.ids[index] = None
        self.not_stored_count += 1
        self._add(Fault(index, "", error.code, str(error)))

    @property
    def room(self) -> int:
        """How many more faults can be listed."""
        return self._errors_max - len(self.faults)

    def count(self, target: Target) -> None:
        """Add the refused events to the counters of their type."""
        target.rejected_malformed.value += self.malformed_count
        target.rejected_schema.value += self.violation_count
        target.rejected_handler.value += self.rejected_count
        target.rejected_too_large.value += self.too_large_count

    def answer(self, list_ids: bool, duplicates: int = 0) -> bytes:
        """The body of a 202 or 207.

        Args:
            list_ids: whether `ids` stands in it: by position, null where refused.
            duplicates: how many of the accepted ones came before.
        """
        rejected = self.rejected
        parts = [b'{"accepted":%d,"rejected":%d' % (self.size - rejected, rejected)]
        if duplicates:
            parts.append(b',"duplicates":%d' % duplicates)
        if list_ids:
            parts.append(b',"ids":[')
            if rejected:
                parts.append(b",".join(b'"%s"' % i if i is not None else b"null" for i in self.ids))
            elif self._runs and self._runs_end == self.size:
                texts = (start + (b'","' + start).join(ends) for start, ends in self._runs)
                parts += (b'"', b'","'.join(texts), b'"')
            elif self.size:
                parts += (b'"', b'","'.join(self.ids), b'"')  # type: ignore[arg-type]
            parts.append(b"]")
        if rejected:
            members = dumps(fault_members(self.faults, self.faults_total))
            parts += (b",", members[1:-1])
        parts.append(b"}\n")
        return b"".join(parts)
