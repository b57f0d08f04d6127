"""Where the events of each type go: what its `x-ingest` and the settings say together.

Whatever contradicts itself is found here, before the first event is. This module must not know
HTTP, nor how events are sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ingest.registry import EventType, SchemaProblem
from ingest.settings import Settings
from ingest.settings_kafka import topic_of
from ingest.type_options import KEYWORD, Sink

#: A key that is not a JSON Pointer.
SUBJECT = "subject"


class Route(NamedTuple):
    """Where the events of a type go.

    Attributes:
        name: the type's.
        ack: `fsync`, `write` or `remote`.
        journaled: the journal has them, be it on their way.
        kafka: they go to Kafka.
        topic: of their messages.
        key: `subject` or a JSON Pointer; None for messages without a key.
        mode: `binary` or `structured`.
        rejected_topic: where those that are refused go; None for the rejected journal.
    """

    name: str
    ack: str
    journaled: bool
    kafka: bool
    topic: str
    key: str | None
    mode: str
    rejected_topic: str | None

    @property
    def remote(self) -> bool:
        """They are answered when Kafka has them."""
        return self.ack == "remote"

    @property
    def forwarded(self) -> bool:
        """They are answered before that, and forwarded from the journal."""
        return self.kafka and not self.remote


def sink_of(event_type: EventType, settings: Settings) -> Sink:
    """Where the events of a type go."""
    own = event_type.options.sink
    names = settings.sink.split(",")
    return own if own is not None else Sink("journal" in names, "kafka" in names)


def route_of(event_type: EventType, settings: Settings) -> Route:
    """Where the events of a type go, and how.

    Raises:
        ValueError: a topic would have no name that Kafka takes.
    """
    name = event_type.name
    sink = sink_of(event_type, settings)
    ack = event_type.options.ack or settings.ack
    rejected = None
    if settings.kafka_rejected_topic != "off" and event_type.options.on_reject == "keep":
        rejected = topic_of(settings.kafka_rejected_topic, name)
    return Route(
        name,
        ack,
        sink.journal or ack != "remote",
        sink.kafka,
        topic_of(sink.topic or settings.kafka_topic, name),
        sink.key,
        sink.mode or settings.kafka_mode,
        rejected,
    )


def routes_of(types: Iterable[EventType], settings: Settings) -> dict[str, Route]:
    """Where the events of each type go; by its name. They do not contradict: see `conflicts`."""
    return {event_type.name: route_of(event_type, settings) for event_type in types}


def conflicts(
    types: Iterable[EventType], settings: Settings, consumers: Collection[str] = ()
) -> list[SchemaProblem]:
    """What contradicts itself.

    Args:
        consumers: names of types whose handler has a `consume`.
    """
    found = []
    for event_type in types:
        file = str(Path(settings.schemas) / event_type.path)
        for member, message in _conflicts_of(event_type, settings, consumers):
            found.append(SchemaProblem(file, f"/{KEYWORD}{member}", message))
    return found


def _conflicts_of(
    event_type: EventType, settings: Settings, consumers: Collection[str]
) -> Iterator[tuple[str, str]]:
    options = event_type.options
    try:
        route = route_of(event_type, settings)
    except ValueError as error:
        yield "/sink", str(error)
        return
    if settings.kafka_brokers == "none" and route.kafka:
        sink = "sink kafka" if options.sink else "the setting sink kafka"
        yield "/sink", f"{sink} needs the setting kafka_brokers"
    elif settings.kafka_brokers == "none" and route.rejected_topic:
        yield "/on_reject", "the setting kafka_rejected_topic needs the setting kafka_brokers"
    ack = "ack remote" if options.ack else "the setting ack remote"
    if route.remote and not route.kafka:
        yield "/ack", f"{ack} needs the sink kafka, and the sink is the journal"
    elif route.remote and options.dedupe.by != "none":
        yield (
            "/dedupe",
            f"does not go with {ack}: keys are remembered with the records of the journal; "
            "take ack fsync, and events are forwarded to Kafka",
        )
    elif not route.journaled:
        if options.retention != "default":
            yield (
                "/retention",
                f"is the journal's, and with sink kafka and {ack} it has none of these events; "
                "set the retention of the topic",
            )
        if event_type.name in consumers:
            yield (
                "/sink",
                f"handlers/{event_type.name}.py has a consume(events), which reads the journal, "
                f"and with sink kafka and {ack} that has none of these events; add the sink "
                "journal",
            )
