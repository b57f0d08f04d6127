"""How far all of what was sent has arrived."""

from __future__ import annotations

import random

from ingest.handlers.consumers import Record
from ingest.sinks.forward_window import Failure, Part, Window


def records(first: int, count: int) -> list[Record]:
    return [Record(offset, b"%d" % offset) for offset in range(first, first + count)]


def test_the_place_moves_over_whole_parts_only_and_in_their_order() -> None:
    window = Window(10)
    first = window.add(records(10, 3), 13)
    second = window.add(records(13, 2), 20)
    assert (window.place, window.end, window.in_flight) == (10, 20, 2)
    window.settle(second, None)
    assert (window.place, window.in_flight) == (10, 1)
    window.settle(first, None)
    assert (window.place, window.end, window.in_flight) == (20, 20, 0)


def test_records_of_other_types_are_passed_over_but_not_before_those_in_flight() -> None:
    window = Window(0)
    window.add([], 5)
    assert window.place == 5
    sent = window.add(records(5, 1), 6)
    window.add([], 100)
    assert (window.place, window.end) == (5, 100)
    window.settle(sent, {})
    assert window.place == 100


def test_it_begins_anew_with_the_first_that_was_not_delivered() -> None:
    window = Window(0)
    parts = [window.add(records(first, 10), first + 10) for first in (0, 10, 20, 30)]
    window.settle(parts[2], {4: "late", 1: "early"})
    assert window.failing and window.place == 0
    window.settle(parts[3], None)
    window.settle(parts[0], None)
    assert window.place == 10
    window.settle(parts[1], {7: "first", 9: "second"})
    assert window.place == 10
    assert window.rewind() == Failure(Record(17, b"17"), "first", 25)
    assert (window.place, window.end, window.failing) == (17, 17, False)
    assert window.oldest is None
    again = window.add(records(17, 13), 30)
    assert window.oldest == Record(17, b"17")
    window.settle(again, None)
    assert window.place == 30


def test_what_is_put_aside_is_passed_over() -> None:
    window = Window(3)
    window.settle(window.add(records(3, 1), 4), {0: "too large"})
    assert window.rewind().record.offset == 3
    window.pass_over(4)
    assert (window.place, window.end) == (4, 4)


def test_whatever_the_order_of_reports_the_place_never_passes_what_is_not_delivered() -> None:
    chance = random.Random(8)
    for _ in range(300):
        window = Window(0)
        parts: list[Part] = []
        for _ in range(chance.randint(1, 12)):
            first = window.end
            count = chance.randint(0, 4)
            part = window.add(records(first, count), first + count + chance.randint(1, 3))
            if count:
                parts.append(part)
        missing = {record.offset for part in parts for record in part.records}
        chance.shuffle(parts)
        for part in parts:
            lost = {number: "lost" for number in range(len(part.records)) if chance.random() < 0.05}
            window.settle(part, lost)
            missing -= {r.offset for n, r in enumerate(part.records) if n not in lost}
            assert not any(offset < window.place for offset in missing)
        assert window.failing == bool(missing)
        if missing:
            assert window.rewind().record.offset == min(missing) == window.place
        else:
            assert window.place == window.end
