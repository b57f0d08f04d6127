"""The thread's half of the commit path: what it does when file operations fail."""

import errno
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from gevent.monkey import get_original

from ingest.journal.frame import Commit
from ingest.journal.reader import PartitionReader
from ingest.journal.recovery import recover
from ingest.journal.segment import list_segments, segment_path
from ingest.journal.storage import Storage
from ingest.journal.writer import (
    Batch,
    Finished,
    Message,
    Notice,
    Opened,
    Stopped,
    Synced,
    Trouble,
    Writer,
    Written,
)

GIB = 1 << 30


def in_a_thread(job: Callable[[], object]) -> Callable[[], object]:
    """Start a job in a native thread; returns what waits for its end."""
    ended = get_original("_thread", "allocate_lock")()
    ended.acquire()

    def work() -> None:
        try:
            job()
        finally:
            ended.release()

    get_original("_thread", "start_new_thread")(work, ())
    return ended.acquire


class Faulty(Storage):
    """Fails the operations it is told to, and remembers their order.

    `faults["write"] = [None, ENOSPC]` lets one write through and fails the next.
    """

    def __init__(self) -> None:
        self.faults: dict[str, list[int | None]] = {}
        self.calls: list[str] = []
        self.free = GIB
        self.torn_write = 0  # so much of a failing write gets to the file

    def _may_fail(self, name: str) -> None:
        self.calls.append(name)
        due = self.faults.get(name)
        code = due.pop(0) if due else None
        if code is not None:
            raise OSError(code, os.strerror(code))

    def write(self, descriptor: int, parts: object, position: int) -> None:
        try:
            self._may_fail("write")
        except OSError:
            os.pwrite(descriptor, b"".join(parts)[: self.torn_write], position)  # type: ignore[call-overload]
            raise
        super().write(descriptor, parts, position)  # type: ignore[arg-type]

    def sync(self, descriptor: int) -> None:
        self._may_fail("sync")

    def sync_directory(self, path: Path) -> None:
        self._may_fail("sync_directory")

    def open_write(self, path: Path, *, create: bool) -> int:
        self._may_fail("open")
        return super().open_write(path, create=create)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._may_fail("close")

    def free_bytes(self, path: Path) -> int:
        self._may_fail("free_bytes")
        return self.free


class Bench:
    """A writer, its clock, its faults and what it said."""

    def __init__(self, directory: Path, **settings: float) -> None:
        self.directory = directory
        self.storage = Faulty()
        self.now = 100.0
        self.said: list[Message] = []
        self.started = 0
        self.later: list[Callable[[], None]] | None = None
        defaults = {
            "segment_max_bytes": 1000,
            "segment_max_age_seconds": 0,
            "disk_reserve_bytes": 10,
            "segment_fill_bytes": 0,
        }
        report, segment = recover(self.storage, directory, self.now)
        self.writer = Writer(
            directory,
            SimpleNamespace(**{**defaults, **settings}),  # type: ignore[arg-type]
            self.storage,
            segment,
            report.next_offset,
            self.said.append,
            lambda: self.now,
            self._beside,
        )
        self.storage.calls.clear()

    def _beside(self, job: Callable[[], None]) -> None:
        """Done at once, or when the test says so, if it has put a list there."""
        job() if self.later is None else self.later.append(job)

    def commit(self, records: int = 1, sync: int = 1, write: int = 0) -> list[Message]:
        """Commit a batch; returns what the writer said about it."""
        batch = Batch()
        for _ in range(records):
            batch.chunks.append(b'{"data":%d}\n' % self.started)
            self.started += 1
        batch.records = records
        batch.size = sum(map(len, batch.chunks))
        batch.sync_waiters += [f"sync{n}" for n in range(sync)]
        batch.write_waiters += [f"write{n}" for n in range(write)]
        return self.saying(lambda: self.writer.commit(batch))

    def maintain(self, after: float = 0.0) -> list[Message]:
        self.now += after
        return self.saying(lambda: self.writer.maintain(self.now))

    def saying(self, act) -> list[Message]:  # type: ignore[no-untyped-def]
        before = len(self.said)
        act()
        return self.said[before:]

    def stored(self) -> list[bytes]:
        with closing(PartitionReader(self.storage, self.directory)) as reader:
            items = [item for _, item in reader.poll()]
        commits = [item for item in items if isinstance(item, Commit)]
        return [line[8:-1] for commit in commits for line in commit.lines]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def finished(said: list[Message]) -> Finished:
    (message,) = [one for one in said if isinstance(one, Finished)]
    return message


