"""Retention: what goes by age, by type and by size, and what a checkpoint keeps."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.journal.checkpoints import Checkpoints
from ingest.journal.retention import AGE, SIZE, Plan, Retention, Stored, plan, seconds_of
from ingest.journal.segment import list_segments
from ingest.journal.storage import Storage
from ingest.journal.survey import JournalDirectory
from ingest.journal.sweeper import (
    RETRY_SECONDS,
    Compression,
    Found,
    Message,
    Notice,
    SegmentCompressed,
    SegmentRemoved,
    Sweeper,
    Trouble,
)
from ingest.journal.verify import Problem, verify_partition
from tests.support.cuts import cuts, recorded, state_of
from tests.support.journals import START, Written

# -- what is decided --------------------------------------------------------------------------


def segments(*last_times: float, partition: int = 0, size: int = 100) -> list[Stored]:
    """Segments of ten records each, and the newest one; each begins where the last ended."""
    times = [0.0, *last_times]
    stored = [
        Stored(partition, 10 * n, 10 * n + 10, size, times[n], times[n + 1])
        for n in range(len(last_times))
    ]
    return [*stored, Stored(partition, 10 * len(last_times), None, size, times[-1], 1e9)]


def decided(
    retention: Retention,
    *partitions: list[Stored],
    now: float = 0.0,
    keep: Callable[[Stored], float] | None = None,
    needed: dict[int, tuple[str, int]] | None = None,
) -> Plan:
    def never(one: Stored) -> float:
        raise AssertionError(f"nobody needs to look into {one}")

    stored = {number: list(one) for number, one in enumerate(partitions)}
    return plan(stored, retention, now, keep or never, (needed or {}).get)


def went(made: Plan) -> list[tuple[int, int, str]]:
    return [(one.partition, one.base, reason) for one, reason in made.remove]


def test_without_a_bound_everything_stays() -> None:
    assert decided(Retention(), segments(1, 2, 3), now=1e9) == Plan([], 0, frozenset())


def test_a_segment_goes_when_its_last_record_is_older_than_allowed() -> None:
    retention = Retention(max_age_seconds=10)
    assert went(decided(retention, segments(1, 2, 3), now=12)) == [(0, 0, AGE)]
    assert went(decided(retention, segments(1, 2, 3), now=12.5)) == [(0, 0, AGE), (0, 10, AGE)]


def test_the_newest_segment_stays_however_old_and_large() -> None:
    retention = Retention(max_age_seconds=10, max_bytes=1)
    assert went(decided(retention, segments(1), now=1e12)) == [(0, 0, AGE)]
    assert went(decided(retention, segments(), now=1e12)) == []


def test_a_segment_stays_as_long_as_any_type_in_it_and_so_do_those_behind_it() -> None:
    retention = Retention(max_age_seconds=0, types={"short": 10, "long": 100})
    keeps = {0: 10.0, 10: 100.0, 20: 10.0, 30: 0.0}

    def keep(one: Stored) -> float:
        return keeps[one.base]

    stored = segments(1, 2, 3, 4)
    assert went(decided(retention, stored, now=11, keep=keep)) == []
    assert went(decided(retention, stored, now=50, keep=keep)) == [(0, 0, AGE)]
    assert [base for _, base, _ in went(decided(retention, stored, now=1e9, keep=keep))] == [
        0, 10, 20,
    ]  # fmt: skip


def test_nobody_looks_into_segments_that_are_younger_than_the_shortest_retention() -> None:
    retention = Retention(max_age_seconds=100, types={"short": 50})
    assert went(decided(retention, segments(1, 2), now=50)) == []
    alike = Retention(max_age_seconds=50, types={"short": 50})
    assert went(decided(alike, segments(1, 2), now=52)) == [(0, 0, AGE)]


def test_beyond_the_size_the_oldest_of_all_partitions_go_first() -> None:
    first, second = segments(10, 20, 30), segments(5, 15, partition=1)
    assert went(decided(Retention(max_bytes=700), first, second)) == []
    assert went(decided(Retention(max_bytes=400), first, second)) == [
        (0, 0, SIZE), (1, 0, SIZE), (1, 10, SIZE),
    ]  # fmt: skip


def test_what_goes_by_age_counts_before_the_size_does() -> None:
    retention = Retention(max_age_seconds=10, max_bytes=300)
    assert went(decided(retention, segments(1, 2, 3), now=11.5)) == [(0, 0, AGE)]


def test_a_segment_with_records_at_or_past_a_checkpoint_stays_and_is_counted() -> None:
    retention = Retention(max_age_seconds=10)
    stored = segments(1, 2, 3)
    made = decided(retention, stored, now=12.5, needed={0: ("kafka", 10)})
    assert went(made) == [(0, 0, AGE)]
    assert (made.blocked, made.blockers) == (1, {(0, "kafka")})
    made = decided(retention, stored, now=1e9, needed={0: ("kafka", 0)})
    assert (went(made), made.blocked) == ([], 3)


def test_the_size_is_made_up_for_by_partitions_that_nobody_needs() -> None:
    first, second = segments(1, 2), segments(3, 4, partition=1)
    made = decided(Retention(max_bytes=500), first, second, needed={0: ("kafka", 0)})
    assert went(made) == [(1, 0, SIZE)]
    assert made.blockers == {(0, "kafka")}


def test_checkpoints_are_ignored_when_told_so() -> None:
    retention = Retention(max_age_seconds=10, ignores_checkpoints=True)
    made = decided(retention, segments(1, 2), now=1e9, needed={0: ("kafka", 0)})
    assert (len(made.remove), made.blocked) == (2, 0)


def test_a_records_time_becomes_seconds_and_what_is_none_does_not() -> None:
    assert seconds_of(b"2026-01-01T00:00:00.500Z") == START + 0.5
    for wrong in (None, b"", b"yesterday", b"2026-13-01T00:00:00Z", b"\xff"):
        assert seconds_of(wrong) is None


# -- what is done ------------------------------------------------------------------------------


class Bench:
    """A journal of two partitions, a sweeper over it, and clocks that are set by hand."""

    def __init__(self, data: Path, retention: Retention, storage: Storage | None = None) -> None:
        self.written = Written(data)
        self.directory = self.written.directory / "0"
        self.storage = storage or Storage()
        self.checkpoints = Checkpoints(data / "checkpoints", self.storage)
        self.told: list[Message] = []
        self.now = 0.0
        self.time = float(START)
        self.compression = Compression(False, 3, 60.0)
        self.retention = retention

    def open(self) -> None:
        self.sweeper = Sweeper(
            [
                JournalDirectory(
                    "journal", self.written.directory, self.retention, self.checkpoints
                ),
                JournalDirectory("rejected", self.written.data / "rejected", self.retention),
            ],
            self.compression,
            self.storage,
            self.told.append,
            lambda: None,
            lambda: self.now,
            lambda: self.time,
        )

    def sweep(self) -> list[Message]:
        """Until there is no more to do; what was said since the last time."""
        if not hasattr(self, "sweeper"):
            self.open()
        for _ in range(100):
            if not self.sweeper.sweep():
                break
        told, self.told[:] = list(self.told), []
        return told

    def fill(self, *segments: tuple[str, ...]) -> None:
        """Segments of one commit each with records of these types; the newest is empty."""
        for types in segments:
            self.written.commit(*types)
            self.written.new_segment(self.written.partition)

    def bases(self, partition: int = 0) -> list[int]:
        directory = self.written.directory / str(partition)
        return [file.base for file in list_segments(self.storage, directory)]

    def problems(self) -> list[Problem]:
        found = verify_partition(Storage(), self.directory)
        return [result for result in found if isinstance(result, Problem)]


def removed(told: list[Message]) -> list[tuple[int, str]]:
    return [(m.records, m.reason) for m in told if isinstance(m, SegmentRemoved)]


def test_segments_go_as_their_records_grow_old(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention(max_age_seconds=100))
    bench.fill(("a", "b"), ("a",), ("b",))
    os.utime(bench.written.path, (START + 10, START + 10))  # when the last one was closed
    bench.time = START + 102
    assert removed(bench.sweep()) == []
    bench.time = START + 102.5  # the second one's first record came at 2
    assert removed(bench.sweep()) == [(2, AGE)]
    assert bench.problems() == []
    bench.time = START + 105
    assert removed(bench.sweep()) == [(1, AGE)]
    bench.time = START + 111
    assert removed(bench.sweep()) == [(1, AGE)]
    assert bench.bases() == [4]


def test_a_type_may_be_kept_longer_or_shorter_than_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention(50, types={"short": 10, "long": 1000}))
    bench.fill(("short",), ("short", "short"), ("short", "other"), ("long",), ("short",))
    bench.time = START + 40
    assert removed(bench.sweep()) == [(1, AGE), (2, AGE)]
    bench.time = START + 90
    assert removed(bench.sweep()) == [(2, AGE)]
    bench.time = START + 1000
    assert removed(bench.sweep()) == []  # the long one, and what is behind it
    bench.time = START + 3000
    assert bench.bases() == [5, 6, 7]
    os.utime(bench.written.path, (START + 10, START + 10))
    assert removed(bench.sweep()) == [(1, AGE), (1, AGE)]


def test_a_segment_with_damage_is_kept_as_long_as_any_type(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention(10, types={"long": 100}))
    bench.written.commit("a")
    bench.written.commit("a")
    bench.written.flip(60)
    bench.written.new_segment()
    bench.written.commit("a")
    bench.time = START + 90
    assert removed(bench.sweep()) == []
    bench.time = START + 103
    assert removed(bench.sweep()) == [(2, AGE)]


def test_compressed_segments_go_as_plain_ones_do(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention(10, types={"long": 100}))
    bench.written.commit("a", "b")
    bench.written.compress()
    bench.written.commit("long")
    bench.written.compress()
    bench.written.commit("a")
    bench.time = START + 50
    assert removed(bench.sweep()) == [(2, AGE)]
    assert bench.bases() == [2, 3]


def test_the_total_size_is_kept_over_all_partitions(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention())
    bench.fill(("a",), ("a",))
    bench.written.new_segment(1)
    bench.fill(("a",), ("a",))
    sizes = [file.path.stat().st_size for file in list_segments(Storage(), bench.directory)]
    bench.retention = Retention(max_bytes=2 * sizes[0])
    told = bench.sweep()
    assert removed(told) == [(1, SIZE), (1, SIZE)]
    assert [bench.bases(0), bench.bases(1)] == [[1, 2], [1, 2]]
    found = [message for message in told if isinstance(message, Found)][-1]
    assert (found.journal, found.segments) == ("journal", 4)
    assert found.stored_bytes == 2 * sizes[0] and found.oldest == START + 1


def test_what_recovery_cut_off_counts_and_goes_with_its_segment_or_with_its_age(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, Retention())
    bench.fill(("a",), ("a",))
    size = bench.directory.joinpath("00000000000000000000.ndjson").stat().st_size
    first = bench.directory / "00000000000000000000.ndjson.torn-1"
    newest = bench.directory / "00000000000000000002.ndjson.torn-3"
    for path in (first, newest):
        path.write_bytes(b"x" * 100)
        os.utime(path, (START + 50, START + 50))
    bench.retention = Retention(max_bytes=2 * size + 150)
    assert removed(bench.sweep()) == [(1, SIZE)]
    assert not first.exists() and newest.exists()
    bench.retention = Retention(max_age_seconds=1000)
    os.utime(bench.written.path, (START + 2000, START + 2000))
    bench.open()
    bench.time = START + 1040
    assert removed(bench.sweep()) == []
    assert newest.exists()
    bench.time = START + 1051
    bench.sweep()
    assert not newest.exists()


def test_a_checkpoint_blocks_and_that_is_said_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention(10))
    bench.fill(("a", "a"), ("a", "a"), ("a",))
    bench.checkpoints.save("kafka", 0, 2)
    bench.time = START + 1000
    told = bench.sweep()
    assert removed(told) == [(2, AGE)]
    blocked = [m for m in told if isinstance(m, Notice)]
    data = {"journal": "journal", "partition": 0, "checkpoint": "kafka"}
    assert blocked == [Notice("warning", "journal.retention_blocked", data)]
    assert [m.blocked for m in told if isinstance(m, Found)][-1] == 1
    assert bench.sweep() == []
    bench.checkpoints.save("kafka", 0, 4)
    told = bench.sweep()
    assert removed(told) == [(2, AGE)]
    assert [m.blocked for m in told if isinstance(m, Found)][-1] == 0


def test_a_broken_checkpoint_keeps_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention(10))
    bench.fill(("a", "a"), ("a",))
    bench.checkpoints.save("kafka", 0, 100)
    (tmp_path / "checkpoints" / "kafka" / "0").write_bytes(b"100 00000000\n")
    bench.time = START + 1000
    assert removed(bench.sweep()) == []


def test_segments_are_compressed_when_they_have_been_closed_for_long_enough(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, Retention())
    bench.compression = Compression(True, 3, 60.0)
    bench.fill(("a", "b"), ("a",))
    bench.sweep()
    bench.now = 59.0
    bench.fill(("b",))
    assert bench.sweep() == [found(bench, plain=3)]
    bench.now = 60.0
    told = bench.sweep()
    assert [m.partition for m in told if isinstance(m, SegmentCompressed)] == [0, 0]
    assert told[-1] == found(bench, plain=1)
    bench.now = 119.0
    bench.sweep()
    files = list_segments(Storage(), bench.directory)
    assert [file.compressed for file in files] == [True, True, True, False]
    assert bench.problems() == []


def found(bench: Bench, plain: int) -> Found:
    files = list(bench.directory.iterdir())
    size = sum(file.stat().st_size for file in files)
    return Found("journal", len(files), size, float(START), plain, 0)


def test_a_damaged_segment_is_left_plain_and_that_is_said_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention())
    bench.compression = Compression(True, 3, 0.0)
    bench.written.commit("a")
    bench.written.commit("a")
    bench.written.flip(60)
    bench.fill(("a",), ("a",))
    told = [m for m in bench.sweep() if isinstance(m, Notice)]
    assert [(m.event, m.data["path"][-6:]) for m in told] == [
        ("journal.left_uncompressed", "ndjson")
    ]
    files = list_segments(Storage(), bench.directory)
    assert [file.compressed for file in files] == [False, True, False]
    assert bench.sweep() == []


def test_what_a_crash_left_of_a_compression_is_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Retention())
    bench.fill(("a", "b"))
    content = (bench.directory / "00000000000000000000.ndjson").read_bytes()
    bench.fill(("a",))
    bench.compression = Compression(True, 3, 0.0)
    bench.sweep()
    del bench.sweeper
    (bench.directory / "00000000000000000000.ndjson").write_bytes(content)
    (bench.directory / "00000000000000000002.ndjson.zst.tmp").write_bytes(b"half")
    bench.compression = Compression(False, 3, 0.0)
    assert [m.event for m in bench.sweep() if isinstance(m, Notice)] == ["journal.leftover_removed"]
    assert sorted(os.listdir(bench.directory)) == [
        "00000000000000000000.ndjson.zst",
        "00000000000000000002.ndjson.zst",
        "00000000000000000003.ndjson",
    ]


class Broken(Storage):
    """Fails what it is told to."""

    def __init__(self) -> None:
        self.fails = ""

    def _ask(self, operation: str) -> None:
        if operation == self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def remove(self, path: Path) -> None:
        self._ask("remove")
        super().remove(path)

    def rename(self, old: Path, new: Path) -> None:
        self._ask("rename")
        super().rename(old, new)

    def names(self, directory: Path) -> list[str]:
        self._ask("names")
        return super().names(directory)


@pytest.mark.parametrize(
    ("fails", "operation"), [("remove", "remove"), ("rename", "compress"), ("names", "list")]
)
def test_a_failure_is_told_once_and_tried_again_after_a_while(
    tmp_path: Path, fails: str, operation: str
) -> None:
    storage = Broken()
    retention = Retention(10) if operation == "remove" else Retention()
    bench = Bench(tmp_path, retention, storage)
    bench.compression = Compression(operation == "compress", 3, 0.0)
    bench.fill(("a",), ("a",))
    os.utime(bench.written.path, (START + 10, START + 10))
    bench.time = START + 1000
    storage.fails = fails

    def troubles() -> list[str]:
        return [m.operation for m in bench.sweep() if isinstance(m, Trouble)]

    # Both journals cannot be listed; each of the two segments is tried.
    times = {"remove": 1, "compress": 2, "list": 2}[operation]
    assert troubles() == [operation] * times
    assert troubles() == []
    bench.now += RETRY_SECONDS
    assert set(troubles()) == {operation}
    storage.fails = ""
    bench.now += RETRY_SECONDS
    assert troubles() == []
    if operation == "remove":
        assert bench.bases() == [2]
    elif operation == "compress":
        assert [f.compressed for f in list_segments(storage, bench.directory)][:2] == [True, True]


def test_a_removal_that_fails_leaves_no_gap(tmp_path: Path) -> None:
    storage = Broken()
    bench = Bench(tmp_path, Retention(10), storage)
    bench.fill(("a",), ("a",), ("a",))
    bench.time = START + 1000
    storage.fails = "remove"
    assert removed(bench.sweep()) == []
    assert bench.bases() == [0, 1, 2, 3]
    assert bench.problems() == []


def test_a_power_cut_while_segments_are_removed_leaves_no_gap(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "data", Retention(10))
    bench.fill(("a",), ("a",), ("a",), ("a",))
    bench.time = START + 13.5
    state = state_of(tmp_path)
    log = recorded(bench.sweep)
    found = set()
    for place in cuts(tmp_path, state, log, tmp_path / "after"):
        directory = place / bench.directory.relative_to(tmp_path)
        results = list(verify_partition(Storage(), directory))
        assert [result for result in results if isinstance(result, Problem)] == []
        found.add(len(results))
    assert found == {2, 3, 4, 5}
