"""Any bytes as a coded body: `check` fails when a promise is broken.

The first byte of an input chooses the codings and whether the rest is the body (highest bit
clear) or is coded first (set); the second chooses the bounds and, for what is coded here, a
bit to flip.

What is promised, for every body:

* Nothing but `IngestError` is raised, and the codes are those that say what is wrong.
* No more comes out than the bounds allow, in steps that are bounded, too, and so is the
  number of steps: no body costs more than its size and its bounds.
* A body in one coding is accepted exactly when a plain reading of it ends where the body
  ends, within the bounds, and it is the same.
* Whatever a client says it accepts, the answer's coding is one of ours and can be undone.
"""

from __future__ import annotations

import sys
import zlib
from typing import Any

from ingest.encodings import (
    ANSWER_CODINGS,
    CHUNK_BYTES,
    MEMBERS_MAX,
    PIECE_BYTES,
    RATIO_FLOOR_BYTES,
    Bounds,
    codings_of,
    compress,
    inflate,
    negotiate,
)
from ingest.errors import IngestError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FIELDS = (
    "gzip", "deflate", "zstd", "x-gzip, identity", "gzip, zstd", "deflate,gzip", "zstd , zstd",
)  # fmt: skip
BOUNDS = (
    Bounds(1 << 10, 100), Bounds(1 << 16, 100), Bounds(1 << 18, 20), Bounds(1 << 20, 1000),
)  # fmt: skip
CODES = frozenset({"malformed_encoding", "inflated_too_large"})


def check(data: bytes) -> None:
    """Try one input.

    Raises:
        AssertionError: a promise is broken.
    """
    if len(data) < 2:
        return
    check_fields(data[2:200].decode("latin-1"))
    field = FIELDS[(data[0] & 0x7F) % len(FIELDS)]
    bounds = BOUNDS[data[1] % len(BOUNDS)]
    codings = codings_of(field)
    body = data[2:]
    if data[0] & 0x80:
        body = damaged(coded(body, codings), data[1] >> 2)
    accepted, content = read(body, codings, bounds)
    if len(codings) == 1:
        expected = reference(body, codings[0], bounds)
        assert accepted is (expected is not None), "not what a plain reading says"
        assert not accepted or content == expected, "another content"


def check_fields(field: str) -> None:
    try:
        codings_of(field)
    except IngestError as error:
        assert error.code == "unsupported_encoding" and error.detail.encode()
        assert "\r" not in error.detail and "\n" not in error.detail
    coding = negotiate(field)
    assert coding == "" or coding in ANSWER_CODINGS


def read(body: bytes, codings: tuple[str, ...], bounds: Bounds) -> tuple[bool, bytes]:
    """Inflate as the pipeline does, and watch every step."""
    content = b""
    # each step takes some of the body, or gives at least a byte, or ends a member
    steps_max = (len(body) // PIECE_BYTES + 2) + bounds.max_bytes + 3 * MEMBERS_MAX
    steps = 0
    try:
        for chunk in inflate(body, codings, bounds):
            steps += 1
            assert len(chunk) <= CHUNK_BYTES
            assert steps <= steps_max, "too many steps"
            content += chunk
            assert len(content) <= bounds.max_bytes
    except IngestError as error:
        assert error.code in CODES, error.code
        assert error.detail.isprintable() and len(error.detail) < 300
        return False, b""
    return True, content


# -- the other way ----------------------------------------------------------------------------


def coded(body: bytes, codings: tuple[str, ...]) -> bytes:
    for coding in codings:
        body = zlib.compress(body) if coding == "deflate" else compress(body, coding)
    return body


def damaged(body: bytes, where: int) -> bytes:
    """As it is, or with one bit flipped."""
    if where < 8:
        return body
    at = where * len(body) // 64
    return body[:at] + bytes([body[at] ^ (1 << where % 8)]) + body[at + 1 :]


class _Member:
    """One member, gzip or zlib, read at once."""

    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)

    def decompress(self, data: bytes, size_max: int) -> bytes:
        return self._stream.decompress(data, size_max)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def reference(body: bytes, coding: str, bounds: Bounds) -> bytes | None:
    """The content by a plain reading, None when it is not to be had within the bounds."""
    content = b""
    rest = body
    for _ in range(1 if coding == "deflate" else MEMBERS_MAX):
        if coding == "zstd":
            member: Any = zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: 23}
            )
        else:
            member = _Member(31 if coding == "gzip" else 15)
        try:
            content += member.decompress(rest, bounds.max_bytes + 1)
        except (zlib.error, zstd.ZstdError):
            return None
        too_large = len(content) > bounds.max_bytes
        if too_large or (
            len(content) > RATIO_FLOOR_BYTES and len(content) > len(body) * bounds.ratio_max
        ):
            return None
        if not member.eof:
            return None
        rest = member.unused_data
        if not rest:
            return content
    return None
