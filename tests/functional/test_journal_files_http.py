"""Segment files over HTTP: ranges, conditions, slow readers, files that go away meanwhile."""

from __future__ import annotations

import json
import socket
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Answer, Client, Gateway
from tests.support.journals import Written, until

#: More than the kernel's buffers of a connection take.
LARGE_BYTES = 16_000_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a segment that does not fit into a connection, and a newest one."""
    written = Written(tmp_path_factory.mktemp("large") / "data")
    data = json.dumps({"x": "x" * 99_000}).encode()
    while written.path.stat().st_size < LARGE_BYTES:
        written.commit(*["metrics"] * 20, datas=[data] * 20)
    written.new_segment()
    written.commit("metrics")
    return written.data


@pytest.fixture
def loaded(large: Path, tmp_path: Path, new_gateway):  # type: ignore[no-untyped-def]
    """Starts a gateway on a copy (of links) of that directory."""

    def start(*flags: str) -> Gateway:
        directory = tmp_path / "data" / "journal" / "0"
        directory.mkdir(parents=True)
        for file in (large / "journal" / "0").iterdir():
            (directory / file.name).hardlink_to(file)
        newest = max(directory.iterdir())
        content = newest.read_bytes()
        newest.unlink()
        newest.write_bytes(content)
        return new_gateway(*flags)

    return start


def segment(gateway: Gateway) -> str:
    return f"/v1/journal/0/{0:020d}.ndjson"


def content(gateway: Gateway) -> bytes:
    return (gateway.data / "journal" / "0" / f"{0:020d}.ndjson").read_bytes().rstrip(b"\n") + b"\n"


def get(gateway: Gateway, method: str = "GET", **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, segment(gateway), headers=fields)


@pytest.fixture
def stored(gateway: Gateway) -> Gateway:
    for _ in range(3):
        assert gateway.post("/v1/events/metrics", METRICS).status == 202
    return gateway


# -- whole and in parts -------------------------------------------------------------------


def test_a_segment_is_sent_as_it_is_on_the_disk_without_the_fill(stored: Gateway) -> None:
    answer = get(stored)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.body == content(stored)
    assert answer.body.count(b"ingestcommit") == 3
    head = get(stored, "HEAD", Range="bytes=0-1")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.body))
    assert head.headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("BYTES=10-19", 10, 20),
        ("bytes= 10-19 ", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=-999999999", 0, None),
        ("bytes=50-999999999", 50, None),
    ],
)
def test_a_range_of_a_segment(
    stored: Gateway, field: str, start: int | None, end: int | None
) -> None:
    whole = content(stored)
    answer = get(stored, Range=field)
    assert (answer.status, answer.body) == (206, whole[start:end])
    first = range(len(whole))[start]
    last = first + len(answer.body) - 1
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(whole)}"


@pytest.mark.parametrize(
    "field",
    ["bytes=0-1,5-6", "lines=0-1", "bytes=5-4", "bytes=x-4", "bytes", "bytes=", "bytes=-",
     "bytes=0-99999999999999999999", "0-1"],
)  # fmt: skip
def test_a_range_that_is_malformed_or_not_one_is_answered_with_the_whole(
    stored: Gateway, field: str
) -> None:
    answer = get(stored, Range=field)
    assert (answer.status, answer.body) == (200, content(stored))
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("field", ["bytes=999999-", "bytes=-0"])
def test_a_range_behind_the_end_is_416_with_the_length(stored: Gateway, field: str) -> None:
    answer = get(stored, Range=field)
    assert (answer.status, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(content(stored))}"


def test_a_reader_gets_the_rest_of_a_growing_segment_by_a_range(stored: Gateway) -> None:
    first = get(stored)
    assert get(stored, Range=f"bytes={len(first.body)}-").status == 416
    assert stored.post("/v1/events/metrics", METRICS).status == 202
    rest = get(stored, Range=f"bytes={len(first.body)}-")
    assert (rest.status, first.body + rest.body) == (206, content(stored))
    assert rest.headers["etag"] != first.headers["etag"]


# -- conditions ---------------------------------------------------------------------------


def test_conditions_by_tag(stored: Gateway) -> None:
    tag = get(stored).headers["etag"]
    assert get(stored, If_None_Match=tag).status == 304
    assert get(stored, If_None_Match=f'"a", W/{tag}').status == 304
    assert get(stored, If_None_Match='"a"').status == 200
    assert get(stored, If_Match=f'"a", {tag}').status == 200
    assert get(stored, If_Match="*").status == 200
    answer = get(stored, If_Match=f"W/{tag}")
    assert (answer.status, answer.json()["code"]) == (412, "precondition_failed")
    assert get(stored, If_Range=tag, Range="bytes=0-4").status == 206
    assert get(stored, If_Range=f"W/{tag}", Range="bytes=0-4").status == 200
    assert get(stored, If_Range='"a"', Range="bytes=0-4").status == 200
    assert stored.post("/v1/events/metrics", METRICS).status == 202
    assert get(stored, If_None_Match=tag).status == 200
    assert get(stored, If_Range=tag, Range="bytes=0-4").status == 200


def test_conditions_by_date(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    date = get(gateway, "HEAD").headers["last-modified"]
    seconds = parsedate_to_datetime(date).timestamp()
    before, behind = (formatdate(seconds + by, usegmt=True) for by in (-60, 60))
    assert get(gateway, "HEAD", If_Modified_Since=date).status == 304
    assert get(gateway, "HEAD", If_Modified_Since=behind).status == 304
    assert get(gateway, "HEAD", If_Modified_Since=before).status == 200
    assert get(gateway, "HEAD", If_Modified_Since="yesterday").status == 200
    assert get(gateway, "HEAD", If_Modified_Since=date, If_None_Match='"a"').status == 200
    assert get(gateway, "HEAD", If_Unmodified_Since=before).status == 412
    assert get(gateway, "HEAD", If_Unmodified_Since=date).status == 200
    assert get(gateway, Range="bytes=0-4", If_Range=date).status == 206
    assert get(gateway, Range="bytes=-9", If_Range=behind).status == 200


# -- large ones ---------------------------------------------------------------------------


def test_a_large_segment_arrives_whole_and_what_is_behind_it_after_it(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    whole = content(gateway)
    head = f"GET {segment(gateway)} HTTP/1.1\r\nHost: a\r\n"
    with gateway.connect() as client:
        client.send(
            f"{head}\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
            f"{head}Range: bytes=5000000-\r\n\r\n{head}Range: bytes=-3\r\n\r\n".encode()
        )
        assert client.answer().body == whole
        assert client.answer().body == b"ok\n"
        part = client.answer()
        assert (part.status, part.body) == (206, whole[5_000_000:])
        assert client.answer().body == whole[-3:]
    assert gateway.metric('ingest_journal_read_bytes_total{kind="file"}') == (
        2 * len(whole) - 5_000_000 + 3
    )


def unread(gateway: Gateway) -> Client:
    """A client that asked for the large segment and does not take it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", gateway.port))
    client = Client(sock)
    client.send(f"GET {segment(gateway)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert client.sock.recv(15) == b"HTTP/1.1 200 OK"
    return client


def test_nothing_of_a_file_is_kept_for_a_reader_that_does_not_take_it(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    with unread(gateway), unread(gateway):
        assert gateway.post("/v1/events/metrics", METRICS).status == 202
        assert gateway.metric("ingest_buffered_bytes") == 0


def test_a_reader_that_takes_nothing_is_cut_off_and_told_so_by_a_reset(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded("--write-timeout", "300ms")
    with unread(gateway) as client:
        until(lambda: gateway.metric('ingest_timeouts_total{kind="write"}') == 1, "it is cut off")
        with pytest.raises(ConnectionResetError):
            while client.sock.recv(1 << 20):
                pass
    assert gateway.metric('ingest_connections_closed_total{reason="timeout"}') == 1
    assert gateway.metric("ingest_connections") == 1


def test_a_reader_that_is_slow_but_not_too_slow_gets_all_of_it(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded("--write-timeout", "200ms", "--answer-min-bytes-per-second", "1")
    whole = content(gateway)
    with unread(gateway) as client:
        got = b""
        for _ in range(8):  # each longer than the time limit, and a little is taken in it
            until_sweeps(gateway)
            got += client.sock.recv(1 << 20)
        while not got.endswith(whole[-1000:]):
            got += client.sock.recv(1 << 20)
        assert whole[-1_000_000:] == got[-1_000_000:]
    assert gateway.metric('ingest_timeouts_total{kind="write"}') == 0


def until_sweeps(gateway: Gateway) -> None:
    lag = "ingest_hub_lag_seconds_count"
    seen = gateway.metric(lag)
    until(lambda: gateway.metric(lag) > seen + 1, "the gateway's clock goes on")


def test_a_client_that_goes_away_within_a_file_is_forgotten(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    for _ in range(3):
        unread(gateway).sock.close()
    until(lambda: gateway.metric("ingest_connections") == 1, "the connections are gone")
    assert gateway.metric('ingest_unhandled_errors_total{where="connection"}') == 0
    closed = gateway.metric('ingest_connections_closed_total{reason="client"}')
    assert closed >= 3
    files = [path.resolve() for path in Path(f"/proc/{gateway.pid}/fd").iterdir()]
    assert not [file for file in files if file.name == f"{0:020d}.ndjson"]


def test_a_segment_that_is_removed_while_it_is_sent_is_sent_to_its_end(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    whole = content(gateway)
    with unread(gateway) as client:
        (gateway.data / "journal" / "0" / f"{0:020d}.ndjson").unlink()
        got = b""
        while not got.endswith(whole[-1000:]):
            got += client.sock.recv(1 << 20)
        assert whole[-1_000_000:] == got[-1_000_000:]
        assert len(whole) <= len(got) < len(whole) + 1000
    assert get(gateway).status == 404


def test_a_file_that_ends_early_cuts_the_answer_off_and_says_so(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    path = gateway.data / "journal" / "0" / f"{0:020d}.ndjson"
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    with unread(gateway) as client:
        with path.open("r+b") as file:
            file.truncate(10_000_000)
        with pytest.raises((ConnectionResetError, EOFError)):
            while True:
                client._more()
    until(lambda: "file.read_failed" in gateway.log(), "it is logged")
    assert gateway.metric('ingest_connections_closed_total{reason="error"}') == 1
    assert gateway.request("GET", "/livez").status == 200


def test_a_shutdown_lets_a_reader_finish_and_closes_behind_it(loaded) -> None:  # type: ignore[no-untyped-def]
    gateway = loaded()
    whole = content(gateway)
    with unread(gateway) as client:
        gateway.send_signal(15)
        until(lambda: "service.draining" in gateway.log(), "it is draining")
        got = b""
        while data := client.sock.recv(1 << 20):
            got += data
        assert got.endswith(whole[-100_000:])
    assert gateway.wait() == 0
