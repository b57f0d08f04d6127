"""Nothing that a client sends becomes a header field, a second answer or a second log line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.mounted import raw
from tests.support.waiting import until

BODY = json.dumps(METRICS).encode()
INJECTED = "X-Injected"
#: What might end a field, a line or a head, somewhere between here and a log reader.
BREAKS = (
    b"\r\nX-Injected: 1", b"\nX-Injected: 1", b"\rX-Injected: 1", b"\r\n\r\nHTTP/1.1 200 OK",
    b"\x00X-Injected: 1", b"\x0bX-Injected: 1", b"\x0cX-Injected: 1", b"\xc4\x8d\xc4\x8aX-Injected",
    b"%0d%0aX-Injected: 1", b"\\r\\nX-Injected: 1", b"\xe2\x80\xa8X-Injected: 1", b"\x85X-Injected",
    b'","level":"error","event":"X-Injected', b"\x1b[31mX-Injected",
)  # fmt: skip
#: Fields that are echoed, logged, stored or compared.
FIELDS = (
    b"X-Request-Id", b"Idempotency-Key", b"traceparent", b"Content-Type", b"Accept", b"Origin",
    b"User-Agent", b"Referer", b"ce-id", b"ce-type", b"ce-source", b"ce-subject", b"Expect",
    b"If-None-Match", b"Range", b"X-Forwarded-For", b"X-Api-Key", b"Authorization",
    b"Content-Encoding",
)  # fmt: skip


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that logs every request and has an application that answers."""
    data: Path = tmp_path_factory.mktemp("injection") / "data"
    mounts = "/legacy=tests.support.wsgi_apps:app"
    gateway = Gateway(data, "--access-log", "all", "--mounts", mounts).start()
    yield gateway
    gateway.stop()


def heads(answer: bytes) -> list[list[str]]:
    """The header fields of each answer in a stream of them, by their lengths."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        assert re.fullmatch(r"HTTP/1\.1 \d{3} [A-Za-z ()-]+", lines[0]), lines[0]
        found.append(lines[1:])
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert length is not None, head
        answer = rest[int(length[1]) :]
    return found


def no_harm(gateway: Gateway, request: bytes, answers: int = 1) -> None:
    received = raw(gateway, request)
    seen = heads(received)
    assert len(seen) <= answers, received
    for lines in seen:
        names = [line.partition(":")[0].lower() for line in lines]
        assert INJECTED.lower() not in names, received
        assert len(set(names)) == len(names), f"a field stands twice: {received!r}"
        for line in lines:
            assert re.fullmatch(r"[A-Za-z-]+: [\t -~]*", line), line


@pytest.mark.parametrize("field", FIELDS, ids=bytes.decode)
def test_a_field_s_value_stays_a_value(logged: Gateway, field: bytes) -> None:
    for break_ in BREAKS:
        for path in (b"/v1/events/metrics", b"/v1/events" if b"ce-" in field else b"/legacy/echo"):
            no_harm(
                logged,
                b"POST " + path + b" HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n" % len(BODY)
                + field + b": a" + break_ + b"\r\nConnection: close\r\n\r\n" + BODY,
            )  # fmt: skip


def test_a_target_stays_a_target(logged: Gateway) -> None:
    for break_ in BREAKS:
        for place in (
            b"/%s",
            b"/v1/schemas/%s",
            b"/v1/journal/%s",
            b"/v1/schemas/metrics?version=%s",
            b"http://%s/livez",
            b"/legacy/%s",
            b"/v1/events/%s?ids=%s",
        ):
            target = place.replace(b"%s", break_)
            no_harm(
                logged, b"GET " + target + b" HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 2
            )
        for method in (b"GET" + break_, break_):
            no_harm(logged, method + b" /livez HTTP/1.1\r\nHost: t\r\n\r\n", 2)
        no_harm(logged, b"GET /openapi.json HTTP/1.1\r\nHost: t" + break_ + b"\r\n\r\n", 2)


def test_a_request_id_is_echoed_only_if_it_is_visible_ascii(logged: Gateway) -> None:
    def echoed(value: bytes) -> str:
        with logged.connect() as client:
            client.send(b"GET /livez HTTP/1.1\r\nHost: t\r\nX-Request-Id: " + value + b"\r\n\r\n")
            return client.answer().headers["x-request-id"]

    assert echoed(b"abc-123") == "abc-123"
    assert echoed(b"x" * 128) == "x" * 128
    for value in (b"x" * 129, b"a b", b"caf\xc3\xa9", b"a\tb", b""):
        assert echoed(value) != value.decode("latin-1")


def test_the_host_field_is_echoed_nowhere(logged: Gateway) -> None:
    for path in (
        b"/openapi.json",
        b"/v1/schemas",
        b"/nowhere",
        b"/v1/schemas/metrics",
        b"/v1/journal",
    ):
        received = raw(
            logged, b"GET " + path + b" HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        )
        assert b"evil.example" not in received, path


def test_each_line_of_the_log_is_one_of_ours(logged: Gateway) -> None:
    marker = "the-last-request"
    logged.request("GET", f"/{marker}")
    until(lambda: marker in logged.log())
    for line in logged.log_lines():  # each must be JSON of its own
        assert INJECTED not in line["event"] and INJECTED not in line["level"]
        assert line["service"] == "ingest"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", logged.log())


def test_what_a_client_chose_is_stored_as_data_on_one_line(logged: Gateway) -> None:
    for line in logged.journal():
        assert INJECTED not in json.dumps([*line])
    for path in logged.data.glob("journal/*/*.ndjson"):
        for raw_line in path.read_bytes().splitlines():
            if raw_line.strip():
                assert json.loads(raw_line)["specversion"] == "1.0"


def test_a_line_of_the_combined_log_keeps_its_parts_whatever_a_client_says(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--access-log", "all", "--access-log-format", "combined")
    for break_ in BREAKS:
        for field in (b"User-Agent: a%sb", b"Referer: http://a/%s?token=s3cr3t"):
            line = field.replace(b"%s", break_)
            raw(gateway, b"GET /x?token=s3cr3t HTTP/1.1\r\nHost: t\r\n" + line + b"\r\n\r\n")
        raw(gateway, b"GET /" + break_ + b" HTTP/1.1\r\nHost: t\r\n\r\n")
    gateway.stop()
    quoted = r'"(?:[^"\\]|\\.)*"'
    apache = re.compile(rf"\S+ - \S+ \[[^\]]+\] {quoted} \d{{3}} \d+ {quoted} {quoted}")
    lines = [line for line in gateway.log().split("\n") if not line.startswith("{")]
    assert len(lines) > 2 * len(BREAKS)
    for line in filter(None, lines):
        assert apache.fullmatch(line) and line.isascii() and line.isprintable(), line
    assert "s3cr3t" not in gateway.log()


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_web_page_cannot_send_or_read_events_by_a_visitor_s_browser(
    logged: Gateway, content_type: str
) -> None:
    """These are what a browser sends to other sites without asking them first (CORS)."""
    before = len(logged.journal())
    headers = {"Origin": "https://evil.example", "Content-Type": content_type}
    for path in ("/metrics", "/v1/events/metrics", "/v1/batch/metrics", "/v1/events"):
        answer = logged.request("POST", path, BODY, {k: v for k, v in headers.items() if v})
        assert answer.status in (400, 415), path
        assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = logged.request("OPTIONS", "/v1/events/metrics", headers=preflight)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert len(logged.journal()) == before
