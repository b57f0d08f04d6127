"""The cells that count, and the families that hold them.

A hot path holds a cell and does `cell.value += 1`, or calls `observe`: no lock, no
label lookup, no string. They are read only when somebody scrapes. Cells belong to the
thread of the event loop; what another thread counts is kept there and read through
`set_function`.

PURE: this module must not know which metrics exist, their text format, or gevent.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, ItemsView, Iterator, Sequence
from typing import Generic, TypeVar

#: Label values beyond the declared set, or beyond `CELLS_MAX`, are counted under this one.
OTHER = "other"
#: Most cells of one family. More would make every scrape slow and the database behind it large.
CELLS_MAX = 10_000
#: Longest label value, in characters; event type names are at most this long.
LABEL_VALUE_MAX = 128


class _Number:
    """One number, read and written in place, or taken from a function."""

    __slots__ = ("function", "value")

    value: float

    def __init__(self) -> None:
        self.value = 0
        self.function: Callable[[], float] | None = None

    def set_function(self, function: Callable[[], float]) -> None:
        """Take the number from `function` at each scrape; it must be quick and not block."""
        self.function = function

    def read(self) -> float:
        """The number as of now.

        Raises:
            Exception: whatever the function raises.
        """
        return self.value if self.function is None else self.function()


class Cell(_Number):
    """A counter: `cell.value += 1`."""

    __slots__ = ()

    value: int


class BothCells:
    """Two counters that count the same; one of them is read elsewhere, too."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: Cell | BothCells, second: Cell) -> None:
        self._first = first
        self._second = second

    @property
    def value(self) -> int:
        """The first one's."""
        return self._first.value

    @value.setter
    def value(self, value: int) -> None:
        self._second.value += value - self._first.value
        self._first.value = value


class Gauge(_Number):
    """A gauge: `gauge.value = x`, or a function."""

    __slots__ = ()


class HistogramCell:
    """Counts per bucket and their sum.

    Args:
        bounds: upper bounds, ascending, each inclusive; one more bucket takes the rest.
    """

    __slots__ = ("bounds", "counts", "examples", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        #: bucket → trace id, value and seconds since the epoch of the last one with a trace
        self.examples: dict[int, tuple[str, float, float]] = {}
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value.

        Args:
            value: in the family's base unit. A negative one (a clock was set back)
                counts as 0, because a sum that falls reads as a restart.
        """
        if value < 0.0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def example(self, value: float, trace_id: str, seconds: float) -> None:
        """Say in which trace a value that was counted can be looked at: an exemplar.

        Args:
            seconds: since the epoch, when it was.
        """
        self.examples[bisect_left(self.bounds, value)] = trace_id, value, seconds

    def observe_ages(self, now: float, since: list[float]) -> None:
        """Count what lies between each of many moments and now; cheaper than one by one.

        Args:
            now: seconds, by the same clock as the moments.
            since: the moments; sorted in place, and quickly if they nearly are. One in the
                future counts as now.
        """
        since.sort()
        counts = self.counts
        left = len(since)
        self.sum += max(0.0, now * left - sum(since))
        for index, bound in enumerate(self.bounds):
            # Those that are at most so old stand from here on.
            at = bisect_left(since, now - bound, 0, left)
            counts[index] += left - at
            left = at
            if not left:
                return
        counts[-1] += left

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Upper bound and how many values were at most that, infinity last."""
        total = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            yield bound, total


AnyCell = TypeVar("AnyCell", Cell, Gauge, HistogramCell)


class Labelled(Generic[AnyCell]):
    """A family with labels: label values → cell, bounded.

    Args:
        labels: label names.
        values: per label its closed set of values, or `()` for an open one. When all
            sets are closed and there is one label, its cells exist from the start, so
            that a rate is right from the first event on.
        new: makes a cell.
    """

    __slots__ = ("_cells", "_new", "_values", "labels")

    def __init__(
        self,
        labels: Sequence[str],
        values: Sequence[Sequence[str]],
        new: Callable[[], AnyCell],
    ) -> None:
        self.labels = tuple(labels)
        self._values = tuple(frozenset(allowed) for allowed in values)
        self._new: Callable[[], AnyCell] = new
        self._cells: dict[tuple[str, ...], AnyCell] = {}
        if len(values) == 1:
            for value in values[0]:
                self._cells[(value,)] = new()

    def cell(self, *values: str) -> AnyCell:
        """The cell of these label values, in the order of `labels`.

        Keep it where it is used often: the lookup costs more than the count.
        """
        cell = self._cells.get(values)
        return cell if cell is not None else self._add(values)

    def items(self) -> ItemsView[tuple[str, ...], AnyCell]:
        """Label values and cell of everything counted so far."""
        return self._cells.items()

    def _add(self, values: tuple[str, ...]) -> AnyCell:
        if len(values) != len(self.labels):
            raise TypeError(f"labels {self.labels} given as {values!r}")
        key = tuple(
            _label_value(value, allowed)
            for value, allowed in zip(values, self._values, strict=True)
        )
        if key not in self._cells and len(self._cells) >= CELLS_MAX - 1:
            key = (OTHER,) * len(key)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = self._new()
        return cell


def _label_value(value: str, allowed: frozenset[str]) -> str:
    """Text that every exposition format can carry, from the closed set if there is one."""
    text = str(value)[:LABEL_VALUE_MAX]
    if allowed and text not in allowed:
        return OTHER
    # A lone surrogate cannot be encoded, and would fail every scrape from then on.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
