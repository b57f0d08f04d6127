"""WSGI applications and their bodies: streaming, bounds, pipelining, clients that leave."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.mounted import (
    APP,
    ask,
    bodies,
    chunked,
    gateway_with,
    raw,
    resident_bytes,
    seen,
)
from tests.support.waiting import until

BLOCK = bytes(range(256)) * 256
MIB = 1 << 20
EVENT = json.dumps(METRICS).encode()
#: What a stream of any length may add to the process; the C library's own share included.
GROWTH_MAX_BYTES = 12 * MIB


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("wsgi")
    file = folder / "file"
    file.write_bytes(BLOCK * 1024)
    running = gateway_with(folder / "data", env={"TEST_FILE": str(file)})
    yield running
    running.stop()


def open_request(gateway: Gateway, head: str) -> socket.socket:
    """A connection with the head of a request sent, which sees little room for an answer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", gateway.port))
    sock.sendall(f"{head} HTTP/1.1\r\nHost: a\r\n".encode())
    return sock


def until_idle(gateway: Gateway) -> None:
    until(lambda: gateway.metric("ingest_pool_in_use") == 0)


# -- large bodies in little memory --------------------------------------------------------


@pytest.mark.parametrize("way", ["sized", "chunked"])
def test_a_large_upload_passes_through_little_memory(mounted: Gateway, way: str) -> None:
    blocks = 1024
    assert ask(mounted, "/legacy/sha", "POST", BLOCK).status == 200
    before = resident_bytes(mounted)
    fields = {"Content_Length": str(blocks * len(BLOCK))}
    if way == "chunked":
        fields = {"Transfer_Encoding": "chunked"}
    answer = ask(mounted, "/legacy/sha", "POST", iter([BLOCK] * blocks), **fields)
    assert answer.body.decode() == hashlib.sha256(BLOCK * blocks).hexdigest()
    assert resident_bytes(mounted) - before < GROWTH_MAX_BYTES


@pytest.mark.parametrize("path", ["blocks?1024", "file"])
def test_a_large_answer_passes_through_little_memory(mounted: Gateway, path: str) -> None:
    assert ask(mounted, "/legacy/blocks?16").body == BLOCK * 16
    before = resident_bytes(mounted)
    answer = ask(mounted, f"/legacy/{path}")
    assert answer.body == BLOCK * 1024
    assert ("transfer-encoding" in answer.headers) == (path != "file")
    assert resident_bytes(mounted) - before < GROWTH_MAX_BYTES


def test_an_application_that_does_not_read_is_not_sent_more(mounted: Gateway) -> None:
    size = 64 * MIB
    before = resident_bytes(mounted)
    sock = open_request(mounted, "POST /legacy/held")
    sock.sendall(f"Content-Length: {size}\r\n\r\n".encode())
    sent = 0
    sender_done = threading.Event()

    def send() -> None:
        nonlocal sent
        while sent < size:
            sock.sendall(BLOCK)
            sent += len(BLOCK)
        sender_done.set()

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: seen(mounted)["held"])
    last = -1
    while sent != last:  # until it is stuck, as it must be
        last = sent
        assert not sender_done.wait(0.2)
    assert sent < size
    assert resident_bytes(mounted) - before < GROWTH_MAX_BYTES
    assert ask(mounted, "/legacy/set_event?held").body == b"set"
    sender.join(60)
    answer = sock.recv(65536)
    assert answer.endswith(b"\r\n\r\n%d" % size)
    sock.close()


def test_an_application_waits_for_a_client_that_does_not_take_its_answer(
    mounted: Gateway,
) -> None:
    produced = seen(mounted)["produced"]
    sock = open_request(mounted, "GET /legacy/blocks?2048")
    sock.sendall(b"\r\n")

    def stuck() -> bool:
        before = seen(mounted)["produced"]
        return (
            before > produced
            and not threading.Event().wait(0.2)
            and (seen(mounted)["produced"] == before)
        )

    until(stuck)
    assert seen(mounted)["produced"] - produced < 2048
    received = 0
    while received < 2048 * len(BLOCK):
        received += len(sock.recv(MIB))
    sock.close()
    until(lambda: seen(mounted)["produced"] - produced == 2048)


