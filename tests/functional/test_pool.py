"""The bounded pool: back-pressure, the line in front of it, refusals."""

import json
import threading
from pathlib import Path

import pytest

from tests.support.gateway import Gateway

HANDLER = """
import os, time
def handle(event):
    open(os.environ["GATE"] + f".in{event.data}", "w").close()
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
"""


@pytest.fixture
def gated(tmp_path: Path, new_gateway) -> tuple[Gateway, Path]:  # type: ignore[no-untyped-def]
    """A pool of two slots and a line of one, whose handler waits for a file to appear."""
    for folder, name, text in (
        ("schemas", "thing.json", json.dumps({"type": "integer"})),
        ("handlers", "thing.py", HANDLER),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    gate = tmp_path / "gate"
    gateway = new_gateway(
        "--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers",
        env={"GATE": str(gate), "INGEST_POOL_SIZE": "2", "INGEST_POOL_QUEUE_MAX": "1"},
    )  # fmt: skip
    return gateway, gate


def until(condition) -> None:  # type: ignore[no-untyped-def]
    """Wait for a condition that another process brings about."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def test_a_full_pool_waits_and_a_full_line_refuses_with_retry_after(gated) -> None:  # type: ignore[no-untyped-def]
    gateway, gate = gated
    answers: dict[int, int] = {}

    def post(n: int) -> None:
        answers[n] = gateway.post("/v1/events/thing", n).status

    threads = []
    for n in (1, 2):
        threads.append(threading.Thread(target=post, args=(n,)))
        threads[-1].start()
    until(lambda: all(gate.with_name(f"gate.in{n}").exists() for n in (1, 2)))
    assert gateway.metric("ingest_pool_in_use") == 2
    threads.append(threading.Thread(target=post, args=(3,)))
    threads[-1].start()
    until(lambda: gateway.metric("ingest_pool_waiting") == 1)
    refused = gateway.post("/v1/events/thing", 4)
    assert (refused.status, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert gateway.metric("ingest_pool_refused_total") == 1
    assert gateway.request("GET", "/livez").status == 200
    assert not gate.with_name("gate.in3").exists()
    gate.touch()
    for thread in threads:
        thread.join()
    assert answers == {1: 202, 2: 202, 3: 202}
    assert gateway.metric("ingest_pool_in_use") == 0
    assert gateway.metric("ingest_pool_wait_seconds_count") == 1
    assert sorted(r["data"] for r in gateway.journal()) == [1, 2, 3]


def test_a_client_that_leaves_the_line_leaves_its_place_to_the_next(gated) -> None:  # type: ignore[no-untyped-def]
    gateway, gate = gated
    threads = [threading.Thread(target=gateway.post, args=("/v1/events/thing", n)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    until(lambda: gateway.metric("ingest_pool_in_use") == 2)
    with gateway.connect() as client:
        client.send(
            b"POST /v1/events/thing HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1\r\n\r\n3"
        )
        until(lambda: gateway.metric("ingest_pool_waiting") == 1)
    gate.touch()
    for thread in threads:
        thread.join()
    until(lambda: gateway.metric("ingest_pool_in_use") == 0)
    assert gateway.post("/v1/events/thing", 5).status == 202
