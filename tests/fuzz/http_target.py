"""Any bytes in any pieces, to the HTTP parser: `check` fails when a promise is broken.

An input is a recipe and a stream:

    byte 0        low four bits: how many piece lengths follow; highest bit: the default
                  limits instead of small ones
    piece lengths one byte each, used in turn until the stream is at its end; without any
                  the stream is fed in one piece
    the rest      the stream

What is promised, for every stream:

* Nothing but `IngestError` is raised, of a code that closes the connection, with a detail
  that can be printed.
* Fed whole, byte by byte, in the recipe's pieces, with a cold or a warm cache of heads:
  the requests are the same, and either all of these ways refuse the stream or none.
* The requests stand in the stream where a second, simple reader finds them: heads end at
  the first empty line, bodies have the length that their framing says, and nothing lies
  between one request and the next but one empty line.
* Nothing is found behind a refusal, whatever is fed.
* Memory is bounded by the limits, whether the parser admits to it or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple

from ingest.errors import CATALOGUE, IngestError
from ingest.http.head import Head, HeadCache, Limits
from ingest.http.parser import RequestParser

SMALL = Limits(
    request_line_max_bytes=256,
    headers_max_bytes=1024,
    header_count_max=12,
    request_body_max_bytes=2048,
)
DEFAULT = Limits()

#: A request that any parser takes: it must not be found behind a refusal.
INNOCENT = b"GET /innocent HTTP/1.1\r\nHost: a\r\n\r\n"

#: Memory is looked at after every so many pieces; looking is dearer than parsing.
WATCH_EVERY = 16

#: Held beside one head and one body: an unfinished line of the chunked coding, and objects'
#: own fields.
HELD_BESIDE = 4096 + 256


class Request(NamedTuple):
    """All that a parser says of one request."""

    method: str
    target: bytes
    path: str
    query: str
    version: tuple[int, int]
    headers: dict[str, str]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    body: bytes


class Outcome(NamedTuple):
    """What became of a stream."""

    requests: list[Request]
    refused: bool


def check(data: bytes) -> None:
    """Try one input.

    Raises:
        AssertionError: a promise is broken.
    """
    if not data:
        return
    limits = DEFAULT if data[0] & 0x80 else SMALL
    lengths = data[1 : 1 + (data[0] & 0x0F)]
    stream = data[1 + len(lengths) :]
    cache = HeadCache(8)
    whole = read([stream], limits, HeadCache(0))
    ways = {
        "byte by byte": read(pieces_of(stream, b"\x01"), limits, HeadCache(0)),
        "in pieces": read(pieces_of(stream, lengths), limits, cache),
        "whole, warm cache": read([stream], limits, cache),
        "in pieces, warm cache": read(pieces_of(stream, lengths), limits, cache),
    }
    for way, outcome in ways.items():
        assert outcome == whole, f"whole: {whole}\n{way}: {outcome}"
    assert_framing(stream, whole)


def pieces_of(stream: bytes, lengths: bytes) -> Iterator[bytes]:
    """Cut a stream; a length of 0 feeds nothing once, as the end of a connection does."""
    if not any(lengths):
        yield stream
        return
    position = 0
    for length in cycle(lengths):
        yield stream[position : position + length]
        position += length
        if position >= len(stream):
            return


def read(pieces: Any, limits: Limits, cache: HeadCache) -> Outcome:
    """Feed pieces as a connection does, and watch what comes of it."""
    parser = RequestParser(limits, cache)
    requests: list[Request] = []
    for number, piece in enumerate(pieces):
        parser.feed(piece)
        try:
            requests += take(parser)
        except IngestError as error:
            assert_refusal(error)
            assert_stays_refused(parser, error, limits)
            return Outcome(requests, True)
        if number % WATCH_EVERY == 0:
            assert_bounded(parser, len(piece), limits)
    assert_bounded(parser, 0, limits)
    assert parser.begun or parser.buffered <= len(b"\r\n"), "bytes of nobody's are held"
    return Outcome(requests, False)


def take(parser: RequestParser) -> Iterator[Request]:
    """Every request that is complete; goes on where a connection would be closed, too."""
    while (head := parser.head()) is not None:
        assert parser.head() is head, "asking again must change nothing"
        assert parser.begun
        body = parser.body()
        if body is None:
            assert parser.body() is None, "asking again must change nothing"
            return
        yield request_of(head, body)


def request_of(head: Head, body: bytes) -> Request:
    head.path.encode()  # text that can be logged
    assert "\x00" not in head.path
    return Request(
        head.method,
        head.target,
        head.path,
        head.query,
        head.version,
        dict(head.headers),
        head.content_length,
        head.chunked,
        head.keep_alive,
        head.expect_continue,
        body,
    )


def assert_refusal(error: IngestError) -> None:
    assert error.code in CATALOGUE
    assert error.failure.closes, f"{error.code} does not close the connection"
    assert 400 <= error.status < 600
    assert error.detail.isprintable() and len(error.detail) < 500
    error.detail.encode()


def assert_stays_refused(parser: RequestParser, error: IngestError, limits: Limits) -> None:
    for piece in (b"", INNOCENT, b"\r\n\r\n" + INNOCENT[:20], INNOCENT[20:]):
        parser.feed(piece)
        for ask in (parser.head, parser.body, parser.head):
            try:
                found = ask()
            except IngestError as again:
                assert again is error, "the refusal must not change"
            else:
                # head() looks only where bytes came in, but it finds nothing
                assert found is None, f"{found!r} was found behind {error.code}"
    assert_bounded(parser, 0, limits)


def assert_bounded(parser: RequestParser, fed: int, limits: Limits) -> None:
    """What is held after a step: an unfinished head, or a body's part; never what was consumed.

    Bytes that were consumed may stay until the next feed, but no more than one feed brought
    on top of the unfinished part.
    """
    head = limits.request_line_max_bytes + limits.headers_max_bytes + 4
    bound = max(head, limits.request_body_max_bytes) + HELD_BESIDE + limits.headers_max_bytes
    assert parser.buffered <= bound + fed
    assert held(parser) <= bound + head + 2 * fed, f"{held(parser)} bytes are held"


def held(part: Any) -> int:
    """Bytes in the buffers of a parser and its parts, read from their slots."""
    total = 0
    for name in getattr(type(part), "__slots__", ()):
        value = getattr(part, name)
        if isinstance(value, bytes | bytearray):
            total += len(value)
        elif type(value).__module__.startswith("ingest.http.") and not isinstance(
            value, HeadCache | Head | Limits
        ):
            total += held(value)
    return total


# -- the second reader ------------------------------------------------------------------------

_FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\r\n\x00]*")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+")


def assert_framing(stream: bytes, outcome: Outcome) -> None:
    """Find the accepted requests again, knowing only how they say they are framed."""
    position = 0
    for request in outcome.requests:
        if stream.startswith(b"\r\n", position):
            position += 2
        end = stream.index(b"\r\n\r\n", position)
        line, *fields = stream[position:end].split(b"\r\n")
        expected = b"%b %b HTTP/%d.%d" % (
            request.method.encode(), request.target, *request.version,
        )  # fmt: skip
        assert line == expected
        assert all(map(_FIELD.fullmatch, fields)), "a malformed field line was accepted"
        position = end + 4
        lengths = values(fields, b"content-length")
        codings = values(fields, b"transfer-encoding")
        assert len(values(fields, b"host")) == 1 or request.version == (1, 0)
        assert len(lengths) + len(codings) <= 1, "framed in two ways"
        if codings:
            assert codings[0].lower() == b"chunked" and request.version == (1, 1)
            body, position = dechunk(stream, position)
        else:
            assert not lengths or lengths[0].isdigit()
            length = int(lengths[0].lstrip(b"0") or b"0") if lengths else 0
            body = stream[position : position + length]
            assert len(body) == length
            position += length
        assert request.body == body, "the bodies differ"
    rest = stream[position:]
    assert outcome.refused or not unread(rest), "a whole request was left lying"


def values(fields: list[bytes], name: bytes) -> list[bytes]:
    pairs = (field.split(b":", 1) for field in fields)
    return [value.strip(b" \t") for key, value in pairs if key.lower() == name]


def dechunk(stream: bytes, position: int) -> tuple[bytes, int]:
    """The slow and obvious way to read the chunked coding."""
    body = b""
    while True:
        end = stream.index(b"\r\n", position)
        size = _CHUNK_SIZE.match(stream, position, end)
        assert size, "a chunk without a size was accepted"
        assert stream[size.end() : size.end() + 1] in (b"\r", b";"), "junk behind a chunk size"
        position = end + 2
        length = int(size[0], 16)
        if not length:
            break
        body += stream[position : position + length]
        assert stream[position + length : position + length + 2] == b"\r\n"
        position += length + 2
    while not stream.startswith(b"\r\n", position):
        end = stream.index(b"\r\n", position)
        assert _FIELD.fullmatch(stream[position:end]), "a malformed trailer was accepted"
        position = end + 2
    return body, position + 2


_WHOLE_GET = re.compile(rb"(?:\r\n)?GET /[a-z]* HTTP/1\.1\r\nHost: [a-z]+\r\n\r\n")


def unread(rest: bytes) -> bool:
    """Whether a plain request, complete, stands at the beginning of what was not read."""
    return _WHOLE_GET.match(rest) is not None
