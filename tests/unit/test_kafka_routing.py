"""Where the events of a type go, and what contradicts itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ingest.registry import EventType, Registry
from ingest.settings import Settings
from ingest.sinks.routing import conflicts, route_of

KAFKA = Settings(kafka_brokers="kafka:9092")


def type_of(directory: Path, options: dict[str, Any], name: str = "order") -> EventType:
    (directory / f"{name}.json").write_text(json.dumps({"x-ingest": options}))
    return Registry.load(directory).types[name]


def test_events_stay_in_the_journal_unless_something_says_otherwise(tmp_path: Path) -> None:
    route = route_of(type_of(tmp_path, {}), KAFKA)
    assert (route.journaled, route.kafka, route.remote, route.forwarded) == (
        True,
        False,
        False,
        False,
    )


@pytest.mark.parametrize(
    ("sink", "ack", "journaled", "remote", "forwarded"),
    [
        ("kafka", "remote", False, True, False),
        (["journal", "kafka"], "remote", True, True, False),
        ("kafka", "fsync", True, False, True),
        (["journal", "kafka"], "write", True, False, True),
        ({"kafka": {}}, "remote", False, True, False),
    ],
)
def test_sink_and_ack_say_together_who_has_events_and_when_they_are_answered(
    tmp_path: Path, sink: Any, ack: str, journaled: bool, remote: bool, forwarded: bool
) -> None:
    for options, settings in (
        ({"sink": sink, "ack": ack}, KAFKA),
        ({"sink": sink}, replace(KAFKA, ack=ack)),
    ):
        route = route_of(type_of(tmp_path, options), settings)
        assert (route.journaled, route.remote, route.forwarded) == (journaled, remote, forwarded)
        assert route.kafka
        assert conflicts([type_of(tmp_path, options)], settings) == []


def test_settings_are_for_types_that_say_nothing(tmp_path: Path) -> None:
    settings = replace(KAFKA, sink="kafka", ack="remote", kafka_mode="structured")
    route = route_of(type_of(tmp_path, {}), settings)
    assert (route.remote, route.topic, route.mode) == (True, "events.order", "structured")
    assert not route_of(type_of(tmp_path, {"sink": "journal", "ack": "fsync"}), settings).kafka


def test_a_type_chooses_its_topic_key_and_mode(tmp_path: Path) -> None:
    own = {"kafka": {"topic": "shop.{type}.v2", "key": "/customer", "mode": "structured"}}
    route = route_of(type_of(tmp_path, {"sink": own, "ack": "remote"}), KAFKA)
    assert (route.topic, route.key, route.mode) == ("shop.order.v2", "/customer", "structured")


def test_refused_events_have_a_topic_where_they_are_kept_and_one_is_named(tmp_path: Path) -> None:
    settings = replace(KAFKA, kafka_rejected_topic="rejected.{type}")
    kept, dropped = type_of(tmp_path, {"on_reject": "keep"}), type_of(tmp_path, {}, "other")
    assert route_of(kept, settings).rejected_topic == "rejected.order"
    assert route_of(kept, KAFKA).rejected_topic is None
    assert route_of(dropped, settings).rejected_topic is None


@pytest.mark.parametrize(
    ("options", "settings", "place", "words"),
    [
        ({"sink": "kafka"}, Settings(), "sink", "sink kafka needs the setting kafka_brokers"),
        ({}, Settings(sink="kafka"), "sink", "the setting sink kafka needs the setting"),
        (
            {"on_reject": "keep"},
            Settings(kafka_rejected_topic="r"),
            "on_reject",
            "kafka_rejected_topic needs the setting kafka_brokers",
        ),
        ({"ack": "remote"}, KAFKA, "ack", "ack remote needs the sink kafka"),
        ({}, replace(KAFKA, ack="remote"), "ack", "the setting ack remote needs the sink kafka"),
        (
            {"ack": "remote", "sink": ["journal", "kafka"], "dedupe": "cloudevents"},
            KAFKA,
            "dedupe",
            "does not go with ack remote",
        ),
        (
            {"ack": "remote", "sink": "kafka", "retention": "1d"},
            KAFKA,
            "retention",
            "none of these",
        ),
        (
            {"sink": {"kafka": {"topic": "x" * 246 + "{type}"}}},
            KAFKA,
            "sink",
            "has 251 characters; Kafka takes 249",
        ),
    ],
)
def test_what_contradicts_itself_is_named_with_its_place(
    tmp_path: Path, options: dict[str, Any], settings: Settings, place: str, words: str
) -> None:
    (found,) = conflicts([type_of(tmp_path, options)], settings)
    assert (found.file, found.pointer) == ("schemas/order.json", f"/x-ingest/{place}")
    assert words in found.message


def test_a_consumer_of_events_that_the_journal_does_not_have_is_a_conflict(tmp_path: Path) -> None:
    alone = type_of(tmp_path, {"ack": "remote", "sink": "kafka"})
    (found,) = conflicts([alone], KAFKA, {"order"})
    assert "handlers/order.py has a consume(events)" in found.message
    both = type_of(tmp_path, {"ack": "remote", "sink": ["journal", "kafka"]})
    assert conflicts([both], KAFKA, {"order"}) == []
