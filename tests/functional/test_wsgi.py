"""WSGI applications under a prefix: environ, answers, framing, the validator's verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.mounted import (
    APP,
    VALIDATED,
    ask,
    bodies,
    chunked,
    gateway_with,
    log_of,
    raw,
    seen,
)
from tests.support.waiting import until


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the applications at /legacy, at /a/b, and checked at /checked."""
    folder = tmp_path_factory.mktemp("wsgi")
    file = folder / "file"
    file.write_bytes(b"0123456789")
    mounts = f"{APP},{VALIDATED},/a/b=tests.support.wsgi_apps:app,/a=tests.support.wsgi_apps:echo"
    running = gateway_with(
        folder / "data", "--access-log", "all", mounts=mounts, env={"TEST_FILE": str(file)}
    )
    yield running
    running.stop()


# -- the environ --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "script", "path", "query"),
    [
        ("/legacy", "/legacy", "", ""),
        ("/legacy?", "/legacy", "", ""),
        ("/legacy/", "/legacy", "/", ""),
        ("/legacy/x/y?a=1&b=%20", "/legacy", "/x/y", "a=1&b=%20"),
        ("/legacy/a%20b%2Bc+d", "/legacy", "/a b+c+d", ""),
        ("/legacy/%C3%A9", "/legacy", "/\xc3\xa9", ""),
        ("/legacy/%E9", "/legacy", "/\xe9", ""),
        ("/legacy/%2541", "/legacy", "/%41", ""),
        ("/legacy/a%2Fb", "/legacy", "/a/b", ""),
        ("/legacy//x//", "/legacy", "//x//", ""),
        ("/legacy/x/../y/.", "/legacy", "/y/", ""),
        ("/v1/../legacy/y", "/legacy", "/y", ""),
        ("/%6cegacy/y", "/legacy", "/y", ""),
        ("/legacy/..%2F..%2Fv1/events", "/legacy", "/v1/events", ""),
        ("/legacy/x%2F..%2F..%2F..", "/legacy", "/", ""),
        ("http://other:81/legacy/y?q", "/legacy", "/y", "q"),
        ("/legacy/;p=1/@:", "/legacy", "/;p=1/@:", ""),
        ("/a/b/environ/x", "/a/b", "/environ/x", ""),
        ("/a/b", "/a/b", "", ""),
    ],
)
def test_a_target_is_split_into_script_name_path_info_and_query(
    mounted: Gateway, target: str, script: str, path: str, query: str
) -> None:
    found = mounted.request("GET", target).json()
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["QUERY_STRING"]) == (
        script, path, query,
    )  # fmt: skip
    assert found["REQUEST_URI"] == target


def test_the_longest_prefix_answers_and_whole_segments_count(mounted: Gateway) -> None:
    assert ask(mounted, "/a/bc", "POST", b"echoed").body == b"echoed"
    assert mounted.request("GET", "/legacyx").status == 404
    assert mounted.request("GET", "/").status == 404
    assert mounted.request("GET", "/readyz").status == 200
    assert mounted.request("GET", "/legacy/..%2e/readyz").json()["SCRIPT_NAME"] == "/legacy"
    assert mounted.request("GET", "/legacy/../readyz").body == b"ok\n"
    assert mounted.post("/v1/events/metrics", METRICS).status == 202


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Content-Type": "text/x; charset=a"}, {"CONTENT_TYPE": "text/x; charset=a"}),
        ({"X-One-Two": "a"}, {"HTTP_X_ONE_TWO": "a"}),
        ({"X-Latin": "\xe9"}, {"HTTP_X_LATIN": "\xe9"}),
        ({"Cookie": "a=b; c=d"}, {"HTTP_COOKIE": "a=b; c=d"}),
        ({"X-Empty": ""}, {"HTTP_X_EMPTY": ""}),
        ({"X_User": "forged"}, {"HTTP_X_USER": None}),
        ({"X-User": "real", "X_User": "forged"}, {"HTTP_X_USER": "real"}),
        ({"Proxy": "http://evil"}, {"HTTP_PROXY": None}),
        ({"Content_Length": "7"}, {"CONTENT_LENGTH": None, "HTTP_CONTENT_LENGTH": None}),
        ({"X-Request-Id": "mine"}, {"HTTP_X_REQUEST_ID": "mine", "ingest.request_id": "mine"}),
        ({"Host": "shop.example:8"}, {"HTTP_HOST": "shop.example:8"}),
    ],
)
def test_header_fields_become_variables(
    mounted: Gateway, headers: dict[str, str], expected: dict[str, str | None]
) -> None:
    found = mounted.request("GET", "/legacy/environ", headers=headers).json()
    assert {name: found.get(name) for name in expected} == expected


