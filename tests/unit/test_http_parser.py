"""The parser of a connection's stream."""

from __future__ import annotations

import pytest

from ingest.errors import IngestError
from ingest.http.parser import HeadCache, Limits, RequestParser

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;x\r\nlo\r\n0\r\nX: y\r\n\r\n"
)


def new(cache_entries: int = 16, **limits: int) -> RequestParser:
    return RequestParser(Limits(**limits), HeadCache(cache_entries))


def requests(parser: RequestParser) -> list[tuple[str, bytes]]:
    """All requests that are complete now."""
    found = []
    while (head := parser.head()) is not None and (body := parser.body()) is not None:
        found.append((head.path, body))
    return found


@pytest.mark.parametrize("cache_entries", [0, 2, 16])
@pytest.mark.parametrize("stream", [GET * 3, POST * 3, CHUNKED * 3, GET + POST + CHUNKED + GET])
def test_a_stream_gives_the_same_requests_at_every_split(stream: bytes, cache_entries: int) -> None:
    whole = new()
    whole.feed(stream)
    expected = requests(whole)
    assert 3 <= len(expected) <= 4
    for cut in range(len(stream) + 1):
        parser = new(cache_entries)
        parser.feed(stream[:cut])
        found = requests(parser)
        parser.feed(stream[cut:])
        assert expected == found + requests(parser), cut
        assert not parser.begun
        assert parser.buffered == 0


def test_a_head_is_the_same_until_its_body_was_taken() -> None:
    parser = new()
    parser.feed(POST[:-2])
    head = parser.head()
    assert head is not None
    assert parser.body() is None
    assert parser.head() is head
    parser.feed(POST[-2:] + GET)
    assert parser.head() is head
    assert parser.body() == b"hello"
    assert requests(parser) == [("/a", b"")]


def test_buffered_is_zero_until_a_byte_of_the_body_arrives() -> None:
    """By this the connection knows that the peer still waits for `100 Continue`."""
    for request in (POST, CHUNKED):
        head_end = request.index(b"\r\n\r\n") + 4
        parser = new()
        parser.feed(request[:head_end])
        assert parser.head()
        assert parser.body() is None
        assert parser.buffered == 0
        parser.feed(request[head_end : head_end + 1])
        assert parser.buffered == 1
        assert parser.body() is None
        assert parser.buffered == 1


def test_begun_is_true_from_the_first_byte_of_a_request_to_its_last() -> None:
    for request in (POST, CHUNKED):
        parser = new()
        assert not parser.begun
        for position in range(len(request) - 1):
            parser.feed(request[position : position + 1])
            assert requests(parser) == []
            assert parser.begun
        parser.feed(request[-1:])
        assert len(requests(parser)) == 1
        assert not parser.begun


def test_an_empty_line_is_nobodys_request() -> None:
    parser = new()
    for byte in (b"\r", b"\n"):
        parser.feed(byte)
        assert parser.head() is None
        assert not parser.begun
    parser.feed(GET)
    assert requests(parser) == [("/a", b"")]
    parser.feed(b"\r\n" + GET + b"\r\n" + GET)
    assert requests(parser) == [("/a", b"")] * 2


def test_a_second_empty_line_is_refused() -> None:
    for step in (1, 2, 3, 100):
        parser = new()
        with pytest.raises(IngestError, match="empty line"):
            for start in range(0, 40, step):
                parser.feed((b"\r\n\r\n" + GET)[start : start + step])
                parser.head()


def test_an_idle_parser_holds_nothing() -> None:
    parser = new()
    parser.feed(GET)
    requests(parser)
    assert parser.buffer == b""


def test_the_short_way_is_open_for_one_whole_request_with_a_known_head_only() -> None:
    parser = new()
    assert parser.whole(POST) is None
    parser.feed(POST)
    assert len(requests(parser)) == 1
    whole = parser.whole(POST)
    assert whole is not None and (whole[0].path, whole[1]) == ("/b", b"hello")
    for data in (b"", POST[:-1], POST + b"G", POST * 2, GET, b"\r\n" + POST):
        assert parser.whole(data) is None
    parser.feed(POST[:-1])
    assert parser.head() is not None
    assert parser.whole(POST) is None
    assert parser.body() is None
    assert parser.whole(POST) is None
    parser.feed(POST[-1:])
    assert parser.body() == b"hello"


