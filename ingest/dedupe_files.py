"""The bytes of a key file: the keys of one closed segment, so that it need not be read again.

    {"ingestkeys":1,"first":0,"next":4711,"sections":[{"type":"order","value_bytes":16,
     "rows":2,"last_ms":1795395723456,"answers":0}]}\\n       one line of JSON
    rows of the first section      digest (16 bytes), value (`value_bytes`), oldest first
    answers of the first section   digest (16 bytes), length (4 bytes), the answer
    … the other sections …
    CRC-32C (4 bytes) of everything before it

Numbers are big-endian. A file says nothing that its segment does not say; one that is
missing, damaged or of another segment is made anew. See docs/deduplication.md.

PURE: bytes in, keys out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import ujson
from google_crc32c import value as crc32c

from ingest.dedupe import DIGEST_BYTES, ms_of
from ingest.dedupe_records import KeyedRecord

FORMAT = 1
_CRC_BYTES = 4
_LENGTH_BYTES = 4


class Section(NamedTuple):
    """The keys of one type and one kind of value.

    Attributes:
        type: of the events.
        value_bytes: of each value.
        rows: how many keys.
        last_ms: when the newest was stored, milliseconds since 1970.
        answers: how many whole answers there are.
    """

    type: str
    value_bytes: int
    rows: int
    last_ms: int
    answers: int


class Header(NamedTuple):
    """The first line.

    Attributes:
        first: offset of the segment's first record.
        next: offset of the next segment's.
        sections: what follows.
        size: bytes of the line, line feed included.
    """

    first: int
    next: int
    sections: list[Section]
    size: int


class Key(NamedTuple):
    """One key, as it was remembered."""

    digest: bytes
    value: bytes
    answer: bytes


class Collector:
    """Collects the keys of a segment, in the order of its records."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int], bytearray] = {}
        self._last: dict[tuple[str, int], int] = {}
        self._answers: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}

    def add(self, record: KeyedRecord) -> None:
        """Take a record's key."""
        section = record.type, len(record.value)
        rows = self._rows.get(section)
        if rows is None:
            rows = self._rows[section] = bytearray()
            self._answers[section] = []
        rows += record.digest
        rows += record.value
        self._last[section] = max(self._last.get(section, 0), ms_of(record.value))
        if record.answer:
            self._answers[section].append((record.digest, record.answer))

    def encode(self, first: int, following: int) -> bytes:
        """The whole file.

        Args:
            first: offset of the segment's first record.
            following: offset of the next segment's.
        """
        sections = []
        parts: list[bytes] = []
        for (name, value_bytes), rows in self._rows.items():
            answers = self._answers[name, value_bytes]
            count = len(rows) // (DIGEST_BYTES + value_bytes)
            last_ms = self._last[name, value_bytes]
            sections.append(Section(name, value_bytes, count, last_ms, len(answers))._asdict())
            parts.append(bytes(rows))
            for digest, answer in answers:
                parts += (digest, len(answer).to_bytes(_LENGTH_BYTES, "big"), answer)
        header = {"ingestkeys": FORMAT, "first": first, "next": following, "sections": sections}
        parts.insert(0, ujson.dumps(header).encode() + b"\n")
        content = b"".join(parts)
        return content + crc32c(content).to_bytes(_CRC_BYTES, "big")

    def keys(self, wanted: Section) -> Iterator[Key]:
        """The keys of one section."""
        section = wanted.type, wanted.value_bytes
        answers = dict(self._answers[section])
        yield from _rows(bytes(self._rows[section]), wanted.value_bytes, answers)

    @property
    def sections(self) -> list[Section]:
        """What there is."""
        return [
            Section(
                name,
                value_bytes,
                len(rows) // (DIGEST_BYTES + value_bytes),
                self._last[name, value_bytes],
                len(self._answers[name, value_bytes]),
            )
            for (name, value_bytes), rows in self._rows.items()
        ]


def parse_header(data: bytes) -> Header | None:
    """The header of a file that begins with these bytes; None when it has none."""
    line, end, _ = data.partition(b"\n")
    try:
        header: Any = ujson.loads(line)
        if not end or header["ingestkeys"] != FORMAT:
            return None
        sections = [
            Section(
                str(section["type"]),
                int(section["value_bytes"]),
                int(section["rows"]),
                int(section["last_ms"]),
                int(section["answers"]),
            )
            for section in header["sections"]
        ]
        return Header(int(header["first"]), int(header["next"]), sections, len(line) + 1)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def is_whole(data: bytes) -> bool:
    """Whether a file's checksum holds."""
    content, crc = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    return len(data) > _CRC_BYTES and crc32c(content) == int.from_bytes(crc, "big")


def sections_of(data: bytes, header: Header) -> Iterator[tuple[Section, Iterable[Key]]]:
    """The sections of a whole file, each with its keys."""
    at = header.size
    for section in header.sections:
        end = at + section.rows * (DIGEST_BYTES + section.value_bytes)
        rows = data[at:end]
        answers = {}
        for _ in range(section.answers):
            digest = data[end : end + DIGEST_BYTES]
            end += DIGEST_BYTES
            start = end + _LENGTH_BYTES
            length = int.from_bytes(data[end:start], "big")
            end = start + length
            answers[digest] = data[start:end]
        at = end
        yield section, _rows(rows, section.value_bytes, answers)


def _rows(rows: bytes, value_bytes: int, answers: dict[bytes, bytes]) -> Iterator[Key]:
    width = DIGEST_BYTES + value_bytes
    for at in range(0, len(rows), width):
        digest = rows[at : at + DIGEST_BYTES]
        yield Key(digest, rows[at + DIGEST_BYTES : at + width], answers.get(digest, b""))
