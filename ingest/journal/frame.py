"""Commits in a segment: the mark that ends each, and how they are found again.

A commit is some whole lines. The last of them carries, as its last member, the CloudEvents
extension attribute `ingestcommit`; nothing else in the file belongs to the framing, so a
segment is plain NDJSON:

    …}\\n…}\\n…,"ingestcommit":"<first> <count> <start> <length> <crc>"}\\n
    └──────── body: length bytes ─┘

    first   offset of the commit's first record
    count   number of its records
    start   byte of the segment at which the body starts
    length  bytes of the body, which ends before the comma
    crc     CRC-32C, 8 hex digits, of everything from `start` up to itself, so that
            the numbers before it are covered too

A payload cannot forge a mark: within a JSON string its quotes would be escaped, and as a
member of the payload's own object that object's brace would stand between it and the
line's. And a mark says where it belongs, so one that was copied elsewhere does not count.

What a crash, a disk or a person may leave is told apart by one rule. Bytes that no whole
commit follows are a *tail*; bytes that a whole commit follows are *damage*.

PURE: bytes in, commits out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from google_crc32c import extend, value

KEY = b',"ingestcommit":"'
END = b'"}\n'

#: A mark is at most this long: key, four numbers of 20 digits, CRC, end.
MARK_MAX_BYTES = len(KEY) + 4 * 21 + 8 + len(END)

_NUMBER = rb"(0|[1-9][0-9]{0,19}) "
_MARK = re.compile(re.escape(KEY) + _NUMBER * 4 + rb'([0-9a-f]{8})"\}\n')


class Commit(NamedTuple):
    """One whole commit.

    Attributes:
        first: offset of its first record.
        records: number of its records.
        start: byte of the segment at which it starts.
        end: byte of the segment after its mark.
        body: its bytes without the mark; `text` makes them whole lines again.
    """

    first: int
    records: int
    start: int
    end: int
    body: bytes

    @property
    def text(self) -> bytes:
        """The records as NDJSON, without the mark."""
        return self.body + b"}\n"

    @property
    def lines(self) -> list[bytes]:
        """The records, without the mark and without line ends."""
        lines = self.body.split(b"\n")
        lines[-1] += b"}"
        return lines


class Damage(NamedTuple):
    """Bytes that are no whole commit although one follows.

    Attributes:
        start: first byte of the segment that is wrong.
        end: byte after the last.
        offset: of the first record that is missing.
        reason: what does not fit, for a person.
    """

    start: int
    end: int
    offset: int
    reason: str


class Mark(NamedTuple):
    """What a mark says (see above), whether or not it is true; `end` is the byte behind it."""

    first: int
    records: int
    start: int
    length: int
    crc: int
    end: int


def parse_mark(buffer: bytes, at: int) -> Mark | None:
    """Read the mark whose key is at `at`, None where there is none or not all of it."""
    found = _MARK.match(buffer, at)
    if found is None:
        return None
    first, count, start, length = (int(found.group(n)) for n in (1, 2, 3, 4))
    return Mark(first, count, start, length, int(found.group(5), 16), found.end())


def mark_holds(claim: Mark, body: bytes) -> bool:
    """Whether the checksum of a mark is that of the body and of its own numbers."""
    numbers = b"%s%d %d %d %d " % (KEY, *claim[:4])
    return len(body) == claim.length and extend(value(body), numbers) == claim.crc


def mark(body: bytes, first: int, count: int, start: int) -> bytes:
    """The mark that ends a commit.

    Args:
        body: the commit's lines without the `}` and line feed that end the last one.
        first: offset of its first record.
        count: number of its records.
        start: byte of the segment at which the body will stand.
    """
    numbers = b"%s%d %d %d %d " % (KEY, first, count, start, len(body))
    return b'%s%08x"}\n' % (numbers, extend(value(body), numbers))


class Scanner:
    """Finds the commits in a segment that is fed to it piece by piece.

    Args:
        base: offset of the segment's first record.

    Attributes:
        position: byte of the segment after the last whole commit.
        next_offset: of the record after the last whole commit.
        reason: why what follows `position` is not a commit, as far as known.
    """

    def __init__(self, base: int) -> None:
        self.position = 0
        self.next_offset = base
        self.reason = ""
        self._rest = b""
        self._searched = 0  # bytes of the rest in which no key starts that was not judged

    def rewind(self) -> None:
        """Forget what is not (yet) a whole commit: it will be fed again."""
        self._rest, self._searched = b"", 0

    @property
    def rest(self) -> bytes:
        """What was fed and is not (yet) a whole commit."""
        return self._rest

    def feed(self, data: bytes) -> list[Commit | Damage]:
        """Take the next bytes of the segment; returns what they complete, in order."""
        complete: list[Commit | Damage] = []
        buffer = self._rest + data if self._rest else data
        begin = 0  # where the next commit should start in the buffer
        search = self._searched
        while True:
            at = buffer.find(KEY, search)
            if at < 0:
                search = max(search, len(buffer) - len(KEY) + 1)
                break
            found = _MARK.match(buffer, at)
            if found is None:
                # A mark holds no line feed before its end, so what has one is no mark but a
                # payload's member of that name, and the mark comes behind it.
                if len(buffer) - at < MARK_MAX_BYTES and buffer.find(b"\n", at) < 0:
                    search = at  # it may be a mark of which the end is not here yet
                    break
                search = at + 1
                continue
            search = found.end()
            commit = self._judge(buffer, begin, found)
            if commit is None:
                continue
            if commit.start > self.position:
                complete.append(Damage(self.position, commit.start, self.next_offset, self.reason))
            self.position = commit.end
            self.next_offset = commit.first + commit.records
            self.reason = ""
            begin = search
            complete.append(commit)
        self._rest = buffer[begin:]
        self._searched = max(0, search - begin)
        return complete

    def _judge(self, buffer: bytes, begin: int, found: re.Match[bytes]) -> Commit | None:
        """The commit that a mark ends, or None (and the reason) when it does not hold."""
        first, count, start, length = (int(found.group(n)) for n in (1, 2, 3, 4))
        at = found.start()
        origin = self.position - begin  # byte of the segment at which the buffer starts
        body_at = start - origin
        whole = body_at == begin
        reason = ""
        body = b""
        if body_at < begin or body_at + length != at:
            reason = "a commit mark that names other bytes than it ends"
        elif first < self.next_offset or (whole and first != self.next_offset):
            reason = f"offset {first} where {self.next_offset} belongs"
        else:
            body = buffer[body_at:at]
            if extend(value(body), buffer[at : found.start(5)]) != int(found.group(5), 16):
                reason = "checksum mismatch"
            elif body.count(b"\n") != count - 1:
                reason = f"a commit of {count} records with another number of lines"
        if reason:
            self.reason = self.reason or reason
            return None
        return Commit(first, count, start, origin + found.end(), body)
