"""The bound on what all connections hold together: gates, the turn, and that it resolves."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.connection_limits import RATE_GRACE_SECONDS, too_slow
from ingest.connection_memory import Account, Memory
from ingest.metrics import Metrics

LARGE, SMALL = True, False


class Reader:
    """Stands for a connection whose body pauses."""

    def __init__(self, memory: Memory) -> None:
        self.account = Account(memory, self)
        self.resumed = 0
        self.was_cut = False

    def resume(self) -> None:
        self.resumed += 1

    def cut(self) -> None:
        self.was_cut = True


def paused(memory: Memory, reader: Reader, large: bool) -> None:
    assert not memory.may_read(reader, large)
    memory.wait(reader, large)


@pytest.fixture
def memory() -> Memory:
    return Memory(1000, Metrics())


@pytest.fixture
def new(memory: Memory) -> Callable[[], Reader]:
    return lambda: Reader(memory)


def test_the_large_gate_closes_at_three_quarters_and_opens_below_one_half(memory: Memory) -> None:
    memory.change(749)
    assert not memory.large.closed
    memory.change(1)
    assert memory.large.closed
    memory.change(-250)
    assert memory.large.closed
    memory.change(-1)
    assert not memory.large.closed


def test_the_small_gate_closes_when_all_is_held_and_opens_below_three_quarters(
    memory: Memory,
) -> None:
    memory.change(999)
    assert (memory.small.closed, memory.full) == (False, False)
    memory.change(1)
    assert (memory.small.closed, memory.full) == (True, True)
    memory.change(-250)
    assert (memory.small.closed, memory.full) == (True, False)
    memory.change(-1)
    assert not memory.small.closed


def test_a_small_body_is_read_where_a_large_one_pauses(memory: Memory, new) -> None:  # type: ignore[no-untyped-def]
    memory.change(800)
    assert memory.may_read(new(), LARGE)  # the turn
    other = new()
    assert not memory.may_read(other, LARGE)
    assert memory.may_read(other, SMALL)


def test_one_body_has_the_turn_and_passes_it_on_in_order_the_small_ones_first(
    memory: Memory,
    new,  # type: ignore[no-untyped-def]
) -> None:
    memory.change(1000)
    first, large, small, last = new(), new(), new(), new()
    assert memory.may_read(first, LARGE)
    paused(memory, large, LARGE)
    paused(memory, last, LARGE)
    paused(memory, small, SMALL)
    order = []
    for reader in (first, small, large, last):
        assert memory.may_read(reader, LARGE)
        order.append(reader.resumed)
        memory.leave(reader)
    assert order == [0, 1, 1, 1]
    assert memory.may_read(new(), LARGE)  # nobody waits, so it is free again


def test_who_ends_while_it_waits_is_not_resumed(memory: Memory, new) -> None:  # type: ignore[no-untyped-def]
    memory.change(1000)
    first, gone, last = new(), new(), new()
    assert memory.may_read(first, LARGE)
    paused(memory, gone, LARGE)
    paused(memory, last, LARGE)
    memory.leave(gone)
    memory.leave(first)
    assert (gone.resumed, last.resumed) == (0, 1)


def test_all_are_resumed_once_when_the_gate_opens(memory: Memory, new) -> None:  # type: ignore[no-untyped-def]
    memory.change(1000)
    assert memory.may_read(new(), LARGE)
    waiting = [new() for _ in range(3)]
    for reader in waiting:
        paused(memory, reader, LARGE)
    memory.change(-500)
    assert [reader.resumed for reader in waiting] == [0, 0, 0]
    memory.change(-1)
    memory.change(-100)
    assert [reader.resumed for reader in waiting] == [1, 1, 1]


def test_an_account_counts_what_it_holds_once_and_nothing_after_its_end(memory: Memory) -> None:
    account = Reader(memory).account
    account.hold_input(100)
    account.hold_input(70)
    account.hold_body(200)
    account.hold_answers(300)
    assert memory.held == 570
    account.close()
    account.close()
    assert memory.held == 0


def test_who_has_held_answers_for_the_longest_time_is_closed_first(memory: Memory, new) -> None:  # type: ignore[no-untyped-def]
    readers = [new() for _ in range(5)]
    for reader in readers:
        reader.account.hold_answers(190)
    readers[0].account.hold_answers(0)  # it has taken them, and begins anew
    readers[0].account.hold_answers(190)
    assert [reader.was_cut for reader in readers] == [False] * 5
    readers[4].account.hold_answers(241)  # 1 beyond
    assert [reader.was_cut for reader in readers] == [False, True, False, False, False]
    readers[0].account.hold_answers(378)  # the one that was cut has not ended, but it will
    assert [reader.was_cut for reader in readers] == [False, True, False, False, False]
    readers[0].account.hold_answers(379)
    assert [reader.was_cut for reader in readers] == [False, True, True, False, False]
    for reader in readers:
        reader.account.close()
    assert (memory.held, memory.leaving) == (0, 0)


@given(
    sizes=st.lists(st.integers(1, 250), min_size=1, max_size=40),
    piece=st.integers(1, 64),
    choices=st.randoms(use_true_random=False),
)
def test_bodies_that_together_need_more_than_there_is_are_all_read_within_the_bound(
    sizes: list[int], piece: int, choices
) -> None:  # type: ignore[no-untyped-def]
    """No order of arrival leads to a deadlock, or beyond the bound by more than a piece."""
    memory = Memory(1000, Metrics())
    left = {Reader(memory): size for size in sizes}
    paused_at: dict[Reader, int] = {}
    while left:
        ready = [reader for reader in left if paused_at.get(reader) != reader.resumed]
        assert ready, "all of them wait"
        reader = choices.choice(ready)
        if not memory.may_read(reader, LARGE):
            memory.wait(reader, LARGE)
            paused_at[reader] = reader.resumed
            continue
        read = min(piece, left[reader])
        left[reader] -= read
        reader.account.hold_input(reader.account.input + read)
        assert memory.held < 750 + 250 + piece
        if not left[reader]:
            del left[reader]
            memory.leave(reader)
            reader.account.close()
    assert memory.held == 0


@pytest.mark.parametrize(
    ("count", "seconds", "least", "expected"),
    [
        (0, RATE_GRACE_SECONDS, 256, False),
        (0, RATE_GRACE_SECONDS + 1, 256, True),
        (255, RATE_GRACE_SECONDS + 1, 256, True),
        (256, RATE_GRACE_SECONDS + 1, 256, False),
        (0, 1e6, 0, False),
    ],
)
def test_a_rate_is_judged_after_the_grace(
    count: int, seconds: float, least: int, expected: bool
) -> None:
    assert too_slow(count, seconds, least) is expected
