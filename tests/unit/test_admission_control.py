"""When load is shed, who is refused, and what he is told; with whiles of the test's own."""

from types import SimpleNamespace

import pytest

from ingest.access.addresses import Forwards, Networks
from ingest.access.principal import ANONYMOUS, Principal
from ingest.admission.control import Control, State
from ingest.admission.drain import WAIT_MAX_SECONDS, Drain
from ingest.admission.fairness import PARTIES_MAX, Shares, fair_share
from ingest.admission.overload import party
from ingest.peer import Peer


def looked(control: Control, waited: float | None, times: int, **counts: int) -> State:
    asked, refused = counts.get("asked", 100), counts.get("refused", 0)
    for _ in range(times):
        control.look(waited, 10_000.0, asked, refused)
    return control.state


def test_a_closed_loop_of_thousands_that_wait_200_ms_is_no_overload() -> None:
    control = Control(0.5, 4096)
    assert looked(control, 0.2, 1000) is State.CALM
    assert control.limit == 4096


def test_one_stall_is_no_overload_and_a_standing_queue_is() -> None:
    control = Control(0.5, 4096)
    for _ in range(10):
        assert looked(control, 0.9, 2) is State.CALM
        assert looked(control, 0.1, 1) is State.CALM
    assert looked(control, 0.6, 3) is State.SHORT
    assert control.limit == 250  # 10,000 a second for a twentieth of half a second


def test_with_no_limit_nothing_is_ever_refused() -> None:
    assert looked(Control(0.0, 4096), 1000.0, 100) is State.CALM


def test_the_limit_follows_what_is_measured() -> None:
    control = Control(0.5, 4096)
    looked(control, 0.6, 3)
    looked(control, 0.1, 3, refused=50)
    assert control.limit < 250
    looked(control, 1.0, 100, refused=50)
    assert control.limit == 4
    looked(control, 0.01, 200, refused=50)
    assert control.limit == 4096


def test_it_is_calm_again_once_hardly_anybody_is_refused() -> None:
    control = Control(0.5, 4096)
    looked(control, 0.6, 3)
    assert looked(control, 0.01, 20, asked=100, refused=50) is State.SHORT
    assert looked(control, 0.01, 4, asked=100, refused=2) is State.SHORT
    assert looked(control, 0.01, 1, asked=100, refused=2) is State.CALM
    assert control.limit == 4096


def test_as_long_as_the_line_stands_it_is_not_calm() -> None:
    control = Control(0.5, 4096)
    looked(control, 0.6, 3)
    assert looked(control, 0.6, 50, asked=0) is State.SHORT


def test_a_pool_smaller_than_the_least_is_never_exceeded() -> None:
    control = Control(0.5, 2)
    looked(control, 0.6, 3)
    looked(control, 0.01, 50, refused=50)
    assert control.limit == 2


def test_nobody_gets_more_than_he_asks_for_and_what_he_leaves_is_divided() -> None:
    assert fair_share({"a": 100, "b": 10}, 60) == 50
    assert fair_share({"a": 100, "b": 100, "c": 10}, 60) == 25
    assert fair_share({"a": 10, "b": 20}, 100) >= 20
    assert fair_share({}, 100) == 100


def test_who_asks_for_more_than_his_share_is_above_it_and_the_other_is_not() -> None:
    shares = Shares()
    for _ in range(1000):
        shares.ask("a")
    for _ in range(100):
        shares.ask("b")
    shares.turn(600)
    assert (shares.ask("a"), shares.ask("b"), shares.ask("c")) == (False, True, True)
    assert (shares.parties, shares.above) == (2, 1)
    shares.clear()
    assert shares.ask("a")


def test_only_so_many_are_told_apart() -> None:
    shares = Shares()
    assert all(shares.ask(number) for number in range(PARTIES_MAX))
    assert not shares.ask(PARTIES_MAX)
    assert shares.ask(0)
    shares.turn(10**9)
    assert shares.parties == PARTIES_MAX


def test_a_backlog_takes_as_long_as_the_rate_of_the_last_busy_seconds_says() -> None:
    drain = Drain(0.0)
    assert drain.seconds(1000) == 0  # nothing is known
    for tick in range(1, 11):
        drain.look(tick / 10, tick * 10, busy=True)
    assert drain.rate == 100
    assert drain.seconds(250) == 2.5
    drain.look(60.0, 100, busy=False)
    assert drain.rate == 100
    for tick in range(1, 101):
        drain.look(60 + tick / 10, 100 + tick, busy=True)
    assert 9 < drain.rate < 11
    assert drain.seconds(0) == 0


def test_a_service_that_stands_still_says_the_most_there_is() -> None:
    drain = Drain(0.0)
    for tick in range(1, 100):
        drain.look(tick / 10, 0, busy=True)
    assert drain.seconds(1) == WAIT_MAX_SECONDS


@pytest.mark.parametrize(
    ("principal", "proxied", "whose"),
    [
        (Principal("shop"), True, "shop"),
        (ANONYMOUS, False, "10.0.0.1"),
        (ANONYMOUS, True, "203.0.113.7"),
    ],
)
def test_a_share_is_a_keys_or_an_addresss_and_a_trusted_proxy_says_whose(
    principal: Principal, proxied: bool, whose: str
) -> None:
    forwards = Forwards(Networks.parse("10.0.0.0/8"), "x-forwarded-for") if proxied else None
    connection = SimpleNamespace(peer=Peer("10.0.0.1", 4711, forwards))
    head = SimpleNamespace(headers={"x-forwarded-for": "203.0.113.7"})
    assert party(connection, head, SimpleNamespace(principal=principal)) == whose
