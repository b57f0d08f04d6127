"""Compressed segments: a file of independent zstd frames that can be read from anywhere.

    ┌─────────┬─────────┬───┬──────┬────────────┐
    │ frame 0 │ frame 1 │ … │ note │ seek table │
    └─────────┴─────────┴───┴──────┴────────────┘
     about 1 MiB of content  └─ skippable frames ─┘
     each, with its checksum

Any zstd tool inflates it to the segment it was made from, because the note and the seek
table are skippable frames. The note is ours. One line of text says what the segment holds
and what the rest of the file's checksums are, so that no bit of the file can change unseen:

    ingest segment 1: <first> <next> <bytes> <content> <frames> <table> <note>\\n

    first    offset of the segment's first record
    next     offset after its last
    bytes    of the content
    content  CRC-32C of the content; it and those that follow are 8 hex digits
    frames   CRC-32C of the file up to the note
    table    CRC-32C of the seek table
    note     CRC-32C of this line up to here

What a broken file still holds comes out in its place: the frames that are whole, and of a
frame that is not what stands before the fault. The rest of it reads as zero bytes, which
are no commits. Without a sound seek table the frames are found by going through them.

This module must not know commits, records or segments' names.

Source: RFC 8878 (zstd frames); zstd's contrib/seekable_format 0.1.0 (the seek table). A
frame ends with the same 32 bits of XXH64 that the table wants for it.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from google_crc32c import extend, value

from ingest.journal.storage import Storage

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Content of one frame, about: what is inflated to read one record.
FRAME_BYTES = 1 << 20
#: A frame with more content is not read: it is none of ours.
FRAME_MAX_BYTES = 256 << 20

_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_NOTE_MAGIC = 0x184D2A50
_TABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_CHECKSUM_FLAG = 0x80
_HEADER = struct.Struct("<II")  # of a skippable frame: magic, size of what follows
_ENTRY = struct.Struct("<III")  # compressed size, content size, checksum
_FOOTER = struct.Struct("<IBI")  # frames, descriptor, magic
_FRAMES_MAX = 1 << 20
#: Low half of the XXH64 of nothing, as the table has it for a skippable frame.
_EMPTY_CHECKSUM = 0x51D8E999

_NOTE_MAX_BYTES = 256
_NUMBER = rb"(0|[1-9][0-9]{0,19}) "
_CRC = rb"([0-9a-f]{8})"
_NOTE = re.compile(
    rb"ingest segment 1: " + _NUMBER * 3 + (_CRC + b" ") * 3 + _CRC + rb"\n", re.DOTALL
)

_PIECE_BYTES = 64 << 10
_SMALL_PIECE_BYTES = 1 << 10
_CHUNK_BYTES = 1 << 20


class Note(NamedTuple):
    """What a compressed segment says of itself; see the module's text."""

    first: int
    next_offset: int
    content_bytes: int
    content_crc: int
    frames_crc: int
    table_crc: int


class Frame(NamedTuple):
    """One frame: byte of the file at which it starts, its size, and the same of its content."""

    at: int
    size: int
    start: int
    length: int


class Fault(NamedTuple):
    """Something wrong in a compressed file.

    Attributes:
        byte: of the file at which it is.
        start: byte of the content that stands there.
        reason: for a person.
    """

    byte: int
    start: int
    reason: str


class FrameWriter:
    """Makes the bytes of a compressed file, front to back.

    Args:
        level: of compression.

    Attributes:
        content_bytes: taken so far.
        content_crc: CRC-32C of them.
        file_bytes: given back so far.
    """

    def __init__(self, level: int) -> None:
        self._compressor = zstd.ZstdCompressor(
            options={
                zstd.CompressionParameter.compression_level: level,
                zstd.CompressionParameter.checksum_flag: 1,
            }
        )
        self._entries: list[bytes] = []
        self._frames_crc = 0
        self.content_bytes = 0
        self.content_crc = 0
        self.file_bytes = 0

    def frame(self, content: bytes) -> bytes:
        """The frame that holds `content`, which is not empty."""
        frame = self._compressor.compress(content, mode=zstd.ZstdCompressor.FLUSH_FRAME)
        (checksum,) = struct.unpack("<I", frame[-4:])
        self._entries.append(_ENTRY.pack(len(frame), len(content), checksum))
        self._frames_crc = extend(self._frames_crc, frame)
        self.content_crc = extend(self.content_crc, content)
        self.content_bytes += len(content)
        self.file_bytes += len(frame)
        return frame

    def close(self, first: int, next_offset: int) -> bytes:
        """The note and the seek table, which end the file."""
        start = b"ingest segment 1: %d %d %d %08x %08x " % (
            first,
            next_offset,
            self.content_bytes,
            self.content_crc,
            self._frames_crc,
        )
        size = len(start) + len("01234567 01234567\n")
        entry = _ENTRY.pack(_HEADER.size + size, 0, _EMPTY_CHECKSUM)
        entries = b"".join([*self._entries, entry])
        footer = _FOOTER.pack(len(self._entries) + 1, _CHECKSUM_FLAG, _SEEKABLE_MAGIC)
        table = _HEADER.pack(_TABLE_MAGIC, len(entries) + len(footer)) + entries + footer
        text = start + b"%08x " % value(table)
        text += b"%08x\n" % value(text)
        end = _HEADER.pack(_NOTE_MAGIC, size) + text + table
        self.file_bytes += len(end)
        return end


