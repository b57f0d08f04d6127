"""One batch until all of it is done with: attempts, backoff, splitting, dead letters.

    batch ─▶ attempt ──ok──▶ done
               │ failed: pause, again, up to `consume_max_attempts`
               ▼
             two halves, each tried once and halved again ─▶ … ─▶ one event
                                                     │ `consume_max_attempts` attempts
                                                     ▼
                                                dead letter

Halves are worked on in journal order, so whatever happens the events come in order. Good
ones around a bad one cost a few attempts more. While everything fails (a database that is
down), events are given up one by one, each after all its attempts, and not by the batch.

This module must not know where batches come from.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from gevent.event import Event

from ingest.consumers import Switch
from ingest.consuming_batches import Pace
from ingest.consuming_dead import DeadLetters
from ingest.errors import IngestError, Reject
from ingest.followers import SharedReads
from ingest.handlers.consumers import ConsumerTimeout, Record, call_consume, events_of
from ingest.handlers.loader import Handler
from ingest.journal.checkpoints import Checkpoints
from ingest.logs import get_logger
from ingest.metrics import Metrics

if TYPE_CHECKING:
    from ingest.settings import Settings

log = get_logger(__name__)


class Stopped(Exception):
    """The service ends; what is not done with comes again at the next start."""


class Shared(NamedTuple):
    """What all consumers of a worker have in common.

    Attributes:
        settings: bounds and times; read once.
        metrics: the worker's.
        threads: where whatever blocks is done.
        checkpoints: keep the places.
        dead: takes what cannot be processed.
        stopping: set when the service ends.
    """

    settings: Settings
    metrics: Metrics
    threads: SharedReads
    checkpoints: Checkpoints
    dead: DeadLetters
    stopping: Event


class Attempts:
    """Works on batches of one type and partition.

    Args:
        handler: whose `consume` is called.
        partition: of the journal.
        shared: what it has in common with others.
        switch: waited for before each attempt.
        done: told the offset behind what is done with.
        parked: called before it waits because it is paused.

    Attributes:
        calling: whether `consume` is running.
    """

    def __init__(
        self,
        handler: Handler,
        partition: int,
        shared: Shared,
        switch: Switch,
        done: Callable[[int], None],
        parked: Callable[[], None],
    ) -> None:
        self._handler = handler
        self._partition = partition
        settings = shared.settings
        self._timeout = settings.consume_timeout_seconds
        self._max_attempts = settings.consume_max_attempts
        self._backoff = (settings.consume_backoff_min_seconds, settings.consume_backoff_max_seconds)
        self._metrics = shared.metrics
        self._threads = shared.threads
        self._dead = shared.dead
        self._stopping = shared.stopping
        self._switch = switch
        self._done = done
        self._parked = parked
        self.calling = False

    def work(self, records: list[Record]) -> None:
        """Return when all of them are done with.

        Raises:
            Stopped: the service ends.
        """
        parts = deque([records])
        split = False
        while parts:
            part = parts.popleft()
            failure = self._try(part, 1 if split and len(part) > 1 else self._max_attempts)
            if failure is None:
                self._metrics.consumer_events.cell(self._handler.type).value += len(part)
            elif len(part) > 1:
                middle = len(part) // 2
                log.warning("consumer.split", **self._where(part), events=len(part))
                parts.extendleft([part[middle:], part[:middle]])
                split = True
                continue
            else:
                self._bury(part[0], failure)
            self._done(part[-1].offset + 1)

    def _try(self, part: list[Record], limit: int) -> _Failure | None:
        """Attempt it so many times at most (0: for ever); why that did not help, or None."""
        attempt = 0
        while True:
            self._go_on()
            attempt += 1
            error = self._attempt(part, attempt)
            if error is None:
                return None
            if attempt == limit or isinstance(error, Reject):
                return _Failure(error, attempt)
            self._pause(attempt)

    def _attempt(self, part: list[Record], attempt: int) -> BaseException | None:
        metrics, name = self._metrics, self._handler.type
        metrics.consumer_attempts.cell(name).value += 1
        started = perf_counter()
        try:
            events = self._threads.run(events_of, self._partition, part, Pace())
            self._go_on()
            started = perf_counter()
            self.calling = True
            call_consume(self._handler, events, self._timeout)
        except Stopped:
            raise
        except Exception as error:  # counted, logged with its traceback, tried again
            reason = {Reject: "reject", ConsumerTimeout: "timeout"}.get(type(error), "error")
            metrics.consumer_failures.cell(name, reason).value += 1
            log.error(
                "consumer.failed",
                **self._where(part),
                events=len(part),
                attempt=attempt,
                exc_info=error,
            )
            return error
        finally:
            self.calling = False
            metrics.consumer_seconds.cell(name).observe(perf_counter() - started)
        return None

    def _bury(self, record: Record, failure: _Failure) -> None:
        """Put an event aside, however long it takes until the disk has it."""
        metrics, name = self._metrics, self._handler.type
        attempt = 0
        while True:
            self._go_on()
            try:
                self._dead.put(self._partition, record, failure.error, failure.attempts)
                break
            except IngestError as error:
                attempt += 1
                metrics.consumer_failures.cell(name, "dead_letter").value += 1
                log.error("consumer.dead_letter_failed", **self._where([record]), error=str(error))
            self._pause(attempt)
        metrics.consumer_dead_letters.cell(name).value += 1
        log.error(
            "consumer.dead_letter",
            **self._where([record]),
            attempts=failure.attempts,
            error=str(failure.error),
        )

    def _pause(self, attempt: int) -> None:
        """Wait before the next attempt: twice as long each time, half of it left to chance."""
        shortest, longest = self._backoff
        seconds = min(longest, shortest * 2 ** min(attempt - 1, 60))
        self._stopping.wait(random.uniform(seconds / 2, seconds))

    def _go_on(self) -> None:
        """Wait while the consumer is paused.

        Raises:
            Stopped: the service ends.
        """
        if self._switch.paused and not self._stopping.is_set():
            self._parked()
            self._switch.wait()
        if self._stopping.is_set():
            raise Stopped

    def _where(self, part: list[Record]) -> dict[str, object]:
        return {
            "type": self._handler.type,
            "partition": self._partition,
            "offset": part[0].offset,
        }


class _Failure:
    """Why a part was given up."""

    __slots__ = ("attempts", "error")

    def __init__(self, error: BaseException, attempts: int) -> None:
        self.error = error
        self.attempts = attempts
