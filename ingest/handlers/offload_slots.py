"""How many offloaded calls run and how many may wait: the bound of a pool of threads or
processes.

This module must not know what runs.
"""

from __future__ import annotations

from gevent.lock import Semaphore

from ingest.errors import OffloadFull
from ingest.metrics import Metrics


class Slots:
    """A bounded number of slots with a bounded line in front of it.

    Args:
        kind: `thread` or `process`.
        size: how many there are.
        queue_max: how many may wait for one.
        metrics: what is in use, waits and was refused.
    """

    def __init__(self, kind: str, size: int, queue_max: int, metrics: Metrics) -> None:
        self._kind = kind
        self._size = size
        self._queue_max = queue_max
        self._free = Semaphore(size)
        self._refused = metrics.offload_refused.cell(kind)
        self._seconds = metrics.offload_seconds.cell(kind)
        self.in_use = 0
        self.waiting = 0
        metrics.offload_in_use.cell(kind).set_function(lambda: self.in_use)
        metrics.offload_waiting.cell(kind).set_function(lambda: self.waiting)

    def take(self) -> None:
        """Take a slot; waits for one.

        Raises:
            OffloadFull: too many do already.
        """
        if not self._free.acquire(blocking=False):
            if self.waiting >= self._queue_max:
                self._refused.value += 1
                raise OffloadFull(
                    f"{self._size} offloaded calls run and {self.waiting} wait, in a {self._kind} "
                    "each; more may not."
                )
            self.waiting += 1
            try:
                self._free.acquire()
            finally:
                self.waiting -= 1
        self.in_use += 1

    def give_back(self, seconds: float) -> None:
        """Give a slot back.

        Args:
            seconds: how long what it was taken for ran.
        """
        self.in_use -= 1
        self._seconds.observe(seconds)
        self._free.release()
