"""Recovery: from whatever a crash left to a partition that can be appended to."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from ingest.journal.frame import Commit, mark
from ingest.journal.reader import PartitionReader
from ingest.journal.record import LINE_END, LINE_START, IdSource, middle, time_text
from ingest.journal.recovery import RecoveryReport, recover
from ingest.journal.segment import segment_path
from ingest.journal.storage import Storage


class Quick(Storage):
    """Does not wait for the disk: these tests lose no power, they make up what is left."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


STORAGE = Quick()
SIZES = (1, 3, 2)
RECORDS = sum(SIZES)


def lines(number: int) -> list[bytes]:
    made = count(1000)
    ids = IdSource(lambda: next(made) / 1000, lambda bits: 0)
    part = middle("/", "t", time_text(0), "/s")
    return [LINE_START + ids.next() + part + b"%d" % n + LINE_END for n in range(number)]


def commits(sizes: tuple[int, ...] = SIZES, base: int = 0) -> list[bytes]:
    made = lines(sum(sizes))
    position = 0
    written = []
    for size in sizes:
        body = b"".join(made[:size])[:-2]
        del made[:size]
        written.append(body + mark(body, base, size, position))
        position += len(written[-1])
        base += size
    return written


def read(directory: Path) -> list[bytes]:
    with closing(PartitionReader(STORAGE, directory)) as reader:
        items = [item for _, item in reader.poll()]
    return [one for item in items if isinstance(item, Commit) for one in item.lines]


