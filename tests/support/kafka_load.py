"""Clients that send events with their number, and what a topic must then hold."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable

import gevent

from tests.support.gateway import Gateway
from tests.support.mock_kafka import Message
from tests.support.waiting import LOOK_SECONDS

#: Every other request of a client holds so many events, as NDJSON; the others hold one.
LINES = 10


class Clients:
    """So many clients that send events one request after the other, stage by stage.

    Args:
        gateway: takes them.
        type_name: of the events: `{"client": …, "n": …}`.
        count: how many clients.
        events: how many events they send in all stages together, about.
        stages: how many stages; each allows as many events as the others.
    """

    def __init__(
        self, gateway: Gateway, type_name: str, count: int, events: int, stages: int
    ) -> None:
        self.gateway = gateway
        self._path = f"/v1/events/{type_name}"
        self._share = events // count // stages
        self._stages = stages
        self.stage = 0
        #: id → client and number, of what was answered 2xx
        self.accepted: dict[str, tuple[int, int]] = {}
        self.refused: list[tuple[int, bytes]] = []
        self._greenlets = [gevent.spawn(self._run, number) for number in range(count)]
        self._count = count

    def sent_share(self, share: float) -> bool:
        """Whether such a share of the events of this stage has been answered."""
        wanted = (self.stage + share) * self._share * self._count
        return len(self.accepted) + len(self.refused) >= wanted

    def next_stage(self) -> None:
        """Let them go on."""
        self.stage += 1

    def join(self, timeout: float) -> None:
        """Wait until all have sent theirs; raises what one of them raised."""
        gevent.joinall(self._greenlets, timeout=timeout, raise_error=True)
        assert all(greenlet.dead for greenlet in self._greenlets), "they have not sent all"

    def _run(self, client: int) -> None:
        n = 0
        with self.gateway.connect(timeout=90) as connection:
            while n < self._share * self._stages:
                while n >= self._share * (self.stage + 1):
                    time.sleep(LOOK_SECONDS)
                events = LINES if n % (LINES + 1) else 1
                lines = [b'{"client":%d,"n":%d}' % (client, n + i) for i in range(events)]
                media = "application/x-ndjson" if events > 1 else "application/json"
                answer = connection.request(
                    "POST", self._path, b"\n".join(lines), {"Content-Type": media}
                )
                document = answer.json() if answer.status in (202, 207) else {}
                ids = document["ids"] if "ids" in document else [document.get("id")]
                for i in range(events):
                    event_id = ids[i] if i < len(ids) else None
                    if event_id is None:
                        self.refused.append((answer.status, answer.body))
                    else:
                        self.accepted[event_id] = client, n + i
                n += events


def in_a_thread(function: Callable[..., object], *arguments: object) -> object:
    """Call what waits in C without holding up the clients, which are greenlets."""
    return gevent.get_hub().threadpool.apply(function, arguments)


def judge(accepted: dict[str, tuple[int, int]], found: list[Message]) -> None:
    """What was answered 2xx is there, nothing is there twice, and each client's is in order."""
    ids = [message.id for message in found]
    assert len(set(ids)) == len(ids), "a message is there twice"
    missing = accepted.keys() - set(ids)
    assert not missing, f"{len(missing)} of {len(accepted)} are not there"
    numbers: dict[int, list[int]] = defaultdict(list)
    partitions: dict[int, set[int]] = defaultdict(set)
    for message in found:  # in the order of each partition
        event = json.loads(message.value)
        numbers[event["client"]].append(event["n"])
        partitions[event["client"]].add(message.partition)
        if message.id in accepted:
            assert accepted[message.id] == (event["client"], event["n"])
    for client, sent in numbers.items():
        assert sent == sorted(sent), f"client {client}: not in order"
        assert len(partitions[client]) == 1
