"""With `ack: write` the event loop writes itself, as long as that waits for nothing."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gevent.monkey import get_original

from ingest.errors import IngestError
from tests.support.journal_bench import Bench

HERE = get_original("_thread", "get_ident")()


@pytest.fixture
def new_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**settings: int) -> Bench:
        benches.append(Bench(tmp_path / "journal", **settings))
        return benches[-1]

    yield make
    for bench in benches:
        assert bench.journal.close(20)


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    """A journal whose segment is open and has fill to overwrite."""
    made = new_bench()
    append(made, "first")
    made.storage.threads.clear()
    return made


def append(bench: Bench, waiter: str, *, sync: bool = False, data: bytes = b"1") -> None:
    """Append and wait until that has been told."""
    bench.append(waiter, sync=sync, data=data)
    bench.wait(waiter)


def by_the_loop(bench: Bench) -> list[bool]:
    """Of each write since it was last asked, whether the event loop did it."""
    found = [thread == HERE for thread in bench.storage.threads]
    bench.storage.threads.clear()
    return found


def test_the_loop_overwrites_fill_and_the_thread_makes_more_of_it(bench: Bench) -> None:
    append(bench, "a")
    assert by_the_loop(bench) == [True]
    append(bench, "b", data=b'"%b"' % (b"x" * 4096))  # more than there is fill for
    assert by_the_loop(bench) == [False]
    append(bench, "c")
    assert by_the_loop(bench) == [True]
    assert bench.stored()[1:] == [1, "x" * 4096, 1]


def test_who_waits_for_fdatasync_waits_for_the_thread(bench: Bench) -> None:
    append(bench, "a", sync=True)
    append(bench, "b")
    bench.append("c", sync=False)
    bench.append("d", sync=True)
    bench.wait("c", "d")
    assert by_the_loop(bench) == [False, True, False]


def test_nothing_is_written_by_the_loop_while_an_fdatasync_is_under_way(bench: Bench) -> None:
    append(bench, "a")
    assert by_the_loop(bench) == [True]
    bench.storage.shut()
    writer = bench.journal._writer
    assert writer is not None
    bench.until(lambda: writer._background.busy)  # what was written is due within a second
    append(bench, "b")
    assert by_the_loop(bench) == [False]
    bench.storage.open()
    bench.until(lambda: not writer._background.busy)
    append(bench, "c")
    assert by_the_loop(bench) == [True]


def test_a_write_that_holds_the_loop_up_leaves_the_next_ones_to_the_thread(bench: Bench) -> None:
    bench.storage.before_write = lambda: get_original("time", "sleep")(0.005)
    append(bench, "a")
    bench.storage.before_write = lambda: None
    append(bench, "b")
    assert by_the_loop(bench) == [True, False]
    assert bench.metrics.journal_slow_writes.value == 1
    bench.journal._at_once_from = time.monotonic()  # the pause is over
    append(bench, "c")
    assert by_the_loop(bench) == [True]


def test_a_large_commit_is_the_threads(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(
        segment_fill_bytes=1 << 20, segment_max_bytes=64 << 20, commit_max_bytes=1 << 20
    )
    append(bench, "first")
    append(bench, "a", data=b'"%b"' % (b"x" * 100_000))
    append(bench, "b", data=b'"%b"' % (b"x" * 200_000))
    assert by_the_loop(bench) == [False, True, False]


@pytest.mark.parametrize(
    ("code", "told"), [(errno.EIO, "journal_failed"), (errno.ENOSPC, "disk_full")]
)
def test_a_write_of_the_loop_that_fails_is_told_and_the_segment_is_sealed_by_the_thread(
    bench: Bench, code: int, told: str
) -> None:
    segments = len(list(bench.directory.glob("0/*.ndjson")))
    syncs: list[bool] = []

    def rule(operation: str) -> int:
        if operation == "sync":
            syncs.append(get_original("_thread", "get_ident")() == HERE)
        return code if operation == "write" else 0

    append(bench, "a")
    bench.storage.rule = rule
    append(bench, "b")
    error = bench.told["b"]
    assert isinstance(error, IngestError)
    assert error.code == told
    assert not any(syncs), "the loop waits for no disk"
    bench.storage.rule = lambda operation: 0
    bench.until(lambda: bench.journal.healthy() is None)
    append(bench, "c")
    assert len(list(bench.directory.glob("0/*.ndjson"))) == segments + 1
    assert bench.stored() == [1, 1, 1]


def test_what_the_loop_wrote_is_made_durable_within_about_a_second(bench: Bench) -> None:
    append(bench, "a")
    before = bench.metrics.journal_sync_seconds.count
    bench.until(lambda: bench.metrics.journal_sync_seconds.count > before)
