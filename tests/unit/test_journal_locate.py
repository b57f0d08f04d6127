"""Finding a record in a segment by halves ends where reading all of it would."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.journal import locate as subject
from ingest.journal.frame import KEY, Commit, Damage, mark
from ingest.journal.locate import END, Spot, locate, read_all, scan

BASE = 1000


class Segment:
    """Commits one after the other, and how much of them was read."""

    def __init__(self, commits: list[tuple[int, int]], fill: int = 0) -> None:
        """Each commit: records, and bytes of each."""
        self.data = b""
        self.commits: list[Spot] = []
        offset = BASE
        for records, size in commits:
            body = b"\n".join([b'{"data":"%s"}' % (b"x" * size)] * records)[:-1]
            self.commits.append(Spot(len(self.data), offset))
            self.data += body + mark(body, offset, records, len(self.data))
            offset += records
        self.end = Spot(len(self.data), offset)
        self.data += b"\n" * fill
        self.bytes_read = 0

    def read(self, size: int, position: int) -> bytes:
        data = self.data[position : position + size]
        self.bytes_read += len(data)
        return data

    def locate(self, offset: int) -> Spot:
        return locate(self.read, len(self.data), BASE, offset)

    def found(self, offset: int) -> int | None:
        """The offset of the commit that holds `offset`, by way of the place found for it."""
        spot = self.locate(offset)
        assert spot in [*self.commits, self.end]
        assert spot.offset <= offset
        for item in scan(self.read, spot):
            assert isinstance(item, Commit)
            if item.first + item.records > offset:
                return item.first
        return None


@pytest.fixture(autouse=True)
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small segments are searched as large ones are."""
    monkeypatch.setattr(subject, "NEAR_BYTES", 300)
    monkeypatch.setattr(subject, "_PROBE_BYTES", 64)
    monkeypatch.setattr(subject, "_SCAN_BYTES", 128)
    monkeypatch.setattr(subject, "_READ_BYTES", 100)


commits = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 400)), min_size=1, max_size=30)


@given(commits, st.integers(0, 3000))
def test_every_offset_is_found_whatever_the_commits_and_the_fill(
    sizes: list[tuple[int, int]], fill: int
) -> None:
    segment = Segment(sizes, fill)
    for spot, (records, _) in zip(segment.commits, sizes, strict=True):
        for offset in range(spot.offset, spot.offset + records):
            assert segment.found(offset) == spot.offset
    assert segment.found(segment.end.offset) is None
    assert segment.found(END) is None


@given(commits, st.integers(0, 3000), st.randoms(use_true_random=False))
def test_damage_never_hides_a_commit_that_reading_everything_would_find(
    sizes: list[tuple[int, int]], fill: int, chance: random.Random
) -> None:
    segment = Segment(sizes, fill)
    damaged = bytearray(segment.data)
    for _ in range(3):
        at = chance.randrange(segment.end.position)
        damaged[at : at + chance.randrange(1, 40)] = b"\0" * chance.randrange(1, 40)
    segment.data = bytes(damaged)
    whole = [c.first for c in scan(segment.read, Spot(0, BASE)) if isinstance(c, Commit)]
    for offset in range(BASE, segment.end.offset):
        after = [first for first in whole if first >= offset]
        found = [
            item.first
            for item in scan(segment.read, segment.locate(offset))
            if isinstance(item, Commit) and item.first >= offset
        ]
        assert found == after


def test_a_number_in_a_mark_that_changed_does_not_lead_astray() -> None:
    segment = Segment([(2, 100)] * 40)
    sound = segment.data
    for spot in segment.commits[:-1]:
        at = sound.index(KEY, spot.position) + len(KEY)
        for digit in range(4):
            for other in (b"0", b"9"):
                segment.data = sound[: at + digit] + other + sound[at + digit + 1 :]
                for offset in range(BASE, segment.end.offset, 7):
                    place = segment.locate(offset)
                    assert place.offset <= offset
                    assert place in segment.commits


def test_little_is_read_of_a_long_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    segment = Segment([(100, 900)] * 800, fill=1 << 20)
    assert len(segment.data) > 70_000_000
    for offset in (BASE + 1, BASE + 40_000, BASE + 79_999, END):
        segment.bytes_read = 0
        spot = segment.locate(offset)
        assert segment.bytes_read < 3 << 20
        first = next(scan(segment.read, spot), None)
        assert first is None if offset == END else isinstance(first, Commit)


def test_a_scan_says_what_is_damaged() -> None:
    segment = Segment([(2, 100)] * 3)
    segment.data = segment.data.replace(b"x", b"y", 1)
    damage, second, third = scan(segment.read, Spot(0, BASE))
    assert isinstance(damage, Damage) and damage.offset == BASE
    assert isinstance(second, Commit) and isinstance(third, Commit)


def test_bytes_are_read_in_pieces_up_to_the_end() -> None:
    data = bytes(range(256)) * 2
    assert read_all(lambda n, p: data[p : p + n], 300, 7) == data[7:307]
    assert read_all(lambda n, p: data[p : p + n], 999, 500) == data[500:]
