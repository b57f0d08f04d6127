"""Two instances behind HAProxy are restarted, reloaded and handed over under load: nobody fails.

One is a single process, the other has two workers. `REPLACED_REQUESTS=200000` goes on until so many
have been stored in each of the tests, and `--log-cli-level=INFO` shows what wrk counted.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.proxies import haproxy
from tests.support.waiting import until
from tests.support.workers import events
from tests.support.wrk import Wrk

log = logging.getLogger(__name__)

#: How many events are stored at least, in each test.
REQUESTS = int(os.environ.get("REPLACED_REQUESTS", "7000"))
#: HAProxy looks every second and takes out at the second failure.
DRAIN = ("--drain-delay", "3s")
SIGNALS = 15


class Pair:
    """Both instances, HAProxy and the load."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.one = Gateway(directory / "one", *DRAIN)
        self.two = Gateway(directory / "two", "--workers", "2", *DRAIN)
        self.both = (self.one, self.two)
        for gateway in self.both:
            gateway.start()
            gateway.bind = f"127.0.0.1:{gateway.port}"

    def more(self, gateway: Gateway, events: int = 200) -> None:
        """Wait until an instance has stored so many more."""
        before = stored(gateway)
        until(lambda: stored(gateway) >= before + events)


def stored(gateway: Gateway) -> int:
    """How many events an instance has, of all its lives."""
    return int(gateway.metric("ingest_journal_next_offset"))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for gateway in made.both:
        gateway.stop()


def restart(pair: Pair) -> None:
    for gateway in pair.both:
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 0
        gateway.start()
        pair.more(gateway)  # HAProxy has it again, and the other may go


def reload_storm(pair: Pair) -> None:
    done = [len(events(gateway, "reload.done")) for gateway in pair.both]
    for _ in range(SIGNALS):
        for gateway in pair.both:
            gateway.send_signal(signal.SIGHUP)
        pair.more(pair.one, 20)
    for gateway, before in zip(pair.both, done, strict=True):
        until(lambda gateway=gateway, before=before: len(events(gateway, "reload.done")) > before)
    for gateway in pair.both:
        pair.more(gateway)


def hand_over(pair: Pair) -> None:
    for gateway, event in zip(pair.both, ("service.started", "reload.done"), strict=True):
        before = len(events(gateway, event))
        gateway.send_signal(signal.SIGUSR2)
        until(lambda g=gateway, e=event, b=before: len(events(g, e)) > b)
        pair.more(gateway)


@pytest.mark.parametrize("replace", [restart, reload_storm, hand_over])
def test_no_request_of_a_client_fails(
    replace: Callable[[Pair], None],
    pair: Pair,
    tmp_path: Path,
) -> None:
    rounds = 0
    with haproxy(tmp_path, pair.one.port, pair.two.port) as port:
        load = Wrk(port, tmp_path)
        while not rounds or sum(map(stored, pair.both)) < REQUESTS:
            replace(pair)
            rounds += 1
        counted = load.stop()
    log.info("%s: %d rounds, %d requests", replace.__name__, rounds, counted.requests)
    assert (counted.refused, counted.broken) == (0, 0), counted.text
    assert counted.requests
    for gateway in pair.both:
        assert gateway.stop() == 0
    assert sum(len(gateway.journal()) for gateway in pair.both) >= counted.requests
