"""Compressed segment files: read at any place, by any zstd tool, and whatever became of them."""

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.journal import seekable
from ingest.journal.seekable import FrameWriter, SeekableFile, zstd
from ingest.journal.storage import Storage

CHANCE = random.Random(4)
PARTS = [b"".join(b'{"n":%d}\n' % CHANCE.randrange(10**9) for _ in range(n)) for n in (9, 70, 5)]
CONTENT = b"".join(PARTS)


def packed(parts: list[bytes] = PARTS) -> bytes:
    writer = FrameWriter(3)
    data = b"".join(writer.frame(part) for part in parts) + writer.close(7, 91)
    assert writer.file_bytes == len(data)
    return data


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[bytes], SeekableFile]:
    def write_and_open(data: bytes) -> SeekableFile:
        path = tmp_path / "00000000000000000007.ndjson.zst"
        path.write_bytes(data)
        return SeekableFile(Storage(), path)

    return write_and_open


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeekableFile]:
    path = tmp_path_factory.mktemp("seekable") / "sound.zst"
    path.write_bytes(packed())
    with closing(SeekableFile(Storage(), path)) as file:
        yield file


def read(file: SeekableFile, step: int = 100) -> bytes:
    content = b""
    while data := file.read(step, len(content)):
        content += data
    return content


def test_any_zstd_decoder_inflates_it_to_the_content() -> None:
    assert zstd.decompress(packed()) == CONTENT


def test_it_ends_with_the_seek_table_of_the_seekable_format() -> None:
    data = packed()
    frames, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (frames, descriptor, magic) == (len(PARTS) + 1, 0x80, 0x8F92EAB1)
    table = data[-9 - 12 * frames - 8 :]
    assert struct.unpack("<II", table[:8]) == (0x184D2A5E, len(table) - 8)
    at = 0
    for index, (size, length, checksum) in enumerate(struct.iter_unpack("<III", table[8:-9])):
        frame = data[at : at + size]
        at += size
        if index < len(PARTS):
            assert zstd.decompress(frame) == PARTS[index]
            assert (length, struct.pack("<I", checksum)) == (len(PARTS[index]), frame[-4:])
        else:
            # The note: a skippable frame, for which the table has the XXH64 of nothing.
            assert (length, checksum) == (0, 0xEF46DB3751D8E999 & 0xFFFFFFFF)
            assert frame[8:].startswith(b"ingest segment 1: 7 91 %d " % len(CONTENT))
    assert at + len(table) == len(data)


def test_a_frame_holds_the_checksum_that_the_seek_table_wants() -> None:
    # XXH64 of "abc", from the specification of xxHash: 44bc2cf5ad770999.
    frame = FrameWriter(3).frame(b"abc")
    assert frame[-4:] == bytes.fromhex("ad770999")[::-1]


@given(data=st.data())
def test_reading_at_any_place_gives_what_stands_there(sound: SeekableFile, data) -> None:  # type: ignore[no-untyped-def]
    position = data.draw(st.integers(0, len(CONTENT) + 10))
    size = data.draw(st.integers(1, len(CONTENT)))
    found = sound.read(size, position)
    assert found == CONTENT[position : position + len(found)] and len(found) <= size
    assert bool(found) == (position < len(CONTENT))


def test_a_sound_file_says_what_it_holds(opened) -> None:  # type: ignore[no-untyped-def]
    with closing(opened(packed())) as file:
        assert file.note is not None
        assert (file.note.first, file.note.next_offset) == (7, 91)
        assert file.size == file.note.content_bytes == len(CONTENT)
        assert file.head(10) == CONTENT[:10]
        assert (read(file), file.faults, file.check()) == (CONTENT, [], None)


def test_a_change_of_any_bit_is_found_and_reading_goes_on(opened) -> None:  # type: ignore[no-untyped-def]
    data = packed([PARTS[0], PARTS[2]])
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with closing(opened(bytes(changed))) as file:
            content = read(file)
            assert file.faults or file.check(), bit
            assert len(content) <= len(CONTENT) or file.note is None, bit


def test_a_file_cut_anywhere_still_gives_its_whole_frames(opened) -> None:  # type: ignore[no-untyped-def]
    data = packed()
    sizes = [len(FrameWriter(3).frame(part)) for part in PARTS]
    for end in range(len(data)):
        with closing(opened(data[:end])) as file:
            assert file.note is None and file.faults
            whole = [n for n in range(len(PARTS) + 1) if sum(sizes[:n]) <= end][-1]
            content = read(file)
            assert content.startswith(b"".join(PARTS[:whole])), end
            assert CONTENT.startswith(content.rstrip(b"\0")), end


def test_a_broken_frame_reads_as_what_stands_before_the_fault_and_zeros(opened) -> None:  # type: ignore[no-untyped-def]
    # Noise is stored as it is, in blocks of 128 KiB: what is broken is the third of four.
    noise = CHANCE.randbytes(500_000)
    data = bytearray(packed([PARTS[0], noise, PARTS[2]]))
    at = data.index(noise[300_000:300_064])
    data[at - 40_000] ^= 1  # a literal: only the frame's checksum tells
    size = len(FrameWriter(3).frame(PARTS[0]))
    with closing(opened(bytes(data))) as file:
        content = read(file, 1 << 20)
        assert [(fault.byte, fault.start) for fault in file.faults] == [(size, len(PARTS[0]))]
        assert "checksum" in file.faults[0].reason
        assert len(content) == file.size == len(PARTS[0]) + len(noise) + len(PARTS[2])
        assert content.startswith(PARTS[0] + noise[:200_000])
        assert content.endswith(PARTS[2])


def test_a_file_without_a_seek_table_is_read_and_said_to_have_none(opened) -> None:  # type: ignore[no-untyped-def]
    for data in (zstd.compress(CONTENT), b"".join(zstd.compress(part) for part in PARTS)):
        with closing(opened(data)) as file:
            assert read(file) == CONTENT
            assert [fault.reason for fault in file.faults] == ["no seek table ends the file"]
            assert file.note is None


@pytest.mark.parametrize("data", [b"", b"\0" * 9, b"\xff" * 4096, b'{"n":1}\n' * 100])
def test_what_is_no_zstd_at_all_has_no_content(opened, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with closing(opened(data)) as file:
        assert (read(file), file.head(10), file.size) == (b"", b"", 0)
        assert file.faults


def test_a_frame_that_inflates_to_more_than_any_of_ours_is_not_read(
    opened,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seekable, "FRAME_MAX_BYTES", 10 << 20)
    with closing(opened(zstd.compress(bytes(11 << 20)))) as file:
        assert read(file) == b""
        assert "more than" in file.faults[-1].reason