def test_what_is_the_same_for_every_request(mounted: Gateway) -> None:
    found = mounted.request("POST", "/legacy/environ", b"12345").json()
    assert found["REQUEST_METHOD"] == "POST"
    assert found["CONTENT_LENGTH"] == "5"
    assert "CONTENT_TYPE" not in found
    assert "HTTP_CONTENT_LENGTH" not in found
    assert found["SERVER_PORT"] == str(mounted.port)
    assert found["SERVER_NAME"] == found["REMOTE_ADDR"] == "127.0.0.1"
    assert found["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert found["wsgi.version"] == [1, 0]
    assert found["wsgi.url_scheme"] == "http"
    flags = ("wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "wsgi.input_terminated")
    assert [found[name] for name in flags] == [True, False, False, True]
    old = raw(mounted, b"GET /legacy/environ HTTP/1.0\r\n\r\n")
    assert json.loads(old.partition(b"\r\n\r\n")[2])["SERVER_PROTOCOL"] == "HTTP/1.0"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_every_method_is_the_applications_to_answer(mounted: Gateway, method: str) -> None:
    assert mounted.request(method, "/legacy/environ").json()["REQUEST_METHOD"] == method


# -- the request's body -------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 65535, 65536, 65537, 1_000_000])
@pytest.mark.parametrize("way", ["sized", "chunked"])
def test_a_body_comes_as_it_was_sent(mounted: Gateway, size: int, way: str) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sent: Any = body if way == "sized" else iter([body[:7], body[7:]] if body else [])
    fields = {} if way == "sized" else {"Transfer_Encoding": "chunked"}
    for path in ("/legacy/echo", "/legacy/echo_pieces"):
        if way == "chunked":
            sent = iter([part for part in (body[:7], body[7:]) if part])
        assert ask(mounted, path, "POST", sent, **fields).body == body


def test_lines_of_a_body(mounted: Gateway) -> None:
    body = b"one\ntwo\n\nlast without an end"
    found = ask(mounted, "/legacy/lines", "POST", body).body
    assert json.loads(found) == ["one\n", ["two\n", "\n", "last without an end"]]


# -- the answer ---------------------------------------------------------------------------


def answer_to(gateway: Gateway, path: str, method: str = "GET", version: str = "1.1") -> bytes:
    request = f"{method} /legacy/{path} HTTP/{version}\r\nHost: a\r\n\r\n"
    return raw(gateway, request.encode())


def test_one_block_has_a_length_and_several_are_chunked(mounted: Gateway) -> None:
    head, _, body = answer_to(mounted, "ignore").partition(b"\r\n\r\n")
    assert b"Content-Length: 6" in head
    assert body == b"unread"
    head, _, body = answer_to(mounted, "two").partition(b"\r\n\r\n")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body == b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    head, _, body = answer_to(mounted, "late").partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert body == b"late"
    head, _, body = answer_to(mounted, "write").partition(b"\r\n\r\n")
    assert body == b"4\r\none,\r\n4\r\ntwo,\r\n5\r\nthree\r\n0\r\n\r\n"


def test_http_1_0_gets_several_blocks_up_to_the_end_of_the_connection(mounted: Gateway) -> None:
    request = b"GET /legacy/two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    for stream in (answer_to(mounted, "two", version="1.0"), raw(mounted, request * 2)):
        head, _, body = stream.partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"Connection: close" in head
        assert body == b"abc"


def test_head_has_the_fields_and_no_body(mounted: Gateway) -> None:
    for path in ("ignore", "two", "late", "blocks?100000", "file"):
        head, _, body = answer_to(mounted, path, "HEAD").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b""
        assert b"chunked" not in head
    assert b"Content-Length: 6" in answer_to(mounted, "ignore", "HEAD")
    assert seen(mounted)["produced"] == 1  # an endless answer to HEAD is not made


@pytest.mark.parametrize("code", ["204", "304"])
def test_a_status_without_a_body_has_none(mounted: Gateway, code: str) -> None:
    for path in (f"status?{code}+Nothing", "ignore"):
        mounted.request("GET", f"/legacy/{path}")
    request = f"GET /legacy/status?{code}+Nothing HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    stream = raw(mounted, request + b"GET /legacy/ignore HTTP/1.1\r\nHost: a\r\n\r\n")
    first, _, rest = stream.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 %b Nothing\r\n" % code.encode())
    assert b"Content-Length" not in first
    assert b"chunked" not in first
    assert rest.startswith(b"HTTP/1.1 200")


def test_the_status_line_and_fields_are_the_applications(mounted: Gateway) -> None:
    head = answer_to(mounted, "status?418+I+am+a+teapot").partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 418 I am a teapot\r\n")
    assert b"X-Kind: status" in head
    assert head.count(b"\r\nDate: ") == 1
    assert head.count(b"\r\nX-Request-Id: ") == 1


def test_fields_of_the_connection_are_ours(mounted: Gateway) -> None:
    head, _, body = answer_to(mounted, "hops").partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert b"Keep-Alive" not in head
    assert head.count(b"Connection: close") == 1
    assert head.count(b"Set-Cookie") == 2
    assert body == b"x"
    with mounted.connect() as client:
        client.send(b"GET /legacy/hops HTTP/1.1\r\nHost: a\r\n\r\n")
        while b"\r\n\r\nx" not in (found := client.sock.recv(65536)):
            assert found
        assert client.closed()


def test_a_mind_changed_before_the_head_has_left(mounted: Gateway) -> None:
    answer = mounted.request("GET", "/legacy/changed")
    assert (answer.status, answer.body) == (503, b"sorry")
    assert "x-old" not in answer.headers
    assert answer.headers["x-new"] == "1"


# -- files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"0123456789"),
        ("start=3", b"3456789"),
        ("length=4", b"0123"),
        ("start=3&length=4", b"3456"),
        ("start=10", b""),
        ("kind=open", b"0123456789"),
        ("kind=open&start=3", b"3456789"),
        ("kind=temporary&start=2", b"23456789"),
        ("kind=memory&start=2", b"23456789"),
    ],
)
def test_a_file_is_sent_from_where_it_stands(mounted: Gateway, query: str, body: bytes) -> None:
    answer = ask(mounted, f"/legacy/file?{query}")
    assert (answer.status, answer.body) == (200, body)
    if "memory" not in query:
        assert answer.headers["content-length"] == str(len(body))


