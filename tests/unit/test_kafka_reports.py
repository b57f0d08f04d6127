"""Reports of librdkafka are collected: one waiter for many messages is told once, and truly."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.errors import CATALOGUE, IngestError
from ingest.sinks.kafka_errors import ANSWERS, failure_of
from ingest.sinks.kafka_reports import Collected, Ended, Many


class Topic:
    topic = "t"

    def message(self, raw: bytes) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
        return raw[:1], raw, [("ce_id", b"whatever")]


class Sent:
    """A message as a report names it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def topic(self) -> str:
        return "t"

    def key(self) -> bytes:
        return self._raw[:1]

    def value(self) -> bytes:
        return self._raw


def many(*raws: bytes) -> tuple[Many, Collected]:
    collected = Collected()
    collected.room = 1000
    source: Any = Topic()
    return Many([(source, raw) for raw in raws], "waiter", collected), collected


def test_a_call_of_poll_ends_when_it_has_brought_as_much_as_it_may() -> None:
    collected = Collected()
    collected.room = 2
    collected.one(("a", 10, 1, 0.0, None), None, None)
    with pytest.raises(Ended):
        collected.one(("b", 20, 1, 0.0, None), "error", None)
    assert [report[0] for report in collected.take()] == ["a", "b"]
    assert collected.take() == []


def test_many_are_told_when_the_last_is_reported_after_all_were_sent() -> None:
    found, collected = many(b"1", b"2", b"3")
    found.report(None, Sent(b"1"))
    found.report(None, Sent(b"2"))
    assert not found.sent()
    assert collected.reports == []
    found.report(None, Sent(b"3"))
    ((waiter, _, count, _, _),) = collected.take()
    assert (waiter, count, found.failures()) == (found, 3, None)


def test_many_that_are_all_reported_before_the_last_was_sent_are_told_by_who_sends() -> None:
    found, collected = many(b"1", b"2")
    found.report(None, Sent(b"1"))
    found.report(None, Sent(b"2"))
    assert collected.reports == []
    assert found.sent()


def test_messages_that_were_not_taken_are_not_waited_for() -> None:
    found, collected = many(b"1", b"2", b"3")
    refusal = IngestError("message_too_large")
    found.refused[1] = refusal
    found.report(None, Sent(b"1"))
    assert not found.sent()
    found.report("broken", Sent(b"3"))
    assert collected.take()[0][2] == 2
    assert found.failures() == {1: refusal, 2: "broken"}


def test_of_messages_that_are_alike_none_counts_as_delivered_when_one_failed() -> None:
    found, _ = many(b"same", b"other", b"same")
    assert not found.sent()
    found.report(None, Sent(b"same"))
    found.report(None, Sent(b"other"))
    found.report("broken", Sent(b"same"))
    assert found.failures() == {0: "broken", 2: "broken"}


class Fault:
    """An error of librdkafka."""

    def __init__(self, name: str, words: str = "librdkafka's words") -> None:
        self._name = name
        self._words = words

    def name(self) -> str:
        return self._name

    def str(self) -> str:
        return self._words


def test_every_error_of_librdkafka_has_an_answer_of_the_catalogue() -> None:
    for name, code in ANSWERS.items():
        assert code in CATALOGUE
        assert failure_of(Fault(name), None, "t").code == code
    assert failure_of(Fault("INVALID_RECORD"), None, "t").code == "sink_refused"


def test_librdkafka_knows_the_errors_that_have_an_answer() -> None:
    from confluent_kafka import KafkaError

    for name in ANSWERS:
        assert KafkaError(getattr(KafkaError, name)).name() == name


def test_a_message_that_timed_out_under_wrong_credentials_is_unauthorized() -> None:
    late = Fault("_MSG_TIMED_OUT")
    assert failure_of(late, Fault("_TRANSPORT")).code == "sink_unavailable"
    assert failure_of(late, Fault("_AUTHENTICATION")).code == "sink_unauthorized"
    alert = "Receive failed: error:0A000412: ssl/tls alert bad certificate: SSL alert number 42"
    assert failure_of(late, Fault("_TRANSPORT", alert)).code == "sink_unauthorized"
    assert failure_of(Fault("UNKNOWN_TOPIC_OR_PART"), Fault("_AUTHENTICATION")).code == (
        "unknown_topic"
    )
