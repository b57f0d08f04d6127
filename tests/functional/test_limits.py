"""Slow peers, many peers, and what is kept for all of them together; docs/limits.md."""

from __future__ import annotations

import json
import re
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.events import METRICS, metric
from tests.support.gateway import Answer, Client, Gateway

HEAD = (
    b"POST /v1/events/metrics HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n"
)
BODY = json.dumps(METRICS).encode()
REQUEST = HEAD % len(BODY) + b"\r\n" + BODY
LARGE = 1 << 20

New = Callable[..., Gateway]


def pause(seconds: float) -> None:
    """The pace of a slow peer."""
    threading.Event().wait(seconds)


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process brings about."""
    while not condition():
        pause(0.02)


def large_body() -> bytes:
    """Well-formed, of `LARGE` bytes, and no event of the type: answered 422."""
    return b'"' + b"a" * (LARGE - 2) + b'"'


def slow_client(gateway: Gateway) -> Client:
    """A client whose kernel takes only a little for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", gateway.port))
    return Client(sock)


# -- time ----------------------------------------------------------------------------------


def test_a_head_that_dribbles_gets_408_however_steadily_it_arrives(new_gateway: New) -> None:
    gateway = new_gateway(env={"INGEST_HEADER_TIMEOUT_SECONDS": "1"})
    with gateway.connect() as client:
        for byte in HEAD * 100:
            client.send(bytes([byte]))
            if select.select([client.sock], [], [], 0.1)[0]:
                break
        answer = client.answer()
        assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
        assert answer.headers["connection"] == "close"
        assert client.closed()
    assert gateway.metric('ingest_timeouts_total{kind="header"}') == 1


def test_a_body_slower_than_the_least_rate_gets_408(new_gateway: New) -> None:
    gateway = new_gateway(env={"INGEST_BODY_MIN_BYTES_PER_SECOND": "100000"})
    with gateway.connect() as slow, gateway.connect() as quick:
        for client in (slow, quick):
            client.send(HEAD % LARGE + b"\r\n")
        # enough for the time that the slow one takes to be told, many times over
        quick.send(large_body()[:-1])
        while not select.select([slow.sock], [], [], 0.1)[0]:
            slow.send(b" ")
        answer = slow.answer()
        assert (answer.status, answer.json()["code"]) == (408, "request_timeout")
        assert "slowly" in answer.json()["detail"]
        assert slow.closed()
        quick.send(b'"')
        assert quick.answer().status == 422
    assert gateway.metric('ingest_timeouts_total{kind="body_rate"}') == 1
    assert gateway.metric('ingest_timeouts_total{kind="body"}') == 0


def test_a_connection_that_never_speaks_is_closed_without_a_word(new_gateway: New) -> None:
    gateway = new_gateway(env={"INGEST_HEADER_TIMEOUT_SECONDS": "0.5"})
    with gateway.connect() as silent, gateway.connect() as empty_line:
        empty_line.send(b"\r")
        assert silent.closed()
        assert gateway.metric('ingest_timeouts_total{kind="idle"}') == 1
        assert not select.select([empty_line.sock], [], [], 0)[0]  # that one is merely idle


