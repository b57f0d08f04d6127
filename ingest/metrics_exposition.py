"""What families held at one moment, as plain values, and the text that is made of them.

`Readings` are what a worker sends where there are several: they can be added up
(`metrics_sums`) and turned into text elsewhere. This module must not know which metrics
exist, nor who asks.

Source: OpenMetrics 1.0; the Prometheus text format 0.0.4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from ingest.metrics_families import COUNTER, GAUGE, HISTOGRAM, Family

#: Bucket, trace id, value, seconds since the epoch: of a value that was counted, its exemplar.
Examples = Sequence[tuple[int, str, float, float]]
#: A number, or of a histogram how many values fell into each bucket, their sum, and exemplars.
Value = float | tuple[Sequence[int], float, Examples]
#: Label values → value.
Cells = dict[tuple[str, ...], Value]
#: Family, by the name of its attribute → its cells.
Readings = dict[str, Cells]

_METRICS: dict[str, Any] = {
    COUNTER: CounterMetricFamily,
    GAUGE: GaugeMetricFamily,
    HISTOGRAM: HistogramMetricFamily,
}
_CONTENT_TYPE = re.compile(r"[ -~]{1,200}")


def read_family(family: Family, held: Any, failed: Callable[[Family, Exception], None]) -> Cells:
    """What a family holds now.

    Args:
        held: the cell, or the cells by label values.
        failed: told of a gauge whose function raises; it is left out.
    """
    # A scrape may run while another thread adds a cell: the list is made in one step.
    cells = list(held.items()) if family.labels else [((), held)]
    if family.kind == HISTOGRAM:
        return {labels: (list(cell.counts), cell.sum, _examples(cell)) for labels, cell in cells}
    found: Cells = {}
    for labels, cell in cells:
        try:
            found[labels] = cell.read()
        except Exception as error:  # noqa: BLE001 - told, and must not fail the scrape
            failed(family, error)
    return found


def _examples(cell: Any) -> Examples:
    return [(bucket, *rest) for bucket, rest in list(cell.examples.items())]


class Exposition(Collector):
    """Shows readings to prometheus_client, which makes the text of them.

    Args:
        catalogue: the families, in the order in which they are shown.
        read: gives what they hold, at each scrape.
    """

    def __init__(self, catalogue: Iterable[Family], read: Callable[[], Readings]) -> None:
        self._catalogue = tuple(catalogue)
        self._read = read

    def collect(self) -> Iterator[Metric]:
        readings = self._read()
        for family in self._catalogue:
            yield _metric(family, readings.get(family.attribute, {}))


def _metric(family: Family, cells: Cells) -> Metric:
    metric: Any = _METRICS[family.kind](
        family.name, family.help, labels=family.labels, unit=family.unit
    )
    for labels, value in cells.items():
        if isinstance(value, tuple):
            counts, total, examples = value
            metric.add_metric(labels, _cumulated(family.buckets, counts, examples), total)
        else:
            metric.add_metric(labels, value)
    return cast(Metric, metric)


def _cumulated(
    bounds: Sequence[float], counts: Sequence[int], examples: Examples
) -> list[tuple[str, int, Exemplar | None]]:
    found = {
        bucket: Exemplar({"trace_id": trace_id}, value, seconds)
        for bucket, trace_id, value, seconds in examples
    }
    buckets, below = [], 0
    for bucket, (bound, count) in enumerate(zip((*bounds, math.inf), counts, strict=True)):
        below += count
        buckets.append((floatToGoString(bound), below, found.get(bucket)))
    return buckets


def encode(collector: Any, accept: str | None) -> tuple[bytes, str]:
    """The text and its content type.

    Args:
        collector: has `collect`, as a registry does.
        accept: the request's Accept field; OpenMetrics if it asks for it, otherwise the
            Prometheus text format.
    """
    encoder, content_type = _choose(accept or "")
    return encoder(collector), content_type


def _choose(accept: str) -> tuple[Any, str]:
    try:
        encoder, content_type = choose_encoder(accept)
    except TypeError:
        # The chooser compares version numbers, and a client may send `version=x`.
        return choose_encoder("")
    # It also echoes the client's version, which must not become any byte of our answer.
    return (encoder, content_type) if _CONTENT_TYPE.fullmatch(content_type) else choose_encoder("")
