"""How a metric family is declared, and how its cells are made.

PURE: this module must not know which metrics exist, or gevent.

Source: https://prometheus.io/docs/practices/naming/ (names, base units).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from ingest.metrics_cells import Cell, Gauge, HistogramCell, Labelled

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


@dataclass
class Family:
    """One metric family as declared.

    Attributes:
        kind: `counter`, `gauge` or `histogram`.
        help: what it counts; one sentence.
        remedy: what to do when it rises (or, where said, falls).
        labels: label names.
        values: per label the closed set of its values, or `()` for an open set.
        buckets: upper bounds of a histogram, in the base unit.
        unit: `seconds`, `bytes` or nothing; by default what `attribute` ends with.
        attribute: its name in `Metrics`.
        combine: of a gauge, how the numbers of several workers become one: `sum`, `max`
            or `min`.
    """

    kind: str
    help: str
    remedy: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()
    unit: str = ""
    attribute: str = ""
    combine: str = "sum"

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name
        for unit in ("seconds", "bytes"):
            if name.endswith("_" + unit):
                self.unit = unit

    @property
    def name(self) -> str:
        """The name in the exposition; a counter's samples end in `_total` besides."""
        name = f"ingest_{self.attribute}"
        if self.unit and not name.endswith("_" + self.unit):
            name += f"_{self.unit}"
        return name

    @property
    def full_name(self) -> str:
        """The name to query: as `name`, with the counters' `_total`."""
        return self.name + "_total" if self.kind == COUNTER else self.name

    def build(self) -> Any:
        """A new, empty family: a cell, or cells by label values."""
        new: Any = partial(HistogramCell, self.buckets)
        if self.kind != HISTOGRAM:
            new = Cell if self.kind == COUNTER else Gauge
        return Labelled(self.labels, self.values, new) if self.labels else new()


# Declarations return what the attribute is on an object, so that type checkers know it,
# the way `dataclasses.field` does; `Metrics` puts the real ones in their place.


def _labels(names: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {"labels": tuple(names), "values": tuple(names.values())}


def counter(help: str, remedy: str) -> Cell:
    """A counter without labels."""
    return cast(Cell, Family(COUNTER, help, remedy))


def counters(help: str, remedy: str, **labels: tuple[str, ...]) -> Labelled[Cell]:
    """A counter; each keyword is a label with its closed set of values, or `OPEN`."""
    return cast("Labelled[Cell]", Family(COUNTER, help, remedy, **_labels(labels)))


def gauge(help: str, remedy: str, combine: str = "sum") -> Gauge:
    """A gauge without labels; of several workers their `sum`, `max` or `min` is shown."""
    return cast(Gauge, Family(GAUGE, help, remedy, combine=combine))


def gauges(
    help: str, remedy: str, combine: str = "sum", **labels: tuple[str, ...]
) -> Labelled[Gauge]:
    """A gauge with labels, given as for `counters`."""
    family = Family(GAUGE, help, remedy, combine=combine, **_labels(labels))
    return cast("Labelled[Gauge]", family)


def histogram(help: str, remedy: str, buckets: tuple[float, ...], unit: str = "") -> HistogramCell:
    """A histogram without labels."""
    return cast(HistogramCell, Family(HISTOGRAM, help, remedy, buckets=buckets, unit=unit))


def histograms(
    help: str, remedy: str, buckets: tuple[float, ...], **labels: tuple[str, ...]
) -> Labelled[HistogramCell]:
    """A histogram with labels, given as for `counters`."""
    family = Family(HISTOGRAM, help, remedy, buckets=buckets, **_labels(labels))
    return cast("Labelled[HistogramCell]", family)


#: An open set: the loaded event types, HTTP statuses, the program's own places.
OPEN: tuple[str, ...] = ()
