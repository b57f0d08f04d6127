"""Events that the journal answered for reach Kafka. Against librdkafka's pretended brokers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.mock_kafka import Message, MockBrokers, consume, stored
from tests.support.waiting import until

NDJSON = {"Content-Type": "application/x-ndjson"}
KEYED = {"kafka": {"key": "/user"}}
TYPES: dict[str, dict[str, Any]] = {
    "keyed": {"sink": KEYED},
    "whole": {"sink": ["journal", {"kafka": {"mode": "structured"}}], "ack": "write"},
    "local": {},
    "remote": {"sink": ["journal", "kafka"], "ack": "remote"},
}
LAG = 'ingest_forward_lag_%s{partition="%d"}'


@pytest.fixture(scope="module")
def brokers() -> Iterator[MockBrokers]:
    with MockBrokers() as running:
        yield running


Make = Callable[..., Gateway]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make gateways on one data directory; what they log has no fault of ours."""
    made: list[Gateway] = []
    (tmp_path / "schemas").mkdir()
    for name, options in TYPES.items():
        schema = {"required": ["n"], "x-ingest": options}
        (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps(schema))

    def new(addresses: str, prefix: str, *flags: str) -> Gateway:
        gateway = Gateway(
            tmp_path / "data", "--kafka-brokers", addresses,
            "--kafka-topic", f"{prefix}.{{type}}", *flags, cwd=tmp_path,
        )  # fmt: skip
        made.append(gateway)
        return gateway

    yield new
    for gateway in made:
        gateway.stop()
        assert "Traceback" not in gateway.log()


def send(gateway: Gateway, type_name: str, numbers: range, **more: Any) -> list[str]:
    """Their ids."""
    lines = [json.dumps({"n": n, "user": f"u{n % 7}", **more}) for n in numbers]
    body = "\n".join(lines).encode()
    answer = gateway.request("POST", f"/v1/events/{type_name}", body, NDJSON)
    assert answer.status == 202, answer.body
    ids: list[str] = answer.json()["ids"]
    return ids


def forwarded(gateway: Gateway, partition: int = 0) -> bool:
    return gateway.metric(LAG % ("events", partition)) == 0


def first_of_each(messages: list[Message]) -> list[Message]:
    return list({message.id: message for message in reversed(messages)}.values())[::-1]


def test_events_arrive_in_order_with_their_ids_and_only_those_of_forwarded_types(
    brokers: MockBrokers, make: Make
) -> None:
    gateway = make(brokers.addresses, "order").start()
    ids: list[str] = []
    for start in range(0, 2000, 100):
        ids += send(gateway, "keyed", range(start, start + 100))
        send(gateway, "local", range(3))
    whole = gateway.post("/v1/events/whole", {"n": 1}).json()["id"]
    both = gateway.post("/v1/events/remote", {"n": 2}).json()["id"]
    until(lambda: forwarded(gateway))
    found = consume(brokers.addresses, "order.keyed", 2000)
    assert sorted(message.id for message in found) == sorted(ids)
    for key in {message.key for message in found}:
        of_key = [m.json()["n"] for m in found if m.key == key]
        assert of_key == sorted(of_key) and len(of_key) > 200
    assert found[0].headers["ce_type"] == b"keyed"
    (message,) = consume(brokers.addresses, "order.whole", 1)
    assert message.json()["id"] == whole
    assert stored(brokers.addresses, "order.remote") == 1
    assert [m.id for m in consume(brokers.addresses, "order.remote", 1)] == [both]
    assert gateway.metric('ingest_forward_delivered_total{partition="0"}') == 2001
    until(lambda: gateway.metric(LAG % ("bytes", 0)) == 0)
    assert gateway.metric(LAG % ("seconds", 0)) == 0
    assert len(gateway.journal()) == 2000 + 60 + 2


def test_a_gateway_that_is_killed_again_and_again_loses_nothing_and_repeats_by_id_only(
    brokers: MockBrokers, make: Make
) -> None:
    gateway = make(brokers.addresses, "killed")
    ids: list[str] = []
    for life in range(3):
        gateway.start()
        for start in range(0, 1000, 100):
            ids += send(gateway, "keyed", range(1000 * life + start, 1000 * life + start + 100))
        if life < 2:
            gateway.kill()
    until(lambda: forwarded(gateway))
    assert gateway.stop() == 0
    found = consume(brokers.addresses, "killed.keyed", stored(brokers.addresses, "killed.keyed"))
    assert {message.id for message in found} == set(ids)
    once = first_of_each(found)
    for key in {message.key for message in once}:
        of_key = [m.json()["n"] for m in once if m.key == key]
        assert of_key == sorted(of_key)
    gateway.start()
    ids += send(gateway, "keyed", range(5000, 5001))
    until(lambda: forwarded(gateway))
    # What was delivered before it ended in peace is not sent again.
    assert gateway.metric('ingest_forward_delivered_total{partition="0"}') == 1


