"""Handlers that talk to real databases and servers, as they would in a threaded server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
import redis

from tests.support.gateway import Gateway

CLIENTS = 500
EVENTS_PER_CLIENT = 20

INSERTS = """\
import os
import threading

import psycopg

spare = []
slots = threading.BoundedSemaphore(50)

def setup():
    spare.extend(psycopg.connect(os.environ["DATABASE"], autocommit=True) for _ in range(50))

def teardown():
    for connection in spare:
        connection.close()

def handle(event):
    with slots:
        connection = spare.pop()
        try:
            connection.execute(
                "insert into events (id, n) values (%s, %s)", (event.id, event.data["n"])
            )
        finally:
            spare.append(connection)
"""
COUNTS = """\
import os

import redis

client = redis.Redis(
    connection_pool=redis.BlockingConnectionPool(
        max_connections=50, timeout=30, port=int(os.environ["REDIS_PORT"])
    )
)

def handle(event):
    client.incr(f"event:{event.data['n']}")
"""
ASKS = """\
import os

import requests

def handle(event):
    return {**event.data, "said": requests.get(os.environ["ASKED"], timeout=30).text}
"""

Serve = Callable[..., Gateway]


@pytest.fixture
def served(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Serve:
    """A gateway with one type `thing`, any object, and the handler a test gives it."""

    def serve(source: str, *flags: str, env: dict[str, str]) -> Gateway:
        (tmp_path / "schemas").mkdir()
        (tmp_path / "schemas" / "thing.json").write_text('{"type": "object"}')
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "thing.py").write_text(source)
        folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
        return new_gateway(*folders, *flags, env=env)

    return serve


def post_all(gateway: Gateway, clients: int, each: int) -> dict[int, str]:
    """Post events with `n` counting up, from many connections; returns n → the id answered."""
    answered: dict[int, str] = {}

    def post(client_number: int) -> None:
        with gateway.connect(timeout=90) as client:
            for n in range(client_number * each, (client_number + 1) * each):
                body = json.dumps({"n": n}).encode()
                fields = {"Content-Type": "application/json"}
                answer = client.request("POST", "/v1/events/thing", body, fields)
                if answer.status == 202:
                    answered[n] = answer.json()["id"]

    threads = [threading.Thread(target=post, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered


def test_every_acknowledged_event_is_in_postgres_exactly_once(served: Serve, postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("create table events (id text, n integer)")
        gateway = served(INSERTS, env={"DATABASE": postgres})
        answered = post_all(gateway, CLIENTS, EVENTS_PER_CLIENT)
        assert len(answered) == CLIENTS * EVENTS_PER_CLIENT
        rows = connection.execute("select n, id from events").fetchall()
    assert len(rows) == len(answered)
    assert dict(rows) == answered
    assert gateway.metric('ingest_hub_blocked_total{handler="thing"}') == 0
    assert gateway.stop() == 0


def test_every_acknowledged_event_is_counted_in_redis_exactly_once(
    served: Serve, redis_port: int
) -> None:
    gateway = served(COUNTS, env={"REDIS_PORT": str(redis_port)})
    answered = post_all(gateway, CLIENTS, EVENTS_PER_CLIENT)
    assert len(answered) == CLIENTS * EVENTS_PER_CLIENT
    client = redis.Redis(port=redis_port)
    counts = client.mget([f"event:{n}" for n in range(CLIENTS * EVENTS_PER_CLIENT)])
    assert counts == [b"1"] * len(answered)


class Slow(BaseHTTPRequestHandler):
    """Answers when as many ask at once as are expected, which no sequence of calls reaches."""

    together = threading.Barrier(1000)

    def do_GET(self) -> None:
        self.together.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_: object) -> None:
        pass


class Crowd(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def test_a_thousand_requests_wait_for_another_server_at_once(served: Serve) -> None:
    with Crowd(("127.0.0.1", 0), Slow) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        asked = f"http://127.0.0.1:{other.server_address[1]}/"
        gateway = served(ASKS, "--pool-size", "1000", env={"ASKED": asked})
        assert len(post_all(gateway, 1000, 1)) == 1000
        other.shutdown()
    assert {record["data"]["said"] for record in gateway.journal()} == {"done"}
