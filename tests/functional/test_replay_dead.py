"""`replay --dead`: what consume() could not process is tried again once that is put right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway
from tests.support.waiting import until

BROKEN = "def consume(events):\n    raise ValueError('not yet')\n"
#: Writes down the numbers that it is given.
RIGHT = """
import json, os

def consume(events):
    with open(os.environ["SEEN"], "a") as file:
        file.writelines(json.dumps(event.data["n"]) + "\\n" for event in events)
"""
ENVIRONMENT = {
    "INGEST_CONSUME_MAX_ATTEMPTS": "1",
    "INGEST_CONSUME_BACKOFF_MIN_SECONDS": "0.001",
    "INGEST_CONSUME_BACKOFF_MAX_SECONDS": "0.002",
    "INGEST_CONSUME_LINGER_SECONDS": "0",
}


@pytest.fixture
def start(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Callable[[str], Gateway]:
    """Start a gateway, on the same data each time, whose consumer of `thing` is given."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "thing.json").write_text('{"type": "object"}')
    (tmp_path / "handlers").mkdir()
    folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")

    def start(consumer: str) -> Gateway:
        (tmp_path / "handlers" / "thing.py").write_text(consumer)
        return new_gateway(*folders, env={**ENVIRONMENT, "SEEN": f"{tmp_path}/seen"})

    return start


def replay_dead(gateway: Gateway) -> str:
    """Send the dead letters again; returns what was said of it."""
    url = f"http://127.0.0.1:{gateway.port}"
    words = ["-m", "ingest", "replay", "--data", str(gateway.data), "--dead", "--url", url]
    done = subprocess.run([sys.executable, *words], capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def numbers(path: Path) -> list[Any]:
    return sorted(map(json.loads, path.read_text().split())) if path.exists() else []


def test_dead_letters_are_consumed_once_their_consumer_is_right(
    start: Callable[[str], Gateway], tmp_path: Path
) -> None:
    gateway = start(BROKEN)
    for n in range(3):
        assert gateway.post("/v1/events/thing", {"n": n}).status == 202
    until(lambda: gateway.metric('ingest_consumer_dead_letters_total{type="thing"}') == 3)
    assert gateway.stop() == 0
    gateway = start(RIGHT)
    assert replay_dead(gateway).startswith("3 events sent")
    until(lambda: numbers(tmp_path / "seen") == [0, 1, 2])
    assert replay_dead(gateway).startswith("0 events sent")
    assert (gateway.data / "checkpoints-dead").is_dir()
    assert not (gateway.data / "checkpoints-rejected").exists()
    # They went in as events of their own: nothing of the letter's is in them.
    stored = gateway.journal()[3:]
    assert [record["data"]["n"] for record in stored] == [0, 1, 2]
    assert not any(name.startswith("ingestdead") for record in stored for name in record)
