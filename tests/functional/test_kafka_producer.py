"""The producer beside an event loop, against librdkafka's pretended brokers, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from ingest.errors import IngestError
from ingest.metrics import Metrics
from ingest.sinks.kafka_producer import MESSAGE_BYTES, TURN_REPORTS, KafkaProducer
from ingest.sinks.kafka_settings import KafkaSettings
from tests.support.mock_kafka import MockBrokers, consume
from tests.support.waiting import until


class Raw:
    """Messages as they are given."""

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def message(self, raw: bytes) -> tuple[bytes | None, bytes, list[tuple[str, bytes]]]:
        return None, raw, [("ce_id", raw)]


@pytest.fixture(scope="module")
def brokers() -> Iterator[MockBrokers]:
    with MockBrokers() as running:
        yield running


def no_turn() -> None:
    gevent.sleep(0)


class Told:
    """What `on_delivered` was called with, and how much at a time."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.reports: list[tuple[Any, Any]] = []

    def __call__(self, reports: list[tuple[Any, Any]]) -> None:
        self.calls.append(len(reports))
        self.reports += reports


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def producer(brokers: MockBrokers, told: Told) -> Iterator[KafkaProducer]:
    made = KafkaProducer(KafkaSettings(brokers.addresses), Metrics(), told, "remote")
    made.start()
    yield made
    made.close(10)


def test_each_waiter_is_told_once_and_no_turn_of_the_loop_takes_many_reports(
    brokers: MockBrokers, producer: KafkaProducer, told: Told
) -> None:
    for number in range(3000):
        producer.produce("each", None, b"%d" % number, [("ce_id", b"%d" % number)], number)
    assert producer.outstanding_messages == 3000
    assert producer.outstanding_bytes >= 3000 * MESSAGE_BYTES
    until(lambda: len(told.reports) == 3000)
    assert sorted(waiter for waiter, _ in told.reports) == list(range(3000))
    assert {error for _, error in told.reports} == {None}
    assert max(told.calls) <= TURN_REPORTS + 1  # and the one that the thread brought
    assert (producer.outstanding_messages, producer.outstanding_bytes) == (0, 0)
    assert len(consume(brokers.addresses, "each", 3000)) == 3000


def test_many_messages_with_one_waiter_are_reported_once(
    brokers: MockBrokers, producer: KafkaProducer, told: Told
) -> None:
    source = Raw("many")
    made = [(source, b"%d" % number) for number in range(2000)]
    made[7] = (source, b"x" * 2_000_000)
    producer.send_many(made, "waiter", no_turn)
    until(lambda: told.reports)
    ((waiter, failures),) = told.reports
    assert waiter == "waiter"
    assert list(failures) == [7] and failures[7].code == "message_too_large"
    assert (producer.outstanding_messages, producer.outstanding_bytes) == (0, 0)
    assert len(consume(brokers.addresses, "many", 1999)) == 1999


def test_where_none_of_many_is_taken_the_waiter_is_told_at_once(
    producer: KafkaProducer, told: Told
) -> None:
    producer.send_many([(Raw("none"), b"x" * 2_000_000)] * 2, "waiter", no_turn)
    ((_, failures),) = told.reports
    assert {number: error.code for number, error in failures.items()} == dict.fromkeys(
        (0, 1), "message_too_large"
    )


def test_what_waits_is_bounded_but_one_request_alone_always_goes(
    brokers: MockBrokers, told: Told
) -> None:
    settings = KafkaSettings(brokers.addresses, inflight_max_bytes=2000)
    producer = KafkaProducer(settings, Metrics(), told, "remote")
    producer.start()
    try:
        producer.produce("bounded", None, b"x" * 5000, [], 1)
        with pytest.raises(IngestError) as caught:
            producer.produce("bounded", None, b"x", [], 2)
        assert caught.value.code == "overloaded"
        until(lambda: told.reports)
        producer.produce("bounded", None, b"x", [], 3)
    finally:
        assert producer.close(10)
    assert [waiter for waiter, _ in told.reports] == [1, 3]
    with pytest.raises(IngestError) as caught:
        producer.produce("bounded", None, b"x", [], 4)
    assert caught.value.code == "draining"


def test_closing_gives_up_what_brokers_do_not_take_in_time(told: Told) -> None:
    with MockBrokers() as brokers:
        producer = KafkaProducer(KafkaSettings(brokers.addresses), Metrics(), told, "remote")
        producer.start()
        producer.produce("gone", None, b"1", [], 1)
        until(lambda: told.reports)
        brokers.hold()
        producer.produce("gone", None, b"2", [], 2)
        assert not producer.close(0.2)
        assert [waiter for waiter, _ in told.reports] == [1]
        brokers.go_on()


def test_after_a_fatal_error_the_producer_is_made_anew(producer: KafkaProducer, told: Told) -> None:
    from confluent_kafka import KafkaError

    producer.produce("anew", None, b"1", [], 1)
    producer.troubles.failed(KafkaError(KafkaError._FATAL, "an epoch that is gone", True))
    with pytest.raises(IngestError) as caught:
        producer.produce("anew", None, b"2", [], 2)
    assert caught.value.code == "sink_refused"
    assert producer.healthy() == "Kafka: an epoch that is gone"
    until(lambda: producer.troubles.fatal is None)
    producer.produce("anew", None, b"3", [], 3)
    until(lambda: len(told.reports) == 2)
    assert told.reports == [(1, None), (3, None)]
    assert producer.healthy() is None


def test_who_takes_reports_may_fail_and_the_next_ones_come_all_the_same(
    brokers: MockBrokers,
) -> None:
    metrics, found = Metrics(), []

    def fails_once(reports: list[tuple[Any, Any]]) -> None:
        found.extend(reports)
        if len(found) == len(reports):
            raise RuntimeError("a fault of ours")

    producer = KafkaProducer(KafkaSettings(brokers.addresses), metrics, fails_once, "remote")
    producer.start()
    try:
        producer.produce("failing", None, b"1", [], 1)
        until(lambda: found)
        producer.produce("failing", None, b"2", [], 2)
        until(lambda: len(found) == 2)
    finally:
        producer.close(10)
    assert metrics.unhandled_errors.cell("kafka").value == 1


def test_brokers_that_cannot_be_reached_are_said_until_they_can_be(told: Told) -> None:
    with MockBrokers() as brokers:
        settings = KafkaSettings(brokers.addresses, unready_after_seconds=0.05)
        metrics = Metrics()
        producer = KafkaProducer(settings, metrics, told, "remote")
        producer.start()
        try:
            until(lambda: producer.healthy() is None)
            brokers.hold()
            producer.produce("unreachable", None, b"1", [], 1)
            until(lambda: "nothing was delivered" in str(producer.healthy()))
            brokers.go_on()
            until(lambda: producer.healthy() is None)
            brokers.kill()
            until(lambda: producer.healthy() is not None)
            until(lambda: metrics.kafka_troubles.cell("_ALL_BROKERS_DOWN").value > 0)
        finally:
            producer.close(10)
