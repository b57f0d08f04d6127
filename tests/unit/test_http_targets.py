"""Request targets: what comes out as path, query and authority."""

from __future__ import annotations

import pytest

from ingest.errors import IngestError
from ingest.http.targets import Target, is_authority, parse_target


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a/b", "/a/b", ""),
        (b"/a?", "/a", ""),
        (b"/a?b=c&d", "/a", "b=c&d"),
        (b"/a?b?c/d", "/a", "b?c/d"),
        (b"/a?%41%2f", "/a", "%41%2f"),
        (b"/%61%2Fb%2fc", "/a%2Fb%2Fc", ""),
        (b"/%2561", "/%61", ""),
        (b"/caf%C3%A9/%F0%9F%98%80", "/café/😀", ""),
        (b"/%FF%C3%A9%c3", "/%FFé%C3", ""),
        (b"/%ed%a0%80", "/%ED%A0%80", ""),
        (b"/x/%c0%ae%c0%ae/y", "/x/%C0%AE%C0%AE/y", ""),
        (b"/a b".replace(b" ", b"%20"), "/a b", ""),
        (b"/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@", ""),
        (b"//a//b", "//a//b", ""),
    ],
)
def test_origin_form_is_decoded_once(target: bytes, path: str, query: str) -> None:
    assert Target(path, query, None) == parse_target("GET", target)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        # RFC 3986 section 5.2.4 and 5.4, as far as they apply to an absolute path
        (b"/a/b/c/./../../g", "/a/g"),
        (b"/b/c/.", "/b/c/"),
        (b"/b/c/./", "/b/c/"),
        (b"/b/c/..", "/b/"),
        (b"/b/c/../", "/b/"),
        (b"/b/c/../..", "/"),
        (b"/b/c/../../../../g", "/g"),
        (b"/..", "/"),
        (b"/.", "/"),
        (b"/..g", "/..g"),
        (b"/g.", "/g."),
        (b"/...", "/..."),
        (b"/a//../b", "/a/b"),
        (b"/a/%2e%2E/b", "/b"),
        (b"/a/.%2e/b", "/b"),
        (b"/a/%2e/b", "/a/b"),
        (b"/a/%252e%252e/b", "/a/%2e%2e/b"),
        (b"/a/..%2f..%2fb", "/a/..%2F..%2Fb"),
        (b"/a/..;/b", "/a/..;/b"),
    ],
)
def test_dot_segments_are_removed_after_decoding_and_never_above_the_root(
    target: bytes, path: str
) -> None:
    assert path == parse_target("GET", target).path


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", b"http://a/b?c", Target("/b", "c", "a")),
        ("GET", b"HTTPS://A:1/x/../y", Target("/y", "", "A:1")),
        ("GET", b"http://[::1]?q", Target("/", "q", "[::1]")),
        ("GET", b"http://a", Target("/", "", "a")),
        ("OPTIONS", b"http://a:8", Target("*", "", "a:8")),
        ("OPTIONS", b"http://a?", Target("/", "", "a")),
        ("OPTIONS", b"*", Target("*", "", None)),
        ("OPTIONS", b"/a", Target("/a", "", None)),
        ("CONNECT", b"a:443", Target("", "", "a:443")),
        ("CONNECT", b"[::1]:443", Target("", "", "[::1]:443")),
    ],
)
def test_the_other_forms(method: str, target: bytes, expected: Target) -> None:
    assert expected == parse_target(method, target)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (b"/a#b", "fragment"),
        (b"/%zz", "percent-encoding"),
        (b"/a?%", "percent-encoding"),
        (b"/%00", "encoded NUL"),
        (b"/a?b%00", "encoded NUL"),
        (b"a", "does not begin with /"),
        (b"a.b:80", "not http or https"),
        (b"ftp://a/", "not http or https"),
        (b"http://u@a/", "authority"),
        (b"http:///", "authority"),
        (b"http://a#b", "authority"),
        (b"http://a:99999/", "authority"),
        (b"/{a}", "must be percent-encoded"),
        (b'/?"', "must be percent-encoded"),
        (b"/\\a", "must be percent-encoded"),
        (b"http://a/|", "must be percent-encoded"),
        (b"*", "OPTIONS only"),
    ],
)
def test_a_refusal_says_what_is_wrong(target: bytes, why: str) -> None:
    with pytest.raises(IngestError, match=why) as caught:
        parse_target("GET", target)
    assert caught.value.code == "bad_request"


@pytest.mark.parametrize("target", [b"a", b"a:", b"/a", b"*", b"u@a:1", b"a:1/", b"[::1]", b":1"])
def test_connect_takes_host_and_port_only(target: bytes) -> None:
    with pytest.raises(IngestError, match="CONNECT takes host:port"):
        parse_target("CONNECT", target)


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b"A.b-c_d~",
        b"a:",
        b"a:80",
        b"a:0000080",
        b"127.0.0.1:65535",
        b"[::]",
        b"[1::2:3]:1",
        b"[v1.a]",
        b"a%20b",
        b"a!$&'()*+,;=b",
        b"[::ffff:1.2.3.4]",
    ],
)
def test_authorities_that_are_valid(value: bytes) -> None:
    assert is_authority(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":",
        b":80",
        b"a b",
        b"a/b",
        b"a@b",
        b"a:b",
        b"a:1:2",
        b"a:65536",
        b"a:123456",
        b"a:-1",
        b"::1",
        b"[::1",
        b"[::1]a",
        b"[1]",
        b"[::1%eth0]",
        b"[]",
        b"[v.a]",
        b"a%2",
        b"\xe9",
        b"a\n",
        b"[12345::]",
        b"[1:2:3:4:5:6:7:8:9]",
        b"[1.2.3.4]",
    ],
)
def test_authorities_that_are_not(value: bytes) -> None:
    assert not is_authority(value)
