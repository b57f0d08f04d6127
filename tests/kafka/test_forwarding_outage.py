"""The journal answers while three real brokers are away and the gateway is killed; nothing is lost.

Brokers are away for 8 s and the gateway is killed 3 times; KAFKA_OUTAGE_SECONDS=60 and
KAFKA_OUTAGE_KILLS=10 for what docs/kafka.md reports.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from ops.kafka.cluster import Cluster
from tests.support.gateway import Gateway
from tests.support.kafka_load import in_a_thread
from tests.support.mock_kafka import Message, consume, stored
from tests.support.waiting import until

OUTAGE_SECONDS = float(os.environ.get("KAFKA_OUTAGE_SECONDS", "8"))
KILLS = int(os.environ.get("KAFKA_OUTAGE_KILLS", "3"))
CLIENTS = 64
#: A client's pause between two requests: 64 of them send up to about 3,000 events a second.
PAUSE_SECONDS = 0.02
SCHEMA = {"required": ["client", "n"], "x-ingest": {"sink": {"kafka": {"key": "/client"}}}}
PARTITIONS = 6
LAG = 'ingest_forward_lag_events{partition="0"}'


@pytest.fixture
def gateway(kafka: Cluster, tmp_path: Path) -> Iterator[Gateway]:
    (tmp_path / "schemas").mkdir()
    for name in ("outage", "narrow"):
        (tmp_path / "schemas" / f"{name}.json").write_text(json.dumps(SCHEMA))
    running = Gateway(
        tmp_path / "data", "--kafka-brokers", kafka.bootstrap, "--queue-delay-max", "0",
        cwd=tmp_path,
    )  # fmt: skip
    yield running.start()
    running.stop()
    assert "Traceback" not in running.log()


class Load:
    """Clients that send one event after the other, whoever is killed meanwhile."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        #: id → client and number, of what was answered 202
        self.accepted: dict[str, tuple[int, int]] = {}
        self.refused: list[tuple[int, bytes]] = []
        #: requests that had no answer because the gateway was killed
        self.cut = 0
        self._ending = False
        self._greenlets = [gevent.spawn(self._run, number) for number in range(CLIENTS)]

    def end(self) -> None:
        self._ending = True
        gevent.joinall(self._greenlets, timeout=60, raise_error=True)
        assert all(greenlet.dead for greenlet in self._greenlets)

    def more(self, count: int) -> None:
        """Wait until so many more have been answered."""
        wanted = len(self.accepted) + count
        until(lambda: len(self.accepted) >= wanted or self.refused)

    def _run(self, client: int) -> None:
        n = 0
        while not self._ending:
            try:
                with self._gateway.connect() as connection:
                    while not self._ending:
                        n += 1
                        body = b'{"client":%d,"n":%d}' % (client, n)
                        answer = connection.request(
                            "POST", "/v1/events/outage", body, {"Content-Type": "application/json"}
                        )
                        if answer.status == 202:
                            self.accepted[answer.json()["id"]] = client, n
                        else:
                            self.refused.append((answer.status, answer.body))
                        time.sleep(PAUSE_SECONDS)
            except (OSError, EOFError):
                self.cut += 1
                time.sleep(PAUSE_SECONDS)


def once_each(found: list[Message]) -> dict[str, tuple[int, int]]:
    """What a consumer that knows ids keeps: the first of each, in order by client."""
    kept: dict[str, tuple[int, int]] = {}
    numbers: dict[int, list[int]] = defaultdict(list)
    for message in found:
        event = json.loads(message.value)
        place = event["client"], event["n"]
        if message.id in kept:
            assert kept[message.id] == place, "an id stands for two events"
            continue
        kept[message.id] = place
        numbers[event["client"]].append(event["n"])
    for client, sent in numbers.items():
        assert sent == sorted(set(sent)), f"client {client}: not in order, or with two ids"
    return kept


def test_brokers_away_and_the_gateway_killed_lose_nothing_and_fail_no_request(
    kafka: Cluster, gateway: Gateway
) -> None:
    in_a_thread(kafka.topic, "events.outage", PARTITIONS)
    load = Load(gateway)
    load.more(500)
    began = time.monotonic()
    for number in kafka.numbers:
        kafka.kill(number)
    for kill in range(KILLS):
        load.more(500)
        lag = gateway.metric(LAG)
        assert lag > 0
        gateway.kill()
        gateway.start()
        assert gateway.metric(LAG) >= lag - 500, f"life {kill}: the backlog is known at once"
        until(lambda n=kill + 1: time.monotonic() - began > n * OUTAGE_SECONDS / (KILLS + 1))
    until(lambda: time.monotonic() - began > OUTAGE_SECONDS)
    load.more(1)
    behind = gateway.metric(LAG)
    for number in kafka.numbers:
        kafka.start(number, wait=False)
    for number in kafka.numbers:
        in_a_thread(kafka.wait, number)
    load.more(200)
    load.end()
    until(lambda: gateway.metric(LAG) == 0, timeout=120)
    drained = time.monotonic() - began
    assert load.refused == []
    count: Any = in_a_thread(stored, kafka.bootstrap, "events.outage")
    found = consume(kafka.bootstrap, "events.outage", count)
    kept = once_each(found)
    missing = load.accepted.items() - kept.items()
    assert not missing, f"{len(missing)} of {len(load.accepted)} are not there"
    assert len(kept) - len(load.accepted) <= load.cut
    sys.stdout.write(
        f"\naccepted {len(load.accepted)}, refused 0, cut by kills {load.cut}, "
        f"lag at the brokers' return {behind:.0f}, messages {len(found)}, "
        f"repeated {len(found) - len(kept)}, drained {drained:.1f} s after they went\n"
    )


def test_a_topic_that_takes_small_batches_only_loses_what_is_too_large_alone(
    kafka: Cluster, gateway: Gateway
) -> None:
    in_a_thread(
        lambda: kafka.topic("events.narrow", 1, **{"max.message.bytes": "20000"}),
    )
    numbers = range(300)
    lines = [json.dumps({"client": 1, "n": n, "s": os.urandom(100).hex()}) for n in numbers]
    lines[150] = json.dumps({"client": 1, "n": 150, "s": os.urandom(20_000).hex()})
    answer = gateway.request(
        "POST", "/v1/events/narrow", "\n".join(lines).encode(),
        {"Content-Type": "application/x-ndjson"},
    )  # fmt: skip
    ids = answer.json()["ids"]
    until(lambda: gateway.metric(LAG) == 0)
    found = consume(kafka.bootstrap, "events.narrow", len(ids) - 1)
    kept = once_each(found)
    assert list(kept) == ids[:150] + ids[151:]
    assert gateway.metric('ingest_forward_dead_letters_total{partition="0"}') == 1
    assert gateway.stop() == 0
    assert [event["id"] for event in gateway.journal("--dead")] == [ids[150]]
