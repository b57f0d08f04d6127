"""The brokers that other tests rely on: what was acknowledged survives one of them."""

from __future__ import annotations

from typing import Any

from ops.kafka.cluster import Cluster


def produce(kafka: Cluster, topic: str, values: list[bytes]) -> list[Any]:
    from confluent_kafka import Producer

    errors: list[Any] = []
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(60) == 0
    return errors


def consume(kafka: Cluster, topic: str, count: int) -> list[bytes]:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "test"})
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in range(3)])
    found: list[bytes] = []
    while len(found) < count:
        messages = consumer.consume(count - len(found), 30)
        assert messages, f"{len(found)} of {count}"
        found += [message.value() for message in messages if message.error() is None]
    consumer.close()
    return found


def test_what_brokers_have_acknowledged_survives_the_loss_of_a_leader(kafka: Cluster) -> None:
    kafka.topic("survives", partitions=3)
    before = [b"before %d" % n for n in range(300)]
    assert set(produce(kafka, "survives", before)) == {None}
    leader = kafka.leaders("survives")[0]
    kafka.kill(leader)
    kafka.wait_for_leaders("survives", 3, but=leader)
    after = [b"after %d" % n for n in range(300)]
    assert set(produce(kafka, "survives", after)) == {None}
    kafka.start(leader)
    assert sorted(consume(kafka, "survives", 600)) == sorted(before + after)
