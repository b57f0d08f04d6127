"""librdkafka's own pretended brokers, in a process of their own: it can be held, and killed.

What they take lives in that process's memory. For what only real brokers show (replication, leaders
that move, rights), see ops/kafka and tests/kafka.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.support.waiting import LOOK_SECONDS, until

BROKERS = """
import sys
from confluent_kafka import Producer
mock = {"bootstrap.servers": "none", "test.mock.num.brokers": int(sys.argv[1]), "log_level": 0}
producer = Producer(mock)
brokers = producer.list_topics(timeout=30).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
sys.stdin.read()
"""


class Message(NamedTuple):
    """What a consumer got."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]

    @property
    def id(self) -> str:
        return self.headers["ce_id"].decode()

    def json(self) -> Any:
        return json.loads(self.value)


def _is_stopped(task: Path) -> bool:
    """Whether a thread is (proc_pid_stat(5): the state stands behind the name)."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


class MockBrokers:
    """Pretended brokers; `addresses` is what `kafka_brokers` takes."""

    def __init__(self, count: int = 1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", BROKERS, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.addresses = self._process.stdout.readline().decode().strip()
        assert self.addresses

    def __enter__(self) -> MockBrokers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def hold(self) -> None:
        """They answer nothing until `go_on`."""
        self._process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self._process.pid}/task")
        until(lambda: all(_is_stopped(task) for task in tasks.iterdir()))

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """They are gone, and so is what they took."""
        self._process.kill()
        self._process.wait()


def consume(addresses: str, topic: str, count: int, timeout: float = 60.0) -> list[Message]:
    """The first messages of a topic, in the order of each partition; fewer if no more come.

    Args:
        count: wait for so many.
        timeout: seconds.
    """
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": addresses, "group.id": "test", "log_level": 0})
    found: list[Message] = []
    deadline = time.monotonic() + timeout
    try:
        while not (
            partitions := consumer.list_topics(topic, timeout=timeout).topics[topic].partitions
        ):
            assert time.monotonic() < deadline, f"there is no topic {topic}"
            time.sleep(LOOK_SECONDS)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        while len(found) < count and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    headers = dict(message.headers() or ())
                    found.append(
                        Message(topic, message.partition(), message.key(), message.value(), headers)
                    )
    finally:
        consumer.close()
    return found


def stored(addresses: str, topic: str) -> int:
    """How many messages a topic holds."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": addresses, "group.id": "test", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        total = 0
        for number in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=60)
            total += high - low
        return total
    finally:
        consumer.close()
