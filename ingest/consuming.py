"""Consumers of a worker: one greenlet for each type with a `consume` and each partition.

    journal.on_commit ─▶ Followers ─▶ Consumer (greenlet) ─▶ consume(events)
                                         │ ▲
                     native threads  ◀───┘ │   read, decode, checkpoint
                                  data/dead ◀── what cannot be processed

A worker consumes the partition it writes. Partitions that are left from a time with more
workers are shared out among those there are, until they are read to their end.

This module must not know requests or answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.pool import Group

from ingest import consumers
from ingest.consumers import Switch
from ingest.consuming_attempts import Shared
from ingest.consuming_dead import DeadLetters
from ingest.consuming_lag import Ruler, followed_by
from ingest.consuming_loop import Consumer
from ingest.followers import Followers, SharedReads
from ingest.handlers.loader import Handler
from ingest.journal.checkpoints import CheckpointBroken, Checkpoints
from ingest.journal.storage import Storage
from ingest.logs import get_logger
from ingest.metrics import Metrics

if TYPE_CHECKING:
    from ingest.settings import Settings

log = get_logger(__name__)

PREFIX = "consume-"
#: Longest type name that a checkpoint's name can hold beside the prefix.
TYPE_MAX_CHARACTERS = 56
#: How often it is looked up how many bytes consumers are behind.
LAG_SECONDS = 1.0
#: What a killed call of consume() gets to clean up after itself.
KILL_SECONDS = 1.0


def checkpoint_name(type_name: str) -> str:
    """The name of a type's checkpoint; of one whose name is too long, with its hash."""
    if len(type_name) <= TYPE_MAX_CHARACTERS:
        return PREFIX + type_name
    return f"{PREFIX}{type_name[:39]}-{sha256(type_name.encode()).hexdigest()[:16]}"


