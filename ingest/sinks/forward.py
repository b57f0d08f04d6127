"""The forwarder of a worker: brings events from the journal to Kafka after they were answered.

    journal.on_commit ─▶ Followers ─▶ PartitionForwarder (greenlet) ─▶ KafkaProducer ─▶ brokers
                                          │ ▲
                      native threads  ◀───┘ │   read, make messages, checkpoint
                                    data/dead ◀── what Kafka will never take

A worker forwards the partition it writes, and its share of those that are left from a time with
more workers. The checkpoint keeps retention from what is not forwarded yet.

This module must not know requests or answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from ingest.consuming_dead import DeadLetters
from ingest.consuming_lag import Followed, Ruler, followed_by
from ingest.followers import Followers, SharedReads
from ingest.journal.checkpoints import CheckpointBroken, Checkpoints
from ingest.journal.storage import Storage
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.sinks.forward_partition import NAME, PartitionForwarder, Sent, Shared
from ingest.sinks.kafka_producer import KafkaProducer
from ingest.sinks.kafka_reports import Reports
from ingest.sinks.kafka_settings import KafkaSettings
from ingest.sinks.routing import Route

if TYPE_CHECKING:
    from ingest.settings import Settings

log = get_logger(__name__)

#: A message must not be given up while brokers are away, or those behind it would pass it: it is
#: tried as long as librdkafka can count, which is 24 days, and then read from the journal again.
DELIVERY_SECONDS = 2_147_483.0
#: What may be on its way; more would not make it faster.
INFLIGHT_MAX_BYTES = 16 << 20
#: How often it is looked up how many bytes are not forwarded.
LAG_SECONDS = 1.0
#: How long the end waits while nothing is being delivered, and how often it looks.
STALLED_SECONDS = 2.0
LOOK_SECONDS = 0.05


class Forwarder:
    """Starts and ends the forwarding of partitions.

    Args:
        settings, metrics: the worker's.
        kafka: of the sink.
        routes: of the types that are forwarded, by name.
        worker: its number.
        workers: how many there are.
        next_offset: of the worker's partition.
        followers: tell of commits to it.
        dead: takes messages that Kafka will never take.

    Raises:
        KafkaUnusable: librdkafka does not take the settings, or is not there.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        kafka: KafkaSettings,
        routes: Mapping[str, Route],
        worker: int,
        workers: int,
        next_offset: Callable[[], int],
        followers: Followers,
        dead: DeadLetters,
    ) -> None:
        data = Path(settings.data)
        inflight = min(kafka.inflight_max_bytes, INFLIGHT_MAX_BYTES)
        patient = replace(
            kafka, delivery_timeout_seconds=DELIVERY_SECONDS, inflight_max_bytes=inflight
        )
        self._worker = worker
        self._workers = workers
        self._next_offset = next_offset
        self._followers = followers
        self._journal = data / "journal"
        self._lag_limit = settings.forward_unready_lag_seconds
        self._shared = Shared(
            routes,
            settings.forward_max_attempts,
            KafkaProducer(patient, metrics, _delivered, "forward"),
            metrics,
            SharedReads(),
            Checkpoints(data / "checkpoints", Storage()),
            dead,
            Event(),
        )
        self._partitions: list[PartitionForwarder] = []
        self._greenlets: list[gevent.Greenlet] = []

    # -- life --------------------------------------------------------------------------------

    def open(self) -> None:
        """Find where each partition goes on; blocks. After the journal's recovery.

        Raises:
            OSError: files cannot be read or written; `filename` says which.
        """
        for followed in followed_by(
            self._worker, self._workers, self._journal, self._next_offset, self._followers
        ):
            start = self._start_of(followed)
            self._partitions.append(
                PartitionForwarder(
                    followed.number,
                    followed.directory,
                    start,
                    followed.end,
                    followed.followers,
                    self._shared,
                )
            )

    def start(self) -> None:
        """Begin to forward."""
        self._shared.producer.start()
        for forwarder in self._partitions:
            self._show(forwarder)
            log.info(
                "forwarder.started",
                partition=forwarder.partition,
                offset=forwarder.place,
                lag_events=forwarder.lag_events,
            )
            self._greenlets.append(gevent.spawn(forwarder.run))
        self._greenlets.append(gevent.spawn(self._measure))

    def stop(self, timeout_seconds: float) -> None:
        """Send nothing more, wait for what is on its way, put down where it is.

        Args:
            timeout_seconds: after it, what is still on its way is left to the next start.
        """
        deadline = monotonic() + timeout_seconds
        self._shared.stopping.set()
        for forwarder in self._partitions:
            forwarder.wake()
        gevent.joinall(self._greenlets, timeout_seconds)
        self._flush(deadline)
        self._shared.producer.close(0.0)
        if not all(greenlet.dead for greenlet in self._greenlets):
            log.error("forwarder.stuck")
            return
        for forwarder in self._partitions:
            forwarder.save()
            log.info(
                "forwarder.stopped",
                partition=forwarder.partition,
                offset=forwarder.place,
                lag_events=forwarder.lag_events,
            )
        self._shared.threads.close()

    def _flush(self, deadline: float) -> None:
        """Wait for reports, as long as any come."""
        producer = self._shared.producer
        left, since = producer.outstanding_messages, monotonic()
        while left and monotonic() < min(deadline, since + STALLED_SECONDS):
            gevent.sleep(LOOK_SECONDS)
            if producer.outstanding_messages != left:
                left, since = producer.outstanding_messages, monotonic()

    # -- where it begins ---------------------------------------------------------------------

    def _start_of(self, followed: Followed) -> int:
        """Where a partition goes on; put down anew where it is not what is put down.

        Whoever forwards for the first time begins with what comes from now on. As for consumers, a
        crash of the machine may have taken records that were only written (`ack: write`).
        """
        number, end = followed.number, followed.end()
        checkpoints = self._shared.checkpoints
        try:
            start = known = checkpoints.load(NAME, number)
        except CheckpointBroken as broken:
            log.error("forwarder.checkpoint_broken", reason=str(broken))
            start, known = 0, None
        if start is None:
            start = end
        if start > end:
            log.warning("forwarder.checkpoint_ahead", partition=number, offset=start)
            start = end
        if start != known:
            checkpoints.save(NAME, number, start)
        return start

    # -- how far behind it is ----------------------------------------------------------------

    def behind(self) -> str | None:
        """Why /readyz is to be red, or None."""
        lag = max((forwarder.lag_seconds for forwarder in self._partitions), default=0.0)
        if lag > self._lag_limit:
            return f"the oldest event that is not in Kafka is {lag:.0f} s old"
        return None

    def _show(self, forwarder: PartitionForwarder) -> None:
        metrics, label = self._shared.metrics, str(forwarder.partition)
        metrics.forward_lag_events.cell(label).set_function(lambda: forwarder.lag_events)
        metrics.forward_lag_seconds.cell(label).set_function(lambda: forwarder.lag_seconds)
        metrics.forward_lag_bytes.cell(label).value = 0

    def _measure(self) -> None:
        """Show each second how many bytes are not forwarded."""
        rulers = [Ruler(Storage(), forwarder.directory) for forwarder in self._partitions]
        while not self._shared.stopping.is_set():
            for forwarder, ruler in zip(self._partitions, rulers, strict=True):
                cell = self._shared.metrics.forward_lag_bytes.cell(str(forwarder.partition))
                cell.value = self._bytes_behind(forwarder, ruler) if forwarder.lag_events else 0
            self._shared.stopping.wait(LAG_SECONDS)

    def _bytes_behind(self, forwarder: PartitionForwarder, ruler: Ruler) -> int:
        try:
            behind: int = self._shared.threads.run(ruler.bytes_behind, forwarder.place)
        except FileNotFoundError:  # compressed or removed meanwhile: it is looked at again soon
            return 0
        except OSError as error:
            label = str(forwarder.partition)
            self._shared.metrics.forward_checkpoint_failures.cell(label).value += 1
            log.error("forwarder.lag_unknown", partition=forwarder.partition, error=str(error))
            return 0
        return behind


def warn_of_a_checkpoint_without_forwarder(data: Path) -> None:
    """Nothing is forwarded, and what once was keeps files from being removed: tell so."""
    if NAME in Checkpoints(data / "checkpoints", Storage()).names():
        log.warning("forwarder.checkpoint_without_forwarder", name=NAME)


def _delivered(reports: Reports) -> None:
    for sent, failures in reports:
        assert type(sent) is Sent
        sent.partition.delivered(sent.part, failures)
