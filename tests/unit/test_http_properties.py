"""Properties of the parser, for any stream and any split."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import CATALOGUE, IngestError
from ingest.http.head import parse_head
from ingest.http.parser import HeadCache, Limits, RequestParser

LIMITS = Limits(
    request_line_max_bytes=256,
    headers_max_bytes=1024,
    header_count_max=12,
    request_body_max_bytes=2048,
)
HELD_MAX = sum((LIMITS.request_line_max_bytes, LIMITS.headers_max_bytes, 2048)) + 64

Request = tuple[str, str, str, bytes]

TCHARS = "!#$%&'*+-.^_`|~0123456789ABCXYZabcxyz"
tokens = st.text(TCHARS, min_size=1, max_size=8)
values = st.binary(max_size=20).map(
    lambda raw: bytes(byte for byte in raw if byte in b"\t" or 32 <= byte < 127 or byte > 127)
)
segments = st.text("abcXYZ019-._~!$&'()*+,;=:@", max_size=6)


def encode_chunked(body: bytes, sizes: list[int], trailer: bytes) -> bytes:
    pieces, position = [], 0
    for size in sizes:
        piece = body[position : position + size]
        position += len(piece)
        if piece:
            pieces.append(b'%x;x="y"\r\n%b\r\n' % (len(piece), piece))
    rest = body[position:]
    if rest:
        pieces.append(b"%X\r\n%b\r\n" % (len(rest), rest))
    return b"".join(pieces) + b"0\r\n" + trailer + b"\r\n"


@st.composite
def wire_requests(draw: st.DrawFn) -> tuple[bytes, Request]:
    """A valid request: its bytes, and what a parser must say about it."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS"]) | tokens)
    if method == "CONNECT":
        method = "POST"
    path = "/" + "/".join(draw(st.lists(segments, max_size=4)))
    query = draw(segments)
    fields = [b"Host: " + draw(st.sampled_from([b"a", b"b.example:80", b"[::1]"]))]
    fields += [
        f"x-{name}:".encode() + draw(st.sampled_from([b"", b" ", b"\t "])) + value
        for name, value in draw(st.lists(st.tuples(tokens, values), max_size=5))
    ]
    body = draw(st.binary(max_size=60))
    wire_body = body
    kind = draw(st.sampled_from(["none", "sized", "chunked"]))
    if kind == "none":
        body = wire_body = b""
    elif kind == "sized":
        fields.append(b"Content-Length: %d" % len(body))
    else:
        sizes = draw(st.lists(st.integers(1, 20), max_size=4))
        trailer = draw(st.sampled_from([b"", b"X-T: y\r\n"]))
        wire_body = encode_chunked(body, sizes, trailer)
        fields.append(b"Transfer-Encoding: chunked")
    fields = draw(st.permutations(fields))
    head = f"{method} {path}?{query} HTTP/1.1\r\n".encode() + b"\r\n".join(fields) + b"\r\n\r\n"
    empty_line = draw(st.sampled_from([b"", b"", b"\r\n"]))
    return empty_line + head + wire_body, (method, f"{path}?{query}", query, body)


def drain(parser: RequestParser) -> list[Request]:
    found = []
    while (head := parser.head()) is not None and (body := parser.body()) is not None:
        found.append((head.method, head.target.decode(), head.query, body))
    return found


def take(parser: RequestParser, data: bytes) -> list[Request]:
    """As the connection does: the short way where it is open, the long one otherwise."""
    whole = parser.whole(data)
    if whole is not None:
        head, body = whole
        return [(head.method, head.target.decode(), head.query, body)]
    parser.feed(data)
    return drain(parser)


def feed_in_pieces(parser: RequestParser, stream: bytes, cuts: list[int]) -> list[Request]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [
        request for start, end in pairwise(edges) for request in take(parser, stream[start:end])
    ]


streams = st.lists(wire_requests(), min_size=1, max_size=5)
cuts = st.lists(st.integers(0, 5000), max_size=12)


