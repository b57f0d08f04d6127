"""The chunked decoder: whole, byte by byte, and with trailing bytes."""

from __future__ import annotations

import pytest

from ingest.errors import IngestError
from ingest.http.chunked import EXTENSIONS_MAX_BYTES, SIZE_LINE_MAX_BYTES, ChunkedDecoder
from ingest.http.head import Limits

LIMITS = Limits(headers_max_bytes=64, header_count_max=3, request_body_max_bytes=100)
WIDE = Limits()


def decode(data: bytes, step: int, limits: Limits = LIMITS) -> tuple[bytes, bytes]:
    """Decode in pieces of `step`; returns the body and what is behind it."""
    decoder = ChunkedDecoder(limits)
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        used = decoder.decode(piece, 0)
        if decoder.done:
            return bytes(decoder.body), data[start + used :]
        assert used == len(piece), "an unfinished decoder takes everything"
    raise AssertionError("the body is not complete")


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"00000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", b"0123456789x"),
        (b"0000000000000002\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b'1;a;b=c;d="e\\";f"\r\nx\r\n0;z\r\n\r\n', b"x"),
        (b"1\r\nx\r\n0\r\nX-A: b\r\nY:\r\n\r\n", b"x"),
        (b"64\r\n" + b"z" * 100 + b"\r\n0\r\n\r\n", b"z" * 100),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"0", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_body_is_the_same_however_it_is_split(data: bytes, body: bytes, behind: bytes) -> None:
    for step in range(1, len(data) + len(behind) + 1):
        assert (body, behind) == decode(data + behind, step)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"0x1\r\n",
        b"1_0\r\n",
        b"1;\r\n",
        b"1\n",
        b"1\rx",
        b"1\r\nxx\r\n",
        b"1\r\nx\n",
        b"1\r\nx\rx",
        b"1\r\nx0\r\n",
        b"1;a\nb\r\n",
        b"1; a\r\n",
        b"1;a =b\r\n",
        b'1;a="\r\n',
        b"1" * 17 + b"\r\n",
        b"1\r\nx\r\n\r\n",
        b"\xb2\r\n",
        b"0\r\nX\r\n",
        b"0\r\n X: a\r\n",
        b"0\r\nX : a\r\n",
        b"0\r\nX: \x00\r\n",
        b"0\r\n\n",
        b"0\r\nX: a\n",
        b"0\r\nX: a\rb\r\n",
        b"0\r\n: a\r\n",
    ],
)
def test_what_some_recipient_could_read_differently_is_refused(data: bytes) -> None:
    for step in (len(data), 1, 2, 3):
        with pytest.raises(IngestError) as caught:
            decode(data, step)
        assert caught.value.code == "bad_request"


def test_junk_for_a_size_is_refused_before_its_line_ends() -> None:
    for junk in (b"x", b"1 ", b"1\rx", b"1" * 17, b"-"):
        with pytest.raises(IngestError):
            ChunkedDecoder(LIMITS).decode(junk, 0)


@pytest.mark.parametrize(
    "data", [b"65\r\n", b"64\r\n" + b"x" * 100 + b"\r\n1\r\n", b"f" * 16 + b"\r\n"]
)
def test_the_body_is_bounded_before_the_data_of_a_chunk_arrives(data: bytes) -> None:
    for step in (len(data), 1):
        with pytest.raises(IngestError) as caught:
            decode(data, step)
        assert caught.value.code == "body_too_large"
        assert caught.value.extensions == {"limit_bytes": 100}


@pytest.mark.parametrize(
    "trailers",
    [b"X: y\r\n" * 4, b"X: " + b"y" * 64, b"y" * 65, b"X: yyyyyyyyyyyyyyyyyyyyyyy\r\n" * 3],
)
def test_trailers_are_bounded_in_number_and_bytes(trailers: bytes) -> None:
    for step in (len(trailers) + 3, 1):
        with pytest.raises(IngestError) as caught:
            decode(b"0\r\n" + trailers, step)
        assert caught.value.code == "headers_too_large"


def test_a_size_line_is_bounded_and_the_longest_is_read_at_every_split() -> None:
    longest = b"1;" + b"a" * (SIZE_LINE_MAX_BYTES - 4) + b"\r\n"
    for step in (1, 1000, len(longest) - 1, 10000):
        assert decode(longest + b"x\r\n0\r\n\r\n", step, WIDE) == (b"x", b"")
        with pytest.raises(IngestError, match="too long"):
            decode(b"1" + longest, step, WIDE)


def test_the_extensions_of_all_chunks_together_are_bounded() -> None:
    chunk = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
    count = EXTENSIONS_MAX_BYTES // 1024
    assert len(decode(chunk * count + b"0\r\n\r\n", 100_000, WIDE)[0]) == count
    with pytest.raises(IngestError, match="extensions"):
        decode(chunk * (count + 1), 100_000, WIDE)


def test_what_is_held_never_exceeds_the_limits() -> None:
    decoder = ChunkedDecoder(LIMITS)
    data = b"64\r\n" + b"x" * 100 + b"\r\n0\r\nX: yyyyyyyyy\r\n\r\n"
    for position in range(len(data)):
        decoder.decode(data[position : position + 1], 0)
        assert decoder.held <= 100 + 64
    assert decoder.done
    assert decoder.decode(b"more", 0) == 0
