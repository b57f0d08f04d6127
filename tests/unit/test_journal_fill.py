"""The line feeds ahead of an open segment's end: never content, whatever comes over them."""

from contextlib import closing
from pathlib import Path

import pytest

from ingest.journal.frame import Commit, mark
from ingest.journal.reader import PartitionReader
from ingest.journal.recovery import recover
from ingest.journal.segment import Segment, segment_path
from ingest.journal.storage import Storage
from ingest.journal.verify import Problem, verify_partition

STORAGE = Storage()
FILL = b"\n" * 500
LINE = b'{"specversion":"1.0","id":"1","source":"/","type":"t","time":"x","data":%d}\n'


def commit(number: int, position: int) -> list[bytes]:
    body = (LINE % number)[:-2]
    return [body, mark(body, number, 1, position)]


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    """A segment with two commits and fill behind them, as it is while it is written to."""
    made = Segment.create(STORAGE, tmp_path, 0, 0.0)
    for number in range(2):
        made.append(commit(number, made.position), 0.0, FILL)
    return made


def read(reader: PartitionReader) -> list[bytes]:
    return [item.lines[0] for _, item in reader.poll() if isinstance(item, Commit)]


def test_the_file_is_filled_once_and_then_written_over(segment: Segment) -> None:
    size = segment.path.stat().st_size
    first = segment.path.read_bytes().index(b"\n") + 1
    assert size == first + len(FILL)
    assert segment.path.read_bytes()[segment.position :] == b"\n" * (size - segment.position)


def test_closing_cuts_the_fill_off(segment: Segment) -> None:
    segment.close()
    assert segment.path.stat().st_size == segment.position


def test_a_reader_passes_over_the_fill_and_sees_what_is_written_over_it(segment: Segment) -> None:
    with closing(PartitionReader(STORAGE, segment.path.parent)) as reader:
        assert len(read(reader)) == 2
        assert read(reader) == []
        segment.append(commit(2, segment.position), 0.0, FILL)
        assert len(read(reader)) == 1


def test_a_reader_is_not_misled_by_half_a_commit_that_is_completed_later(segment: Segment) -> None:
    with closing(PartitionReader(STORAGE, segment.path.parent)) as reader:
        assert len(read(reader)) == 2
        whole = b"".join(commit(2, segment.position))
        with segment.path.open("r+b") as file:
            for cut in range(1, len(whole) - 1):  # the last byte is a line feed already
                file.seek(segment.position)
                file.write(whole[:cut])
                file.flush()
                assert read(reader) == []
            file.write(whole[-2:])
        assert len(read(reader)) == 1


def test_a_process_that_died_leaves_fill_that_is_no_torn_tail(segment: Segment) -> None:
    report, again = recover(STORAGE, segment.path.parent, 0.0)
    assert (report.next_offset, report.torn_bytes) == (2, 0)
    assert again.position == segment.position
    again.append(commit(2, again.position), 0.0, FILL)
    with closing(PartitionReader(STORAGE, segment.path.parent)) as reader:
        assert len(read(reader)) == 3


@pytest.mark.parametrize("at", [0, 1, 40])
def test_a_torn_commit_within_the_fill_is_kept_aside_without_the_fill(
    segment: Segment, at: int
) -> None:
    # The first `at` bytes of it did not reach the disk, or only they did not.
    torn = b"\n" * at + b"".join(commit(2, segment.position))[at:-20]
    with segment.path.open("r+b") as file:
        file.seek(segment.position)
        file.write(torn)
    report, _ = recover(STORAGE, segment.path.parent, 0.0)
    assert report.next_offset == 2
    assert report.torn_path is not None
    assert report.torn_path.read_bytes() == torn + b"\n"
    assert segment.path.stat().st_size == segment.position


def test_fill_is_no_problem_to_verify_but_other_bytes_in_it_are(segment: Segment) -> None:
    def problems() -> list[Problem]:
        found = verify_partition(STORAGE, segment.path.parent)
        return [item for item in found if isinstance(item, Problem)]

    assert problems() == []
    with segment.path.open("r+b") as file:
        file.seek(segment.position + 100)
        file.write(b"x")
    (problem,) = problems()
    assert problem.path == str(segment_path(segment.path.parent, 0))
    assert problem.byte == segment.position