class SeekableFile:
    """A compressed file, open for reading its content. Reading never fails for what the
    file holds, only for what the disk does.

    Args:
        storage: does the file system calls.
        path: of the file.

    Attributes:
        descriptor: of the file as it is stored.
        plain: that it is not stored as it is.
        size: bytes of content, as far as the file can be read.
        stored_size: bytes on the disk.
        modified: when it was written to, in seconds since 1970.
        note: None where it, or the seek table, is not sound.
        faults: what was wrong so far; frames are looked at when they are read.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage = storage
        self.descriptor = storage.open_read(path)
        self.plain = False
        self._told: set[int] = set()
        self._loaded: tuple[Frame, bytes] | None = None
        self.faults: list[Fault] = []
        self.note: Note | None = None
        self._frames: list[Frame] = []
        self._frames_end = 0
        try:
            status = os.fstat(self.descriptor)
            self.stored_size = status.st_size
            self.modified = status.st_mtime
            if not self._read_table():
                self._walk()
        except BaseException:
            storage.close(self.descriptor)
            raise
        self._starts = [frame.start for frame in self._frames]
        last = self._frames[-1] if self._frames else Frame(0, 0, 0, 0)
        self.size = last.start + last.length

    # -- reading -----------------------------------------------------------------------------

    def read(self, size: int, position: int) -> bytes:
        """Up to `size` bytes of the content from `position`; b"" at its end."""
        index = bisect_right(self._starts, position) - 1
        if index < 0:
            return b""
        frame = self._frames[index]
        at = position - frame.start
        if at >= frame.length:
            return b""
        if self._loaded is None or self._loaded[0] is not frame:
            self._loaded = None  # two frames are never held at once
            self._loaded = frame, self._content(frame)
        return self._loaded[1][at : at + size]

    def head(self, size: int) -> bytes:
        """The first bytes of the content, at most `size`; less is inflated than to `read` it."""
        if not self._frames:
            return b""
        first = self._frames[0]
        data = self._pread(min(first.size, _PIECE_BYTES), first.at)
        try:
            return zstd.ZstdDecompressor().decompress(data, size)
        except zstd.ZstdError:
            return b""

    def check(self) -> Fault | None:
        """Read every byte of the file once more and compare it with what the note says."""
        if self.note is None:
            return None  # that is a fault already
        crc = at = 0
        while at < self._frames_end:
            data = self._pread(min(_CHUNK_BYTES, self._frames_end - at), at)
            if not data:
                break
            crc = extend(crc, data)
            at += len(data)
        if crc == self.note.frames_crc:
            return None
        return Fault(0, 0, "checksum mismatch in the compressed file")

    def close(self) -> None:
        """Close the file."""
        self._storage.close(self.descriptor)

    def _pread(self, size: int, position: int) -> bytes:
        return self._storage.read(self.descriptor, size, position)

    # -- one frame ---------------------------------------------------------------------------

    def _content(self, frame: Frame) -> bytes:
        """What a frame holds; zero bytes stand for what cannot be read of it."""
        data = self._pread(frame.size, frame.at)
        decoder = zstd.ZstdDecompressor()
        reason = "it has another size"
        try:
            content = decoder.decompress(data, frame.length + 1)
            if decoder.eof and len(content) == frame.length and not decoder.unused_data:
                return content
        except zstd.ZstdError as error:
            reason = _words(error)
        self._fault(frame.at, frame.start, f"a broken frame: {reason}")
        return _salvaged(data, frame.length).ljust(frame.length, b"\0")

    def _fault(self, byte: int, start: int, reason: str) -> None:
        if byte not in self._told:
            self._told.add(byte)
            self.faults.append(Fault(byte, start, reason))

    # -- where the frames are ----------------------------------------------------------------

    def _read_table(self) -> bool:
        """Take the frames from the seek table; whether it and the note are sound."""
        footer_at = self.stored_size - _FOOTER.size
        footer = self._pread(_FOOTER.size, footer_at) if footer_at >= 0 else b""
        if len(footer) < _FOOTER.size:
            return self._no_table("the file ends early")
        count, descriptor, magic = _FOOTER.unpack(footer)
        if magic != _SEEKABLE_MAGIC or descriptor != _CHECKSUM_FLAG or not 0 < count < _FRAMES_MAX:
            return self._no_table("no seek table ends the file")
        table_at = footer_at - count * _ENTRY.size - _HEADER.size
        if table_at < 0:
            return self._no_table("the seek table is longer than the file")
        table = self._pread(self.stored_size - table_at, table_at)
        entries = list(_ENTRY.iter_unpack(table[_HEADER.size : -_FOOTER.size]))
        note_at = table_at - entries[-1][0]
        note = self._note_at(note_at, table_at)
        if note is None:
            return self._no_table("the note before the seek table is broken")
        if value(table) != note.table_crc:
            return self._no_table("checksum mismatch in the seek table")
        at = start = 0
        for size, length, _ in entries[:-1]:
            self._frames.append(Frame(at, size, start, length))
            at += size
            start += length
        self.note = note
        self._frames_end = note_at
        return True

    def _no_table(self, reason: str) -> bool:
        self._fault(self.stored_size, 0, reason)
        return False

    def _note_at(self, at: int, end: int) -> Note | None:
        size = end - at - _HEADER.size
        if at < 0 or not 0 < size <= _NOTE_MAX_BYTES:
            return None
        data = self._pread(end - at, at)
        text = data[_HEADER.size :]
        found = _NOTE.fullmatch(text)
        if found is None or data[: _HEADER.size] != _HEADER.pack(_NOTE_MAGIC, size):
            return None
        numbers = [int(found.group(n)) for n in (1, 2, 3)]
        crcs = [int(found.group(n), 16) for n in (4, 5, 6, 7)]
        if value(text[: found.start(7)]) != crcs.pop():
            return None
        return Note(*numbers, *crcs)

    def _walk(self) -> None:
        """Find the frames one after the other; what cannot be passed ends the content."""
        at = start = 0
        while at < self.stored_size:
            header = self._pread(_HEADER.size, at)
            if len(header) == _HEADER.size:
                magic, size = _HEADER.unpack(header)
                if magic in _SKIPPABLE:
                    at += _HEADER.size + size
                    continue
            frame, reason = self._measured(at, start)
            if reason:
                self._fault(at, start, f"a broken frame: {reason}")
            if frame.length:
                self._frames.append(frame)
            if reason:
                return
            at += frame.size
            start += frame.length

    def _measured(self, at: int, start: int) -> tuple[Frame, str]:
        """The frame at `at`, and what is wrong with it, if anything."""
        decoder = zstd.ZstdDecompressor()
        position, length = at, 0
        while not decoder.eof:
            piece = b""
            if decoder.needs_input:
                piece = self._pread(_PIECE_BYTES, position)
                if not piece:
                    return Frame(at, position - at, start, length), "it ends early"
                position += len(piece)
            try:
                length += len(decoder.decompress(piece, _CHUNK_BYTES))
            except zstd.ZstdError as error:
                return Frame(at, position - at, start, length), _words(error)
            if length > FRAME_MAX_BYTES:
                return Frame(at, 0, start, 0), f"more than {FRAME_MAX_BYTES} bytes of content"
        return Frame(at, position - len(decoder.unused_data) - at, start, length), ""


def _salvaged(data: bytes, length: int) -> bytes:
    """What a broken frame holds before the fault, at most `length` bytes."""
    decoder = zstd.ZstdDecompressor()
    content = bytearray()
    try:
        for at in range(0, len(data), _SMALL_PIECE_BYTES):
            if decoder.eof or len(content) >= length:
                break
            content += decoder.decompress(data[at : at + _SMALL_PIECE_BYTES], length - len(content))
    except zstd.ZstdError:
        pass  # what is lost from here on is the fault that was told already
    return bytes(content[:length])


def _words(error: Exception) -> str:
    """The library's words without its own introduction."""
    return re.sub(r"^.*?(?:Zstandard data: |decompressing data: )", "", str(error))[:100]