def test_a_commit_is_one_write_and_one_fdatasync(bench: Bench) -> None:
    done = finished(bench.commit(records=3, sync=2))
    assert (done.error, done.waiters, done.records) == (None, ["sync0", "sync1"], 3)
    assert bench.storage.calls == ["write", "sync"]
    assert bench.writer.next_offset == 3


def test_a_commit_nobody_waits_to_be_durable_is_only_written_and_synced_later(bench: Bench) -> None:
    bench.maintain()
    assert finished(bench.commit(sync=0, write=1)).waiters == ["write0"]
    assert bench.storage.calls[-1] == "write"
    assert bench.maintain(0.5) == []
    assert [type(one) for one in bench.maintain(0.5)] == [Synced]
    assert bench.maintain(1.0) == [], "nothing is left to sync"


def test_in_a_mixed_commit_those_who_wait_for_write_are_told_before_fdatasync(bench: Bench) -> None:
    said = bench.commit(sync=1, write=2)
    assert said[0] == Written(["write0", "write1"])
    assert finished(said).waiters == ["sync0"]


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("acknowledged", [0, 2])
def test_a_failed_commit_is_nacked_and_the_journal_goes_on_in_a_new_file(
    bench: Bench, operation: str, acknowledged: int
) -> None:
    for _ in range(acknowledged):
        assert finished(bench.commit()).error is None
    bench.storage.faults[operation] = [errno.EIO]
    bench.storage.torn_write = 5
    said = bench.commit(records=2, sync=2)
    error = finished(said).error
    assert error is not None and error.code == "journal_failed"
    assert "Input/output error" in error.detail
    assert finished(said).waiters == ["sync0", "sync1"]
    assert [one.operation for one in said if isinstance(one, Trouble)] == [operation]
    assert bench.writer.next_offset == acknowledged
    assert "close" in bench.storage.calls, "the descriptor is not kept"

    assert finished(bench.commit()).error is None
    last = bench.started - 1
    assert bench.stored() == [b"%d" % n for n in (*range(acknowledged), last)]
    names = [file.base for file in list_segments(bench.storage, bench.directory)]
    assert names == ([0, acknowledged] if acknowledged else [0])


def test_after_a_failed_fdatasync_that_file_is_never_synced_or_written_again(bench: Bench) -> None:
    bench.commit()
    bench.storage.faults["sync"] = [errno.EIO]
    bench.commit()
    bench.storage.calls.clear()
    bench.commit()
    assert bench.storage.calls == ["open", "sync_directory", "write", "sync"]


def test_records_told_of_after_write_are_synced_before_a_failed_write_seals_their_file(
    bench: Bench,
) -> None:
    bench.commit(sync=0, write=1)
    bench.storage.faults["write"] = [errno.ENOSPC]
    bench.storage.calls.clear()
    assert finished(bench.commit()).error is not None
    assert bench.storage.calls == ["write", "sync", "close"]


def test_records_told_of_after_write_keep_their_offsets_when_fdatasync_fails(bench: Bench) -> None:
    bench.storage.faults["sync"] = [errno.EIO]
    said = bench.commit(records=2, sync=1, write=1)
    assert said[0] == Written(["write0"])
    assert finished(said).error is not None
    assert bench.writer.next_offset == 2
    bench.commit()
    assert bench.stored() == [b"0", b"1", b"2"]


def test_a_background_fdatasync_that_fails_seals_the_segment(bench: Bench) -> None:
    bench.commit(sync=0, write=1)
    bench.storage.faults["sync"] = [errno.EIO]
    said = bench.maintain(1.0)
    assert [one.operation for one in said if isinstance(one, Trouble)] == ["sync"]
    assert bench.writer.trouble
    bench.commit()
    assert segment_path(bench.directory, 1).exists()
    assert bench.stored() == [b"0", b"1"]


