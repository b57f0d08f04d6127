"""Reading batches of one type: only what is settled, each record once, in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.consuming_batches import BatchReader, Fetched, Gap
from ingest.consuming_lag import Ruler
from ingest.journal.storage import Storage
from tests.support.journals import Written


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def reader_of(
    written: Written, start: int = 0, events: int = 100, size: int = 1 << 20
) -> BatchReader:
    return BatchReader(Storage(), written.directory / "0", "a", start, events, size)


def offsets(fetched: Fetched) -> list[int]:
    return [record.offset for record in fetched.records]


def test_records_of_other_types_are_passed_over(written: Written) -> None:
    written.commit("a", "b", "a")
    written.commit("b")
    fetched = reader_of(written).fetch(4)
    assert offsets(fetched) == [0, 2]
    assert (fetched.next_offset, fetched.full, fetched.gaps) == (4, False, [])


def test_a_type_whose_name_stands_in_the_data_of_another_is_not_taken_for_it(
    written: Written,
) -> None:
    forged = b'{"x":1,"type":"a","time":"2026-01-01T00:00:00.000Z"}'
    written.commit("b", datas=[forged])
    assert offsets(reader_of(written).fetch(1)) == []


def test_a_batch_may_end_within_a_commit(written: Written) -> None:
    written.commit("a", "b", "a", "b", "a")
    reader = reader_of(written, events=2)
    first = reader.fetch(5)
    assert (offsets(first), first.next_offset, first.full) == ([0, 2], 4, True)
    assert reader.behind(5)
    second = reader.fetch(5)
    assert (offsets(second), second.next_offset, second.full) == ([4], 5, False)
    assert not reader.behind(5)


def test_a_batch_ends_when_it_has_its_size(written: Written) -> None:
    written.commit("a", "a", "a")
    reader = reader_of(written, size=1)
    assert [offsets(reader.fetch(3)) for _ in range(4)] == [[0], [1], [2], []]


def test_what_is_written_and_not_told_of_is_not_given_out(written: Written) -> None:
    written.commit("a")
    written.commit("a")
    reader = reader_of(written)
    assert offsets(reader.fetch(1)) == [0]
    assert offsets(reader.fetch(1)) == []
    assert offsets(reader.fetch(2)) == [1]


def test_what_comes_instead_of_a_commit_that_failed_is_given_out_and_not_that(
    written: Written,
) -> None:
    written.commit("a")
    reader = reader_of(written, events=1)
    written.commit("a", "a", datas=[b'"lost"', b'"lost"'])  # its fdatasync fails after that
    assert offsets(reader.fetch(1)) == [0]
    written.numbers[0] = 1
    written.new_segment(0)
    written.commit("a", "a", "a", datas=[b'"kept"'] * 3)
    records = [record for _ in range(3) for record in reader.fetch(4).records]
    assert [record.offset for record in records] == [1, 2, 3]
    assert all(b'"data":"kept"' in record.line for record in records)


def test_it_goes_on_from_one_segment_into_the_next_whatever_form_they_have(
    written: Written,
) -> None:
    reader = reader_of(written, start=1, events=3)
    written.commit("a", "a", "a")
    written.compress()
    written.commit("a")
    assert offsets(reader.fetch(4)) == [1, 2, 3]
    written.commit("a")
    written.new_segment(0)
    written.commit("a")
    assert offsets(reader.fetch(6)) == [4, 5]


def test_a_gap_is_told_with_the_records_behind_it(written: Written) -> None:
    written.commit("a", "a")
    first = written.path
    written.new_segment(0)
    written.commit("a")
    first.unlink()
    fetched = reader_of(written).fetch(3)
    assert offsets(fetched) == [2]
    assert fetched.gaps == [Gap(0, 2, "removed by retention")]


def test_a_gap_before_an_empty_segment_does_not_hold_it_up(written: Written) -> None:
    written.commit("a", "a")
    first = written.path
    written.new_segment(0)
    first.unlink()
    fetched = reader_of(written).fetch(2)
    assert (fetched.records, fetched.next_offset) == ([], 2)
    assert fetched.gaps == [Gap(0, 2, "removed by retention")]


def test_damage_is_a_gap(written: Written) -> None:
    written.commit("a")
    start = written.path.stat().st_size
    written.commit("a", "a")
    written.commit("a")
    written.flip(start + 30)
    fetched = reader_of(written).fetch(4)
    assert offsets(fetched) == [0, 3]
    ((first, records, reason),) = fetched.gaps
    assert (first, records) == (1, 2)
    assert reason != "removed by retention"


def test_it_can_be_sent_back(written: Written) -> None:
    written.commit("a", "a", "a")
    reader = reader_of(written, events=2)
    reader.fetch(3)
    reader.rewind(1)
    assert offsets(reader.fetch(3)) == [1, 2]


def test_bytes_behind_are_counted_from_the_commit_of_the_record_to_the_last(
    written: Written,
) -> None:
    sizes = [len(written.commit("a", "a")), len(written.commit("b"))]
    written.compress()
    sizes += [len(written.commit("a")), len(written.commit("a"))]
    with written.path.open("ab") as file:
        file.write(b"\n" * 5000)  # fill
    ruler = Ruler(Storage(), written.directory / "0")
    assert ruler.bytes_behind(0) == ruler.bytes_behind(1) == sum(sizes)
    assert ruler.bytes_behind(2) == sum(sizes[1:])
    assert ruler.bytes_behind(4) == sizes[3]
    assert ruler.bytes_behind(5) == 0
    assert ruler.next_offset() == 5
