"""How `replay` sends: what is tried again and when, what is not, and on which connection."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from gevent.server import StreamServer

from ingest.journal.replay import Pacer
from ingest.journal.replay_http import HttpTarget, Refused, Taken, TargetFailed, Urls
from ingest.journal.replay_messages import Message

MESSAGE = Message("order", "0190-7", "application/json", b'{"n":1}')
OK = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
#: Instead of an answer: the connection is closed.
CLOSE = b""


def answer(status: int, body: bytes = b"", *fields: str) -> bytes:
    head = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Server:
    """Answers one request after the other with what was prepared, then always OK."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.port = self._server.server_port

    def _serve(self, sock: socket.socket, _: object) -> None:
        self.connections += 1
        data = b""
        while True:
            try:
                more = sock.recv(65536)
            except ConnectionResetError:
                return
            if not more:
                return
            data += more
            if data.endswith(MESSAGE.body):
                self.requests.append(data)
                data = b""
                reply = self.answers.pop(0) if self.answers else OK
                if reply == CLOSE:
                    return
                sock.sendall(reply)
                if b"Connection: close" in reply:
                    return

    def close(self) -> None:
        self._server.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def target(server: Server, slept: list[float]) -> Iterator[HttpTarget]:
    url = f"http://127.0.0.1:{server.port}/v1/events/{{type}}"
    made = HttpTarget(
        Urls(url, url), {"X-Test": "1"}, 3, 5.0, slept.append, lambda: 0.5, lambda: 1_000_000.0
    )
    yield made
    made.close()


def test_a_message_is_posted_with_its_key_and_type(server: Server, target: HttpTarget) -> None:
    assert target.send(MESSAGE) == Taken(False)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/events/order HTTP/1.1"
    assert b'Idempotency-Key: "0190-7"' in lines and b"X-Test: 1" in lines
    assert body == MESSAGE.body


def test_what_the_target_had_before_is_told(server: Server, target: HttpTarget) -> None:
    server.answers = [answer(202, b"{}", "Idempotency-Replayed: true")]
    assert target.send(MESSAGE) == Taken(True)


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504, 507])
def test_what_may_go_better_later_is_sent_again_after_growing_pauses(
    server: Server, target: HttpTarget, slept: list[float], status: int
) -> None:
    server.answers = [answer(status)] * 3
    assert target.send(MESSAGE) == Taken(False)
    assert slept == [0.125, 0.25, 0.5]
    assert (len(server.requests), len(set(server.requests)), target.retried) == (4, 1, 3)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("field", "patience"),
    [("7", 7.0), ("0", 0.0), ("100000", 300.0), ("Mon, 12 Jan 1970 13:47:10 GMT", 30.0),
     ("Mon, 12 Jan 1970 13:00:00 GMT", 0.0), ("soon", 0.0)],
)  # fmt: skip
def test_the_target_says_how_long_to_wait(
    server: Server, target: HttpTarget, slept: list[float], field: str, patience: float
) -> None:
    server.answers = [answer(503, b"", f"Retry-After: {field}")]
    assert target.send(MESSAGE) == Taken(False)
    assert slept == [patience + 0.125]


def test_a_conflict_is_waited_for_where_the_target_says_so_and_a_refusal_otherwise(
    server: Server, target: HttpTarget, slept: list[float]
) -> None:
    server.answers = [answer(409, b"{}", "Retry-After: 1")]
    assert target.send(MESSAGE) == Taken(False)
    assert slept == [1.125]
    server.answers = [answer(409)]
    assert target.send(MESSAGE) == Refused(409, "", None, "Because")


def test_after_the_last_attempt_the_target_has_failed(
    server: Server, target: HttpTarget, slept: list[float]
) -> None:
    server.answers = [answer(503, b'{"code":"draining","detail":"It is stopping."}')] * 9
    with pytest.raises(TargetFailed, match="after 4 attempts: 503 draining: It is stopping"):
        target.send(MESSAGE)
    assert len(server.requests) == 4 and len(slept) == 3


@pytest.mark.parametrize("status", [301, 401, 403, 405])
def test_what_no_event_can_change_ends_it_at_once(
    server: Server, target: HttpTarget, slept: list[float], status: int
) -> None:
    server.answers = [answer(status)]
    with pytest.raises(TargetFailed, match=f"answers {status}"):
        target.send(MESSAGE)
    assert slept == []


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422, 500])
def test_a_refusal_is_not_tried_again(server: Server, target: HttpTarget, status: int) -> None:
    server.answers = [answer(status)]
    assert target.send(MESSAGE) == Refused(status, "", None, "Because")
    assert len(server.requests) == 1


