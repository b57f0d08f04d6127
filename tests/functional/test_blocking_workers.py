"""A handler that blocks one worker is named, and the gateway goes on without that worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.gateway import Answer, Gateway
from tests.support.waiting import until
from tests.support.workers import all_ready, events

#: Holds the event loop until a file is there.
BUSY = """\
import os

def handle(event):
    while not os.path.exists(event.data["until"]):
        pass
"""
JSON = {"Content-Type": "application/json"}


def test_a_blocked_handler_is_named_and_the_other_worker_serves(
    tmp_path: Path, new_gateway: Callable[..., Gateway]
) -> None:
    for name in ("busy", "plain"):
        (tmp_path / "schemas").mkdir(exist_ok=True)
        (tmp_path / "schemas" / f"{name}.json").write_text('{"type": "object"}')
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "busy.py").write_text(BUSY)
    folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
    gateway = new_gateway(*folders, "--workers", "2")
    until(lambda: all_ready(gateway, 2))
    gate = tmp_path / "gate"
    body = json.dumps({"until": str(gate)}).encode()
    answers: list[Answer] = []

    def block() -> None:
        with gateway.connect(timeout=90) as client:
            answers.append(client.request("POST", "/v1/events/busy", body, JSON))

    blocked = threading.Thread(target=block)
    blocked.start()
    try:
        until(lambda: bool(events(gateway, "hub.blocked")))
        (line,) = events(gateway, "hub.blocked")
        file, _, number = str(line["place"]).rpartition(":")
        assert (line["handler"], Path(file).name) == ("busy", "busy.py")
        assert int(number) in (4, 5)
        (silent,) = until_any(lambda: events(gateway, "supervisor.worker_silent"))
        assert silent["number"] == line["worker"]
        # From here on nobody is sent to the worker that is blocked.
        for _ in range(20):
            assert gateway.request("GET", "/livez").status == 200
            assert gateway.post("/v1/events/plain", {}).status == 202
        assert gateway.metric('ingest_events_accepted_total{type="plain"}') == 20
    finally:
        gate.touch()
        blocked.join()
    assert [answer.status for answer in answers] == [202]
    until(lambda: bool(events(gateway, "supervisor.worker_heard_again")))
    until(lambda: all_ready(gateway, 2))
    assert gateway.stop() == 0


def until_any(found: Callable[[], list[dict[str, object]]]) -> list[dict[str, object]]:
    """What is found, as soon as anything is."""
    until(lambda: bool(found()))
    return found()