def test_a_body_that_is_late_is_answered_behind_the_requests_before_it(
    tmp_path: Path, new_gateway: New
) -> None:
    handler = "import os, time\ndef handle(event):\n"
    handler += "    while not os.path.exists(os.environ['GATE']):\n        time.sleep(0.01)\n"
    for folder, name, text in (
        ("schemas", "thing.json", '{"type": "integer"}'),
        ("handlers", "thing.py", handler),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    gate = tmp_path / "gate"
    gateway = new_gateway(
        "--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers",
        env={"GATE": str(gate), "INGEST_BODY_TIMEOUT_SECONDS": "0.5"},
    )  # fmt: skip
    head = HEAD.replace(b"metrics", b"thing")
    with gateway.connect() as client:
        client.send(head % 1 + b"\r\n" + b"7" + head % 5 + b"\r\n" + b"8")
        until(lambda: gateway.metric('ingest_timeouts_total{kind="body"}') == 1)
        gate.touch()
        assert [client.answer().status, client.answer().status] == [202, 408]
        assert client.closed()


def many_ids(gateway: Gateway, client: Client, events: int) -> None:
    """Ask for an answer of some 40 bytes an event, all at once."""
    body = (json.dumps(metric()) + "\n").encode() * events
    head = (HEAD % len(body)).replace(b"application/json", b"application/x-ndjson")
    client.send(head + b"\r\n" + body)
    until(lambda: gateway.metric("ingest_buffered_bytes") > 0)


def test_a_reader_slower_than_the_least_rate_is_closed_although_it_reads(new_gateway: New) -> None:
    gateway = new_gateway(
        env={
            "INGEST_WRITE_TIMEOUT_SECONDS": "1",
            "INGEST_ANSWER_MIN_BYTES_PER_SECOND": "1000000",
        }
    )
    with slow_client(gateway) as client:
        many_ids(gateway, client, 60_000)
        got = 0
        with pytest.raises((ConnectionResetError, EOFError)):
            while data := client.sock.recv(4096):
                got += len(data)
                pause(0.02)
            raise EOFError
        assert 0 < got < 60_000 * 36
    assert gateway.metric('ingest_timeouts_total{kind="write"}') == 1
    assert gateway.metric("ingest_buffered_bytes") == 0


def test_a_reader_above_the_least_rate_may_take_longer_than_the_write_timeout(
    new_gateway: New,
) -> None:
    gateway = new_gateway(env={"INGEST_WRITE_TIMEOUT_SECONDS": "1"})
    with slow_client(gateway) as client:
        many_ids(gateway, client, 20_000)
        for _ in range(60):
            client._buffer += client.sock.recv(4096)
            pause(0.05)
        answer = client.answer()
        assert (answer.status, len(answer.json()["ids"])) == (202, 20_000)
    assert gateway.metric('ingest_timeouts_total{kind="write"}') == 0


# -- number --------------------------------------------------------------------------------


def test_one_address_may_have_so_many_connections_and_others_as_many(new_gateway: New) -> None:
    gateway = new_gateway(env={"INGEST_CONNECTIONS_PER_ADDRESS_MAX": "2"})

    def connect(source: str) -> Client:
        server = ("127.0.0.1", gateway.port)
        return Client(socket.create_connection(server, 30, source_address=(source, 0)))

    with connect("127.0.0.2") as first, connect("127.0.0.2") as second:
        assert first.request("GET", "/livez").status == 200
        assert second.request("GET", "/livez").status == 200
        with connect("127.0.0.2") as third:
            answer = third.answer()
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert third.closed()
        with connect("127.0.0.3") as other:
            assert other.request("GET", "/livez").status == 200
    assert gateway.metric('ingest_connections_refused_total{limit="address"}') == 1
    assert gateway.metric('ingest_connections_refused_total{limit="total"}') == 0

    def welcome() -> bool:
        with connect("127.0.0.2") as again:
            try:
                return again.request("GET", "/livez").status == 200
            except (EOFError, OSError):
                return False

    until(welcome)  # the two have left


# -- turns ---------------------------------------------------------------------------------


def test_a_long_pipeline_of_requests_does_not_keep_others_from_their_turn(
    gateway: Gateway,
) -> None:
    def overtaken(attempt: int) -> bool:
        """Whether another client was served in the middle of a pipeline."""
        # They fit into one read, their answers into the kernel; no two heads are the same.
        heads = [b"HEAD /%d/%060d HTTP/1.1\r\nHost: t\r\n\r\n" % (attempt, n) for n in range(500)]
        before = gateway.metric('ingest_requests_total{status="404",type="-"}')
        with gateway.connect() as greedy, gateway.connect() as other:
            greedy.send(b"".join(heads))
            text = other.request("GET", "/metrics").body.decode()
            found = re.search(r'ingest_requests_total{status="404",type="-"} (\S+)', text)
            for _ in heads:
                assert greedy.answer(without_body=True).status == 404
        return found is not None and before < float(found[1]) < before + len(heads)

    assert any(overtaken(n) for n in range(20))  # once: the machine may be busy with others


def test_many_scrapes_at_once_are_all_answered_with_what_is_true_when_they_are_made(
    gateway: Gateway,
) -> None:
    scrape = b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n"
    with gateway.connect() as client, gateway.connect() as scraper:
        scraper.send(scrape * 100)
        for count in range(1, 21):
            headers = {"Content-Type": "application/json"}
            assert client.request("POST", "/v1/events/metrics", BODY, headers).status == 202
            text = client.request("GET", "/metrics").body.decode()
            assert f'ingest_events_accepted_total{{type="metrics"}} {count}.0\n' in text
        for _ in range(100):
            assert scraper.answer().status == 200


# -- memory --------------------------------------------------------------------------------

#: Large bodies pause or are refused from 3 MiB.
SMALL_MEMORY = {"INGEST_REQUEST_BODY_MAX_BYTES": str(LARGE), "INGEST_BUFFERED_MAX_BYTES": "4MiB"}


def begin_large(gateway: Gateway, client: Client, size: int) -> None:
    """Send a large request's head and the first `size` bytes of its body; they have arrived."""
    before = gateway.metric("ingest_buffered_bytes")
    client.send(HEAD % LARGE + b"\r\n" + large_body()[:size])
    until(lambda: gateway.metric("ingest_buffered_bytes") >= before + size)


def test_large_bodies_are_refused_unread_while_small_requests_go_on(new_gateway: New) -> None:
    gateway = new_gateway(env=SMALL_MEMORY)
    clients = [gateway.connect() for _ in range(4)]
    for client in clients:
        begin_large(gateway, client, 800 << 10)
    for expect in (b"Expect: 100-continue\r\n", b""):
        with gateway.connect() as late:
            late.send(HEAD % LARGE + expect + b"\r\n")
            answer = late.answer()
            assert (answer.status, answer.json()["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["connection"] == "close"
            assert late.closed()
    with gateway.connect() as small:
        assert small.request("POST", "/metrics", BODY, {"Content-Type": "application/json"})
        small.send(REQUEST[:-10])  # in two pieces
        small.send(REQUEST[-10:])
        assert small.answer().status == 202
    assert gateway.metric('ingest_buffered_full_total{effect="refused"}') == 2
    for client in clients:
        client.sock.close()
    until(lambda: gateway.metric("ingest_buffered_bytes") == 0)
    assert gateway.post("/v1/events/metrics", large_body()).status == 422


def test_bodies_that_wait_for_each_others_memory_are_all_read_in_the_end(new_gateway: New) -> None:
    gateway = new_gateway(env=SMALL_MEMORY)
    clients = [gateway.connect() for _ in range(8)]
    for client in clients:
        begin_large(gateway, client, 200 << 10)
    answers: list[Answer] = []

    def finish(client: Client) -> None:
        client.send(large_body()[200 << 10 :])
        answers.append(client.answer())

    threads = [threading.Thread(target=finish, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    most = 0.0
    while any(thread.is_alive() for thread in threads):
        most = max(most, gateway.metric("ingest_buffered_bytes"))
    assert [answer.status for answer in answers] == [422] * 8
    assert most < (4 << 20) + 65536
    assert gateway.metric('ingest_buffered_full_total{effect="paused"}') > 0
    assert gateway.metric("ingest_buffered_bytes") == 0
    for client in clients:
        client.sock.close()


def test_bodies_that_hold_all_the_memory_and_never_end_run_into_their_time(
    new_gateway: New,
) -> None:
    gateway = new_gateway(env={**SMALL_MEMORY, "INGEST_BODY_TIMEOUT_SECONDS": "2"})
    clients = [gateway.connect() for _ in range(8)]
    for client in clients:
        client.send(HEAD % LARGE + b"\r\n" + large_body()[: 100 << 10])
    until(lambda: gateway.metric("ingest_buffered_bytes") >= 800 << 10)
    for client in clients:
        client.sock.setblocking(False)
        try:
            client.sock.send(large_body()[: 800 << 10])
        except BlockingIOError:
            pass
        client.sock.settimeout(30)
    assert [client.answer().status for client in clients] == [408] * 8
    for client in clients:
        client.sock.close()
    until(lambda: gateway.metric("ingest_buffered_bytes") == 0)
    assert gateway.post("/v1/events/metrics", large_body()).status == 422


def test_without_memory_a_head_in_pieces_is_refused_and_a_whole_request_is_not(
    new_gateway: New,
) -> None:
    env = {"INGEST_REQUEST_BODY_MAX_BYTES": "16KiB", "INGEST_BUFFERED_MAX_BYTES": "64KiB"}
    gateway = new_gateway(env=env)
    clients = [gateway.connect() for _ in range(4)]
    for client in clients:
        client.send(REQUEST.replace(b"Host: t", b"Host: t\r\nA: " + b"a" * 20_000)[:18_000])
    refused, *_ = select.select([client.sock for client in clients], [], [], 30)[0]
    answer = next(client for client in clients if client.sock is refused).answer()
    assert (answer.status, answer.json()["code"]) == (503, "overloaded")
    assert gateway.post("/v1/events/metrics", metric()).status == 202
    for client in clients:
        client.sock.close()
    until(lambda: gateway.metric("ingest_buffered_bytes") == 0)


def test_clients_that_take_no_answers_are_cut_when_there_is_no_memory_for_them(
    new_gateway: New,
) -> None:
    env = {"INGEST_REQUEST_BODY_MAX_BYTES": "64KiB", "INGEST_BUFFERED_MAX_BYTES": "512KiB"}
    gateway = new_gateway(env=env)
    clients = [slow_client(gateway) for _ in range(40)]
    for client in clients:
        client.sock.setblocking(False)
        try:
            client.sock.send(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n" * 100)
        except ConnectionError:
            pass
    until(lambda: gateway.metric('ingest_connections_closed_total{reason="limit"}') >= 1)
    assert gateway.metric('ingest_buffered_full_total{effect="closed"}') >= 1
    # beyond the bound: the one answer that did not fit, and what its connection had sent
    assert gateway.metric("ingest_buffered_bytes") < (512 << 10) + (128 << 10)
    assert gateway.post("/v1/events/metrics", metric()).status == 202
    for client in clients:
        client.sock.close()
    until(lambda: gateway.metric("ingest_buffered_bytes") == 0)


def resident(pid: int) -> int:
    """Bytes of a process that are in memory now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS")


def test_an_idle_connection_keeps_nothing_of_what_it_has_sent(gateway: Gateway) -> None:
    size = 60_000
    document = json.dumps(metric(name="m" * (size - 100))).encode()
    warm = gateway.post("/v1/events/metrics", document)
    before = resident(gateway.pid)
    clients = [gateway.connect() for _ in range(400)]
    for client in clients:
        answer = client.request(
            "POST", "/v1/events/metrics", document, {"Content-Type": "application/json"}
        )
        assert answer.status == warm.status
    assert resident(gateway.pid) - before < 400 * size
    for client in clients:
        client.sock.close()
