"""`ack: remote` on three real brokers, of which one is killed and leaders move, twice.

20,000 events; REMOTE_EVENTS=200000 for what docs/kafka.md reports.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.kafka.cluster import Cluster
from tests.support.gateway import Gateway
from tests.support.kafka_load import Clients, in_a_thread, judge
from tests.support.mock_kafka import consume
from tests.support.waiting import until

EVENTS = int(os.environ.get("REMOTE_EVENTS", "20000"))
CLIENTS = 64
SCHEMA = {
    "required": ["client", "n"],
    "x-ingest": {"sink": {"kafka": {"key": "/client"}}, "ack": "remote"},
}


@pytest.fixture
def gateway(kafka: Cluster, tmp_path: Path) -> Iterator[Gateway]:
    (tmp_path / "schemas").mkdir()
    for name in ("numbered", "held"):
        (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps(SCHEMA))
    running = Gateway(
        tmp_path / "data", "--kafka-brokers", kafka.bootstrap, "--kafka-delivery-timeout", "60s",
        "--queue-delay-max", "0", "--kafka-unready-after", "1s", cwd=tmp_path,
    )  # fmt: skip
    yield running.start()
    running.stop()
    assert "Traceback" not in running.log()


def leaders(kafka: Cluster, topic: str) -> dict[int, int]:
    found: Any = in_a_thread(kafka.leaders, topic)
    return dict(found)


def led_by_others(kafka: Cluster, topic: str, partitions: int, but: int) -> bool:
    found = leaders(kafka, topic)
    return len(found) == partitions and but not in found.values()


def elect_preferred(kafka: Cluster, topic: str, partitions: int) -> None:
    """Let those lead again that led at first."""
    from confluent_kafka import ElectionType, TopicPartition

    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    in_a_thread(kafka.admin.elect_leaders(ElectionType.PREFERRED, wanted).result, 30)


def test_every_2xx_is_in_the_topic_once_and_in_order_while_brokers_die_and_leaders_move(
    kafka: Cluster, gateway: Gateway
) -> None:
    topic, partitions = "events.numbered", 6
    kafka.topic(topic, partitions)
    clients = Clients(gateway, "numbered", CLIENTS, EVENTS, stages=5)
    for _ in range(2):
        until(lambda: clients.sent_share(0.3))
        leader = leaders(kafka, topic)[0]
        kafka.kill(leader)
        until(lambda gone=leader: led_by_others(kafka, topic, partitions, gone))
        clients.next_stage()
        until(lambda: clients.sent_share(0.3))
        kafka.start(leader)
        elect_preferred(kafka, topic, partitions)
        clients.next_stage()
    clients.join(timeout=90)
    assert clients.refused == []
    assert len(clients.accepted) >= EVENTS * 0.99
    found = consume(kafka.bootstrap, topic, len(clients.accepted))
    judge(clients.accepted, found)
    assert gateway.metric('ingest_kafka_delivered_total{producer="remote"}') == len(found)
    assert gateway.request("GET", "/readyz").status == 200


def test_while_too_few_replicas_are_in_sync_nothing_is_answered_2xx(
    kafka: Cluster, gateway: Gateway
) -> None:
    topic = "events.held"
    kafka.topic(topic, 1)
    leader = leaders(kafka, topic)[0]
    others = [number for number in kafka.numbers if number != leader]
    assert gateway.post("/v1/events/held", {"client": 1, "n": 0}).status == 202
    for number in others:
        kafka.pause(number)
    try:
        with gateway.connect(timeout=90) as client:
            body = b'{"client":1,"n":1}'
            client.send(
                b"POST /v1/events/held HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            until(lambda: gateway.request("GET", "/readyz").status == 503)
            assert gateway.metric('ingest_kafka_inflight_messages{producer="remote"}') == 1
            for number in others:
                kafka.resume(number)
            others = []
            assert client.answer().status == 202
    finally:
        for number in others:
            kafka.resume(number)
    assert [m.json()["n"] for m in consume(kafka.bootstrap, topic, 2)] == [0, 1]
    until(lambda: gateway.request("GET", "/readyz").status == 200)
