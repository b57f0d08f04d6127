"""Content codings: request bodies inflated within bounds, answers compressed.

PURE: no sockets, no clock, no event loop. `inflate` is a generator, so that whoever asks
for its chunks decides what else runs between them.

What is accepted of each coding:

- `gzip`, `x-gzip`: any number of members up to `MEMBERS_MAX` (RFC 1952 section 2.2), their
  CRC and length checked.
- `deflate`: the zlib format with its checksum (RFC 9110 section 8.4.1.2). Raw deflate, which
  some clients send under this name, is refused: it has no checksum and no header to tell
  it by.
- `zstd`: frames and skippable frames up to `MEMBERS_MAX`; windows up to 8 MiB (RFC 9659).
- `identity`, and one coding on top of another; a third is refused as unsupported.

A body that ends early, or that has anything behind its end, is malformed. No dictionaries.

Source: RFC 9110 sections 8.4 and 12.5.3; RFC 1950, 1952, 8878, 9659.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ingest.errors import IngestError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Most that one step of inflating returns: well under a millisecond of work.
CHUNK_BYTES = 128 << 10
#: Input of one step. Small, because there are inputs that are all work and no output.
PIECE_BYTES = 16 << 10
#: Inflated bytes up to which no ratio is looked at: a short body may well repeat itself.
RATIO_FLOOR_BYTES = 64 << 10
#: Each member costs a new decoder; a block-wise writer makes one for every 64 KiB.
MEMBERS_MAX = 1024
#: Codings on top of each other that a body may have.
CODINGS_MAX = 2
#: RFC 9659 section 3: what a decoder must take and an encoder must not exceed, 2^23 bytes.
ZSTD_WINDOW_LOG_MAX = 23

#: Codings of requests, in the order in which a 415 recommends them.
REQUEST_CODINGS = ("zstd", "gzip", "deflate")
ACCEPT_ENCODING = ", ".join((*REQUEST_CODINGS, "identity"))
#: Codings of answers; of equally welcome ones the first is chosen.
ANSWER_CODINGS = ("zstd", "gzip")

#: RFC 9110 section 5.6.3: white space around members; to `str.strip` much more is white.
OWS = " \t"

#: RFC 9110 section 8.4.1.3: to be taken as equal.
_ALIASES = {"x-gzip": "gzip"}


class Bounds(NamedTuple):
    """What one body may inflate to.

    Attributes:
        max_bytes: whatever its coded size.
        ratio_max: times its coded size, once it is past `RATIO_FLOOR_BYTES`.
        code: the error for more than `max_bytes`.
    """

    max_bytes: int
    ratio_max: int
    code: str = "inflated_too_large"

    def check(self, size: int, coded: int) -> None:
        """Raise IngestError when `coded` bytes may not become `size` bytes."""
        if size > self.max_bytes:
            raise IngestError(self.code, f"More than {self.max_bytes} bytes when inflated.")
        if size > RATIO_FLOOR_BYTES and size > coded * self.ratio_max:
            raise IngestError(
                "inflated_too_large",
                f"{coded} bytes inflate to more than {self.ratio_max} times as much.",
            )


# -- requests -----------------------------------------------------------------------------------


def codings_of(field: str) -> tuple[str, ...]:
    """The codings of a body, in the order in which they were applied; none for identity.

    Args:
        field: the value of Content-Encoding.

    Raises:
        IngestError: unsupported_encoding, with Accept-Encoding (RFC 9110 section 15.5.16).
    """
    names = [name.strip(OWS).lower() for name in field.split(",", 64)]
    codings = tuple(_ALIASES.get(name, name) for name in names if name not in ("", "identity"))
    for coding in codings:
        if coding not in REQUEST_CODINGS:
            raise _unsupported(f"The content coding {coding[:64]!r} is not supported.")
    if len(codings) > CODINGS_MAX:
        raise _unsupported(f"{len(codings)} content codings; at most {CODINGS_MAX}.")
    return codings


def _unsupported(detail: str) -> IngestError:
    return IngestError("unsupported_encoding", detail, headers={"Accept-Encoding": ACCEPT_ENCODING})


def inflate(body: bytes, codings: tuple[str, ...], bounds: Bounds) -> Iterator[bytes]:
    """Undo the codings of a body, step by step.

    Args:
        body: as it was sent.
        codings: from `codings_of`.
        bounds: hold for the result and for what is between two codings.

    Yields:
        The chunks of the result, each at most `CHUNK_BYTES`; empty ones, too, so that
        no two turns of the caller's are far apart.

    Raises:
        IngestError: malformed_encoding, inflated_too_large or the bounds' own code.
    """
    chunks: Iterator[bytes] = (
        body[start : start + PIECE_BYTES] for start in range(0, len(body), PIECE_BYTES)
    )
    for coding in reversed(codings):
        chunks = _bounded(_inflated(chunks, coding), bounds, len(body))
    return chunks


def _bounded(chunks: Iterable[bytes], bounds: Bounds, coded: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        bounds.check(size, coded)
        yield chunk


def _inflated(pieces: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """One coding undone."""
    new, members_max = _DECODERS[coding]
    decoder = new()
    members = 1
    try:
        for piece in pieces:
            while piece:
                if decoder.eof:
                    if members == members_max:
                        raise _malformed(coding, f"there is more behind {members} of it")
                    members += 1
                    decoder = new()
                yield decoder.decompress(piece, CHUNK_BYTES)
                while not decoder.eof and not decoder.needs_input:
                    yield decoder.decompress(b"", CHUNK_BYTES)
                piece = decoder.unused_data if decoder.eof else b""
    except (zlib.error, zstd.ZstdError) as error:
        where = f"behind {members - 1} of it: " if members > 1 else ""
        raise _malformed(coding, where + _reason(error)) from None
    if not decoder.eof:
        raise _malformed(coding, "it ends early")


def _reason(error: Exception) -> str:
    """The library's words without its own introduction."""
    reason = re.sub(r"^.*?(?:Zstandard data: |decompressing data: )", "", str(error))
    if "too much memory" in reason:
        return f"a window of more than {1 << ZSTD_WINDOW_LOG_MAX} bytes"
    return reason[:100]


