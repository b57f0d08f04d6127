"""Forwards one partition of the journal: reads on, sends, keeps its place.

    wait for a commit ─▶ read, make messages (native thread) ─▶ window ─▶ producer
          ▲                                                       │ reports
          │          place: all before it is delivered ◀──────────┘
          └── failed: stop sending ─▶ all come back ─▶ pause ─▶ begin anew with the first

Brokers that are away are no failure: messages never time out, librdkafka keeps them in order and
sends them when it can. A message that Kafka will never take is looked for alone, tried
`forward_max_attempts` times and put aside. Whatever else fails is tried for ever.

This module must not know HTTP, nor the service.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any, NamedTuple

import gevent
from gevent.event import Event

from ingest.consuming_dead import DeadLetters
from ingest.consuming_loop import stored_at
from ingest.errors import IngestError
from ingest.followers import Followers, SharedReads
from ingest.handlers.consumers import Record
from ingest.journal.checkpoints import Checkpoints
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.sinks.forward_failures import code_of, is_poison, reason_of
from ingest.sinks.forward_reading import ForwardReader, Read
from ingest.sinks.forward_window import Failure, Part, Window
from ingest.sinks.kafka_producer import MESSAGE_BYTES, KafkaProducer
from ingest.sinks.routing import Route

log = get_logger(__name__)

NAME = "forward"
#: How often at most its place is put down.
SAVE_SECONDS = 1.0
#: How long it waits for anything before it looks whether there is something to do.
LOOK_SECONDS = 60.0
#: How often it looks whether the producer has room; most often a report tells.
ROOM_SECONDS = 0.1
#: Pause after a look into the journal that failed.
FAILED_SECONDS = 1.0
#: Pause after a message that was not delivered; it doubles each time.
BACKOFF_MIN_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 30.0


class Stopped(Exception):
    """The service ends."""


class Shared(NamedTuple):
    """What the partitions of a worker have in common.

    Attributes:
        routes: of the types that are forwarded.
        max_attempts: after which a message that is at fault is put aside; 0: never.
        producer: sends.
        metrics, threads, checkpoints, dead: as consumers have them.
        stopping: set when the service ends.
    """

    routes: Mapping[str, Route]
    max_attempts: int
    producer: KafkaProducer
    metrics: Metrics
    threads: SharedReads
    checkpoints: Checkpoints
    dead: DeadLetters
    stopping: Event


class Sent(NamedTuple):
    """Waits for the reports of a part."""

    partition: PartitionForwarder
    part: Part


class PartitionForwarder:
    """Forwards from `run` on until it is told to stop.

    Args:
        partition: of the journal.
        directory: of the partition.
        start: offset to begin with.
        end: the journal's next offset.
        followers: tell of commits.
        shared: what it has in common with others.

    Attributes:
        partition, directory: as given.
    """

    def __init__(
        self,
        partition: int,
        directory: Path,
        start: int,
        end: Callable[[], int],
        followers: Followers,
        shared: Shared,
    ) -> None:
        self.partition = partition
        self.directory = directory
        self._end = end
        self._followers = followers
        self._shared = shared
        self._producer = shared.producer
        self._stopping = shared.stopping
        self._reader = ForwardReader(directory, shared.routes, start)
        self._window = Window(start)
        self._saved = start
        self._save_at = 0.0
        #: since when the journal cannot be read, in seconds since 1970
        self._blind_since: float | None = None
        #: set by reports
        self._moved = Event()
        #: the first record that was not delivered, until it is
        self._failed: Record | None = None
        self._attempts = 0
        #: records before this offset are sent one at a time
        self._single_until = start
        label = str(partition)
        metrics = shared.metrics
        self._delivered = metrics.forward_delivered.cell(label)
        self._retries = metrics.forward_retries.cell(label)
        self._dead_letters = metrics.forward_dead_letters.cell(label)
        self._missed = metrics.forward_missed_events.cell(label)
        self._checkpoint_failures = metrics.forward_checkpoint_failures.cell(label)

    # -- what it says of itself --------------------------------------------------------------

    @property
    def place(self) -> int:
        """All records before this offset are delivered, or need not be."""
        return self._window.place

    @property
    def lag_events(self) -> int:
        """Records between its place and the end of the journal."""
        return max(0, self._end() - self.place)

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest event that is not delivered, as far as it was read; where it cannot
        be read, how long that has been so."""
        oldest = self._window.oldest or self._failed
        since = self._blind_since if oldest is None else stored_at(oldest)
        return 0.0 if since is None else max(0.0, time() - since)

    # -- the greenlet ------------------------------------------------------------------------

    def run(self) -> None:
        """Forward; returns when the service ends."""
        while not self._stopping.is_set():
            try:
                self._step()
            except Stopped:
                break
            except Exception:  # the disk, or a fault of ours: nothing is passed over
                self._checkpoint_failures.value += 1
                if self._blind_since is None:
                    self._blind_since = time()
                log.exception("forwarder.look_failed", partition=self.partition)
                self._reader.rewind(self._window.end)
                self._stopping.wait(FAILED_SECONDS)
        self._reader.close()

    def wake(self) -> None:
        """Let it look whether it is to stop."""
        self._moved.set()
        self._followers.wake()

    def _step(self) -> None:
        if self.place != self._saved and monotonic() >= self._save_at:
            self.save()
        window = self._window
        if window.failing or (window.in_flight and self._single):
            if window.in_flight:
                self._wait_for_reports(SAVE_SECONDS)
            elif window.failing:
                self._again(window.rewind())
            return
        commit = self._followers.next_commit
        end = self._end()
        if not self._reader.behind(end):
            if self._end() == end:
                busy = window.in_flight or self.place != self._saved
                self._followers.wait(commit, SAVE_SECONDS if busy else LOOK_SECONDS)
            return
        position = window.end
        read = self._shared.threads.run(self._reader.read, end, self._single)
        self._blind_since = None
        self._tell(read)
        self._send(read)
        if read.next_offset == position:
            self._stopping.wait(FAILED_SECONDS)  # files change under it

    @property
    def _single(self) -> bool:
        """Whether one message at a time is on its way, as one of these is at fault."""
        return self._window.end < self._single_until

    def _tell(self, read: Read) -> None:
        """Of what is not sent."""
        for gap in read.gaps:
            self._missed.value += gap.records
            log.error("forwarder.gap", partition=self.partition, **gap._asdict())
        for record, error in read.broken:
            self._put_aside(record, error, 1)

    # -- sending -----------------------------------------------------------------------------

    def _send(self, read: Read) -> None:
        if read.records:
            self._wait_for_room(read.size + MESSAGE_BYTES * len(read.records))
        part = self._window.add(read.records, read.next_offset)
        if read.records:
            made: Any = read.made
            self._producer.send_many(made, Sent(self, part), _yield_turn)

    def _wait_for_room(self, size: int) -> None:
        while not self._stopping.is_set():
            try:
                self._producer.judge(size)
            except IngestError:
                self._wait_for_reports(ROOM_SECONDS)
            else:
                return
        raise Stopped

    def _wait_for_reports(self, seconds: float) -> None:
        self._moved.clear()
        if not self._stopping.is_set():
            self._moved.wait(seconds)

    def delivered(self, part: Part, failures: Mapping[int, Any] | None) -> None:
        """All of a part is reported; called on the hub."""
        self._window.settle(part, failures)
        self._delivered.value += len(part.records) - len(failures or ())
        failed = self._failed
        if failed is not None and self.place > failed.offset:
            self._failed = None
            self._attempts = 0
        self._moved.set()
        if failures:
            self._followers.wake()

    # -- what is not delivered ---------------------------------------------------------------

    def _again(self, failure: Failure) -> None:
        """Begin anew with what was not delivered, after a pause, or put it aside."""
        record, error, until = failure
        known = self._failed is not None and self._failed.offset == record.offset
        self._attempts = self._attempts + 1 if known else 1
        self._failed = record
        self._retries.value += 1
        reason = reason_of(error, self._producer.troubles.last)
        log.warning(
            "forwarder.not_delivered",
            partition=self.partition,
            offset=record.offset,
            code=code_of(error),
            reason=reason.detail,
            attempt=self._attempts,
        )
        next_offset = record.offset
        if is_poison(error):
            alone = record.offset < self._single_until
            self._single_until = max(self._single_until, until)
            if alone and 0 < self._shared.max_attempts <= self._attempts:
                self._put_aside(record, reason, self._attempts)
                next_offset += 1
                self._failed = None
        self._window.pass_over(next_offset)
        self._reader.rewind(next_offset)
        if self._failed is not None:
            self._stopping.wait(_pause(self._attempts))

    def _put_aside(self, record: Record, error: Exception, attempts: int) -> None:
        """Make it a dead letter, whatever that takes.

        Raises:
            Stopped: the service ends.
        """
        while not self._stopping.is_set():
            try:
                self._shared.dead.put(self.partition, record, error, attempts)
            except IngestError as problem:
                log.error("forwarder.dead_letter_failed", reason=problem.detail)
                self._stopping.wait(FAILED_SECONDS)
                continue
            self._dead_letters.value += 1
            log.error(
                "forwarder.dead_letter",
                partition=self.partition,
                offset=record.offset,
                reason=str(error),
                attempts=attempts,
            )
            return
        raise Stopped

    # -- its place ---------------------------------------------------------------------------

    def save(self) -> None:
        """Put the place down; when that fails it is tried again when it is next due.

        Not while `run` does the same."""
        place = self.place
        if place == self._saved:
            return
        self._save_at = monotonic() + SAVE_SECONDS
        try:
            self._shared.threads.run(self._shared.checkpoints.save, NAME, self.partition, place)
        except OSError as error:
            self._checkpoint_failures.value += 1
            log.error("forwarder.checkpoint_failed", partition=self.partition, error=str(error))
        else:
            self._saved = place


def _pause(attempts: int) -> float:
    """Seconds before the next attempt."""
    longest = min(BACKOFF_MAX_SECONDS, BACKOFF_MIN_SECONDS * 2.0 ** min(attempts - 1, 30))
    return longest * random.uniform(0.5, 1.0)


def _yield_turn() -> None:
    gevent.sleep(0)
