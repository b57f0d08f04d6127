"""From a plain segment to its compressed form: nothing is lost, wherever it is cut short."""

import errno
import os
from pathlib import Path

import pytest

from ingest.journal.compressor import Compressed, Unfit, compress_segment, settle
from ingest.journal.frame import Commit
from ingest.journal.reader import PartitionReader
from ingest.journal.recovery import recover
from ingest.journal.seekable import FRAME_BYTES, zstd
from ingest.journal.segment import SegmentFile, compressed_path, list_segments
from ingest.journal.storage import Storage
from ingest.journal.verify import Problem, verify_partition
from tests.support.cuts import cuts, recorded, state_of
from tests.support.journals import Written

STORAGE = Storage()


def no_pause() -> None:
    pass


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A closed segment with records 0 to 5, and the newest one with record 6."""
    made = Written(tmp_path / "data")
    made.commit("a", "b", "c")
    made.commit("a")
    made.commit("b", "c")
    made.new_segment()
    made.commit("a")
    return made


def closed(written: Written) -> SegmentFile:
    return list_segments(STORAGE, written.path.parent)[0]


def compress(written: Written, storage: Storage = STORAGE) -> Compressed:
    return compress_segment(storage, closed(written), written.base, 3, no_pause)


def records(directory: Path) -> list[bytes]:
    reader = PartitionReader(STORAGE, directory)
    items = [item for _, item in reader.poll()]
    reader.close()
    assert all(isinstance(item, Commit) for item in items)
    return [line for item in items if isinstance(item, Commit) for line in item.lines]


def problems(directory: Path) -> list[Problem]:
    found = verify_partition(STORAGE, directory)
    return [result for result in found if isinstance(result, Problem)]


def test_the_compressed_form_takes_the_place_of_the_plain_one(written: Written) -> None:
    file = closed(written)
    content, before = file.path.read_bytes(), records(written.path.parent)
    done = compress(written)
    assert done == Compressed(
        compressed_path(file.path), len(content), len(content), done.path.stat().st_size
    )
    assert sorted(os.listdir(written.path.parent)) == [done.path.name, written.path.name]
    assert zstd.decompress(done.path.read_bytes()) == content
    assert records(written.path.parent) == before
    assert problems(written.path.parent) == []


def test_frames_end_where_commits_do_and_a_huge_commit_makes_several(tmp_path: Path) -> None:
    written = Written(tmp_path / "data")
    written.commit("a", "b", datas=[b'"%s"' % (b"x" * (5 << 20)), b"1"])
    ends = {written.path.stat().st_size}
    for _ in range(300):
        written.commit(*["a"] * 90)
        ends.add(written.path.stat().st_size)
    content = written.path.read_bytes()
    written.new_segment()
    data = compress(written).path.read_bytes()
    frames = []
    while not data.startswith(b"\x50\x2a\x4d\x18"):
        size = zstd.get_frame_size(data)
        frames.append(len(zstd.decompress(data[:size])))
        data = data[size:]
    assert len(frames) >= 9 and sum(frames) == len(content)
    assert max(frames) < 2 * FRAME_BYTES and min(frames[:-1]) >= FRAME_BYTES
    boundaries = [sum(frames[: n + 1]) for n in range(len(frames))]
    assert set(boundaries[4:]) <= ends
    assert problems(written.path.parent) == []


def test_what_a_failed_segment_holds_beyond_its_successors_base_is_left_out(
    written: Written,
) -> None:
    failed = written.path
    size = failed.stat().st_size
    written.commit("a", "b")  # records 7 and 8, which were never acknowledged,
    with failed.open("ab") as file:
        file.write(written.commit("c", sure=False)[:-20] + b"\n" * 50)  # and a torn one
    written.numbers[0] = written.base = 7
    written.path = failed.with_name(f"{7:020d}.ndjson")
    written.path.touch()
    written.commit("b")
    before = records(written.path.parent)
    done = compress_segment(STORAGE, SegmentFile(6, failed), 7, 3, no_pause)
    assert done.content_bytes == size < done.plain_bytes
    assert records(written.path.parent) == before
    assert problems(written.path.parent) == []


@pytest.mark.parametrize("byte", [50, -30])
def test_a_damaged_segment_stays_as_it_is(written: Written, byte: int) -> None:
    file = closed(written)
    content = bytearray(file.path.read_bytes())
    content[byte] ^= 1
    file.path.write_bytes(content)
    with pytest.raises(Unfit):
        compress(written)
    assert sorted(os.listdir(written.path.parent)) == [file.path.name, written.path.name]
    assert file.path.read_bytes() == content


class Lying(Storage):
    """What it reads of a temporary file has one bit changed."""

    def __init__(self) -> None:
        self.lies = -1

    def open_read(self, path: Path) -> int:
        descriptor = super().open_read(path)
        if path.suffix == ".tmp":
            self.lies = descriptor
        return descriptor

    def read(self, descriptor: int, size: int, position: int) -> bytes:
        data = super().read(descriptor, size, position)
        if descriptor == self.lies and position == 0 and data:
            return data[:20] + bytes([data[20] ^ 1]) + data[21:]
        return data


def test_a_form_that_does_not_read_back_is_thrown_away(written: Written) -> None:
    file = closed(written)
    with pytest.raises(Unfit, match="read back"):
        compress(written, Lying())
    assert sorted(os.listdir(written.path.parent)) == [file.path.name, written.path.name]


class Stop(Exception):
    pass


def test_it_can_be_stopped_at_any_step_and_leaves_the_segment(written: Written) -> None:
    file = closed(written)
    for steps in range(100):
        left = iter(range(steps))

        def pause(left=left) -> None:  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                raise Stop

        try:
            compress_segment(STORAGE, file, written.base, 3, pause)
        except Stop:
            assert sorted(os.listdir(written.path.parent)) == [file.path.name, written.path.name]
        else:
            assert steps > 3
            return


# -- what a crash or a failing disk leaves ----------------------------------------------------


def settled(directory: Path, before: list[bytes]) -> None:
    """What a start and the janitor's first look do; all records must be there throughout."""
    assert records(directory) == before
    assert problems(directory) == []
    _, segment = recover(STORAGE, directory, 0.0)
    segment.close()
    assert records(directory) == before
    file, newest = list_segments(STORAGE, directory)
    names = os.listdir(directory)
    if not file.compressed:
        if compressed_path(file.path).name in names:
            settle(STORAGE, file, newest.base, no_pause)
        else:
            for name in names:
                if name.endswith(".tmp"):
                    (directory / name).unlink()
            compress_segment(STORAGE, file, newest.base, 3, no_pause)
    assert records(directory) == before
    assert problems(directory) == []
    assert [file.compressed for file in list_segments(STORAGE, directory)] == [True, False]
    assert len(os.listdir(directory)) == 2


