"""The consumer of one type in one partition: reads on, hands batches over, keeps its place.

    wait for a commit ─▶ read (native thread) ─▶ Attempts ─▶ place moves on ─┐
          ▲                                                                   │
          └──────────────── linger ◀── checkpoint, when one is due ◀──────────┘

It runs in a greenlet of its own: no request's slot is taken and no answer waits for it. How
far it has come is put down at most every `consume_checkpoint_seconds`, when it is paused and
at the end; what came after the last time is given again after a crash.

This module must not know the service or how events are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import monotonic, time

from ingest.consumers import Switch
from ingest.consuming_attempts import Attempts, Shared, Stopped
from ingest.consuming_batches import BatchReader, Fetched, Gap
from ingest.followers import Followers
from ingest.handlers.consumers import Record
from ingest.handlers.loader import Handler
from ingest.journal.record import head_of
from ingest.journal.storage import Storage
from ingest.logs import get_logger

log = get_logger(__name__)

#: Where only records of other types went by, the place is put down so often.
PASSED_SECONDS = 10.0
#: How long it waits for a commit before it looks whether it is due to do anything else.
LOOK_SECONDS = 60.0
#: Pause after a look into the journal that failed.
FAILED_SECONDS = 1.0


class Consumer:
    """Consumes from `run` on until it is told to stop.

    Args:
        handler: whose `consume` is called.
        name: of its checkpoint.
        partition: of the journal.
        directory: of the partition.
        start: offset to begin with.
        end: the journal's next offset.
        followers: tell of commits.
        shared: what it has in common with others.
        switch: pauses it.

    Attributes:
        type, partition, directory: as given.
        place: offset behind what it is done with.
    """

    def __init__(
        self,
        handler: Handler,
        name: str,
        partition: int,
        directory: Path,
        start: int,
        end: Callable[[], int],
        followers: Followers,
        shared: Shared,
        switch: Switch,
    ) -> None:
        settings = shared.settings
        self.type = handler.type
        self.partition = partition
        self.directory = directory
        self._name = name
        self._end = end
        self._linger = settings.consume_linger_seconds
        self._save_seconds = settings.consume_checkpoint_seconds
        self._metrics = shared.metrics
        self._threads = shared.threads
        self._checkpoints = shared.checkpoints
        self._stopping = shared.stopping
        self._followers = followers
        self._attempts = Attempts(handler, partition, shared, switch, self._done, self.save)
        self._reader = BatchReader(
            Storage(),
            directory,
            handler.type,
            start,
            settings.consume_batch_events_max,
            settings.consume_batch_max_bytes,
        )
        self.place = self._saved = start
        self._save_at: float | None = None
        self._hand: list[Record] = []

    # -- what it says of itself --------------------------------------------------------------

    @property
    def lag_events(self) -> int:
        """Records between its place and the end of the journal."""
        return max(0, self._end() - self.place)

    @property
    def lag_seconds(self) -> float:
        """Age of the oldest event in hand."""
        for record in self._hand:
            if record.offset >= self.place:
                return max(0.0, time() - stored_at(record))
        return 0.0

    @property
    def calling(self) -> bool:
        """Whether `consume` is running."""
        return self._attempts.calling

    def wake(self) -> None:
        """Let it look whether it is to stop."""
        self._followers.wake()

    # -- the greenlet ------------------------------------------------------------------------

    def run(self) -> None:
        """Consume; returns when the service ends."""
        while not self._stopping.is_set():
            try:
                self._step()
            except Stopped:
                break
            except Exception:  # the disk, or a fault of ours: nothing is passed over
                self._metrics.consumer_checkpoint_failures.cell(self.type).value += 1
                log.exception("consumer.look_failed", type=self.type, partition=self.partition)
                self._hand = []
                self._reader.rewind(self.place)
                self._stopping.wait(FAILED_SECONDS)
        self._reader.close()

    def _step(self) -> None:
        commit = self._followers.next_commit
        end = self._end()
        fetched = Fetched([], self.place, False, [])
        if self._reader.behind(end):
            fetched = self._threads.run(self._reader.fetch, end)
        for gap in fetched.gaps:
            self._missed(gap)
        if fetched.records:
            self._metrics.consumer_batch_events.observe(len(fetched.records))
            self._hand = fetched.records
            self._attempts.work(fetched.records)
            self._hand = []
        self._move(fetched.next_offset, PASSED_SECONDS)
        self._save_if_due()
        if fetched.full:
            return
        if self._reader.behind(end):
            self._stopping.wait(FAILED_SECONDS)  # files change under it
        elif self._end() == end:
            self._followers.wait(commit, self._seconds_to_save())
        if self._linger:
            self._stopping.wait(self._linger)

    def _missed(self, gap: Gap) -> None:
        self._metrics.consumer_missed_events.cell(self.type).value += gap.records
        log.error("consumer.gap", type=self.type, partition=self.partition, **gap._asdict())

    # -- its place ---------------------------------------------------------------------------

    def _done(self, offset: int) -> None:
        """All before it is done with."""
        self._move(offset, self._save_seconds)
        self._save_if_due()

    def _move(self, offset: int, save_within: float) -> None:
        if offset > self.place:
            self.place = offset
            due = monotonic() + save_within
            self._save_at = due if self._save_at is None else min(due, self._save_at)

    def _seconds_to_save(self) -> float:
        return LOOK_SECONDS if self._save_at is None else max(0.0, self._save_at - monotonic())

    def _save_if_due(self) -> None:
        if self._save_at is not None and monotonic() >= self._save_at:
            self.save()

    def save(self) -> None:
        """Put the place down; when that fails it is tried again when it is next due.

        Not while `run` does the same."""
        place = self.place
        if place == self._saved:
            return
        try:
            self._threads.run(self._checkpoints.save, self._name, self.partition, place)
        except OSError as error:
            self._save_at = monotonic() + max(self._save_seconds, FAILED_SECONDS)
            self._metrics.consumer_checkpoint_failures.cell(self.type).value += 1
            log.error(
                "consumer.checkpoint_failed",
                type=self.type,
                partition=self.partition,
                error=str(error),
            )
        else:
            self._saved = place
            self._save_at = None


def stored_at(record: Record) -> float:
    """Seconds since 1970 at which it was stored; now where that cannot be read."""
    head = head_of(record.line)
    try:
        assert head is not None
        text = head.stored_time.decode().replace("Z", "+00:00")
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time()
