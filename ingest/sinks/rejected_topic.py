"""Refused events in Kafka: what `kafka_rejected_topic` puts in the place of data/rejected.

For whoever keeps refused events it stands where the rejected journal does. It has a producer of
its own, so that a flood of bad events does not take the room of good ones. Nobody waits for it.

This module must not know HTTP, nor why an event was refused.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ingest.errors import IngestError
from ingest.journal.record import IdSource
from ingest.metrics import Metrics
from ingest.sinks.kafka_errors import failure_of
from ingest.sinks.kafka_messages import Messages, parted
from ingest.sinks.kafka_producer import KafkaProducer
from ingest.sinks.kafka_reports import Reports
from ingest.sinks.kafka_settings import KafkaSettings
from ingest.sinks.routing import Route

Told = Callable[[list[Any], IngestError | None], None]


class RejectedTopic:
    """Sends the records of refused events to the topic of their type.

    Args:
        settings: of Kafka.
        pending_max_bytes: what may wait for the brokers; beyond it events are dropped.
        routes: of the types whose refused events are kept.
        metrics: the worker's.
        told: called with waiters and the error that befell their events, or None.

    Raises:
        KafkaUnusable: librdkafka does not take the settings, or is not there.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        pending_max_bytes: int,
        routes: Mapping[str, Route],
        metrics: Metrics,
        told: Told,
    ) -> None:
        self.id_source = IdSource(time.time, random.SystemRandom().getrandbits)
        self._told = told
        self._topics = {
            name: (route.rejected_topic, Messages(route.mode, route.key))
            for name, route in routes.items()
            if route.rejected_topic is not None
        }
        bounded = replace(settings, inflight_max_bytes=pending_max_bytes)
        self._producer = KafkaProducer(bounded, metrics, self._delivered, "rejected")

    def start(self) -> None:
        """Before the first event."""
        self._producer.start()

    def close(self, timeout: float) -> bool:
        """Wait for what is on its way, so many seconds at most."""
        return self._producer.close(timeout)

    def append(self, lines: bytes, count: int, waiter: Any, sync: bool = True) -> None:
        """Take the record of one event.

        Raises:
            IngestError: it is not taken.
        """
        line = lines[:-1]
        topic, messages = self._topics[parted(line)[0]["type"]]
        self._producer.produce(topic, *messages.any_message(line), (waiter, topic))

    def _delivered(self, reports: Reports) -> None:
        kept = [waiter for (waiter, _), error in reports if error is None]
        if kept:
            self._told(kept, None)
        for (waiter, topic), error in reports:
            if error is not None:
                self._told([waiter], failure_of(error, self._producer.trouble, topic))
