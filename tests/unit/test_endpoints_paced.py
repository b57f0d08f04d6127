"""An endpoint whose answer is dear: never old, never more than its share, never forgotten."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import gevent
import pytest

from ingest import endpoints_paced
from ingest.endpoints_paced import Paced
from ingest.errors import IngestError
from ingest.metrics import Metrics


class Responder:
    """Notes problems instead of sending them."""

    def __init__(self) -> None:
        self.problems: list[tuple[Any, str]] = []

    def problem(self, exchange: Any, error: IngestError) -> None:
        self.problems.append((exchange, error.code))

    def overloaded(self, detail: str) -> IngestError:
        return IngestError("overloaded", detail)


class Desk:
    """An endpoint that takes its time, and what it has answered."""

    def __init__(self) -> None:
        self.responder = Responder()
        self.metrics = Metrics()
        self.answers: list[tuple[Any, float]] = []
        self.endpoint: Any = Paced(self.answer, self.responder, self.metrics)  # type: ignore[arg-type]

    def answer(self, exchange: Any, made: dict[Any, Any]) -> None:
        if exchange == "bad":
            raise RuntimeError("no")
        if "at" not in made:
            made["at"] = monotonic()
            while monotonic() < made["at"] + 0.003:
                pass
        self.answers.append((exchange, made["at"]))

    def wait_for(self, count: int) -> None:
        while len(self.answers) < count:
            gevent.sleep(0.001)


@pytest.fixture
def desk() -> Iterator[Desk]:
    yield Desk()


def test_who_asks_first_is_answered_at_once(desk: Desk) -> None:
    desk.endpoint("a")
    assert [exchange for exchange, _ in desk.answers] == ["a"]


def test_who_asks_while_it_has_had_its_share_is_answered_with_one_made_afterwards(
    desk: Desk,
) -> None:
    desk.endpoint("a")
    for exchange in "bcd":
        desk.endpoint(exchange)
    assert len(desk.answers) == 1
    asked = monotonic()
    desk.wait_for(4)
    assert [exchange for exchange, _ in desk.answers] == ["a", "b", "c", "d"]
    made = {at for _, at in desk.answers[1:]}
    assert len(made) == 1
    assert made.pop() >= asked


def test_who_asks_while_others_are_answered_gets_a_later_one(desk: Desk) -> None:
    for exchange in "abc":
        desk.endpoint(exchange)
    desk.wait_for(2)  # the making took a slice, so c still waits for its turn
    desk.endpoint("d")
    asked = monotonic()
    desk.wait_for(4)
    answers = dict(desk.answers)
    assert answers["b"] == answers["c"] < asked <= answers["d"]


def test_one_that_fails_is_answered_and_counted_and_the_others_are_served(desk: Desk) -> None:
    desk.endpoint("a")
    for exchange in ("bad", "b"):
        desk.endpoint(exchange)
    desk.wait_for(2)
    assert desk.responder.problems == [("bad", "internal_error")]
    assert desk.metrics.unhandled_errors.cell("endpoint").value == 1


def test_more_than_may_wait_are_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints_paced, "WAITING_MAX", 2)
    for exchange in "abc":
        desk.endpoint(exchange)
    with pytest.raises(IngestError) as refused:
        desk.endpoint("d")
    assert refused.value.code == "overloaded"
    desk.wait_for(3)
    desk.endpoint("e")
    desk.wait_for(4)