def test_a_file_is_closed_after_it_was_sent(mounted: Gateway) -> None:
    before = seen(mounted)["closed:file"]
    assert ask(mounted, "/legacy/file").body == b"0123456789"
    assert ask(mounted, "/legacy/file", "HEAD").headers["content-length"] == "10"
    assert seen(mounted)["closed:file"] == before + 2


def test_a_file_that_makes_something_of_its_bytes_is_read(tmp_path: Path, new_gateway: Any) -> None:
    import gzip

    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(b"plain text"))
    gateway = new_gateway("--mounts", APP, env={"TEST_FILE": str(packed)})
    assert ask(gateway, "/legacy/file?kind=gzip").body == b"plain text"
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 40_000)
    packed.write_bytes(large.read_bytes())
    assert ask(gateway, "/legacy/file").body == large.read_bytes()


# -- what an operator sees ----------------------------------------------------------------


def test_a_mount_is_counted_under_its_prefix(mounted: Gateway) -> None:
    before = mounted.metric('ingest_requests_total{status="418",type="mount:/legacy"}')
    times = mounted.metric('ingest_mount_seconds_count{mount="/legacy"}')
    for number in range(3):
        mounted.request("GET", f"/legacy/status/{number}?418+T", headers={"X-Request-Id": "seek"})
    after = mounted.metric('ingest_requests_total{status="418",type="mount:/legacy"}')
    assert after == before + 3
    assert mounted.metric('ingest_mount_seconds_count{mount="/legacy"}') == times + 3

    def logged() -> bool:
        lines = [line for line in log_of(mounted, "http.access") if line["request_id"] == "seek"]
        return len(lines) == 3 and {line["type"] for line in lines} == {"mount:/legacy"}

    until(logged)


def test_what_an_application_writes_to_its_errors_is_logged(mounted: Gateway) -> None:
    answer = mounted.request("GET", "/legacy/complain")
    request_id = answer.headers["x-request-id"]

    def lines() -> list[str]:
        found = log_of(mounted, "wsgi.errors")
        return [line["line"] for line in found if line["request_id"] == request_id]

    until(lambda: len(lines()) == 3)
    assert lines() == ["first line", "second line", "third line"]


# -- conformance --------------------------------------------------------------------------

EXCHANGES = [
    (method, how, kind, way)
    for method, way in (("GET", ""), ("POST", "sized"), ("POST", "chunked"), ("HEAD", ""))
    for how in ("none", "read", "line", "lines", "iter")
    for kind in ("", "list", "empty", "file", "write", "nothing")
    if not (method in ("GET", "HEAD") and how in ("lines", "iter"))
]


def test_the_validator_of_the_standard_library_finds_nothing(mounted: Gateway) -> None:
    assert len(EXCHANGES) >= 40
    requests = []
    for method, how, kind, way in EXCHANGES:
        fields = {"sized": "Content-Length: 6\r\n", "chunked": "Transfer-Encoding: chunked\r\n"}
        body = {"sized": b"li\nnes", "chunked": chunked(b"li\nn", b"es"), "": b""}[way]
        head = f"{method} /checked/x?{how}-{kind} HTTP/1.1\r\nHost: a\r\n{fields.get(way, '')}\r\n"
        requests.append((head.encode() + body, method, kind))
    for data, method, kind in requests:
        stream = raw(mounted, data)
        status = stream.split(b" ")[1]
        expected = b"204" if kind == "nothing" else b"200"
        assert status == expected, (data, stream)
        if method != "HEAD":
            assert len(list(bodies(stream))) == 1
    assert not log_of(mounted, "wsgi.app_failed")