def test_writing_goes_on_while_an_fdatasync_is_under_way_beside(bench: Bench) -> None:
    bench.later = []
    bench.commit(sync=0, write=1)
    assert bench.maintain(1.0) == []
    bench.storage.calls.clear()
    for _ in range(3):
        assert finished(bench.commit(sync=0, write=1)).error is None
        bench.maintain(1.0)
    assert "sync" not in bench.storage.calls and len(bench.later) == 1
    bench.later.pop()()
    bench.maintain(1.0)
    assert len(bench.later) == 1  # for what was written meanwhile
    bench.later.pop()()
    bench.maintain(1.0)
    assert not bench.later


def test_what_failed_beside_is_known_before_the_writer_trusts_its_own(bench: Bench) -> None:
    """The kernel tells one fdatasync of a failure, and the next one that all is well."""
    bench.later = []
    bench.commit(sync=0, write=1)
    bench.maintain(1.0)
    bench.storage.faults["sync"] = [errno.EIO]
    in_a_thread(bench.later.pop())()
    said = bench.commit(sync=1)
    assert [one.operation for one in said if isinstance(one, Trouble)] == ["sync"]
    assert finished(said).error is None  # in the next segment
    assert segment_path(bench.directory, 1).exists()
    assert bench.stored() == [b"0", b"1"]


def test_a_segment_is_not_closed_under_an_fdatasync(bench: Bench) -> None:
    bench.later = []
    bench.commit(sync=0, write=1)
    bench.maintain(1.0)
    bench.storage.calls.clear()
    closed = in_a_thread(bench.writer.close)
    assert "close" not in bench.storage.calls
    bench.later.pop()()
    closed()
    assert bench.storage.calls.index("sync") < bench.storage.calls.index("close")


def test_a_full_disk_is_507_until_there_is_room_again(bench: Bench) -> None:
    bench.commit()
    bench.storage.faults["write"] = [errno.ENOSPC]
    bench.storage.torn_write = 7
    said = bench.commit()
    error = finished(said).error
    assert error is not None and error.code == "disk_full"
    assert bench.writer.refusal

    bench.storage.free = 9
    said = bench.maintain()
    assert [one.event for one in said if isinstance(one, Notice)] == []
    bench.maintain(1.0)
    assert "9 bytes are free" in bench.writer.refusal
    bench.storage.free = 10
    said = bench.maintain(1.0)
    assert bench.writer.refusal == ""
    assert "journal.disk_has_room" in [one.event for one in said if isinstance(one, Notice)]
    assert finished(bench.commit()).error is None
    assert bench.stored() == [b"0", b"2"]


def test_a_quota_that_is_used_up_is_tried_again_after_a_second(bench: Bench) -> None:
    bench.storage.faults["write"] = [errno.EDQUOT]
    error = finished(bench.commit()).error
    assert error is not None and error.code == "disk_full"
    bench.maintain()
    assert bench.writer.refusal, "not at once: the file system itself has room"
    bench.maintain(1.0)
    assert bench.writer.refusal == ""


def test_the_reserve_is_kept_before_the_disk_is_full(bench: Bench) -> None:
    bench.storage.free = 5
    said = bench.maintain()
    assert bench.writer.refusal == "5 bytes are free; 10 are kept in reserve."
    assert [one.event for one in said if isinstance(one, Notice)] == ["journal.disk_full"]
    assert bench.maintain(1.0) == [], "said once"
    assert bench.writer.free_bytes == 5


def test_free_space_that_cannot_be_read_is_trouble_and_changes_nothing(bench: Bench) -> None:
    bench.storage.faults["free_bytes"] = [errno.EIO]
    assert [type(one) for one in bench.maintain()] == [Trouble]
    assert bench.writer.refusal == ""


@pytest.mark.parametrize("operation", ["open", "sync_directory"])
def test_when_no_segment_can_be_opened_commits_fail_until_one_can(
    bench: Bench, operation: str
) -> None:
    bench.storage.faults["write"] = [errno.EIO]
    bench.storage.faults[operation] = [errno.EROFS, errno.EROFS, errno.EROFS]
    bench.commit()
    bench.maintain()
    said = bench.commit()
    error = finished(said).error
    assert error is not None and error.code == "journal_failed"
    assert [one.operation for one in said if isinstance(one, Trouble)] == ["open"]
    bench.maintain(1.0)
    assert "Read-only file system" in bench.writer.trouble
    bench.maintain(1.0)
    assert bench.writer.trouble == "", "it opens a segment without being asked to commit"
    assert finished(bench.commit()).error is None
    assert bench.stored() == [b"2"]


