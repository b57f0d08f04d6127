"""The journal as the pipeline uses it: real files, a real thread, waiters told on the hub."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from ingest.errors import IngestError
from ingest.journal import Journal
from ingest.metrics import Metrics
from tests.support.journal_bench import SETTINGS, Bench


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
    return new_bench()


def test_an_appended_record_is_on_disk_when_its_waiter_is_told(bench: Bench) -> None:
    bench.append("a", data=b'{"n": 1}')
    assert bench.journal.pending_records == 1 and bench.journal.pending_bytes > 100
    bench.wait("a")
    assert bench.told == {"a": None}
    assert bench.stored() == [{"n": 1}]
    assert (bench.journal.pending_records, bench.journal.pending_bytes) == (0, 0)
    assert bench.journal.next_offset == 1
    assert bench.journal.healthy() is None


def test_all_that_is_appended_in_one_turn_of_the_loop_is_one_commit(bench: Bench) -> None:
    for n in range(50):
        bench.append(n)
    bench.wait(*range(50))
    assert bench.storage.commits == [50]
    assert bench.calls == [list(range(50))]


def test_what_arrives_while_a_commit_runs_is_the_next_one(bench: Bench) -> None:
    bench.storage.shut()
    bench.append("first")
    bench.until(lambda: bench.storage.commits)
    for n in range(30):
        bench.append(n)
        gevent.sleep(0)
    assert bench.told == {}
    bench.storage.open()
    bench.wait("first", *range(30))
    assert bench.storage.commits == [1, 30]


def test_the_next_commit_is_with_the_disk_before_the_last_ones_waiters_are_told(
    bench: Bench,
) -> None:
    seen: list[Any] = []

    def on_commit(waiters: list[Any], error: IngestError | None) -> None:
        if waiters == ["first"]:
            bench.until(lambda: len(bench.storage.commits) == 2)
            seen.append("second is being written")
        bench.on_commit(waiters, error)

    bench.journal._on_commit = on_commit
    bench.storage.shut()
    bench.append("first")
    bench.until(lambda: bench.storage.commits)
    bench.append("second")
    bench.storage.open()
    bench.wait("first", "second")
    assert seen == ["second is being written"]


def test_an_ack_after_write_does_not_wait_for_fdatasync(bench: Bench) -> None:
    bench.storage.shut()
    bench.append("durable", sync=True)
    bench.append("written", sync=False)
    bench.wait("written")
    assert "durable" not in bench.told
    bench.storage.open()
    bench.wait("durable")
    assert bench.stored() == [1, 1]


def test_a_commit_is_split_at_its_largest_size_and_nothing_is_reordered(
    new_bench: Callable[..., Bench],
) -> None:
    bench = new_bench(commit_max_bytes=2000)
    for n in range(100):
        bench.append(n, data=b"%d" % n)
    bench.wait(*range(100))
    assert len(bench.storage.commits) > 5 and sum(bench.storage.commits) == 100
    assert bench.stored() == list(range(100))
    assert [waiter for call in bench.calls for waiter in call] == list(range(100))


def test_past_the_pending_limit_appends_are_refused_and_accepted_again_later(
    new_bench: Callable[..., Bench],
) -> None:
    bench = new_bench(journal_pending_max_bytes=1000)
    bench.storage.shut()
    bench.append("a", data=b'"%s"' % (b"x" * 5000))  # one alone may be larger than the limit
    with pytest.raises(IngestError) as refused:
        bench.append("b")
    assert refused.value.code == "overloaded"
    bench.storage.open()
    bench.wait("a")
    bench.append("b")
    bench.wait("b")
    assert len(bench.stored()) == 2


def test_a_failed_fdatasync_is_told_to_all_its_waiters_and_the_journal_goes_on(
    bench: Bench,
) -> None:
    bench.append("before")
    bench.wait("before")
    codes = [errno.EIO]
    bench.storage.rule = lambda operation: codes.pop() if operation == "sync" and codes else 0
    bench.append("lost1", data=b"2")
    bench.append("lost2", data=b"2")
    bench.wait("lost1", "lost2")
    error = bench.told["lost1"]
    assert error is not None and error.code == "journal_failed" and error.status == 503
    assert bench.told["lost2"] is error
    assert bench.journal.healthy() is not None
    bench.append("after", data=b"3")
    bench.wait("after")
    assert bench.told["after"] is None
    assert bench.stored() == [1, 3]
    assert bench.journal.healthy() is None
    assert bench.metrics.journal_failures.cell("sync").value == 1
    assert len(list((bench.directory / "0").glob("*.ndjson"))) == 2


def test_faults_at_random_lose_nothing_acknowledged_and_ack_nothing_lost(bench: Bench) -> None:
    calls = 0

    def rule(operation: str) -> int:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            return errno.EIO
        return errno.ENOSPC if calls % 31 == 0 else 0

    bench.storage.rule = rule
    refused = 0
    for n in range(600):
        while True:
            try:
                bench.append(n, data=b"%d" % n)
                break
            except IngestError as error:
                assert error.code == "disk_full"
                refused += 1
                bench.storage.rule = lambda operation: 0
                bench.until(lambda: bench.journal.healthy() is None)
                bench.storage.rule = rule
        if n % 5 == 4:
            bench.wait(n)
    bench.wait(*range(600))
    acknowledged = [n for n in range(600) if bench.told[n] is None]
    assert 100 < len(acknowledged) < 600
    assert bench.stored() == acknowledged
    assert bench.journal.next_offset == len(acknowledged)


def test_low_space_refuses_at_once_and_ends_by_itself(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(disk_reserve_bytes=1000)
    bench.storage.free = 999
    bench.until(lambda: bench.journal.healthy())
    with pytest.raises(IngestError) as refused:
        bench.append("a")
    assert refused.value.status == 507
    bench.storage.free = 1000
    bench.until(lambda: bench.journal.healthy() is None)
    bench.append("a")
    bench.wait("a")
    assert bench.told["a"] is None


def test_written_records_are_made_durable_within_about_a_second_without_traffic(
    bench: Bench,
) -> None:
    synced: list[str] = []
    bench.append("a", sync=False)
    bench.wait("a")
    bench.storage.rule = lambda operation: synced.append(operation) or 0  # type: ignore[func-returns-value]
    bench.until(lambda: synced)
    assert synced == ["sync"]


def test_a_fault_in_on_commit_is_counted_and_the_next_waiters_are_told(bench: Bench) -> None:
    def on_commit(waiters: list[Any], error: IngestError | None) -> None:
        bench.journal._on_commit = bench.on_commit
        raise ZeroDivisionError

    bench.journal._on_commit = on_commit
    bench.append("a")
    bench.until(lambda: bench.metrics.unhandled_errors.cell("journal").value == 1)
    bench.append("b")
    bench.wait("b")
    assert bench.told == {"b": None}


def test_lines_that_are_none_are_refused_and_the_journal_goes_on(bench: Bench) -> None:
    bench.journal.append(b"no line", 1, "bad")
    bench.wait("bad")
    error = bench.told["bad"]
    assert error is not None and error.code == "journal_failed"
    bench.append("good")
    bench.wait("good")
    assert bench.stored() == [1]


def test_a_commit_that_does_not_return_makes_the_journal_unhealthy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.journal.committer.STUCK_SECONDS", 0.01)
    bench.storage.shut()
    bench.append("a")
    bench.until(lambda: bench.journal.healthy())
    assert "has not returned" in str(bench.journal.healthy())
    bench.storage.open()
    bench.wait("a")
    assert bench.journal.healthy() is None


def test_closing_commits_what_is_pending_and_refuses_more(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(commit_max_bytes=2000)
    for n in range(50):
        bench.append(n, sync=n % 2 == 0)
    assert bench.journal.close(20)
    assert set(bench.told) == set(range(50)) and not any(bench.told.values())
    with pytest.raises(IngestError) as refused:
        bench.append("late")
    assert refused.value.code == "draining"
    assert bench.journal.healthy() == "the journal is not open"
    assert len(bench.stored()) == 50


def test_closing_says_when_the_disk_does_not_return_in_time(bench: Bench) -> None:
    bench.storage.shut()
    bench.append("a")
    bench.until(lambda: bench.storage.commits)
    assert not bench.journal.close(0.01)
    bench.storage.open()


def test_reopening_continues_offsets_ids_and_the_last_segment(
    new_bench: Callable[..., Bench],
) -> None:
    first = new_bench()
    for n in range(3):
        first.append(n)
    first.wait(0, 1, 2)
    last = first.journal.id_source.next()
    first.journal.close(20)
    second = new_bench()
    assert second.journal.next_offset == 3
    assert second.journal.id_source.next() > last[:24]
    second.append("more")
    second.wait("more")
    assert len(second.stored()) == 4
    assert len(list((second.directory / "0").iterdir())) == 1


def test_the_metrics_say_what_was_committed(bench: Bench) -> None:
    for n in range(4):
        bench.append(n)
    bench.wait(*range(4))
    text = bench.metrics.render(None)[0].decode()
    content = (bench.directory / "0" / f"{0:020d}.ndjson").read_bytes()
    size = len(content.rstrip(b"\n")) + 1
    for sample in (
        "ingest_journal_commits_total 1.0",
        "ingest_journal_records_total 4.0",
        f"ingest_journal_bytes_total {float(size)}",
        "ingest_journal_segments 1.0",
        "ingest_journal_next_offset 4.0",
        "ingest_journal_pending_records 0.0",
        "ingest_journal_sync_seconds_count 1.0",
    ):
        assert sample in text


def test_calls_out_of_order_are_a_clear_error(tmp_path: Path) -> None:
    journal = Journal(
        tmp_path,
        0,
        settings=SimpleNamespace(**SETTINGS),  # type: ignore[arg-type]
        metrics=Metrics(),
        on_commit=lambda waiters, error: None,
    )
    with pytest.raises(RuntimeError, match="open"):
        journal.start()
    with pytest.raises(RuntimeError, match="open"):
        journal.append(b"{}\n", 1, None)
    assert journal.healthy() == "the journal is not open"
    assert journal.next_offset == 0
    assert journal.close(1)
    journal.open()
    assert journal.close(1), "open and never started"
