"""The chunked transfer coding, decoded strictly, incrementally and within bounds.

PURE. No recipient may be able to read a chunk differently from how it is read here: sizes
are 1 to 16 hexadecimal digits, followed by nothing or by well-formed extensions
without white space; every line ends with CRLF; trailers are fields, checked like
those of a head, and dropped (RFC 9110 section 6.5.1 allows no other use of fields
that nobody asked for).

    SIZE --size > 0--> DATA --all of it--> DATA_END --CRLF--> SIZE
    SIZE --size = 0--> TRAILER --empty line--> DONE

Source: RFC 9112 section 7.1.
"""

from __future__ import annotations

import re
from enum import Enum

from ingest.errors import IngestError
from ingest.http.grammar import FIELD_LINE, QUOTED_STRING, TCHAR, excerpt, field_fault
from ingest.http.head import Limits, headers_too_large

#: Extensions of all chunks of one body together (RFC 9112 section 7.1.1 has them bounded).
#: Enough for a signature a chunk at 64 KiB a chunk.
EXTENSIONS_MAX_BYTES = 32768

#: One size line with its extensions and CRLF.
SIZE_LINE_MAX_BYTES = 4096

#: chunk-size [ chunk-ext ] CRLF, without the white space that recipients may tolerate.
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:;%b+(?:=(?:%b+|%b))?)*)\r\n" % (TCHAR, TCHAR, QUOTED_STRING)
)
#: What a size line that has not ended yet may look like, so that junk is refused at once.
_SIZE_LINE_BEGIN = re.compile(rb"[0-9A-Fa-f]{1,16}(?:;[^\r\n]*)?\r?")
_FIELD_LINE = re.compile(FIELD_LINE)


class _State(Enum):
    SIZE = "a size line, or the rest of one, comes next"
    DATA = "data of a chunk comes next"
    DATA_END = "the CRLF after a chunk's data comes next"
    TRAILER = "a trailer field or the last empty line comes next"
    DONE = "the body is complete"


class ChunkedDecoder:
    """Decodes one body. Feed it until `done`; then `body` holds it.

    After an error it must not be fed again.

    Attributes:
        body: the data decoded so far.
    """

    __slots__ = (
        "_extensions", "_limits", "_line", "_missing", "_released", "_state", "_trailer_bytes",
        "_trailer_count", "body",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _State.SIZE
        self._line = b""  # the unfinished line
        self._missing = 0  # bytes of the chunk (with its CRLF in DATA_END) to come
        self._extensions = 0
        self._released = 0  # bytes of the body that are no longer in `body`
        self._trailer_bytes = 0
        self._trailer_count = 0
        self.body = bytearray()

    @property
    def done(self) -> bool:
        """Whether the last empty line was consumed."""
        return self._state is _State.DONE

    @property
    def held(self) -> int:
        """Bytes held in memory."""
        return len(self.body) + len(self._line)

    def release(self) -> bytes:
        """Give out what was decoded so far, which is not held any longer."""
        data = bytes(self.body)
        self._released += len(data)
        self.body.clear()
        return data

    def decode(self, data: bytes, position: int) -> int:
        """Consume what belongs to this body from `data` at `position`.

        Returns:
            Where the first byte behind the body stands; `len(data)` while not `done`.

        Raises:
            IngestError: bad_request, body_too_large, headers_too_large.
        """
        end = len(data)
        while position < end and self._state is not _State.DONE:
            if self._state is _State.DATA:
                position = self._take_data(data, position)
            elif self._state is _State.DATA_END:
                position = self._take_data_end(data, position)
            elif self._state is _State.SIZE and not self._line:
                position = self._take_chunks(data, position)
            else:
                position = self._take_line(data, position)
        return position

    def _take_chunks(self, data: bytes, position: int) -> int:
        """The usual way: chunks that are here whole, in one loop; the rest bit by bit."""
        body = self.body
        end = len(data)
        while (match := _SIZE_LINE.match(data, position)) is not None:
            start = match.end()
            self._begin_chunk(match)
            stop = start + self._missing
            if stop == start or stop + 2 > end:
                return start
            if data[stop : stop + 2] != b"\r\n":
                raise IngestError("bad_request", "no CRLF after the data of a chunk")
            body += data[start:stop]
            self._state = _State.SIZE
            position = stop + 2
        return self._take_line(data, position) if position < end else end

    def _take_data(self, data: bytes, position: int) -> int:
        stop = min(position + self._missing, len(data))
        self.body += data[position:stop]
        self._missing -= stop - position
        if not self._missing:
            self._state = _State.DATA_END
            self._missing = 2
        return stop

    def _take_data_end(self, data: bytes, position: int) -> int:
        stop = position + self._missing
        if not b"\r\n"[2 - self._missing :].startswith(data[position:stop]):
            raise IngestError("bad_request", "no CRLF after the data of a chunk")
        stop = min(stop, len(data))
        self._missing -= stop - position
        if not self._missing:
            self._state = _State.SIZE
        return stop

    def _take_line(self, data: bytes, position: int) -> int:
        """Take a size line or a trailer line, or the part of it that is there."""
        in_size = self._state is _State.SIZE
        stop = data.find(b"\n", position) + 1
        part = data[position : stop or None]
        self._require_room(len(self._line) + len(part), in_size)
        self._line += part
        if not stop:
            if in_size and not _SIZE_LINE_BEGIN.fullmatch(self._line):
                raise _size_fault(self._line)
            return len(data)
        line, self._line = self._line, b""
        if not in_size:
            self._take_trailer(line)
            return stop
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise _size_fault(line)
        self._begin_chunk(match)
        return stop

    def _require_room(self, length: int, in_size: bool) -> None:
        """Bound a line before it is complete; `length` is what there is of it so far."""
        if not in_size:
            if self._trailer_bytes + length > self._limits.headers_max_bytes:
                raise headers_too_large(self._limits)
        elif length > SIZE_LINE_MAX_BYTES:
            raise IngestError("bad_request", "chunk size line too long")

    def _begin_chunk(self, match: re.Match[bytes]) -> None:
        digits, extensions = match.groups()
        if extensions:
            self._extensions += len(extensions)
            too_long = match.end() - match.start() > SIZE_LINE_MAX_BYTES
            if too_long or self._extensions > EXTENSIONS_MAX_BYTES:
                raise IngestError("bad_request", "chunk extensions too long")
        size = int(digits, 16)
        body_max = self._limits.request_body_max_bytes
        if self._released + len(self.body) + size > body_max:
            raise IngestError(
                "body_too_large",
                f"the body may have {body_max} bytes",
                extensions={"limit_bytes": body_max},
            )
        self._missing = size
        self._state = _State.DATA if size else _State.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        if line == b"\r\n":
            self._state = _State.DONE
            return
        if not _FIELD_LINE.fullmatch(line):
            fault = field_fault(line[:-2] if line.endswith(b"\r\n") else line)
            raise IngestError("bad_request", f"trailer: {fault}")
        self._trailer_bytes += len(line)
        self._trailer_count += 1
        if self._trailer_count > self._limits.header_count_max:
            raise IngestError(
                "headers_too_large",
                f"a request may have {self._limits.header_count_max} trailer fields",
                extensions={"limit_count": self._limits.header_count_max},
            )


def _size_fault(line: bytes) -> IngestError:
    return IngestError("bad_request", f"malformed chunk size line {excerpt(line)}")