@given(streams, cuts, st.integers(0, 8))
def test_any_split_of_a_pipeline_gives_the_same_requests(
    pipeline: list[tuple[bytes, Request]], cuts: list[int], entries: int
) -> None:
    stream = b"".join(wire for wire, _ in pipeline)
    parser = RequestParser(LIMITS, HeadCache(entries))
    assert [request for _, request in pipeline] == feed_in_pieces(parser, stream, cuts)
    assert not parser.begun
    assert parser.buffered == 0


@given(streams)
@settings(max_examples=50)
def test_a_pipeline_byte_by_byte_gives_the_same_requests(
    pipeline: list[tuple[bytes, Request]],
) -> None:
    stream = b"".join(wire for wire, _ in pipeline)
    parser = RequestParser(LIMITS, HeadCache(8))
    found = []
    for position in range(len(stream)):
        parser.feed(stream[position : position + 1])
        found += drain(parser)
        assert parser.buffered <= HELD_MAX
    assert [request for _, request in pipeline] == found


@given(streams)
@settings(max_examples=50)
def test_a_warm_cache_changes_nothing(pipeline: list[tuple[bytes, Request]]) -> None:
    stream = b"".join(wire for wire, _ in pipeline)
    cache = HeadCache(32)
    for _ in range(3):
        parser = RequestParser(LIMITS, cache)
        parser.feed(stream)
        assert [request for _, request in pipeline] == drain(parser)


@given(streams)
@settings(max_examples=50)
def test_requests_that_come_one_by_one_are_the_same_by_the_short_way(
    pipeline: list[tuple[bytes, Request]],
) -> None:
    cache = HeadCache(32)
    parser = RequestParser(LIMITS, cache)
    for wire, request in [*pipeline, *pipeline, *pipeline]:
        assert take(parser, wire) == [request]
        assert parser.buffered == 0


def assert_only_ingest_errors(pieces: list[bytes]) -> None:
    """Feed hostile bytes: only `IngestError`, nothing held beyond the limits, refused for good."""
    parser = RequestParser(LIMITS, HeadCache(4))
    refused: IngestError | None = None
    for piece in pieces:
        parser.feed(piece)
        try:
            drain(parser)
            assert refused is None, "a refused stream gave an answer again"
        except IngestError as error:
            assert refused is None or error is refused
            assert error.code in CATALOGUE
            assert error.failure.closes
            assert error.detail.isprintable()
            refused = error
        assert parser.buffered <= HELD_MAX + len(piece)


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_arbitrary_bytes_raise_nothing_but_ingest_errors(pieces: list[bytes]) -> None:
    assert_only_ingest_errors(pieces)


#: What hostile streams are made of: near enough to HTTP to reach every branch.
FRAGMENTS = [
    b"GET ", b"POST ", b"/", b"*", b"http://a/", b"/%2e%2e/", b"%", b"%00",
    b" HTTP/1.1", b" HTTP/1.0",
    b"\r\n", b"\r", b"\n", b"\r\n\r\n", b"Host: a\r\n", b"Host:", b"Content-Length: 5\r\n",
    b"0", b"5",
    b"Content-Length:", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:", b"Expect: x\r\n",
    b"Connection: close\r\n", b":", b";a=b", b'"', b"\x00", b"\xff", b" ", b"\t", b"5\r\nhello\r\n",
    b"0\r\n\r\n", b"ffffffffffffffff", b"a" * 300, b"X: y\r\n" * 20,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(b"".join), max_size=8))
@settings(max_examples=300)
def test_bytes_that_are_nearly_http_raise_nothing_but_ingest_errors(pieces: list[bytes]) -> None:
    assert_only_ingest_errors(pieces)


@given(st.binary(max_size=300))
def test_parse_head_raises_nothing_but_ingest_errors(raw: bytes) -> None:
    for data in (
        raw,
        b"GET / HTTP/1.1\r\n" + raw + b"\r\n\r\n",
        b"GET /" + raw + b" HTTP/1.1\r\n\r\n",
    ):
        try:
            head = parse_head(data, LIMITS)
        except IngestError:
            continue
        head.path.encode()  # no lone surrogate ever
