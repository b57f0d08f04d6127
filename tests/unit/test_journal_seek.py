"""A partition read from any offset on, over plain and compressed segments that come and go."""

import os
from contextlib import closing
from pathlib import Path

import pytest

from ingest.journal.frame import Commit, Damage
from ingest.journal.reader import PartitionReader
from ingest.journal.segment import list_segments
from ingest.journal.storage import Storage
from tests.support.journals import Written

RECORDS = 12


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Segments with records 0 to 5, compressed, 6 to 9, compressed, and 10 to 11, plain."""
    made = Written(tmp_path / "data")
    made.commit("a", "b", "c")
    made.commit("a")
    made.commit("b", "c")
    made.compress()
    made.commit("a", "b", "c", "d")
    made.compress()
    made.commit("a", "b")
    return made


def offsets(reader: PartitionReader) -> list[int]:
    found = []
    for _, item in reader.poll():
        assert isinstance(item, Commit)
        lines = item.lines
        assert len(lines) == item.records
        for offset, line in enumerate(lines, item.first):
            assert b'"data":{"n": %d}' % offset in line and line.startswith(b'{"specversion"')
            found.append(offset)
    return found


def opened(written: Written, storage: Storage | None = None) -> PartitionReader:
    return PartitionReader(storage or Storage(), written.path.parent)


def test_reading_begins_with_any_record_that_was_asked_for(written: Written) -> None:
    for offset in range(RECORDS):
        with closing(opened(written)) as reader:
            reader.seek(offset)
            assert offsets(reader) == list(range(offset, RECORDS)), offset


def test_reading_from_the_end_gives_what_comes_next(written: Written) -> None:
    with closing(opened(written)) as reader:
        reader.seek(RECORDS)
        assert offsets(reader) == []
        written.commit("a", "b")
        assert offsets(reader) == [12, 13]
        written.new_segment()
        written.commit("a")
        assert offsets(reader) == [14]


def test_reading_from_beyond_the_end_begins_when_it_gets_there(written: Written) -> None:
    with closing(opened(written)) as reader:
        reader.seek(RECORDS + 1)
        written.commit("a", "b", "c")
        assert offsets(reader) == [13, 14]


def test_reading_from_before_the_oldest_record_begins_with_that(written: Written) -> None:
    list_segments(Storage(), written.path.parent)[0].path.unlink()
    with closing(opened(written)) as reader:
        reader.seek(2)
        assert offsets(reader) == list(range(6, RECORDS))


def test_a_reader_may_seek_again_back_and_forth(written: Written) -> None:
    with closing(opened(written)) as reader:
        for offset in (9, 2, 11, 0):
            reader.seek(offset)
            assert offsets(reader) == list(range(offset, RECORDS))


def test_damage_is_told_where_it_concerns_a_record_from_there_on(written: Written) -> None:
    written.commit("a")  # 12, which is damaged
    end = written.path.stat().st_size
    written.commit("b", "c")
    written.flip(end - 30)

    def seen(offset: int) -> list[tuple[type, int]]:
        with closing(opened(written)) as reader:
            reader.seek(offset)
            return [
                (type(item), item.first if isinstance(item, Commit) else item.offset)
                for _, item in reader.poll()
            ]

    assert seen(11) == [(Commit, 11), (Damage, 12), (Commit, 13)]
    assert seen(12) == [(Damage, 12), (Commit, 13)]
    assert seen(13) == [(Commit, 13)]
    assert seen(14) == [(Commit, 14)]


class Counting(Storage):
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        self.bytes = 0

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        data = super().read(descriptor, size, position)
        self.bytes += len(data)
        return data


def test_seeking_in_a_large_segment_reads_little_of_it(tmp_path: Path) -> None:
    written = Written(tmp_path / "data")
    for _ in range(400):
        written.commit(*["a"] * 100)
    size = written.path.stat().st_size
    assert size > 6 << 20
    storage = Counting()
    with closing(opened(written, storage)) as reader:
        reader.seek(39_990)
        assert offsets(reader) == list(range(39_990, 40_000))
    assert storage.bytes < size / 4


class Replacing(Storage):
    """Does something right before a file is opened for reading."""

    def __init__(self, written: Written) -> None:
        self.written = written
        self.jobs: dict[str, object] = {}

    def open_read(self, path: Path) -> int:
        job = self.jobs.pop(path.name, None)
        if job is not None:
            job()  # type: ignore[operator]
        return super().open_read(path)


def test_a_segment_that_is_compressed_between_listing_and_opening_is_read(tmp_path: Path) -> None:
    written = Written(tmp_path / "data")
    written.commit("a", "b")
    storage = Replacing(written)
    storage.jobs[written.path.name] = written.compress
    with closing(opened(written, storage)) as reader:
        assert offsets(reader) == [0, 1]
    assert not storage.jobs


def test_a_segment_that_is_removed_between_listing_and_opening_is_passed_over(
    written: Written,
) -> None:
    storage = Replacing(written)
    oldest = list_segments(storage, written.path.parent)[0].path
    storage.jobs[oldest.name] = lambda: os.unlink(oldest)
    with closing(opened(written, storage)) as reader:
        assert offsets(reader) == list(range(6, RECORDS))
    assert not storage.jobs


def test_a_reader_keeps_the_file_it_has_open_when_that_is_compressed_or_removed(
    tmp_path: Path,
) -> None:
    written = Written(tmp_path / "data")
    written.commit("a", "b")
    plain = written.path
    with closing(opened(written)) as reader:
        assert offsets(reader) == [0, 1]
        written.commit("c")
        packed = written.compress()
        packed.unlink()
        assert not plain.exists()
        written.commit("d")
        assert offsets(reader) == [2, 3]


def test_a_segment_of_which_both_forms_are_there_is_read_once(written: Written) -> None:
    content = written.path.read_bytes()
    packed = written.compress()
    packed.with_suffix("").write_bytes(content)
    assert [file.compressed for file in list_segments(Storage(), written.path.parent)] == [
        True, True, False, False,
    ]  # fmt: skip
    with closing(opened(written)) as reader:
        assert offsets(reader) == list(range(RECORDS))
