"""Adds up what several workers counted, so that what is shown never falls.

Each worker has a `Share`: what it said last, and what its predecessors of the same number
had counted when they ended. Counters and histograms are summed over both, so neither a
restart nor a worker that does not answer for a while makes a sum fall; gauges are those of
the workers that answered.

Floating point: within a share it is `base + last`, and the base of the next worker is that
same sum, so nothing changes at a restart; over the shares it is `fsum`, whose result does not
depend on an order and grows with each summand.

PURE: this module must not know processes, or which metrics exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum

from ingest.metrics_exposition import Cells, Examples, Readings, Value
from ingest.metrics_families import GAUGE, Family


class Share:
    """What the workers of one number counted."""

    def __init__(self) -> None:
        self._base: Readings = {}
        self.last: Readings = {}
        #: whether `last` is of now, so that its gauges count
        self.current = False

    def say(self, readings: Readings) -> None:
        """The worker said what it has counted so far."""
        self.last = readings
        self.current = True

    def end(self, catalogue: Iterable[Family]) -> None:
        """The worker has ended; what comes is its successor's."""
        self._base = {
            family.attribute: self.counted(family) for family in catalogue if family.kind != GAUGE
        }
        self.last = {}
        self.current = False

    def counted(self, family: Family) -> Cells:
        """What a counter or histogram has come to."""
        base, last = self._base.get(family.attribute, {}), self.last.get(family.attribute, {})
        if not base:
            return last
        return {labels: _add(base.get(labels), last.get(labels)) for labels in (base | last)}


def _add(base: Value | None, last: Value | None) -> Value:
    if base is None or last is None:
        found = last if base is None else base
        assert found is not None
        return found
    if isinstance(base, tuple) and isinstance(last, tuple):
        counts = [a + b for a, b in zip(base[0], last[0], strict=True)]
        return counts, base[1] + last[1], newest(base[2], last[2])
    assert not isinstance(base, tuple) and not isinstance(last, tuple)
    return base + last


def newest(*several: Examples) -> Examples:
    """Of each bucket the exemplar that is the latest."""
    found = {}
    for example in sorted((e for examples in several for e in examples), key=lambda e: e[3]):
        found[example[0]] = example
    return list(found.values())


def combine(catalogue: Iterable[Family], shares: Sequence[Share]) -> Readings:
    """The readings of all workers together."""
    return {family.attribute: _combined(family, shares) for family in catalogue}


def _combined(family: Family, shares: Sequence[Share]) -> Cells:
    if family.kind == GAUGE:
        each = [share.last.get(family.attribute, {}) for share in shares if share.current]
    else:
        each = [share.counted(family) for share in shares]
    gathered: dict[tuple[str, ...], list[Value]] = {}
    for cells in each:
        for labels, value in cells.items():
            gathered.setdefault(labels, []).append(value)
    return {labels: _together(family, values) for labels, values in gathered.items()}


def _together(family: Family, values: list[Value]) -> Value:
    if isinstance(values[0], tuple):
        histograms = [value for value in values if isinstance(value, tuple)]
        counts = [sum(column) for column in zip(*(h[0] for h in histograms), strict=True)]
        return counts, fsum(h[1] for h in histograms), newest(*(h[2] for h in histograms))
    numbers = [value for value in values if not isinstance(value, tuple)]
    if family.combine == "max":
        return max(numbers)
    if family.combine == "min":
        return min(numbers)
    # Whole numbers stay whole, however large.
    return sum(numbers) if all(type(n) is int for n in numbers) else fsum(numbers)
