"""Bodies given out piece by piece: the same bytes, however they arrive, and nothing behind."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import IngestError
from ingest.http.parser import HeadCache, Limits, RequestParser
from tests.support.mounted import chunked

HEAD = b"POST /m/x HTTP/1.1\r\nHost: a\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
LIMITS = Limits(request_body_max_bytes=10, streamed=("/m",), streamed_body_max_bytes=100)


def streamed(parts: list[bytes]) -> tuple[bytes, int, RequestParser]:
    """The body of the first request in a stream, and the most that was held of it."""
    parser = RequestParser(LIMITS, HeadCache(0))
    feeds = iter(parts)
    while parser.head() is None:
        parser.feed(next(feeds))
    stream = parser.stream()
    body, held = b"", 0
    while True:
        held = max(held, stream.held)
        body += stream.piece()
        if stream.complete():
            break
        parser.feed(next(feeds))
    assert stream.left == 0
    assert stream.piece() == b""
    parser.end_stream()
    for part in feeds:
        parser.feed(part)
    return body, held, parser


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@given(st.binary(max_size=100), st.lists(st.integers(min_value=0), max_size=8))
def test_a_sized_body_in_any_pieces(body: bytes, cuts: list[int]) -> None:
    data = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + NEXT
    found, _, parser = streamed(split(data, cuts))
    head = parser.head()
    assert (found, head and head.path, parser.body()) == (body, "/next", b"")


@given(st.binary(max_size=100), st.integers(1, 40), st.lists(st.integers(min_value=0), max_size=8))
def test_a_chunked_body_in_any_pieces(body: bytes, size: int, cuts: list[int]) -> None:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    data = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*chunks) + NEXT
    found, _, parser = streamed(split(data, cuts))
    head = parser.head()
    assert (found, head and head.path, parser.body()) == (body, "/next", b"")


@pytest.mark.parametrize("framing", ["sized", "chunked"])
def test_no_more_is_held_than_was_fed_at_a_time(framing: str) -> None:
    body = b"x" * 100
    field = {"sized": b"Content-Length: 100", "chunked": b"Transfer-Encoding: chunked"}[framing]
    data = {"sized": body, "chunked": chunked(*[body[:10]] * 10)}[framing]
    parts = [HEAD + field + b"\r\n\r\n", *[data[n : n + 7] for n in range(0, len(data), 7)]]
    found, held, _ = streamed(parts)
    assert found == body
    assert held <= 7 + len(b"a\r")  # and the line that is not whole


def test_the_bound_is_on_all_of_a_body_and_that_of_the_mount() -> None:
    chunk = chunked(b"x" * 10)[:-5]
    with pytest.raises(IngestError, match="100 bytes"):
        streamed([HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 11])
    parser = RequestParser(LIMITS, HeadCache(0))
    parser.feed(HEAD + b"Content-Length: 101\r\n\r\n")
    with pytest.raises(IngestError, match="100 bytes"):
        parser.head()


@pytest.mark.parametrize(("path", "most"), [("/m", 100), ("/m/", 100), ("/mm", 10), ("/", 10)])
def test_only_whole_segments_have_the_bound_of_the_mount(path: str, most: int) -> None:
    assert LIMITS.body_max_bytes(path) == most
