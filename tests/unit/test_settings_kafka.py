"""What the settings about Kafka take, and what they refuse because it would break the promise."""

from __future__ import annotations

import pytest

from ingest.settings import Settings, SettingsError
from ingest.settings_kafka import (
    DENIED,
    check_brokers,
    check_topic,
    check_topic_or_off,
    parse_properties,
    topic_of,
)


def resolve(file: str | None = None, env: dict[str, str] | None = None, **flags: str) -> Settings:
    return Settings.resolve(flags, env or {}, file, "ingest.yaml")


def problems(file: str | None = None, env: dict[str, str] | None = None, **flags: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        resolve(file, env, **flags)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "text",
    ["none", "kafka:9092", "kafka", "a-1.example:9092,b:1", "[::1]:9092", "SSL://a:9093, b:9093"],
)
def test_brokers_are_a_list_of_addresses(text: str) -> None:
    check_brokers(text)


@pytest.mark.parametrize("text", ["", "a:b", "a:9092;b:9092", "a,,b", "a/b", "a:123456"])
def test_what_is_no_list_of_brokers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="list of brokers"):
        check_brokers(text)


@pytest.mark.parametrize(
    "text", ["events.{type}", "events", "{type}", "a_b-c.{type}.v1", "x" * 249]
)
def test_topics_may_have_the_type_in_them(text: str) -> None:
    check_topic(text)
    check_topic_or_off(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a b", "a/b", "events.{kind}", "{type", "x" * 250])
def test_what_kafka_takes_for_no_topic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a topic"):
        check_topic(text)


def test_a_topic_that_is_too_long_with_its_type_is_refused() -> None:
    assert topic_of("events.{type}", "order") == "events.order"
    with pytest.raises(ValueError, match="has 250 characters; Kafka takes 249"):
        topic_of("x" * 240 + "{type}", "0123456789")


def test_properties_are_pairs_in_which_a_comma_may_stand_behind_a_backslash() -> None:
    text = r"linger.ms=5, sasl.mechanism=PLAIN,sasl.password=a\,b=c\\d"
    assert parse_properties(text) == {
        "linger.ms": "5",
        "sasl.mechanism": "PLAIN",
        "sasl.password": r"a,b=c\d",
    }
    assert parse_properties("none") == {}


@pytest.mark.parametrize("name", sorted(DENIED))
def test_what_would_break_the_promise_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=f"must not set {name}: ") as caught:
        parse_properties(f"linger.ms=1,{name}=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("dr_msg_cb=x", "a function"),
        ("error_cb=x", "a function"),
        ("test.mock.num.brokers=3", "pretended broker"),
        ("partitioner=random", "order of events with the same key"),
        ("linger.ms", "must be none or properties"),
        ("Linger=5", "must be none or properties"),
        ("linger.ms=1,linger.ms=2", "names linger.ms twice"),
    ],
)
def test_wrong_properties_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_properties(text)


def test_properties_come_as_a_map_or_line_by_line_or_as_a_text() -> None:
    wanted = {"linger.ms": "5", "sasl.password": r"a,b\c", "debug": "broker,security"}
    as_map = r"""
kafka:
  linger.ms: 5
  sasl.password: a,b\c
  debug: broker,security
"""
    by_line = (
        "kafka.linger.ms: 5\nack: write\n"
        "kafka.sasl.password: a,b\\c\nkafka.debug: broker,security\n"
    )
    text = r"linger.ms=5,sasl.password=a\,b\\c,debug=broker\,security"
    for settings in (
        resolve(as_map),
        resolve(by_line),
        resolve(env={"INGEST_KAFKA": text}),
        resolve(kafka=text),
        resolve(f"kafka: '{text}'\n"),
    ):
        assert parse_properties(settings.kafka) == wanted


def test_a_wrong_property_is_named_and_no_value_is() -> None:
    wrong = "kafka:\n  sasl.password: hunter2\n  acks: 1\n"
    assert problems(wrong) == [
        "ingest.yaml:1: kafka must not set acks: it is always so: all replicas in sync have what "
        "is answered 2xx"
    ]
    assert "hunter2" not in repr(resolve(env={"INGEST_KAFKA": "sasl.password=hunter2"}))
    by_line = "kafka.acks: 1\n"
    assert problems(by_line)[0].startswith("ingest.yaml:1: kafka must not set acks")
    assert "hunter2" not in str(problems(env={"INGEST_KAFKA": "sasl.password=hunter2,acks=0"}))
    assert problems("kafka.sasl:\n  password: x\n") == [
        "ingest.yaml:1: kafka.sasl must be one plain value"
    ]
    assert problems("backlog.x: 1\n") == [
        "ingest.yaml:1: 'backlog.x' is no setting; did you mean backlog?"
    ]
