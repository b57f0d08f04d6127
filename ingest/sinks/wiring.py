"""What a worker has for Kafka: made where a type or a setting asks for it, started, ended.

This module must not know HTTP, nor how an event is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.errors import IngestError
from ingest.followers import Followers
from ingest.metrics import Metrics
from ingest.registry import Registry
from ingest.settings import Settings
from ingest.sinks.forward import Forwarder, warn_of_a_checkpoint_without_forwarder
from ingest.sinks.kafka_producer import KafkaProducer
from ingest.sinks.kafka_reports import Reports
from ingest.sinks.kafka_settings import KafkaSettings
from ingest.sinks.rejected_topic import RejectedTopic, Told
from ingest.sinks.remote import Answers, Remote, Waiting
from ingest.sinks.routing import routes_of

if TYPE_CHECKING:
    from ingest.consuming import Consumers
    from ingest.health import Health
    from ingest.journal import Journal


class Sinks:
    """The sinks beside the journal.

    Args:
        settings: of the gateway.
        registry: the types.
        journal: has the events of some types, too.
        metrics: the worker's.

    Attributes:
        routes: where the events of each type go.
        remote: answers events when Kafka has them; None where no type wants that.
        forwarder: brings events from the journal to Kafka; None where no type wants that.
        mixed: whether the journal's commits are part of what some of them wait for.

    Raises:
        KafkaUnusable: librdkafka does not take the settings, or is not there.
    """

    def __init__(
        self, settings: Settings, registry: Registry, journal: Journal, metrics: Metrics
    ) -> None:
        self.routes = routes_of(registry.types.values(), settings)
        self._settings = KafkaSettings.of(settings)
        self._metrics = metrics
        self.remote: Remote | None = None
        self.forwarder: Forwarder | None = None
        self._lag_limit = settings.forward_unready_lag_seconds
        self._data = Path(settings.data)
        remote = [route for route in self.routes.values() if route.remote]
        #: makes what takes refused events; None where they stay here
        self.new_rejected: Callable[[Told], RejectedTopic] | None = None
        if any(route.rejected_topic is not None for route in self.routes.values()):
            self.new_rejected = partial(
                RejectedTopic,
                self._settings,
                settings.rejected_pending_max_bytes,
                self.routes,
                metrics,
            )
        if remote:
            self.remote = Remote(remote, self._new_producer, journal)
        # A batch of CloudEvents may hold events for the journal beside those for Kafka.
        self.mixed = bool(remote) and any(route.journaled for route in self.routes.values())

    def _new_producer(self, on_delivered: Callable[[Reports], None]) -> KafkaProducer:
        return KafkaProducer(self._settings, self._metrics, on_delivered, "remote")

    @property
    def journaled(self) -> bool:
        """Whether the journal has the events of any type."""
        return any(route.journaled for route in self.routes.values())

    def serve(
        self, targets: Mapping[str, Any], answers: Answers, yield_turn: Callable[[], None]
    ) -> None:
        """Take the events of the types that are answered when Kafka has them.

        Args:
            targets: the types as the pipeline needs them; these get their sink.
            answers: told what became of them.
            yield_turn: lets others run.
        """
        if self.remote is None:
            return
        self.remote.answers = answers
        self.remote.yield_turn = yield_turn
        for name, sink in self.remote.sinks.items():
            if name in targets:
                targets[name].answer_from(sink)

    def changes(self, registry: Registry, settings: Settings) -> list[str]:
        """Types whose way to Kafka is another one there, which takes a restart."""
        wanted = routes_of(registry.types.values(), settings)
        return [
            name
            for name, route in wanted.items()
            if route != self.routes.get(name, route._replace(kafka=False, rejected_topic=None))
            and any(r.kafka or r.rejected_topic for r in (route, self.routes.get(name, route)))
        ]

    def follow(self, registry: Registry, settings: Settings) -> None:
        """The types are these now; none of them has changed its way to Kafka."""
        self.routes = routes_of(registry.types.values(), settings)
        self.mixed = self.remote is not None and self.journaled

    def forward(
        self,
        settings: Settings,
        worker: int,
        workers: int,
        next_offset: Callable[[], int],
        followers: Followers,
        consumers: Consumers,
    ) -> None:
        """Forward the events of the types that want it; see `Forwarder`.

        Args:
            consumers: have dead letters.

        Raises:
            KafkaUnusable: librdkafka does not take the settings, or is not there.
        """
        routes = {name: route for name, route in self.routes.items() if route.forwarded}
        if routes:
            self.forwarder = Forwarder(
                settings,
                self._metrics,
                self._settings,
                routes,
                worker,
                workers,
                next_offset,
                followers,
                consumers.lend_dead_letters(),
            )
        elif worker == 0:
            warn_of_a_checkpoint_without_forwarder(self._data)

    def open(self) -> None:
        """Find where it goes on; blocks. After the journal's recovery.

        Raises:
            OSError: files cannot be read or written; `filename` says which.
        """
        if self.forwarder is not None:
            self.forwarder.open()

    def add_checks(self, health: Health) -> None:
        """Let /readyz say when nothing can be delivered."""
        if self.remote is not None:
            health.add("kafka", {"ready"}, self.remote.producer.healthy)
        if self.forwarder is not None and self._lag_limit:
            health.add("forwarder", {"ready"}, self.forwarder.behind)

    def start(self) -> None:
        """Before the first event."""
        if self.remote is not None:
            self.remote.producer.start()

    def stop_forwarding(self, timeout: float) -> None:
        """Wait for what was forwarded and is on its way, so many seconds at most."""
        if self.forwarder is not None:
            self.forwarder.stop(timeout)

    def committed(self, waiters: list[Any], error: IngestError | None) -> list[Any]:
        """Tell those that wait for more than the journal; returns the others."""
        assert self.remote is not None
        others = []
        for waiter in waiters:
            if type(waiter) is Waiting:
                self.remote.committed(waiter, error)
            else:
                others.append(waiter)
        return others

    def close(self, timeout: float) -> None:
        """Wait for what is on its way.

        Args:
            timeout: seconds.
        """
        if self.remote is not None:
            self.remote.producer.close(timeout)
