"""Starting on a partition whose newest segment, or any, is a compressed one, sound or not."""

from pathlib import Path

import pytest

from ingest.journal import verify
from ingest.journal.frame import Commit
from ingest.journal.reader import PartitionReader
from ingest.journal.record import head_of
from ingest.journal.recovery import RecoveryReport, recover
from ingest.journal.segment import list_segments
from ingest.journal.storage import Storage
from tests.support.journals import Written


class Quick(Storage):
    """Does not wait for the disk: these tests lose no power."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


STORAGE = Quick()


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """One compressed segment with records 0 to 3, and no other one."""
    written = Written(tmp_path / "data")
    written.commit("a", "b")
    written.commit("a")
    written.commit("b")
    path = written.compress()
    written.path.unlink()
    return path


def records(directory: Path) -> list[bytes]:
    reader = PartitionReader(STORAGE, directory)
    items = [item for _, item in reader.poll()]
    reader.close()
    return [line for item in items if isinstance(item, Commit) for line in item.lines]


def recovered(directory: Path) -> RecoveryReport:
    report, segment = recover(STORAGE, directory, 0.0)
    segment.close()
    files = list_segments(STORAGE, directory)
    assert files[-1].base == report.next_offset and not files[-1].compressed
    assert report.segments == len(files)
    return report


def problems(directory: Path) -> list[verify.Problem]:
    found = verify.verify_partition(STORAGE, directory)
    return [result for result in found if isinstance(result, verify.Problem)]


def test_a_compressed_segment_is_never_appended_to(packed: Path) -> None:
    content, before = packed.read_bytes(), records(packed.parent)
    report = recovered(packed.parent)
    assert (report.next_offset, report.torn_bytes, report.damage) == (4, 0, ())
    head = head_of(before[-1])
    assert head is not None and report.last_id == head.id
    assert packed.read_bytes() == content
    assert records(packed.parent) == before
    assert recovered(packed.parent).next_offset == 4
    assert problems(packed.parent) == []


def test_offsets_that_were_given_out_are_not_given_out_again(packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    data[20] ^= 1  # in the only frame; the note behind it says how far it went
    packed.write_bytes(data)
    report = recovered(packed.parent)
    assert report.next_offset == 4
    assert report.damage and "compressed file" in report.damage[-1].reason
    assert problems(packed.parent)


def test_a_file_that_says_nothing_any_more_is_kept_aside(packed: Path) -> None:
    packed.write_bytes(b"\0" * 500)
    report = recovered(packed.parent)
    assert (report.next_offset, report.torn_bytes) == (0, 500)
    assert report.torn_path is not None and report.torn_path.read_bytes() == b"\0" * 500


def test_a_compressed_segment_cut_at_any_byte_is_found_and_no_start_fails(packed: Path) -> None:
    whole, before = packed.read_bytes(), records(packed.parent)
    for end in range(len(whole)):
        packed.write_bytes(whole[:end])
        for path in set(packed.parent.iterdir()) - {packed}:
            path.unlink()
        assert problems(packed.parent), end
        report = recovered(packed.parent)
        left = records(packed.parent)
        assert left == before[: report.next_offset], end


def test_a_change_of_any_bit_of_a_compressed_segment_is_found_and_no_start_fails(
    packed: Path,
) -> None:
    recovered(packed.parent)  # so that it is not the newest one
    whole, before = packed.read_bytes(), records(packed.parent)
    for bit in range(len(whole) * 8):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        packed.write_bytes(changed)
        found = problems(packed.parent)
        assert found, bit
        assert {problem.path for problem in found} <= {
            str(packed),
            str(packed.with_name(f"{4:020d}.ndjson")),  # before which records are missing
        }
        left = records(packed.parent)
        assert set(left) <= set(before)
        assert recovered(packed.parent).next_offset == 4