# -- keep-alive and pipelining ------------------------------------------------------------

REQUESTS = [
    (b"POST /legacy/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst", b"first"),
    (
        b"POST /legacy/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked(b"sec", b"ond"),
        b"second",
    ),
    (b"GET /legacy/two HTTP/1.1\r\nHost: a\r\n\r\n", b"abc"),
    (b"POST /legacy/ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ", b"unread"),
    (
        b"POST /legacy/ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked(b"GET / HTTP/1.1\r\n\r\n"),
        b"unread",
    ),
    (
        b"POST /v1/events/metrics HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(EVENT), EVENT),
        None,
    ),
    (b"GET /legacy/fails HTTP/1.1\r\nHost: a\r\n\r\n", None),
    (b"POST /legacy/echo_pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nlast", b"last"),
]
STATUSES = [200, 200, 200, 200, 200, 202, 500, 200]


def check_pipelined(stream: bytes) -> None:
    found = list(bodies(stream))
    assert [status for status, _ in found] == STATUSES
    for (_, expected), (_, body) in zip(REQUESTS, found, strict=True):
        assert expected is None or body == expected


def test_requests_behind_each_other_are_answered_in_order(mounted: Gateway) -> None:
    check_pipelined(raw(mounted, b"".join(data for data, _ in REQUESTS)))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 16, 61])
def test_pieces_of_any_size_make_the_same_requests(mounted: Gateway, step: int) -> None:
    stream = b"".join(data for data, _ in REQUESTS)
    with socket.create_connection(("127.0.0.1", mounted.port), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(stream), step):
            sock.sendall(stream[start : start + step])
        sock.shutdown(socket.SHUT_WR)
        check_pipelined(b"".join(iter(lambda: sock.recv(65536), b"")))


def test_two_pieces_split_anywhere_make_the_same_requests(mounted: Gateway) -> None:
    stream = b"".join(data for data, _ in REQUESTS)
    for cut in range(1, len(stream), 5):
        with socket.create_connection(("127.0.0.1", mounted.port), timeout=60) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(stream[:cut])
            threading.Event().wait(0)
            sock.sendall(stream[cut:])
            sock.shutdown(socket.SHUT_WR)
            check_pipelined(b"".join(iter(lambda s=sock: s.recv(65536), b"")))  # type: ignore[misc]


def test_a_connection_is_kept_when_little_was_left_unread(mounted: Gateway) -> None:
    with mounted.connect() as client:
        for size in (0, 1, 1000, 65536):
            answer = client.request("POST", "/legacy/ignore", b"x" * size)
            assert (answer.body, answer.headers.get("connection")) == (b"unread", None)
        answer = client.request("POST", "/legacy/ignore", b"x" * 1_000_000)
        assert (answer.body, answer.headers["connection"]) == (b"unread", "close")
        assert client.closed()


def test_a_long_chunked_rest_is_not_waited_for(mounted: Gateway) -> None:
    smuggled = b"GET /legacy/set_event?smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    data = chunked(b"x" * 200_000, smuggled * 10)
    head = b"POST /legacy/ignore HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert [body for _, body in bodies(raw(mounted, head + data))] == [b"unread"]


# -- Expect: 100-continue -----------------------------------------------------------------


