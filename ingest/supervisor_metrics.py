"""One `/metrics` for all workers: asks each what it has counted, and adds it up.

This module must not know how workers are started, or who asks.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from time import monotonic

from gevent.event import Event
from gevent.lock import BoundedSemaphore
from prometheus_client import PlatformCollector, ProcessCollector
from prometheus_client.core import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ingest.link import Message
from ingest.metrics import CATALOGUE, Metrics
from ingest.metrics_exposition import Exposition, Readings, encode
from ingest.metrics_sums import Share, combine
from ingest.metrics_wire import unpack
from ingest.supervisor_process import WorkerProcess

#: Workers that have not answered by then are shown as they were last known.
READ_SECONDS = 1.0
#: Process metrics that are sums; of the others the largest is shown, and the first start.
_SUMMED = frozenset({
    "process_cpu_seconds",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
})  # fmt: skip


class Gathering:
    """What all workers have counted.

    Args:
        metrics: the supervisor's own.
        workers: how many workers there are.
        processes: those that are to be asked.
    """

    def __init__(
        self,
        metrics: Metrics,
        workers: int,
        processes: Callable[[], Sequence[WorkerProcess]],
    ) -> None:
        self._metrics = metrics
        self._shares = [Share() for _ in range(workers)]
        self._processes = processes
        self._one_by_one = BoundedSemaphore(1)
        self._round = 0
        self._missing: set[WorkerProcess] = set()
        self._complete = Event()
        self._registry = CollectorRegistry()
        self._registry.register(Exposition(CATALOGUE, self._readings))
        self._registry.register(_Processes(lambda: [p.pid for p in processes()]))
        PlatformCollector(registry=self._registry)

    def expose(self, accept: str | None) -> tuple[bytes, str]:
        """Ask all workers, then the text and its content type; blocks."""
        with self._one_by_one:
            self._ask()
            return encode(self._registry, accept)

    def heard(self, process: WorkerProcess, message: Message) -> None:
        """A worker said what it has counted."""
        self._shares[process.number].say(unpack(message.blob))
        if message.fields.get("id") == self._round:
            self._missing.discard(process)
            if not self._missing:
                self._complete.set()

    def last_words(self, process: WorkerProcess, message: Message) -> None:
        """A worker said what it has counted, and counts no more."""
        self._shares[process.number].say(unpack(message.blob))

    def ended(self, process: WorkerProcess) -> None:
        """A worker has ended; what was heard of it remains."""
        self._shares[process.number].end(CATALOGUE)
        self._missing.discard(process)
        if not self._missing:
            self._complete.set()

    def _ask(self) -> None:
        self._round += 1
        self._missing = {p for p in self._processes() if p.accepts_messages and not p.silent}
        self._complete.clear()
        for share in self._shares:
            share.current = False
        for process in self._missing:
            process.say("read", id=self._round)
        deadline = monotonic() + READ_SECONDS
        while self._missing and (left := deadline - monotonic()) > 0:
            self._complete.wait(left)

    def _readings(self) -> Readings:
        for number, share in enumerate(self._shares):
            self._metrics.worker_up.cell(str(number)).value = int(share.current)
        own = Share()
        own.say(self._own())
        return combine(CATALOGUE, [own, *self._shares])

    def _own(self) -> Readings:
        """The supervisor's: a gauge of it that says nothing would spoil the least of all."""
        up = {labels: cell.read() for labels, cell in self._metrics.worker_up.items()}
        reloads: Readings = {
            name: {(): getattr(self._metrics, name).read()}
            for name in ("reload_failed", "reload_last_success_timestamp_seconds")
        }
        return {**self._metrics.read_counted(), "worker_up": dict(up), **reloads}


class _Processes(Collector):
    """The metrics `process_…` of the supervisor and its workers together."""

    def __init__(self, workers: Callable[[], list[int]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        together: dict[str, Metric] = {}
        pids: list[int | str] = ["self", *self._workers()]
        for pid in pids:
            # One that has just ended has nothing to show.
            for metric in _collector(pid).collect():
                _merge(together, metric)
        if cpu := together.get("process_cpu_seconds"):
            # Those that have ended: without them the sum would fall.
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            _set(cpu, cpu.samples[0].value + children.ru_utime + children.ru_stime)
        yield from together.values()


def _collector(pid: int | str) -> ProcessCollector:
    return ProcessCollector(pid=lambda: pid, registry=None)


def _merge(together: dict[str, Metric], metric: Metric) -> None:
    before = together.setdefault(metric.name, metric)
    if before is metric or not metric.samples:
        return
    a, b = before.samples[0].value, metric.samples[0].value
    if metric.name in _SUMMED:
        _set(before, a + b)
    else:
        _set(before, min(a, b) if metric.name == "process_start_time_seconds" else max(a, b))


def _set(metric: Metric, value: float) -> None:
    metric.samples[0] = metric.samples[0]._replace(value=value)
