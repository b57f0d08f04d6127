"""A plain producer loop: what the gateway's way to Kafka is compared with.

    python -m ops.bench.kafka_plain BROKERS SECONDS FILE      messages/s as a line of JSON

It sends the lines of a file in turn, each as the message that the gateway makes of it in binary
mode, with the gateway's settings of librdkafka, and counts delivery reports.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from ingest.sinks.kafka_settings import KafkaSettings

HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_source", b"/ingest"),
    ("ce_type", b"metrics"),
    ("ce_time", b"2026-11-23T01:02:03.456Z"),
    ("content-type", b"application/json"),
    ("ce_dataschema", b"/v1/schemas/metrics?version=1"),
]
#: Between two looks at the clock and calls of poll.
AT_ONCE = 1000


def main(brokers: str, seconds: float, file: Path) -> None:
    lines = file.read_bytes().splitlines()
    # librdkafka's own bounds: a loop that knows no other one needs them
    own = {"queue.buffering.max.messages": 100_000, "queue.buffering.max.kbytes": 1 << 16}
    producer = Producer({**KafkaSettings(brokers).configuration(), **own})
    delivered = failed = 0

    def report(error: Any, _: Any) -> None:
        nonlocal delivered, failed
        if error is None:
            delivered += 1
        else:
            failed += 1

    def send(until: float) -> None:
        while time.perf_counter() < until:
            for line in lines[:AT_ONCE]:
                headers = [("ce_id", b"01a208e9-db98-705e-98ba-26b901e42000"), *HEADERS]
                while True:
                    try:
                        producer.produce("plain", line, on_delivery=report, headers=headers)
                        break
                    except BufferError:
                        producer.poll(0.01)
            producer.poll(0)
        producer.flush()

    send(time.perf_counter() + 1)  # warm
    delivered = 0
    started = time.perf_counter()
    send(started + seconds)
    took = time.perf_counter() - started
    print(json.dumps({"messages_per_second": delivered / took, "failures": failed}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))