def test_a_handler_that_fails_refuses_this_event_only(server: Server, target: HttpTarget) -> None:
    server.answers = [answer(504, b'{"code":"handler_timeout","detail":"30 s"}')]
    assert target.send(MESSAGE) == Refused(504, "handler_timeout", None, "30 s")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"code":"c","detail":"d","errors":[{"pointer":"/a","message":"m"}]}', "422 c, /a: m"),
        (b'{"code":"c","errors":[{"pointer":"","message":"m"}]}', "422 c, the event: m"),
        (b'{"code":"c","pointer":"/a","detail":"/a: d"}', "422 c: /a: d"),
        (b'{"title":"t","errors":[7]}', "422: t"),
        (b'{"detail":"\\u001b[2Jx"}', "422: \ufffd[2Jx"),
        (b'{"detail":"%s"}' % (b"x" * 999), "422: " + "x" * 300),
        (b"[1]", "422: Because"),
        (b"no json", "422: Because"),
        (b'{"code":"\\n","pointer":"/\\r","detail":"d"}', "422 \ufffd, /\ufffd: d"),
    ],
)
def test_a_refusal_is_told_in_words_of_one_line(
    server: Server, target: HttpTarget, body: bytes, words: str
) -> None:
    server.answers = [answer(422, body)]
    assert str(target.send(MESSAGE)) == words


def test_a_connection_that_the_target_closed_while_idle_is_nobodys_failure(
    server: Server, target: HttpTarget, slept: list[float]
) -> None:
    assert target.send(MESSAGE) == Taken(False)
    server.answers = [CLOSE]
    assert target.send(MESSAGE) == Taken(False)
    assert (slept, server.connections, target.retried) == ([], 2, 1)


def test_a_connection_that_breaks_again_and_again_is_one(
    server: Server, target: HttpTarget, slept: list[float]
) -> None:
    assert target.send(MESSAGE) == Taken(False)
    server.answers = [CLOSE] * 9
    with pytest.raises(TargetFailed, match="after 4 attempts"):
        target.send(MESSAGE)
    assert len(slept) == 3


def test_what_is_no_http_is_a_failure(server: Server, target: HttpTarget) -> None:
    server.answers = [b"SSH-2.0-\x1b[2J\r\n\r\n"] * 9
    with pytest.raises(TargetFailed, match=r"after 4 attempts: SSH-2\.0-\ufffd"):
        target.send(MESSAGE)


def test_an_answer_that_is_too_long_to_read_costs_the_connection_only(
    server: Server, target: HttpTarget
) -> None:
    server.answers = [answer(202, b"x" * 100_000), answer(202, b"x", "Connection: close"), OK]
    for connections in (1, 2, 3):
        assert target.send(MESSAGE) == Taken(False)
        assert server.connections == connections


def test_a_target_that_never_answers_is_given_up(server: Server, slept: list[float]) -> None:
    url = f"http://127.0.0.1:{server.port}/"
    server.answers = [b"HTTP/1.1 202 Accepted\r\n"] * 9
    impatient = HttpTarget(Urls(url, url), {}, 1, 0.05, slept.append)
    with pytest.raises(TargetFailed, match="timed out"):
        impatient.send(MESSAGE)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://h", "/"),
        ("http://h:1/a/{type}?x={type}&y=z", "/a/a%2Fb?x=a%2Fb&y=z"),
        ("https://[::1]/\u00e9 x%20y", "/%C3%A9%20x%20y"),
    ],
)
def test_urls_are_made_into_paths(url: str, path: str) -> None:
    assert Urls(url, url).path(MESSAGE._replace(type="a/b")) == path


@pytest.mark.parametrize(
    "url", ["", "h", "http:///x", "ftp://h/", "http://a@h/", "http://h:x/", "http://{type}/"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Urls(url, url)


def test_the_pacer_keeps_to_its_rate_and_makes_up_for_a_second_at_most() -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    pacer = Pacer(10.0, clock, sleep)
    for _ in range(11):
        pacer.wait()
    assert now[0] == pytest.approx(101.0)
    now[0] += 60.0  # the target was away
    for _ in range(11):
        pacer.wait()
    assert now[0] == pytest.approx(161.0)  # ten of them at once
    for _ in range(10):
        pacer.wait()
    assert now[0] == pytest.approx(162.0)
