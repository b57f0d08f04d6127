"""Handshakes take turns with everything else, and the slowest makes room."""

from __future__ import annotations

from typing import Any

import gevent
import greenlet
import pytest
from gevent.hub import get_hub

from ingest.metrics import Metrics
from ingest.tls.handshakes import TURN_SECONDS, Crowded, Handshakes


class Shaking:
    """What `Handshakes` knows of a connection."""

    def __init__(self) -> None:
        self.greenlet = greenlet.getcurrent()
        self.ended: BaseException | None = None

    def wait_for_turn(self) -> None:
        get_hub().switch()

    def interrupt(self, event: BaseException) -> None:
        self.ended = event


def under_way(most: int) -> tuple[Any, Metrics]:
    metrics = Metrics()
    return Handshakes(most, metrics), metrics


def test_others_have_a_turn_between_two_handshakes_that_take_long() -> None:
    handshakes, _ = under_way(10)
    seen: list[str] = []

    def shake(name: str) -> None:
        own = Shaking()
        handshakes.begin(own)
        for step in (1, 2):
            handshakes.listens(own)
            handshakes.heard(own)
            seen.append(f"{name}{step}")
            handshakes.took(2 * TURN_SECONDS)
        handshakes.end(own, "done")

    def others() -> None:
        seen.append("-")
        if sum(mark != "-" for mark in seen) < 6:
            timer.start(others)

    timer = get_hub().loop.timer(0.0)
    shaking = [gevent.spawn(shake, name) for name in "abc"]
    timer.start(others)
    gevent.joinall(shaking, raise_error=True)
    timer.stop()
    assert [mark for mark in seen if mark != "-"] == ["a1", "a2", "b1", "c1", "b2", "c2"]
    marks = "".join("-" if mark == "-" else "x" for mark in seen)
    assert "xx" not in marks


def test_short_ones_do_not_wait() -> None:
    handshakes, _ = under_way(10)
    turns = []
    timer = get_hub().loop.timer(0.0)
    timer.start(lambda: turns.append(1))
    own = Shaking()
    handshakes.begin(own)
    for _ in range(5):
        handshakes.heard(own)
        handshakes.took(TURN_SECONDS / 10)
    handshakes.end(own, "done")
    assert not turns
    timer.stop()


def test_one_that_is_ended_in_line_leaves_it() -> None:
    handshakes, metrics = under_way(10)
    handshakes.took(1.0)

    def shake() -> None:
        own = Shaking()
        handshakes.begin(own)
        try:
            handshakes.heard(own)
        finally:
            handshakes.end(own, "drain")

    waiting = gevent.spawn(shake)
    waiting.kill()
    gevent.sleep(0.01)
    assert metrics.tls_handshakes_now.read() == 0


def test_the_one_that_lets_us_wait_longest_makes_room() -> None:
    handshakes, metrics = under_way(3)
    first, second, third, fourth, fifth = (Shaking() for _ in range(5))
    for one in (first, second, third):
        handshakes.begin(one)
    for one in (second, first):
        handshakes.listens(one)
    handshakes.begin(fourth)
    assert isinstance(second.ended, Crowded)
    assert first.ended is third.ended is None
    handshakes.heard(first)
    with pytest.raises(Crowded):  # all wait for us
        handshakes.begin(fifth)
    assert metrics.tls_handshakes_now.read() == 3
    handshakes.end(second, "crowded")
    assert metrics.tls_handshakes.cell("crowded").value == 1