def test_while_brokers_hang_no_request_fails_and_the_lag_grows_and_drains(make: Make) -> None:
    with MockBrokers() as brokers:
        gateway = make(
            brokers.addresses, "away", "--forward-unready-lag", "500ms", "--kafka-inflight-max",
            "64KiB",
        ).start()  # fmt: skip
        ids = send(gateway, "keyed", range(10))
        until(lambda: forwarded(gateway))
        assert gateway.request("GET", "/readyz").status == 200
        brokers.hold()
        for start in range(10, 2010, 100):
            ids += send(gateway, "keyed", range(start, start + 100))
        until(lambda: gateway.metric(LAG % ("events", 0)) == 2000)
        until(lambda: gateway.metric(LAG % ("bytes", 0)) > 2000 * 200)
        until(lambda: gateway.request("GET", "/readyz").status == 503)
        assert b"not in Kafka" in gateway.request("GET", "/readyz?verbose").body
        assert gateway.metric(LAG % ("seconds", 0)) > 0.5
        assert gateway.metric('ingest_kafka_inflight_bytes{producer="forward"}') < 1 << 20
        brokers.go_on()
        until(lambda: forwarded(gateway))
        until(lambda: gateway.request("GET", "/readyz").status == 200)
        found = first_of_each(consume(brokers.addresses, "away.keyed", 2010))
        assert {message.id for message in found} == set(ids)
        for key in {message.key for message in found}:
            of_key = [m.json()["n"] for m in found if m.key == key]
            assert of_key == sorted(of_key)


def test_what_was_not_forwarded_is_kept_by_retention_and_sent_by_the_next_start(
    make: Make,
) -> None:
    flags = (
        "--segment-max", "64KiB", "--segment-compress-after", "0", "--retention-max", "20KiB",
        "--disk-reserve", "0",
    )  # fmt: skip
    with MockBrokers() as brokers:
        gateway = make(brokers.addresses, "kept", *flags).start()
        ids = send(gateway, "keyed", range(10))
        until(lambda: forwarded(gateway))
        brokers.hold()
        for start in range(10, 2010, 100):
            ids += send(gateway, "keyed", range(start, start + 100))
        blocked = 'ingest_journal_retention_blocked_segments{journal="journal"}'
        until(lambda: gateway.metric(blocked) >= 3)
        # Brokers that hang do not hold up the end.
        assert gateway.stop() == 0
        assert len(gateway.journal()) >= 2000
        brokers.go_on()
        gateway.start()
        until(lambda: forwarded(gateway))
        found = consume(brokers.addresses, "kept.keyed", 2010)
        assert set(ids) <= {message.id for message in found}
        until(lambda: gateway.metric(blocked) == 0)
        until(lambda: len(gateway.journal()) < 2000)


def test_a_message_that_kafka_never_takes_is_put_aside_and_blocks_nobody(
    brokers: MockBrokers, make: Make
) -> None:
    gateway = make(brokers.addresses, "large", "--kafka", "message.max.bytes=3000").start()
    ids = send(gateway, "keyed", range(50))
    large = [*send(gateway, "keyed", range(50, 52), s="x" * 4000)]
    ids += send(gateway, "keyed", range(52, 100))
    until(lambda: forwarded(gateway))
    found = consume(brokers.addresses, "large.keyed", 98)
    assert {message.id for message in found} == set(ids)
    assert gateway.metric('ingest_forward_dead_letters_total{partition="0"}') == 2
    assert gateway.metric('ingest_forward_retries_total{partition="0"}') >= 5
    assert gateway.stop() == 0
    dead = gateway.journal("--dead")
    assert [event["id"] for event in dead] == large
    assert "too large" in dead[0]["ingestdeaderror"].lower()
    assert dead[0]["ingestdeadattempts"] == 3


def test_partitions_of_workers_that_are_gone_are_forwarded_by_those_there_are(
    make: Make,
) -> None:
    with MockBrokers() as brokers:
        brokers.hold()
        gateway = make(brokers.addresses, "gone", "--workers", "2").start()
        ids: list[str] = []
        for start in range(0, 1000, 50):
            ids += send(gateway, "keyed", range(start, start + 50))
        partitions = [name for name in ("0", "1") if (gateway.data / "journal" / name).exists()]
        assert partitions == ["0", "1"]
        assert gateway.stop() == 0
        brokers.go_on()
        alone = make(brokers.addresses, "gone").start()
        until(lambda: forwarded(alone) and forwarded(alone, 1))
        found = consume(brokers.addresses, "gone.keyed", 1000)
        assert {message.id for message in found} == set(ids)


@pytest.mark.usefixtures("make")
def test_a_journal_that_cannot_be_read_is_behind_too(brokers: MockBrokers, tmp_path: Path) -> None:
    gateway = Gateway(
        tmp_path / "data", "--kafka-brokers", brokers.addresses, "--kafka-topic", "blind.{type}",
        cwd=tmp_path,
    ).start()  # fmt: skip
    try:
        ids = send(gateway, "keyed", range(10))
        until(lambda: forwarded(gateway))
        partition = tmp_path / "data" / "journal" / "0"
        aside = partition.rename(tmp_path / "aside")
        ids += send(gateway, "keyed", range(10, 20))
        until(lambda: gateway.metric(LAG % ("seconds", 0)) > 0.2)
        assert gateway.metric('ingest_forward_checkpoint_failures_total{partition="0"}') >= 1
        aside.rename(partition)
        until(lambda: forwarded(gateway))
        assert gateway.metric(LAG % ("seconds", 0)) == 0
        assert {m.id for m in consume(brokers.addresses, "blind.keyed", 20)} == set(ids)
    finally:
        gateway.stop()
