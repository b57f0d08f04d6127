"""The load client: reading answers, and outliving a server that goes."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.server import StreamServer

from ops.bench.client import parse_answer, request_bytes
from tests.support.gateway import ROOT

ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Length: 26\r\n\r\n{"accepted":1,"id":"i-1"}\n'


def test_an_answer_is_read_whole_and_tells_where_it_ends() -> None:
    answer = parse_answer(ACCEPTED + b"HTTP/1.1 400")
    assert answer is not None
    assert (answer.status, answer.end) == (202, len(ACCEPTED))
    assert json.loads(answer.body)["id"] == "i-1"


def test_an_answer_cut_anywhere_is_awaited() -> None:
    for end in range(len(ACCEPTED)):
        assert parse_answer(ACCEPTED[:end]) is None, ACCEPTED[:end]


@pytest.mark.parametrize("name", [b"content-length", b"CONTENT-LENGTH", b"Content-Length"])
def test_the_length_is_found_in_any_case_and_only_in_the_head(name: bytes) -> None:
    data = b"HTTP/1.1 503 Busy\r\nX: 1\r\n" + name + b":\t2\r\n\r\n\r\ncontent-length: 9"
    answer = parse_answer(data)
    assert answer is not None
    assert (answer.status, answer.body) == (503, b"\r\n")


@pytest.mark.parametrize("data", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\n"])
def test_what_is_no_bounded_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no "):
        parse_answer(data)


def test_a_request_states_its_length() -> None:
    request = request_bytes("/metrics", b"{}", [("X-A", "b")])
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /metrics HTTP/1.1\r\nHost: ")
    assert b"\r\nContent-Length: 2\r\nX-A: b" in head
    assert body == b"{}"


@contextmanager
def serving(handle: Callable[[socket.socket, tuple[str, int]], None]) -> Iterator[int]:
    """A server of this process; gives its port."""
    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()


def load(port: int, acks: Path, *flags: str) -> tuple[int, dict[str, object]]:
    """Run the client in its own process; gives exit code and summary."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.load", "--port", str(port),
         "--acks", str(acks), *flags],
        cwd=ROOT, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def answering(times: int) -> Callable[[socket.socket, tuple[str, int]], None]:
    """A handler that answers so many requests of a connection, then closes it."""

    def handle(sock: socket.socket, address: tuple[str, int]) -> None:
        for _ in range(times):
            received = b""
            while not received.endswith(b"]}"):
                try:
                    data = sock.recv(65536)
                except ConnectionResetError:
                    return  # the client has what it wanted and closed unread
                if not data:
                    return
                received += data
            sock.sendall(ACCEPTED[:30])
            gevent.sleep(0)  # the rest comes in a packet of its own
            sock.sendall(ACCEPTED[30:])

    return handle


def test_every_acknowledged_id_is_written_down(tmp_path: Path) -> None:
    with serving(answering(times=100)) as port:
        code, summary = load(port, tmp_path / "acks", "--clients", "5", "--requests", "20")
    assert (code, summary["answered"], summary["unanswered"]) == (0, 100, 0)
    assert (tmp_path / "acks").read_text() == "202 i-1\n" * 100


def test_what_was_answered_before_the_server_went_is_kept(tmp_path: Path) -> None:
    with serving(answering(times=3)) as port:
        code, summary = load(port, tmp_path / "acks", "--clients", "4", "--requests", "10")
    assert code == 1
    assert (summary["answered"], summary["unanswered"]) == (12, 28)
    assert (tmp_path / "acks").read_text() == "202 i-1\n" * 12


def test_nobody_listening_ends_at_once_with_every_request_unanswered(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: refused
        port = taken.getsockname()[1]
        code, summary = load(port, tmp_path / "acks", "--clients", "3", "--requests", "10")
    assert (code, summary["answered"], summary["unanswered"]) == (1, 0, 30)
    assert summary["broken"] == {"ECONNREFUSED": 3}


def test_a_body_larger_than_the_socket_buffers_goes_out_in_pieces(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b'{"metrics":[' + b" " * 8_000_000 + b"]}")
    with serving(answering(times=2)) as port:
        flags = ("--clients", "2", "--requests", "2", "--body", str(body))
        code, summary = load(port, tmp_path / "acks", *flags)
    assert (code, summary["answered"]) == (0, 4)


def test_a_silent_server_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    def silent(sock: socket.socket, address: tuple[str, int]) -> None:
        while sock.recv(65536):
            continue

    with serving(silent) as port:
        flags = ("--clients", "2", "--requests", "2", "--deadline", "0.3")
        code, summary = load(port, tmp_path / "acks", *flags)
    assert (code, summary["broken"]) == (1, {"deadline": 2})