def recovered(directory: Path) -> RecoveryReport:
    """Recover, append one more record, and check that nothing else has changed."""
    report, segment = recover(STORAGE, directory, 0.0)
    before = read(directory)
    body = lines(1)[0][:-2]
    segment.append([body, mark(body, report.next_offset, 1, segment.position)], 0.0)
    segment.close()
    assert read(directory) == [*before, lines(1)[0][:-1]]
    return report


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A new directory each time it is asked."""

    numbers = count()

    class Fresh:
        def __call__(self, *segments: tuple[int, bytes]) -> Path:
            directory = tmp_path / str(next(numbers))
            directory.mkdir()
            for base, data in segments:
                segment_path(directory, base).write_bytes(data)
            return directory

    yield Fresh()  # type: ignore[misc]


def torn(directory: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(directory.glob("*.torn-*")))


def test_an_empty_place_becomes_an_empty_journal(tmp_path: Path) -> None:
    report = recovered(tmp_path / "data" / "journal" / "0")
    assert (report.next_offset, report.segments, report.last_id) == (0, 1, None)


def test_a_whole_segment_is_appended_to(fresh) -> None:  # type: ignore[no-untyped-def]
    directory = fresh((0, b"".join(commits())))
    report = recovered(directory)
    assert (report.next_offset, report.segments, report.torn_bytes) == (RECORDS, 1, 0)
    assert report.last_id == lines(RECORDS)[-1][len(LINE_START) : len(LINE_START) + 36]


def test_ids_go_on_after_ours_where_the_last_event_has_its_producers(fresh) -> None:  # type: ignore[no-untyped-def]
    ours = lines(2)[1][len(LINE_START) : len(LINE_START) + 36]
    part = middle("/", "t", time_text(0), "/s").partition(b',"datacontenttype"')
    added = b',"ingestid":"%s","ingesttime":"%s"' % (ours, time_text(1).encode())
    line = LINE_START + b"of the producer" + part[0] + added + part[1] + part[2] + b"1"
    report = recovered(fresh((0, line + mark(line, 0, 1, 0))))
    assert report.last_id == ours


def test_a_segment_cut_at_any_byte_keeps_its_whole_commits_and_the_rest_aside(fresh) -> None:  # type: ignore[no-untyped-def]
    written = commits()
    data = b"".join(written)
    for end in range(len(data)):
        directory = fresh((0, data[:end]))
        whole = [n for n in range(len(SIZES) + 1) if len(b"".join(written[:n])) <= end][-1]
        kept = len(b"".join(written[:whole]))
        report = recovered(directory)
        assert report.next_offset == sum(SIZES[:whole]), end
        assert report.torn_bytes == end - kept
        assert torn(directory) == data[kept:end]
        assert report.damage == ()


def test_a_segment_that_ends_in_zeros_from_any_byte_keeps_its_whole_commits(fresh) -> None:  # type: ignore[no-untyped-def]
    written = commits()
    data = b"".join(written)
    for start in range(len(data)):
        directory = fresh((0, data[:start] + bytes(len(data) - start)))
        whole = [n for n in range(len(SIZES) + 1) if len(b"".join(written[:n])) <= start][-1]
        report = recovered(directory)
        assert report.next_offset == sum(SIZES[:whole]), start
        assert report.torn_bytes == len(data) - len(b"".join(written[:whole]))


@pytest.mark.parametrize("block", [512, 4096])
def test_a_hole_of_a_block_in_the_last_commit_loses_that_commit_and_no_other(  # type: ignore[no-untyped-def]
    fresh, block: int
) -> None:
    written = commits((20, 60))
    data = b"".join(written)
    first = -(-len(written[0]) // block) * block
    for start in range(first, len(data) - block, block):
        report = recovered(fresh((0, data[:start] + bytes(block) + data[start + block :])))
        assert (report.next_offset, report.torn_bytes) == (20, len(written[1]))
        assert report.damage == ()


def test_a_bit_flipped_anywhere_never_costs_another_commit_than_its_own(fresh) -> None:  # type: ignore[no-untyped-def]
    written = commits()
    data = b"".join(written)
    ends = [len(b"".join(written[: n + 1])) for n in range(len(written))]
    all_lines = lines(RECORDS)
    for byte in range(len(data)):
        changed = bytearray(data)
        changed[byte] ^= 1 << (byte % 8)
        directory = fresh((0, bytes(changed)))
        report = recovered(directory)
        hit = next(n for n, end in enumerate(ends) if byte < end)
        first, last = sum(SIZES[:hit]), sum(SIZES[: hit + 1])
        kept = all_lines[:first] + all_lines[last:]
        assert read(directory)[:-1] == [one[:-1] for one in kept], byte
        if hit == len(SIZES) - 1:
            assert (report.next_offset, report.damage) == (first, ())
        else:
            assert report.next_offset == RECORDS
            assert [(d.start, d.end) for d in report.damage] == [
                (ends[hit - 1] if hit else 0, ends[hit])
            ]
            assert segment_path(directory, 0).read_bytes() == bytes(changed), "nothing is cut"
            assert segment_path(directory, RECORDS).exists(), "and nothing is appended to it"


def test_what_was_cut_before_is_not_overwritten(fresh) -> None:  # type: ignore[no-untyped-def]
    directory = fresh((0, commits()[0] + b"first"))
    recovered(directory)
    path = segment_path(directory, 0)
    with path.open("ab") as file:
        file.write(b"second")
    recovered(directory)
    assert sorted(p.read_bytes() for p in directory.glob("*.torn-*")) == [b"first", b"second"]


def test_an_empty_newest_segment_continues_after_the_one_before(fresh) -> None:  # type: ignore[no-untyped-def]
    report = recovered(fresh((0, b"".join(commits())), (RECORDS, b"")))
    assert (report.next_offset, report.segments) == (RECORDS, 2)
    assert report.last_id == lines(RECORDS)[-1][len(LINE_START) : len(LINE_START) + 36]


def test_records_a_failed_segment_holds_past_the_next_ones_base_do_not_count(fresh) -> None:  # type: ignore[no-untyped-def]
    directory = fresh((0, b"".join(commits())), (4, b""))
    report = recovered(directory)
    assert report.next_offset == 4
    assert report.last_id == lines(4)[-1][len(LINE_START) : len(LINE_START) + 36]
    assert len(read(directory)) == 5


def test_without_room_for_a_copy_the_tail_is_left_and_a_new_segment_begins(fresh) -> None:  # type: ignore[no-untyped-def]
    class Full(Quick):
        def write(self, descriptor: int, parts: object, position: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    data = commits()[0] + b"torn"
    directory = fresh((0, data))
    report, segment = recover(Full(), directory, 0.0)
    segment.close()
    assert (report.next_offset, report.torn_bytes, report.torn_path) == (1, 4, None)
    assert segment_path(directory, 0).read_bytes() == data
    assert segment.path == segment_path(directory, 1)
    assert not list(directory.glob("*.torn-*"))
    assert len(read(directory)) == 1


def test_another_failure_of_the_copy_stops_the_start_and_cuts_nothing(fresh) -> None:  # type: ignore[no-untyped-def]
    class Broken(Quick):
        def write(self, descriptor: int, parts: object, position: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    data = commits()[0] + b"torn"
    directory = fresh((0, data))
    with pytest.raises(OSError, match="Input/output"):
        recover(Broken(), directory, 0.0)
    assert segment_path(directory, 0).read_bytes() == data


def test_the_recovered_records_are_made_durable_before_they_count(fresh) -> None:  # type: ignore[no-untyped-def]
    class Failing(Quick):
        def sync(self, descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    directory = fresh((0, b"".join(commits())))
    with pytest.raises(OSError) as caught:
        recover(Failing(), directory, 0.0)
    assert caught.value.filename == str(segment_path(directory, 0))


def test_a_file_in_the_directorys_place_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(OSError) as caught:
        recover(Storage(), tmp_path / "journal" / "0", 0.0)
    assert str(tmp_path / "journal") in str(caught.value.filename)


def test_recovery_leaves_one_descriptor_open_the_segments(fresh) -> None:  # type: ignore[no-untyped-def]
    directory = fresh((0, b"".join(commits()) + b"torn"), (RECORDS, b"torn"))
    before = len(os.listdir("/proc/self/fd"))
    _, segment = recover(STORAGE, directory, 0.0)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    segment.close()
    assert len(os.listdir("/proc/self/fd")) == before