def test_a_commit_that_works_ends_the_trouble(bench: Bench) -> None:
    bench.storage.faults["sync"] = [errno.EIO]
    bench.commit()
    assert "sync failed" in bench.writer.trouble
    said = bench.commit()
    assert bench.writer.trouble == ""
    assert "journal.works_again" in [one.event for one in said if isinstance(one, Notice)]


def test_a_full_segment_is_followed_by_one_named_after_its_first_offset(bench: Bench) -> None:
    for _ in range(60):
        assert finished(bench.commit(records=3)).error is None
    files = list_segments(bench.storage, bench.directory)
    assert len(files) > 3
    assert all(file.path.stat().st_size <= 1100 for file in files)
    assert bench.stored() == [b"%d" % n for n in range(180)]
    assert len([one for one in bench.said if isinstance(one, Opened)]) == len(files) - 1


def test_a_segment_is_durable_before_the_next_one_begins(bench: Bench) -> None:
    while segment_path(bench.directory, 0).stat().st_size < 900:
        bench.commit(sync=0, write=1)
    bench.storage.calls.clear()
    bench.commit(records=9, sync=0, write=1)
    assert bench.storage.calls == ["sync", "close", "open", "sync_directory", "write"]


def test_a_rotation_whose_fdatasync_fails_goes_on_in_the_new_segment(bench: Bench) -> None:
    bench.commit(records=50, sync=0, write=1)
    bench.storage.faults["sync"] = [errno.EIO]
    bench.storage.faults["close"] = [errno.EIO]
    said = bench.commit(records=50)
    assert [one.operation for one in said if isinstance(one, Trouble)] == ["rotate", "close"]
    assert finished(said).error is None
    assert len(bench.stored()) == 100


def test_an_old_segment_is_rotated_though_there_is_no_traffic(tmp_path: Path) -> None:
    bench = Bench(tmp_path, segment_max_age_seconds=60)
    bench.maintain(61.0)
    assert len(list_segments(bench.storage, tmp_path)) == 1, "an empty one is left alone"
    bench.commit()
    bench.maintain(1.0)
    assert [file.base for file in list_segments(bench.storage, tmp_path)] == [0, 1]


def test_an_old_segment_is_rotated_by_the_commit_that_finds_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, segment_max_age_seconds=60)
    bench.commit()
    bench.now += 61.0
    bench.commit()
    assert [file.base for file in list_segments(bench.storage, tmp_path)] == [0, 1]


def test_a_commit_larger_than_a_segment_gets_one_of_its_own(bench: Bench) -> None:
    bench.commit(records=200)
    bench.commit(records=200)
    assert [file.base for file in list_segments(bench.storage, bench.directory)] == [0, 200]
    assert len(bench.stored()) == 400


@pytest.mark.parametrize(
    ("chunks", "records"), [([b'{"a":1}'], 1), ([b'{"a":1}\n{"b":2}\n'], 1), ([b'{"a":1}\n'], 2)]
)
def test_what_could_not_be_read_back_is_not_written(
    bench: Bench, chunks: list[bytes], records: int
) -> None:
    batch = Batch()
    batch.chunks, batch.records, batch.sync_waiters = chunks, records, ["w"]
    with pytest.raises(ValueError, match="record"):
        bench.writer.commit(batch)
    bench.writer.abandon(batch, ValueError("x"))
    done = finished(bench.said)
    assert done.error is not None and done.error.code == "journal_failed"
    assert done.waiters == ["w"]
    assert finished(bench.commit()).error is None
    assert bench.stored() == [b"0"]


def test_closing_makes_durable_what_was_only_written(bench: Bench) -> None:
    bench.commit(sync=0, write=1)
    bench.storage.calls.clear()
    assert bench.saying(bench.writer.close) == [Stopped()]
    assert bench.storage.calls == ["sync", "close"]


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    storage = Storage()
    descriptor = storage.open_write(path, create=True)
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: os.pwrite(fd, b"".join(parts)[:4], at))
    storage.write(descriptor, [b"abc", b"defgh", b"ij"], 0)
    storage.close(descriptor)
    assert path.read_bytes() == b"abcdefghij"
