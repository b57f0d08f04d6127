"""Which segments have to go: by age, by total size, and what keeps them nonetheless.

Segments go from the front of a partition only, so that what is left has no gaps: one that
is kept keeps all that follow it. In this order:

1. The newest segment of a partition stays.
2. One that a consumer's checkpoint still needs stays, unless checkpoints are ignored.
3. By age: it goes when the retention of every type in it has passed, counted from its
   last record.
4. By size: while all that is stored of the journal, over all its partitions, is more than
   allowed, the oldest segment of all goes.

This module must not know files, threads or the clock; it is given what it decides on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import NamedTuple

AGE, SIZE = "age", "size"
#: Of a type, in seconds: its events are kept for ever.
FOREVER = 0.0


@dataclass(frozen=True)
class Retention:
    """How long the records of a journal are kept.

    Attributes:
        max_age_seconds: for types that do not say it themselves; 0 for ever.
        max_bytes: for all partitions together; 0 for any number.
        types: seconds for the types that say it themselves; 0 for ever.
        ignores_checkpoints: whether what a consumer still needs goes too.
    """

    max_age_seconds: float = FOREVER
    max_bytes: int = 0
    types: Mapping[str, float] = field(default_factory=dict)
    ignores_checkpoints: bool = False

    @property
    def shortest(self) -> float:
        """The shortest age at which anything goes, 0 when nothing goes by age."""
        return min(filter(None, (self.max_age_seconds, *self.types.values())), default=FOREVER)

    @property
    def longest(self) -> float:
        """The age at which everything goes, 0 when something never goes by age."""
        ages = (self.max_age_seconds, *self.types.values())
        return FOREVER if FOREVER in ages else max(ages)

    @property
    def uniform(self) -> bool:
        """Whether all types are treated alike, so that nobody needs to know which are in."""
        return set(self.types.values()) <= {self.max_age_seconds}


class Stored(NamedTuple):
    """A segment on the disk.

    Attributes:
        partition: its number.
        base: offset of the first record.
        end: offset after the last one; None of the newest, which may grow.
        stored_bytes: with both forms, where both are there, and all that was cut off it.
        first_time: of its first record, in seconds since 1970.
        last_time: after which it has no record, likewise.
    """

    partition: int
    base: int
    end: int | None
    stored_bytes: int
    first_time: float
    last_time: float


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        remove: segments and why (age or size), in the order in which they have to go.
        blocked: how many would go but for a checkpoint.
        blockers: partition and name of the checkpoints that keep them.
    """

    remove: list[tuple[Stored, str]]
    blocked: int
    blockers: frozenset[tuple[int, str]]


def plan(
    segments: Mapping[int, list[Stored]],
    retention: Retention,
    now: float,
    keep_seconds: Callable[[Stored], float],
    needed: Callable[[int], tuple[str, int] | None],
) -> Plan:
    """Decide.

    Args:
        segments: of each partition, oldest first.
        retention: of the journal.
        now: seconds since 1970.
        keep_seconds: how long a segment has to be kept for what is in it, 0 for ever; asked
            only about those older than the shortest retention.
        needed: the checkpoint that is farthest behind in a partition: name and offset.
    """
    planner = _Planner(segments, retention, now, keep_seconds, needed)
    planner.by_age()
    planner.by_size()
    return Plan(planner.remove, len(planner.blocked), frozenset(planner.blockers))


class _Planner:
    """Takes from the front of each partition what has to go; see `plan`."""

    def __init__(
        self,
        segments: Mapping[int, list[Stored]],
        retention: Retention,
        now: float,
        keep_seconds: Callable[[Stored], float],
        needed: Callable[[int], tuple[str, int] | None],
    ) -> None:
        self._left = {partition: list(stored) for partition, stored in segments.items()}
        self._total = sum(one.stored_bytes for stored in segments.values() for one in stored)
        self._retention = retention
        self._now = now
        self._keep_seconds = keep_seconds
        self._checkpoints = {
            partition: None if retention.ignores_checkpoints else needed(partition)
            for partition in segments
        }
        self.remove: list[tuple[Stored, str]] = []
        self.blocked: set[Stored] = set()
        self.blockers: set[tuple[int, str]] = set()

    def by_age(self) -> None:
        if not self._retention.shortest:
            return
        for stored in self._left.values():
            for one in stored[:-1]:
                if not self._aged(one):
                    break
                if not self._blocked(one):
                    self._take(one, AGE)

    def by_size(self) -> None:
        limit = self._retention.max_bytes
        if not limit:
            return
        kept = 0  # bytes of what is blocked, which will have been in vain
        candidates = [one for stored in self._left.values() for one in stored[:-1]]
        for one in sorted(candidates, key=lambda one: (one.first_time, one.partition, one.base)):
            if self._total <= limit:
                return
            if not self._blocked(one, self._total - kept > limit):
                self._take(one, SIZE)
            else:
                kept += one.stored_bytes

    def _aged(self, one: Stored) -> bool:
        age = self._now - one.last_time
        if age <= self._retention.shortest:
            return False
        uniform = self._retention.uniform
        keep = self._retention.max_age_seconds if uniform else self._keep_seconds(one)
        return bool(keep) and age > keep

    def _blocked(self, one: Stored, would_go: bool = True) -> bool:
        """Whether a checkpoint keeps it, and with it all that follow it in its partition."""
        checkpoint = self._checkpoints[one.partition]
        if checkpoint is None or one.end is None or checkpoint[1] >= one.end:
            return False
        if would_go:
            self.blocked.add(one)
            self.blockers.add((one.partition, checkpoint[0]))
        return True

    def _take(self, one: Stored, reason: str) -> None:
        self._left[one.partition].remove(one)
        self._total -= one.stored_bytes
        self.remove.append((one, reason))


def seconds_of(time: bytes | None) -> float | None:
    """A record's time in seconds since 1970, None where it does not say."""
    try:
        text = (time or b"").decode("ascii").removesuffix("Z")
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None