def _malformed(coding: str, reason: str) -> IngestError:
    return IngestError("malformed_encoding", f"The body is not {coding}: {reason}.")


class _Zlib:
    """zlib's decoder with the interface of the other ones."""

    __slots__ = ("_stream", "needs_input")

    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)
        self.needs_input = True

    def decompress(self, data: bytes, max_length: int) -> bytes:
        stream = self._stream
        chunk = stream.decompress(data or stream.unconsumed_tail, max_length)
        self.needs_input = len(chunk) < max_length and not stream.unconsumed_tail
        return chunk

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data


def _new_zstd() -> Any:
    return zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX}
    )


#: Coding → a new decoder, and how many of its members may follow each other.
_DECODERS: dict[str, tuple[Callable[[], Any], int]] = {
    "gzip": (lambda: _Zlib(16 + zlib.MAX_WBITS), MEMBERS_MAX),
    "deflate": (lambda: _Zlib(zlib.MAX_WBITS), 1),
    "zstd": (_new_zstd, MEMBERS_MAX),
}


# -- answers ------------------------------------------------------------------------------------

_QVALUE = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


def negotiate(accept_encoding: str) -> str:
    """The coding for an answer.

    An answer without a coding is always possible: a client that excludes it gets it
    nonetheless when it accepts nothing else that we have (RFC 9110 section 12.5.3 lets us),
    because 406 would help nobody.

    Args:
        accept_encoding: the field's value, `""` when it was not sent; members that are
            malformed are passed over.

    Returns:
        One of `ANSWER_CODINGS`, or `""` for no coding.
    """
    qualities: dict[str, float] = {}
    for member in accept_encoding.split(",", 64):
        name, semicolon, parameter = member.partition(";")
        key, _, value = parameter.strip(OWS).partition("=")
        if semicolon and (key.lower() != "q" or not _QVALUE.fullmatch(value)):
            continue
        name = name.strip(OWS).lower()
        qualities[_ALIASES.get(name, name)] = float(value) if semicolon else 1.0
    rest = qualities.get("*", 0.0)
    best, best_quality = "", qualities.get("identity", 0.0)
    for coding in reversed(ANSWER_CODINGS):
        quality = qualities.get(coding, rest)
        if quality and quality >= best_quality:
            best, best_quality = coding, quality
    return best


def compress(body: bytes, coding: str) -> bytes:
    """Apply one of `ANSWER_CODINGS`, at a level that costs little."""
    if coding == "zstd":
        return zstd.compress(body, level=3)
    stream = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()
