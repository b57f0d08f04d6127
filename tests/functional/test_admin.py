"""The listener for operators: what is there and only there, and that it always answers."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Answer, Client, Gateway
from tests.support.waiting import until
from tests.support.workers import all_ready, kill

Serve = Callable[..., "Served"]
BODY = json.dumps(METRICS).encode()
HEAD = (
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)


class Served:
    """A gateway with a listener for operators, found by what the banner says."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.port = gateway.admin_port()

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), 30))

    def ask(self, path: str, method: str = "GET", body: bytes = b"") -> Answer:
        with self.connect() as client:
            return client.request(method, path, body, {"Content-Length": str(len(body))})


@pytest.fixture
def serve(new_gateway: Callable[..., Gateway]) -> Serve:
    def serve(*flags: str, **keywords: object) -> Served:
        return Served(new_gateway("--admin-bind", "127.0.0.1:0", *flags, **keywords))

    return serve


def test_probes_are_on_both_listeners_and_the_rest_on_its_own(serve: Serve) -> None:
    served = serve()
    for path in ("/livez", "/readyz", "/startupz", "/health"):
        assert served.ask(path).status == 200
        assert served.gateway.request("GET", path).status == 200
    for path in ("/metrics", "/debug/greenlets", "/debug/stacks", "/debug/memory"):
        assert served.ask(path).status == 200
        # The shipped schemas have a route POST /metrics.
        there = served.gateway.request("GET", path).status
        assert there == (405 if path == "/metrics" else 404)
    for path in ("/v1/schemas", "/v1/journal", "/openapi.json", "/v1/events/metrics", "/"):
        assert served.ask(path).status == 404
    assert served.ask("/v1/events/metrics", "POST", BODY).status == 404
    assert b"ingest_connections_opened_total" in served.ask("/metrics").body


def test_methods_are_told_and_log_levels_changed(serve: Serve) -> None:
    served = serve()
    refused = served.ask("/metrics", "POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    asked = served.ask("/debug/log-level", "OPTIONS")
    assert (asked.status, asked.headers["allow"]) == (204, "GET, HEAD, OPTIONS, PUT")
    body = json.dumps({"logger": "ingest", "level": "debug"}).encode()
    assert served.ask("/debug/log-level", "PUT", body).status == 200
    assert b"debug" in served.ask("/debug/log-level").body.lower()


def test_without_the_setting_there_is_no_debug_and_metrics_are_on_the_main_listener(
    gateway: Gateway,
) -> None:
    assert gateway.request("GET", "/metrics").status == 200
    for path in ("/debug/greenlets", "/debug/log-level"):
        assert gateway.request("GET", path).status == 404


def test_it_answers_while_the_main_listener_takes_nobody_in(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    gate = tmp_path / "gate"
    waits = f"import os, time\n\ndef handle(event):\n    while not os.path.exists({str(gate)!r}):\n"
    (tmp_path / "handlers" / "metrics.py").write_text(waits + "        time.sleep(0.01)\n")
    served = serve(
        "--handlers", f"{tmp_path}/handlers", "--pool-size", "1", "--pool-queue-max", "0",
        "--connections-max", "3",
    )  # fmt: skip
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(served.gateway.connect()) for _ in range(3))
        first.send(HEAD + BODY)
        until(lambda: b"ingest_pool_in_use 1.0" in served.ask("/metrics").body)
        second.send(HEAD + BODY)
        assert second.answer().status == 503  # no slot
        assert third.request("GET", "/livez").status == 200
        with served.gateway.connect() as fourth:
            assert fourth.answer().status == 503  # no connection
        for _ in range(3):
            assert served.ask("/readyz").status == 200
            assert b'ingest_connections_refused_total{limit="total"}' in served.ask("/metrics").body
        gate.touch()
        assert first.answer().status == 202


def test_its_own_connections_are_bounded(serve: Serve) -> None:
    served = serve("--admin-connections-max", "2")
    with served.connect() as one, served.connect() as two:
        assert one.request("GET", "/livez").status == two.request("GET", "/livez").status == 200
        with served.connect() as three:
            assert three.answer().status == 503
        assert served.gateway.request("GET", "/livez").status == 200
    until(lambda: served.ask("/livez").status == 200)
    counted = re.compile(rb'ingest_connections_refused_total{limit="admin"} [1-9]')
    assert counted.search(served.ask("/metrics").body)


def test_operators_need_no_key(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    keys.chmod(0o600)
    served = serve("--keys-file", str(keys))
    assert served.ask("/metrics").status == 200
    assert served.gateway.post("/v1/events/metrics", METRICS).status == 401


def test_it_answers_while_the_gateway_drains(serve: Serve) -> None:
    served = serve()
    with served.gateway.connect() as client:
        client.send((HEAD + BODY)[:-5])
        served.gateway.request("GET", "/livez")
        served.gateway.send_signal(signal.SIGTERM)
        until(lambda: served.ask("/readyz").status == 503)
        assert served.ask("/livez").status == 200
        assert b"ingest_ready 0.0" in served.ask("/metrics").body
        client.send(BODY[-5:])
        assert client.answer().status == 202
    assert served.gateway.wait() == 0


def test_nobody_waits_for_an_operator_at_the_end(serve: Serve) -> None:
    served = serve("--drain-timeout", "600")
    with served.connect() as silent, served.connect() as idle:
        assert idle.request("GET", "/livez").status == 200
        served.gateway.send_signal(signal.SIGTERM)
        assert served.gateway.wait() == 0
        assert silent.closed()


def test_with_several_workers_it_is_one_and_survives_a_worker(serve: Serve) -> None:
    served = serve("--workers", "2")
    until(lambda: all_ready(served.gateway, 2))
    for _ in range(10):
        assert served.gateway.post("/v1/events/metrics", METRICS).status == 202
    counted = re.compile(rb'ingest_events_accepted_total{type="metrics"} 10\.0')
    for _ in range(10):
        assert counted.search(served.ask("/metrics").body)
    kill(served.gateway, 0, signal.SIGKILL)
    for _ in range(10):
        assert served.ask("/livez").status == 200
    until(lambda: all_ready(served.gateway, 2))
    assert served.gateway.stop() == 0


def test_a_taken_address_is_said(serve: Serve, gateway: Gateway, tmp_path: Path) -> None:
    taken = Gateway(tmp_path / "other", "--admin-bind", f"127.0.0.1:{gateway.port}")
    taken.spawn()
    assert not taken.listens()
    assert taken.wait() != 0
    assert f"cannot listen on 127.0.0.1:{gateway.port}" in taken.log()