def expecting(gateway: Gateway, path: str, size: int) -> Any:
    client = gateway.connect()
    client.send(
        f"POST /legacy/{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    return client


def test_continue_is_said_when_the_application_reads(mounted: Gateway) -> None:
    with expecting(mounted, "echo", 4) as client:
        assert client.answer().status == 100
        client.send(b"body")
        assert client.answer().body == b"body"
        assert client.request("GET", "/legacy/ignore").status == 200


def test_continue_is_not_said_to_a_client_whose_body_nobody_reads(mounted: Gateway) -> None:
    with expecting(mounted, "ignore", 4) as client:
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.closed()


def test_continue_is_not_said_within_an_answer(mounted: Gateway) -> None:
    with expecting(mounted, "answers_first", 4) as client:
        received = b""
        while not received.endswith(b"first,\r\n"):
            received += client.sock.recv(65536)
        client.send(b"body")
        received += b"".join(iter(lambda: client.sock.recv(65536), b""))
    assert list(bodies(received)) == [(200, b"first,body")]
    assert b"Connection: close" in received


# -- bounds -------------------------------------------------------------------------------


def test_a_mount_has_a_bound_of_its_own(tmp_path: Path, new_gateway: Any) -> None:
    gateway = new_gateway(
        "--mounts", APP, "--request-body-max", "1000", "--mount-body-max", "100000"
    )
    assert ask(gateway, "/legacy/echo", "POST", b"x" * 100_000).status == 200
    answer = gateway.request("POST", "/legacy/echo", b"x" * 100_001)
    assert (answer.status, answer.json()["limit_bytes"]) == (413, 100_000)
    assert gateway.post("/v1/events/metrics", b"x" * 1001).status == 413
    assert gateway.post("/legacyx", b"x" * 1001).status == 413
    pieces = [b"x" * 50_000] * 3
    answer = ask(gateway, "/legacy/patient", "POST", iter(pieces), Transfer_Encoding="chunked")
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert seen(gateway)["patient:BadBody"] == 1
    assert gateway.metric('ingest_mount_failures_total{mount="/legacy",reason="body"}') == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"5\r\nhelloX", 400), (b"zz\r\n", 400), (b"0\r\nBad Trailer: x\r\n\r\n", 400)],
)
def test_a_body_that_is_none_is_refused_and_ends_the_connection(
    mounted: Gateway, body: bytes, code: int
) -> None:
    head = b"HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    stream = raw(mounted, b"POST /legacy/patient " + head + body + REQUESTS[0][0])
    assert [status for status, _ in bodies(stream)] == [code]
    stream = raw(mounted, b"POST /legacy/answers_anyway " + head + body + REQUESTS[0][0])
    assert list(bodies(stream)) == [(422, b"BadBody")]
    assert b"Connection: close" in stream