class Consumers:
    """Starts and ends the consumers of a worker.

    Args:
        handlers: all of the worker's; those with a `consume` count.
        partition: that the worker writes.
        workers: how many there are.
        settings, metrics: the worker's.
        next_offset: of the worker's partition.
        followers: tell of commits to it.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        partition: int,
        workers: int,
        settings: Settings,
        metrics: Metrics,
        next_offset: Callable[[], int],
        followers: Followers,
    ) -> None:
        data = Path(settings.data)
        self._handlers = [h for h in handlers.values() if h.consume is not None]
        self._partition = partition
        self._workers = workers
        self._next_offset = next_offset
        self._followers = followers
        self._journal = data / "journal"
        self._shared = Shared(
            settings,
            metrics,
            SharedReads(),
            Checkpoints(data / "checkpoints", Storage()),
            DeadLetters(data / "dead", partition, settings),
            Event(),
        )
        self._switches = {h.type: Switch(h.type, metrics) for h in self._handlers}
        self._consumers: list[Consumer] = []
        self._greenlets: dict[Consumer, gevent.Greenlet] = {}
        self._helpers = Group()
        self._dead_lent = False

    def lend_dead_letters(self) -> DeadLetters:
        """Where events are put aside, for someone else; open from `open` to `stop`."""
        self._dead_lent = True
        return self._shared.dead

    # -- life --------------------------------------------------------------------------------

    def open(self) -> None:
        """Find where each consumer goes on; blocks. After the journal's recovery.

        Raises:
            OSError: files cannot be read or written; `filename` says which.
        """
        if self._partition == 0:
            self._look_for_strangers()
        if self._handlers or self._dead_lent:
            self._shared.dead.open()
        if not self._handlers:
            return
        for number, _, end, followers in followed_by(
            self._partition, self._workers, self._journal, self._next_offset, self._followers
        ):
            for handler in self._handlers:
                self._add(handler, number, end, followers)

    def start(self) -> None:
        """Begin to consume."""
        consumers.install(self._switches)
        if self._consumers or self._dead_lent:
            self._shared.dead.start()
        if not self._consumers:
            return
        for consumer in self._consumers:
            log.info(
                "consumer.started",
                type=consumer.type,
                partition=consumer.partition,
                offset=consumer.place,
                lag_events=consumer.lag_events,
            )
            self._greenlets[consumer] = gevent.spawn(consumer.run)
        self._helpers.spawn(self._measure)

    def request_stop(self) -> None:
        """Give out no further batch; returns at once."""
        self._shared.stopping.set()
        for switch in self._switches.values():
            switch.release()
        for consumer in self._consumers:
            consumer.wake()

    def stop(self, timeout_seconds: float) -> None:
        """Wait for the calls of consume() that run, put down where each consumer is.

        Args:
            timeout_seconds: after it, calls that still run are killed; their events come
                again at the next start.
        """
        self.request_stop()
        gevent.joinall(list(self._greenlets.values()), timeout_seconds)
        self.hurry()
        for consumer, greenlet in self._greenlets.items():
            greenlet.join(KILL_SECONDS)
            if greenlet.dead:
                consumer.save()
            else:
                log.error("consumer.stuck", type=consumer.type, partition=consumer.partition)
        self._helpers.kill()
        if self._consumers or self._dead_lent:
            self._shared.dead.close(KILL_SECONDS)
        if all(greenlet.dead for greenlet in self._greenlets.values()):
            self._shared.threads.close()

    def hurry(self) -> None:
        """Kill the calls of consume() that run, if it is stopping."""
        if not self._shared.stopping.is_set():
            return
        for consumer, greenlet in self._greenlets.items():
            if consumer.calling and not greenlet.dead:
                log.warning("consumer.killed", type=consumer.type, partition=consumer.partition)
                greenlet.kill(block=False)

    # -- where they begin --------------------------------------------------------------------

    def _add(
        self,
        handler: Handler,
        number: int,
        end: Callable[[], int],
        followers: Followers,
    ) -> None:
        name = checkpoint_name(handler.type)
        self._consumers.append(
            Consumer(
                handler,
                name,
                number,
                self._journal / str(number),
                self._start_of(name, number, end()),
                end,
                followers,
                self._shared,
                self._switches[handler.type],
            )
        )

    def _start_of(self, name: str, number: int, end: int) -> int:
        """Where a consumer goes on; put down anew where it is not what is put down.

        A crash of the machine may have taken records that were only written (`ack: write`)
        and not what was put down behind them: their offsets are given to new events.
        """
        try:
            start = self._shared.checkpoints.load(name, number)
        except CheckpointBroken as broken:
            log.error("consumer.checkpoint_broken", reason=str(broken))
            start, known = 0, None
        else:
            known = start
        if start is None:
            start = end if self._shared.settings.consume_from == "end" else 0
        if start > end:
            log.warning("consumer.checkpoint_ahead", name=name, partition=number, offset=start)
            start = end
        if start != known:
            self._shared.checkpoints.save(name, number, start)
        return start

    def _look_for_strangers(self) -> None:
        """Tell of checkpoints whose consumer is gone: they keep files from being removed."""
        known = {checkpoint_name(handler.type) for handler in self._handlers}
        for name in self._shared.checkpoints.names():
            if name.startswith(PREFIX) and name not in known:
                log.warning("consumer.checkpoint_without_consumer", name=name)

    # -- how far behind they are ---------------------------------------------------------------

    def _measure(self) -> None:
        """Show each second what is between the consumers and the end."""
        rulers = [Ruler(Storage(), consumer.directory) for consumer in self._consumers]
        for name in self._switches:
            self._show(name, [c for c in self._consumers if c.type == name])
        while not self._shared.stopping.is_set():
            behind = dict.fromkeys(self._switches, 0)
            for consumer, ruler in zip(self._consumers, rulers, strict=True):
                if consumer.lag_events:
                    behind[consumer.type] += self._bytes_behind(consumer, ruler)
            for name, size in behind.items():
                self._shared.metrics.consumer_lag_bytes.cell(name).value = size
            self._shared.stopping.wait(LAG_SECONDS)

    def _bytes_behind(self, consumer: Consumer, ruler: Ruler) -> int:
        try:
            behind: int = self._shared.threads.run(ruler.bytes_behind, consumer.place)
        except FileNotFoundError:  # compressed or removed meanwhile: it is looked at again soon
            return 0
        except OSError as error:
            self._shared.metrics.consumer_checkpoint_failures.cell(consumer.type).value += 1
            log.error("consumer.lag_unknown", type=consumer.type, error=str(error))
            return 0
        return behind

    def _show(self, name: str, those: list[Consumer]) -> None:
        metrics = self._shared.metrics
        # There before the first one, so that its increase is seen.
        for family in (
            metrics.consumer_events,
            metrics.consumer_dead_letters,
            metrics.consumer_missed_events,
        ):
            family.cell(name)
        metrics.consumer_lag_events.cell(name).set_function(
            lambda: sum(consumer.lag_events for consumer in those)
        )
        metrics.consumer_lag_seconds.cell(name).set_function(
            lambda: max(consumer.lag_seconds for consumer in those)
        )