def test_an_unfinished_head_does_not_pin_what_was_served_before_it() -> None:
    parser = new()
    parser.feed(POST * 100 + b"GET")
    assert len(requests(parser)) == 100
    assert parser.buffered == 3
    assert parser.buffer == b"GET"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\n", "bad_request"),
        (b"GET / HTTP/1.1\rx", "bad_request"),
        (b"GET /\r\n", "bad_request"),
        (b"\x16\x03\x01", "bad_request"),
        (b"GET\x0b", "bad_request"),
        (b"GET / HTTP/1.1\r\nX: \x0c", "bad_request"),
        (b"GET / HTTP/3.0\r\n", "version_not_supported"),
        (b"GET / HTTP/1.1\r\nX: a\n", "bad_request"),
        (b"GET /" + b"a" * 47, "target_too_long"),
        (b"a" * 52, "target_too_long"),
        (b"\r\n" + b"a" * 52, "target_too_long"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 98, "headers_too_large"),
    ],
)
def test_a_head_is_refused_before_it_is_complete(data: bytes, code: str) -> None:
    for step in (1, len(data)):
        parser = new(request_line_max_bytes=50, headers_max_bytes=100)
        with pytest.raises(IngestError) as caught:
            for start in range(0, len(data), step):
                parser.feed(data[start : start + step])
                parser.head()
        assert caught.value.code == code


def test_a_head_of_exactly_the_limits_is_read_at_every_split() -> None:
    head = b"GET /" + b"a" * 36 + b" HTTP/1.1\r\nHost: h\r\nX: " + b"b" * 84 + b"\r\n\r\n"
    for before in (b"", b"\r\n"):
        for cut in range(len(head)):
            parser = new(request_line_max_bytes=50, headers_max_bytes=100)
            parser.feed(before + head[:cut])
            assert parser.head() is None
            parser.feed(head[cut:])
            assert len(requests(parser)) == 1


def test_a_body_beyond_the_limit_is_refused_with_its_head() -> None:
    parser = new(request_body_max_bytes=4)
    parser.feed(POST)
    with pytest.raises(IngestError) as caught:
        parser.head()
    assert caught.value.code == "body_too_large"


def test_a_stream_refused_at_a_head_stays_refused() -> None:
    parser = new()
    parser.feed(GET + b"GET / HTTP/1.1\r\n\r\n" + GET)
    assert parser.head()
    assert parser.body() == b""
    for _ in range(3):
        with pytest.raises(IngestError, match="no Host"):
            parser.head()
        with pytest.raises(IngestError, match="no Host"):
            parser.body()
        parser.feed(GET)
        assert parser.buffered == 0
        assert parser.begun


def test_a_stream_refused_in_a_body_stays_refused() -> None:
    for step in (1, 1000):
        parser = new()
        data = CHUNKED.replace(b"hel\r\n", b"help\r\n") + GET
        with pytest.raises(IngestError, match="no CRLF"):
            for start in range(0, len(data), step):
                parser.feed(data[start : start + step])
                requests(parser)
        parser.feed(GET)
        with pytest.raises(IngestError, match="no CRLF"):
            parser.head()


def test_large_bodies_arrive_whole() -> None:
    body = bytes(range(256)) * 4096
    head = b"POST / HTTP/1.1\r\nHost: h\r\n"
    sized = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"1000\r\n" + body[i : i + 4096] + b"\r\n" for i in range(0, len(body), 4096))
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    for stream in (sized, chunked):
        parser = new()
        found = []
        for start in range(0, len(stream), 65536):
            parser.feed(stream[start : start + 65536])
            found += requests(parser)
        assert found == [("/", body)]


def test_an_announced_body_takes_no_memory_before_it_arrives() -> None:
    parser = new()
    parser.feed(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 16777216\r\n\r\n1")
    assert parser.head()
    assert parser.body() is None
    assert parser.buffered == 1


def test_heads_are_cached_and_shared() -> None:
    cache = HeadCache(16)
    heads = []
    for _ in range(3):
        parser = RequestParser(Limits(), cache)
        parser.feed(POST + POST)
        for _ in range(2):
            heads.append(parser.head())
            assert parser.body() == b"hello"
    assert len({id(head) for head in heads}) == 1
    assert len(cache) == 1


def test_a_head_that_begins_like_the_last_one_is_not_mistaken_for_it() -> None:
    """The guess at where a head ends must not cut a longer or shorter one."""
    short = b"GET /s HTTP/1.1\r\nHost: h\r\n\r\n"
    long = b"GET /l HTTP/1.1\r\nHost: h\r\nX: " + short[:-2].replace(b"\r\n", b" ") + b"\r\n\r\n"
    parser = new()
    parser.feed(short + long + short + short + long + long + POST + short)
    paths = [path for path, _ in requests(parser)]
    assert paths == ["/s", "/l", "/s", "/s", "/l", "/l", "/b", "/s"]
