"""Heads: what is read from them, what is refused, and the cache."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.errors import IngestError
from ingest.http import head as head_module
from ingest.http.head import CACHEABLE_MAX_BYTES, Head, HeadCache, Limits, parse_head

LIMITS = Limits()


def parse(*fields: bytes, line: bytes = b"POST /a HTTP/1.1", limits: Limits = LIMITS) -> Head:
    """The head of these field lines; `Host: h` stands in front."""
    lines = [line, b"Host: h", *fields, b"", b""]
    return parse_head(b"\r\n".join(lines), limits)


def refusal(*fields: bytes, **kwargs: Any) -> str:
    """The code with which these field lines are refused."""
    with pytest.raises(IngestError) as caught:
        parse(*fields, **kwargs)
    return caught.value.code


def test_every_attribute_of_a_plain_head() -> None:
    head = parse(b"Content-Length: 5", b"X-Name: caf\xc3\xa9", line=b"PUT /%61/b?c=d HTTP/1.1")
    assert head.method == "PUT"
    assert head.target == b"/%61/b?c=d"
    assert head.path == "/a/b"
    assert head.query == "c=d"
    assert head.version == (1, 1)
    assert head.headers == {"host": "h", "content-length": "5", "x-name": "cafÃ©"}
    assert head.content_length == 5
    assert not head.chunked
    assert head.keep_alive
    assert not head.expect_continue
    assert head.cacheable
    assert head.size == 70
    assert head.plan is None


def test_repeated_fields_are_joined_and_trimmed() -> None:
    head = parse(b"accept:\ta\t ", b"X: 1", b"ACCEPT: b", b"Accept:")
    assert head.headers["accept"] == "a, b, "
    assert head.headers["x"] == "1"


def test_the_host_of_an_absolute_target_wins() -> None:
    head = parse(line=b"GET http://Other:8/x HTTP/1.1")
    assert (head.headers["host"], head.path) == ("Other:8", "/x")


@pytest.mark.parametrize("method", ["QUERY", "get", "SOURCE", "PRI", "M-SEARCH", "A" * 32])
def test_any_token_is_a_method(method: str) -> None:
    head = parse(b"Content-Length: 3", line=f"{method} /a HTTP/1.1".encode())
    assert (head.method, head.content_length) == (method, 3)


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: a ,\tCLOSE"], False),
        (b"1.1", [b"Connection: a", b"Connection: close"], False),
        (b"1.1", [b"Connection: closed"], True),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: Keep-Alive"], True),
        (b"1.0", [b"Connection: keep-alive, close"], False),
    ],
)
def test_whether_the_connection_persists(
    version: bytes, fields: list[bytes], keep_alive: bool
) -> None:
    assert keep_alive == parse(*fields, line=b"GET / HTTP/" + version).keep_alive


def test_nothing_follows_a_connect() -> None:
    assert not parse(line=b"CONNECT a:1 HTTP/1.1").keep_alive


def test_an_upgrade_is_read_as_an_ordinary_request() -> None:
    head = parse(b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 2")
    assert (head.content_length, head.headers["upgrade"], head.keep_alive) == (2, "h2c", True)


def test_expect_continue_matters_only_with_a_body_in_1_1() -> None:
    expect = b"Expect: 100-Continue"
    assert parse(expect, b"Content-Length: 1").expect_continue
    assert parse(expect, b"Transfer-Encoding: chunked").expect_continue
    assert not parse(expect).expect_continue
    assert not parse(expect, b"Content-Length: 0").expect_continue
    assert not parse(expect, b"Content-Length: 1", line=b"PUT / HTTP/1.0").expect_continue
    assert refusal(b"Expect: x", b"Content-Length: 1") == "expectation_failed"
    assert refusal(b"Expect: x") == "expectation_failed"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"gzip", "transfer_coding_unknown"),
        (b"gzip, chunked", "transfer_coding_unknown"),
        (b'gzip;a="chunked, b", chunked', "transfer_coding_unknown"),
        (b"chunked, gzip", "bad_request"),
        (b"chunked ;a=b, chunked", "bad_request"),
        (b"chunked;a=b", "bad_request"),
        (b"gzip,,chunked", "bad_request"),
        (b"", "bad_request"),
        (b"\xffchunked", "bad_request"),
    ],
)
def test_codings_other_than_chunked(value: bytes, code: str) -> None:
    assert code == refusal(b"Transfer-Encoding: " + value)


@pytest.mark.parametrize("name", [b"Host", b"Content-Length"])
def test_a_field_that_may_stand_once_is_named_when_it_stands_twice(name: bytes) -> None:
    with pytest.raises(IngestError, match=f"more than one {name.decode().lower()} field"):
        parse(name + b": 1", name + b": 1")


def test_a_length_of_many_digits_costs_nothing_and_is_too_large() -> None:
    assert refusal(b"Content-Length: " + b"9" * 20_000) == "body_too_large"
    assert parse(b"Content-Length: " + b"0" * 20_000 + b"7").content_length == 7


def test_a_body_of_the_limit_is_announced_and_one_more_is_not() -> None:
    limits = Limits(request_body_max_bytes=10)
    assert parse(b"Content-Length: 10", limits=limits).content_length == 10
    assert refusal(b"Content-Length: 11", limits=limits) == "body_too_large"


def test_the_limits_are_inclusive() -> None:
    line = b"GET /aaaa HTTP/1.1"
    limits = Limits(request_line_max_bytes=len(line), headers_max_bytes=17, header_count_max=2)
    assert parse(b"X: y", line=line, limits=limits)
    assert refusal(b"X: y", line=b"GET /aaaaa HTTP/1.1", limits=limits) == "target_too_long"
    assert refusal(b"X: yz", line=line, limits=limits) == "headers_too_large"
    assert refusal(b"", b"", line=line, limits=limits) == "headers_too_large"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "empty line"),
        (b"GET  / HTTP/1.1", "is not method SP target SP version"),
        (b"GET / HTTP/1.1 ", "is not method SP target SP version"),
        (b"GET /", "no HTTP version"),
        (b"G(T / HTTP/1.1", "is not a token"),
        (b"A" * 33 + b" / HTTP/1.1", "more than 32 characters"),
        (b"GET /\xe9 HTTP/1.1", "must be percent-encoded"),
        (b"GET / HTTP/1.x", "malformed HTTP version"),
        (b"GET / HTTP/0.9", "HTTP/0.x"),
        (b"GET / \n HTTP/1.1", "bare LF"),
        (b"GET / \r HTTP/1.1", "bare CR"),
        (b"GET / \x1b HTTP/1.1", "control character"),
    ],
)
def test_a_refused_request_line_says_what_is_wrong(line: bytes, why: str) -> None:
    with pytest.raises(IngestError, match=why):
        parse(line=line)


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (b" X: y", "header line 2: line begins with white space"),
        (b"X", "no colon in 'X'"),
        (b": y", "empty field name"),
        (b"X : y", "white space before the colon after 'X'"),
        (b"X(: y", r"field name 'X\(' is not a token"),
        (b"X: \x00", r"'\\x00' in the value of 'X'"),
        (b"X: \n", "bare LF"),
        (b"X: a\rb", "bare CR"),
        (b"\xff" * 100 + b": y", r"\\xff'\.\.\. is not a token"),
    ],
)
def test_a_refused_field_says_which_line_and_why(field: bytes, why: str) -> None:
    with pytest.raises(IngestError, match=why):
        parse(field)


def test_the_detail_of_a_refusal_is_short_printable_ascii() -> None:
    with pytest.raises(IngestError) as caught:
        parse(bytes(range(128, 256)) * 10 + b"\x1b")
    assert caught.value.detail.isascii()
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 300


def test_tabs_around_a_value_are_no_reason_to_refuse() -> None:
    assert parse(b"Transfer-Encoding:\tchunked\t").chunked
    assert parse(b"Content-Length:\t7\t").content_length == 7


def test_what_llhttp_alone_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "_ask_llhttp", lambda raw, method: ([], "it says no"))
    with pytest.raises(IngestError, match="it says no"):
        parse()


def test_fields_that_llhttp_does_not_see_are_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [(b"Host", b"h")]
    monkeypatch.setattr(head_module, "_ask_llhttp", lambda raw, method: (lines, ""))
    assert parse()
    with pytest.raises(IngestError, match="disagree"):
        parse(b"X: y")


# -- cacheable, cache ---------------------------------------------------------------


@pytest.mark.parametrize("name", [b"X-Request-Id", b"traceparent", b"Idempotency-Key", b"DATE"])
def test_heads_that_will_not_repeat_are_not_cacheable(name: bytes) -> None:
    assert not parse(name + b": 1").cacheable


def test_long_heads_are_not_cacheable() -> None:
    padding = CACHEABLE_MAX_BYTES - parse(b"X: ").size
    assert parse(b"X: " + b"y" * padding).cacheable
    assert not parse(b"X: " + b"y" * (padding + 1)).cacheable


def keep(cache: HeadCache, *numbers: int) -> None:
    for number in numbers:
        cache.put(b"%d" % number, parse(b"X: %d" % number))


def test_the_cache_keeps_what_is_used_and_forgets_the_rest() -> None:
    cache = HeadCache(8)
    keep(cache, 0)
    for number in range(1, 100):
        keep(cache, number)
        kept = cache.get(b"0")
        assert kept is not None
        assert kept.headers["x"] == "0"
        assert len(cache) <= 8
    assert cache.get(b"1") is None


def test_the_guess_sees_every_generation_change() -> None:
    cache = HeadCache(4)
    guess = cache.guess
    keep(cache, 1, 2)
    assert guess(b"1") is cache.get(b"1")
    keep(cache, 3)
    assert guess(b"1") is None
    assert cache.get(b"1") is not None
    assert guess(b"1") is not None


def test_a_cleared_cache_knows_nothing() -> None:
    cache = HeadCache(4)
    keep(cache, 1, 2, 3)
    cache.clear()
    assert len(cache) == 0
    assert cache.guess(b"3") is None
    assert cache.get(b"1") is None


def test_a_cache_of_no_entries_and_heads_that_are_not_cacheable() -> None:
    cache = HeadCache(0)
    keep(cache, 1)
    assert len(cache) == 0
    cache = HeadCache(4)
    cache.put(b"1", parse(b"Date: x"))
    assert len(cache) == 0