def test_a_body_that_does_not_come_is_408(tmp_path: Path, new_gateway: Any) -> None:
    gateway = new_gateway("--mounts", APP, "--body-timeout", "200ms")
    with gateway.connect() as client:
        client.send(b"POST /legacy/patient HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert client.closed()
    assert gateway.metric('ingest_timeouts_total{kind="body"}') == 1
    until_idle(gateway)


def test_requests_beyond_the_pool_wait_and_beyond_the_line_are_refused(
    tmp_path: Path, new_gateway: Any
) -> None:
    flags = ("--pool-size", "2", "--pool-queue-max", "1", "--drain-timeout", "100ms")
    gateway = new_gateway("--mounts", APP, *flags)
    held = open_request(gateway, "GET /legacy/stream_wait?first")
    held.sendall(b"\r\n")
    until(lambda: seen(gateway)["waits:first"])
    clients = [gateway.connect() for _ in range(2)]
    for client in clients:
        client.send(b"GET /legacy/wait?first HTTP/1.1\r\nHost: a\r\n\r\n")
    until(lambda: gateway.metric("ingest_pool_waiting") == 1)
    with gateway.connect() as refused:
        answer = refused.request("GET", "/legacy/ignore")
        assert (answer.status, answer.json()["code"]) == (503, "overloaded")
        assert refused.request("GET", "/livez").status == 200
        answer = refused.request("POST", "/legacy/ignore", b"unread")
        assert (answer.status, answer.headers["connection"]) == (503, "close")
    held.close()
    for client in clients:
        client.sock.close()


def test_requests_that_block_run_side_by_side(mounted: Gateway) -> None:
    clients = [mounted.connect(60) for _ in range(20)]
    for client in clients:
        client.send(b"GET /legacy/together HTTP/1.1\r\nHost: a\r\n\r\n")
    assert {client.answer().body for client in clients} == {b"met"}
    for client in clients:
        client.sock.close()


# -- clients that leave -------------------------------------------------------------------


def test_an_application_learns_that_its_client_left_within_the_body(mounted: Gateway) -> None:
    left = 'ingest_mount_failures_total{mount="/legacy",reason="client"}'
    failures = mounted.metric(left)
    for end in (socket.SHUT_WR, None):
        before = seen(mounted)
        sock = open_request(mounted, "POST /legacy/patient")
        sock.sendall(b"Content-Length: 100\r\n\r\nsome")
        until(lambda b=before: seen(mounted)["patient:in"] == b["patient:in"] + 1)  # type: ignore[misc]
        if end is None:
            sock.close()
        else:
            sock.shutdown(end)
        until(lambda b=before: seen(mounted)["patient:Gone"] > b["patient:Gone"])  # type: ignore[misc]
        sock.close()
    until_idle(mounted)
    assert mounted.metric(left) == failures + 2


def test_the_iterator_is_closed_when_its_client_left_within_the_answer(mounted: Gateway) -> None:
    closed = seen(mounted)["closed:blocks"]
    for path in ("blocks?100000", "file"):
        sock = open_request(mounted, f"GET /legacy/{path}")
        sock.sendall(b"\r\n")
        assert sock.recv(1000)
        sock.close()
        until_idle(mounted)
    assert seen(mounted)["closed:blocks"] == closed + 1
    assert mounted.post("/v1/events/metrics", METRICS).status == 202


def test_a_client_that_takes_nothing_is_cut_and_the_iterator_closed(
    tmp_path: Path, new_gateway: Any
) -> None:
    gateway = new_gateway("--mounts", APP, "--write-timeout", "500ms")
    sock = open_request(gateway, "GET /legacy/blocks?100000")
    sock.sendall(b"\r\n")
    until(lambda: seen(gateway)["closed:blocks"] == 1)
    assert gateway.metric('ingest_timeouts_total{kind="write"}') == 1
    blocks = gateway.metric('ingest_requests_total{status="200",type="mount:/legacy"}')
    assert blocks == gateway.metric('ingest_mount_seconds_count{mount="/legacy"}')
    until_idle(gateway)
    sock.close()


def test_nothing_is_sent_behind_a_block_that_was_given_up(mounted: Gateway) -> None:
    sock = open_request(mounted, "GET /legacy/impatient")
    sock.sendall(b"\r\n")
    until(lambda: seen(mounted)["impatient"])
    until_idle(mounted)
    received = b""
    try:
        while data := sock.recv(MIB):
            received += data
    except ConnectionResetError:
        pass
    assert not received.endswith(b"more")
    assert len(received) < len(BLOCK) * 1024
    sock.close()


# -- the end ------------------------------------------------------------------------------


def test_a_stop_waits_for_the_applications(tmp_path: Path, new_gateway: Any) -> None:
    gateway = new_gateway("--mounts", APP)
    clients = [gateway.connect(), gateway.connect()]
    clients[0].send(b"GET /legacy/stream_wait?end HTTP/1.1\r\nHost: a\r\n\r\n")
    clients[1].send(b"GET /legacy/wait?end HTTP/1.1\r\nHost: a\r\n\r\n")
    until(lambda: seen(gateway)["waits:end"] == 2)
    setter = gateway.connect()
    assert setter.request("GET", "/legacy/ignore").status == 200
    gateway.send_signal(15)
    until(lambda: "service.draining" in gateway.log())
    assert setter.request("GET", "/legacy/set_event?end").body == b"set"
    received = b"".join(iter(lambda: clients[0].sock.recv(65536), b""))
    assert list(bodies(received)) == [(200, b"begun,ended")]
    answer = clients[1].answer()
    assert (answer.body, answer.headers["connection"]) == (b"waited", "close")
    assert gateway.wait() == 0


def test_an_application_that_does_not_end_is_ended_with_the_drain_time(
    tmp_path: Path, new_gateway: Any
) -> None:
    gateway = new_gateway("--mounts", APP, "--drain-timeout", "300ms")
    sock = open_request(gateway, "GET /legacy/stream_wait?never")
    sock.sendall(b"\r\n")
    until(lambda: seen(gateway)["waits:never"])
    gateway.send_signal(15)
    assert gateway.wait() != 0
    assert '"lost":0' in gateway.log()
    assert "unhandled" not in gateway.log()
    sock.close()
