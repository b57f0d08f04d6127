"""Code that holds the event loop is named, once per place, and counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gateway import Gateway
from tests.support.waiting import until

Serve = Callable[..., Gateway]

#: Holds the loop without looking up, in Python.
BUSY = """\
import time

def handle(event):
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        pass
"""
#: The same in C, which lets other threads run.
IN_C = """\
import ctypes

def pause():
    ctypes.CDLL(None).usleep(600_000)

def handle(event):
    pause()
"""
#: The same in C, which lets nobody run.
IN_C_WITH_THE_LOCK = IN_C.replace("CDLL", "PyDLL")


@pytest.fixture
def served(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Serve:
    """A gateway with one type `thing`, any object, and the handler a test gives it."""

    def serve(source: str, *flags: str, **keywords: object) -> Gateway:
        (tmp_path / "schemas").mkdir()
        (tmp_path / "schemas" / "thing.json").write_text('{"type": "object"}')
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "thing.py").write_text(source)
        folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
        return new_gateway(*folders, *flags, **keywords)

    return serve


def blocked_lines(gateway: Gateway) -> list[dict[str, object]]:
    # The last line may be half written while the gateway runs.
    lines = [line for line in gateway.log().split("\n")[:-1] if '"hub.blocked"' in line]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("source", "lines"), [(BUSY, {5, 6}), (IN_C, {4})], ids=["busy", "c"])
def test_a_blocking_handler_is_named_with_file_line_and_stack(
    served: Serve, source: str, lines: set[int]
) -> None:
    gateway = served(source)
    assert gateway.post("/v1/events/thing", {}).status == 202
    until(lambda: bool(blocked_lines(gateway)))
    (line,) = blocked_lines(gateway)
    file, _, number = str(line["place"]).rpartition(":")
    assert (line["handler"], Path(file).name) == ("thing", "thing.py")
    assert int(number) in lines
    assert str(line["greenlet"]).startswith("Greenlet-")
    assert any(step.endswith(" handle") for step in str(line["stack"]).splitlines())
    assert line["limit_seconds"] == 0.1
    assert gateway.metric('ingest_hub_blocked_total{handler="thing"}') == 1
    assert gateway.metric('ingest_hub_blocked_seconds_total{handler="thing"}') >= 0.1


def test_a_call_that_keeps_the_interpreters_lock_is_named_too(served: Serve) -> None:
    # While it lasts nobody can look. Afterwards its line is seen, or, when yet another thread
    # got the lock first, the handler that was called last. On a machine that gives this process no
    # core in that time it cannot be told from waiting for one, so it may take several calls.
    gateway = served(IN_C_WITH_THE_LOCK)

    def noticed() -> bool:
        assert gateway.post("/v1/events/thing", {}).status == 202
        return bool(blocked_lines(gateway))

    until(noticed)
    (line,) = blocked_lines(gateway)
    assert line["handler"] == "thing"
    assert str(line["place"]).endswith(("thing.py:4", "thing.py:6"))
    assert gateway.metric('ingest_hub_blocked_total{handler="thing"}') >= 1


def test_a_place_is_logged_once_and_counted_every_time(served: Serve) -> None:
    gateway = served(IN_C)
    for _ in range(3):
        assert gateway.post("/v1/events/thing", {}).status == 202
    until(lambda: gateway.metric('ingest_hub_blocked_total{handler="thing"}') == 3)
    gateway.stop()
    assert len(blocked_lines(gateway)) == 1


def test_it_is_logged_while_the_handler_still_blocks(served: Serve) -> None:
    # A handler that never ends would otherwise never be named.
    gateway = served(
        "import ctypes\n\ndef handle(event):\n    ctypes.CDLL(None).usleep(600_000_000)\n"
    )
    with gateway.connect() as client:
        client.send(
            b"POST /v1/events/thing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        until(lambda: bool(blocked_lines(gateway)))
    gateway.kill()


def test_cooperative_waiting_is_not_blocking(served: Serve) -> None:
    gateway = served("import time\n\ndef handle(event):\n    time.sleep(0.5)\n")
    threads = [
        threading.Thread(target=gateway.post, args=("/v1/events/thing", {})) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gateway.metric('ingest_hub_blocked_total{handler="thing"}') == 0


def test_zero_turns_it_off(served: Serve) -> None:
    gateway = served(IN_C, "--max-blocking", "0")
    assert gateway.post("/v1/events/thing", {}).status == 202
    gateway.stop()
    assert blocked_lines(gateway) == []


def test_a_longer_limit_is_heeded(served: Serve) -> None:
    gateway = served(IN_C, "--max-blocking", "10s")
    assert gateway.post("/v1/events/thing", {}).status == 202
    assert gateway.metric('ingest_hub_blocked_total{handler="thing"}') == 0


def test_check_warns_of_packages_that_block_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "thing.json").write_text('{"type": "object"}')
    (tmp_path / "handlers").mkdir()
    handler = tmp_path / "handlers" / "thing.py"
    handler.write_text("import json\nimport sqlite3\n\ndef handle(event): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "check", "--handlers"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        check=True,
    )
    (warning,) = json.loads(done.stdout)["warnings"]
    assert (warning["file"], warning["line"]) == ("handlers/thing.py", 2)
    assert "sqlite3 blocks the event loop" in warning["message"]
    assert "ingest.offload" in warning["message"]


def test_what_was_imported_before_the_patching_is_logged(served: Serve, tmp_path: Path) -> None:
    (tmp_path / "too_early.py").write_text("from time import sleep\n")
    program = (
        "import sys, runpy; import too_early; sys.argv[0] = 'ingest'; "
        "runpy.run_module('ingest', run_name='__main__')"
    )
    gateway = served(
        "def handle(event): pass\n",
        program=("-c", program),
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
    )
    assert '"patching.too_late"' in gateway.log() and '"too_early"' in gateway.log()