def test_a_power_cut_at_any_call_leaves_every_record(written: Written, tmp_path: Path) -> None:
    before = records(written.path.parent)
    state = state_of(tmp_path)
    log = recorded(lambda: compress(written))
    assert {"write", "sync", "rename", "unlink"} <= {call["call"] for call in log}
    seen = set()
    for place in cuts(tmp_path, state, log, tmp_path / "after"):
        directory = place / written.path.parent.relative_to(tmp_path)
        seen.add(" ".join(sorted(os.listdir(directory))))
        settled(directory, before)
    assert len(seen) >= 4, "plain, with a temporary one, both forms, compressed"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_file_operation_that_fails_anywhere_leaves_every_record(
    tmp_path: Path, code: int
) -> None:
    for at in range(1, 100):
        written = Written(tmp_path / str(at))
        written.commit("a", "b", "c")
        written.new_segment()
        written.commit("a")
        before = records(written.path.parent)
        try:
            recorded(lambda: compress(written), (at, code))  # noqa: B023
        except OSError as error:
            assert error.errno == code
            settled(written.path.parent, before)
        else:
            assert at > 10
            return


# -- two forms --------------------------------------------------------------------------------


def both_forms(written: Written) -> tuple[SegmentFile, Path]:
    file = closed(written)
    content = file.path.read_bytes()
    packed = compress(written).path
    file.path.write_bytes(content)
    return file, packed


def test_of_two_equal_forms_the_plain_one_goes(written: Written) -> None:
    file, packed = both_forms(written)
    assert settle(STORAGE, file, written.base, no_pause) == file.path
    assert packed.exists() and not file.path.exists()


def test_a_form_that_was_made_before_the_segment_was_finished_goes(written: Written) -> None:
    file = closed(written)
    whole = file.path.read_bytes()
    _, packed = both_forms(written)
    short = Written(written.data.parent / "short")
    short.commit("a", "b", "c")
    assert whole.startswith(short.path.read_bytes())
    packed.write_bytes(short.compress().read_bytes())
    assert settle(STORAGE, file, written.base, no_pause) == packed
    assert file.path.read_bytes() == whole


def test_forms_that_contradict_each_other_both_stay(written: Written) -> None:
    file, packed = both_forms(written)
    plain = bytearray(file.path.read_bytes())
    plain[100] ^= 1
    file.path.write_bytes(plain)
    assert settle(STORAGE, file, written.base, no_pause) is None
    both_forms_again = packed.read_bytes()
    file.path.write_bytes(zstd.decompress(both_forms_again))
    packed.write_bytes(both_forms_again[:-1])
    assert settle(STORAGE, file, written.base, no_pause) is None
    assert file.path.exists() and packed.exists()
