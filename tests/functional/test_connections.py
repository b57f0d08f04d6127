"""Keep-alive, pipelining, framing and limits, over real sockets."""

import json
import socket
import struct

import pytest

from tests.support.events import METRICS, metric
from tests.support.gateway import Gateway

BODY = json.dumps(METRICS).encode()
HEAD = (
    b"POST /v1/events/metrics HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
)
REQUEST = HEAD % len(BODY) + b"\r\n" + BODY
PROBE = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    with gateway.connect() as client:
        bad = HEAD % 2 + b"\r\n{}"
        client.send(REQUEST + PROBE + bad + REQUEST + PROBE)
        answers = [client.answer() for _ in range(5)]
    assert [a.status for a in answers] == [202, 200, 422, 202, 200]
    assert [a.body for a in (answers[1], answers[4])] == [b"ok\n"] * 2
    assert [r["id"] for r in gateway.journal()] == [
        answers[0].json()["id"],
        answers[3].json()["id"],
    ]


def test_more_pipelined_requests_than_a_connection_may_have_open_are_all_answered(
    gateway: Gateway,
) -> None:
    with gateway.connect() as client:
        client.send(REQUEST * 1000)
        ids = [client.answer().json()["id"] for _ in range(1000)]
    assert [r["id"] for r in gateway.journal()] == ids


def test_a_request_may_come_split_at_any_byte(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for split in range(1, len(REQUEST), 7):
            client.send(REQUEST[:split])
            client.send(REQUEST[split:])
            assert client.answer().status == 202


def test_chunked_bodies_are_taken(gateway: Gateway) -> None:
    with gateway.connect() as client:
        for cut in (1, 50, len(BODY) - 1):
            answer = client.request(
                "POST",
                "/v1/events/metrics",
                chunked(BODY[:cut], BODY[cut:]),
                {"Content-Type": "application/json", "Transfer-Encoding": "chunked"},
            )
            assert answer.status == 202
    assert [r["data"] for r in gateway.journal()] == [METRICS] * 3


def test_continue_is_sent_before_a_body_that_is_wanted(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.send(HEAD % len(BODY) + b"Expect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(BODY)
        assert client.answer().status == 202


def test_no_continue_for_a_request_its_head_already_refuses(gateway: Gateway) -> None:
    with gateway.connect() as client:
        head = HEAD.replace(b"metrics", b"nope") % len(BODY)
        client.send(head + b"Expect: 100-continue\r\n\r\n")
        answer = client.answer()
        assert answer.status == 404
        assert answer.headers["connection"] == "close"
        assert client.closed()


def test_another_expectation_is_417(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.send(HEAD % 2 + b"Expect: the-unexpected\r\n\r\n")
        assert client.answer().status == 417
        assert client.closed()


def test_http_1_0_closes_unless_asked_to_keep_alive(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert client.answer().headers["connection"] == "close"
        assert client.closed()


def test_connection_close_is_honoured_after_the_answer(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.send(REQUEST.replace(b"Host: t\r\n", b"Host: t\r\nConnection: close\r\n") + PROBE)
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert client.closed()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\nHost: t\r\n\r\n", 505),
        (b"GET /livez HTTP/1.1\nHost: t\n\n", 400),
        (b"POST /v1/events/metrics HTTP/1.1\r\nHost: t\r\nContent-Length: +2\r\n\r\n{}", 400),
        (b"POST /metrics HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nHost: t\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: t\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (HEAD % (17 << 20) + b"\r\n", 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)  # fmt: skip
def test_a_stream_that_cannot_be_trusted_is_answered_and_closed(
    gateway: Gateway, raw: bytes, status: int
) -> None:
    with gateway.connect() as client:
        client.send(raw + b"\r\n\r\n")
        answer = client.answer()
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.closed()
    assert gateway.journal() == []


def test_a_two_mebibyte_event_is_413_and_nothing_is_stored(gateway: Gateway) -> None:
    answer = gateway.post("/v1/events/metrics", b'"' + b"a" * (2 << 20) + b'"')
    assert (answer.status, answer.json()["code"]) == (413, "event_too_large")
    assert gateway.journal() == []


def test_a_body_announced_too_large_is_refused_before_it_is_read(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.send(HEAD % (1 << 40) + b"\r\n")
        assert client.answer().status == 413


def test_slow_heads_and_bodies_get_408_and_idle_connections_are_closed(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway(
        env={
            "INGEST_HEADER_TIMEOUT_SECONDS": "0.6",
            "INGEST_BODY_TIMEOUT_SECONDS": "0.6",
            "INGEST_IDLE_TIMEOUT_SECONDS": "0.6",
        }
    )
    with gateway.connect() as head, gateway.connect() as body, gateway.connect() as idle:
        head.send(REQUEST[:20])
        body.send(REQUEST[:-5])
        idle.request("GET", "/livez")
        for client in (head, body):
            answer = client.answer()
            assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
            assert client.closed()
        assert idle.closed()
    assert gateway.journal() == []
    for kind in ("header", "body", "idle"):
        assert gateway.metric(f'ingest_timeouts_total{{kind="{kind}"}}') == 1


def test_clients_that_vanish_mid_request_leave_nothing_behind(gateway: Gateway) -> None:
    for cut in (10, 60, len(REQUEST) - 3):
        with gateway.connect() as client:
            client.send(REQUEST[:cut])
        with gateway.connect() as client:
            client.send(REQUEST[:cut])
            # an abortive close: the server reads ECONNRESET
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with gateway.connect() as client:
        client.send(REQUEST)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert gateway.post("/v1/events/metrics", metric()).status == 202
    assert gateway.stop() == 0
    assert len(gateway.journal()) in (1, 2)  # the last reset may overtake its request
    assert "Traceback" not in gateway.log()


def test_a_client_that_has_closed_its_side_still_gets_its_answer(gateway: Gateway) -> None:
    with gateway.connect() as client:
        client.send(REQUEST + REQUEST)
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.answer().status, client.answer().status] == [202, 202]
        assert client.closed()


def test_a_client_that_closes_its_side_within_a_body_gets_the_answers_before_it(
    gateway: Gateway,
) -> None:
    with gateway.connect() as client:
        client.send(REQUEST * 3 + REQUEST[:-5])
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.answer().status for _ in range(3)] == [202] * 3
        assert client.closed()
    assert len(gateway.journal()) == 3


def test_a_client_that_does_not_read_is_not_read_from(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway(env={"INGEST_WRITE_TIMEOUT_SECONDS": "1"})
    with gateway.connect(timeout=60) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        probe = b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n"
        with pytest.raises(OSError):  # the server stops reading, then gives the client up
            while True:
                client.send(probe * 100)
    assert gateway.metric('ingest_timeouts_total{kind="write"}') == 1
    assert gateway.post("/v1/events/metrics", metric()).status == 202


def test_one_connection_too_many_is_told_so(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway(env={"INGEST_CONNECTIONS_MAX": "2"})
    with gateway.connect() as first, gateway.connect() as second:
        assert first.request("GET", "/livez").status == 200
        assert second.request("GET", "/livez").status == 200
        with gateway.connect() as third:
            answer = third.answer()
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert third.closed()
        refused = b'ingest_connections_refused_total{limit="total"} 1.0'
        assert refused in first.request("GET", "/metrics").body
