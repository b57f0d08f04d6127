"""librdkafka's pretended brokers in a process of their own: they cost little and store nothing.

    python -m ops.bench.kafka_brokers       prints their address, and ends with its input

What is measured against them is a producer, not Kafka.
"""

import sys

from confluent_kafka import Producer

if __name__ == "__main__":
    producer = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = producer.list_topics(timeout=30).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    sys.stdin.read()
