"""The open-loop generator is believed only because it shows what was put there."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.monkey import get_original
from gevent.server import StreamServer

from ops.bench import openloop
from ops.bench.client import request_bytes
from ops.bench.process import free_port

REQUEST = request_bytes("/metrics", b"{}")
ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Length: 14\r\n\r\n{"accepted":1}'
#: Stops the whole process, as a server that stalls does; gevent's would let others run.
stall = get_original("time", "sleep")


@contextmanager
def answering(answer: Callable[[socket.socket], bool]) -> Iterator[int]:
    """A server that calls `answer` for each request until it says False; gives its port."""

    def handle(sock: socket.socket, _: tuple[str, int]) -> None:
        received = b""
        while True:
            data = sock.recv(65536)
            if not data:
                return
            received += data
            while len(received) >= len(REQUEST):
                received = received[len(REQUEST) :]
                if not answer(sock):
                    return

    server = StreamServer(("127.0.0.1", 0), handle, backlog=4096)
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "request"
    path.write_bytes(REQUEST)
    return path


def accept(sock: socket.socket) -> bool:
    sock.sendall(ACCEPTED)
    return True


def test_every_request_that_is_due_is_sent_and_counted_once(request_file: Path) -> None:
    seen = 0

    def count(sock: socket.socket) -> bool:
        nonlocal seen
        seen += 1
        return accept(sock)

    with answering(count) as port:
        found = openloop.run(
            port, request_file, connections=7, rate=500, seconds=0.5, warm_seconds=0.2
        )
    assert found.requests == 250, "the warm-up does not count"
    assert seen == 350
    assert found.failures == 0


def test_a_stall_shows_in_all_requests_that_were_due_within_it(request_file: Path) -> None:
    seen = 0

    def stall_once(sock: socket.socket) -> bool:
        nonlocal seen
        seen += 1
        if seen == 200:
            stall(0.2)
        return accept(sock)

    with answering(stall_once) as port:
        found = openloop.run(
            port, request_file, connections=10, rate=500, seconds=1, warm_seconds=0
        )
    # 100 of the 500 were due within the stall: 60 of these waited for 80 ms or more. A client
    # that waits for its answers would have sent, and counted, only 10 of them.
    assert found.p90_ms >= 80
    assert found.p99_ms >= 150
    assert found.max_ms >= 195


def test_a_constant_delay_is_the_least_latency(request_file: Path) -> None:
    def delay(sock: socket.socket) -> bool:
        gevent.sleep(0.02)
        return accept(sock)

    with answering(delay) as port:
        found = openloop.run(
            port, request_file, connections=10, rate=200, seconds=0.5, warm_seconds=0
        )
    assert found.p50_ms >= 20
    assert found.failures == 0


def test_waiting_for_the_answer_before_is_on_the_servers_account(request_file: Path) -> None:
    def delay(sock: socket.socket) -> bool:
        gevent.sleep(0.02)  # 50 a second at most on the one connection there is
        return accept(sock)

    with answering(delay) as port:
        found = openloop.run(
            port, request_file, connections=1, rate=100, seconds=0.5, warm_seconds=0
        )
    # The last of 50 was due after 0.49 s and could not be answered before 1 s.
    assert found.max_ms >= 500
    assert found.achieved <= 51


def test_a_rate_that_the_generator_cannot_keep_is_its_own_fault(request_file: Path) -> None:
    with answering(accept) as port:
        found = openloop.run(
            port, request_file, connections=2000, rate=4e6, seconds=0.005, warm_seconds=0
        )
    assert found.disturbed


def test_answers_that_are_no_success_are_failures(request_file: Path) -> None:
    def refuse(sock: socket.socket) -> bool:
        sock.sendall(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        return True

    with answering(refuse) as port:
        found = openloop.run(
            port, request_file, connections=3, rate=300, seconds=0.2, warm_seconds=0
        )
    assert found.failures == found.requests == 60


def test_broken_connections_are_failures_and_are_opened_again(request_file: Path) -> None:
    with answering(lambda sock: False) as port:
        found = openloop.run(
            port, request_file, connections=3, rate=300, seconds=0.2, warm_seconds=0
        )
    assert found.failures == found.requests == 60


def test_nobody_there_is_said(request_file: Path) -> None:
    with pytest.raises(openloop.GeneratorFailed, match="connect: Connection refused"):
        openloop.run(free_port(), request_file, connections=1, rate=10, seconds=0.1)


def test_what_is_not_http_is_said(request_file: Path) -> None:
    def greet(sock: socket.socket) -> bool:
        sock.sendall(b"220 mail.example ESMTP\r\n\r\n")
        return True

    with (
        answering(greet) as port,
        pytest.raises(openloop.GeneratorFailed, match="no HTTP/1 answer"),
    ):
        openloop.run(port, request_file, connections=1, rate=10, seconds=0.1, warm_seconds=0)
