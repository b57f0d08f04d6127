"""Handshakes that are slow, broken off, too many, or refused: counted, and nobody else waits."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import Any

import gevent

from tests.support.certificates import HOST, EncryptedGateway, Serve
from tests.support.events import METRICS
from tests.support.waiting import until

BODY = json.dumps(METRICS).encode()
FIELDS = {"Content-Type": "application/json"}


def hello(gateway: EncryptedGateway) -> bytes:
    """What a client says first."""
    outgoing = ssl.MemoryBIO()
    tls = gateway.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def begun(gateway: EncryptedGateway, data: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", gateway.port), 30)
    sock.sendall(data)
    return sock


def drained(sock: socket.socket) -> bool:
    """Read until the other side has closed."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    sock.close()
    return True


def test_a_flood_of_half_handshakes_stops_nobody(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--tls-handshakes-max", "100", "--tls-handshake-timeout", "60s")
    first = hello(gateway)
    with gateway.connect() as client:
        # Half of them say half of the first message, the others do not react to the answer.
        slow = [begun(gateway, first if n % 2 else first[:50]) for n in range(500)]
        for _ in range(20):
            assert client.request("POST", "/v1/events/metrics", BODY, FIELDS).status == 202
            assert gateway.request("POST", "/v1/events/metrics", BODY, FIELDS).status == 202
        assert gateway.metric("ingest_tls_handshakes_now") <= 100
        until(lambda: gateway.handshakes("crowded") >= 400)
    assert len(gateway.journal()) == 40
    for sock in slow:
        sock.close()
    until(lambda: gateway.metric("ingest_tls_handshakes_now") == 0)
    assert gateway.handshakes("client") + gateway.handshakes("crowded") == 500


def test_one_that_takes_too_long_is_closed_and_counted(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--tls-handshake-timeout", "1s")
    half, silent = begun(gateway, hello(gateway)[:20]), begun(gateway, b"")
    mute = begun(gateway, hello(gateway))
    assert drained(half) and drained(silent) and drained(mute)
    assert gateway.handshakes("timeout") == 2
    assert gateway.metric('ingest_timeouts_total{kind="handshake"}') == 3


def test_thousands_at_once_are_all_served(new_encrypted: Serve) -> None:
    gateway = new_encrypted()

    def one() -> int:
        with gateway.connect(60) as client:
            return client.request("POST", "/v1/events/metrics", BODY, FIELDS).status

    asked = [gevent.spawn(one) for _ in range(300)]
    gevent.joinall(asked, raise_error=True)
    assert {greenlet.value for greenlet in asked} == {202}
    assert len(gateway.journal()) == 300


def test_a_client_that_resets_within_the_handshake_is_counted(new_encrypted: Serve) -> None:
    gateway = new_encrypted()
    sock = begun(gateway, hello(gateway)[:30])
    until(lambda: gateway.metric("ingest_tls_handshakes_now") == 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    until(lambda: gateway.handshakes("client") == 1)


def test_a_handshake_under_way_at_shutdown_is_ended_and_its_request_answered(
    new_encrypted: Serve,
) -> None:
    gateway = new_encrypted()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    with socket.create_connection(("127.0.0.1", gateway.port), 30) as sock:

        def step(what: Any) -> Any:
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))

        gateway.request("GET", "/livez")
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
        incoming.write(sock.recv(65536))
        gateway.send_signal(15)
        until(lambda: "service.draining" in gateway.log())
        step(tls.do_handshake)
        tls.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.sendall(outgoing.read())
        assert step(lambda: tls.read(65536)).startswith(b"HTTP/1.1 200")
    assert gateway.wait() == 0
    assert '"connections_cut":0' in gateway.log()


def test_one_that_is_never_ended_does_not_hold_up_a_shutdown(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--tls-handshake-timeout", "1s")
    slow = begun(gateway, hello(gateway))
    until(lambda: gateway.metric("ingest_tls_handshakes_now") == 1)
    assert gateway.stop() == 0
    slow.close()


def test_a_proxy_introduces_its_client_before_the_handshake(new_encrypted: Serve) -> None:
    gateway = new_encrypted(
        "--proxy-protocol", "required", "--trusted-proxies", "127.0.0.1", "--access-log", "all"
    )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = gateway.context.wrap_bio(incoming, outgoing, server_hostname=HOST)
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), 30) as sock:

        def step(what: Any) -> Any:
            nonlocal header
            while True:
                try:
                    return what()
                except ssl.SSLWantReadError:
                    sock.sendall(header + outgoing.read())  # in one segment
                    header = b""
                    incoming.write(sock.recv(65536))

        step(tls.do_handshake)
        tls.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert step(lambda: tls.read(65536)).startswith(b"HTTP/1.1 200")
    until(lambda: '"address":"192.0.2.7"' in gateway.log())
