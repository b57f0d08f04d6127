"""Offloaded calls: the event loop serves on while they run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import ingest
from tests.support.gateway import Answer, Gateway
from tests.support.waiting import until

Serve = Callable[..., Gateway]

#: Waits in C until a test makes the file `go`, and keeps no lock: only a native thread or
#: another process can do that without holding the event loop.
WAITING = """
import ctypes
import os
from pathlib import Path

import ingest

HERE = Path(__file__).parent

@ingest.offload{how}
def wait_for(name):
    while not (HERE / name).exists():
        ctypes.CDLL(None).usleep(5000)
    return os.getpid()

def handle(event):
    return {{"pid": wait_for("go"), "own": os.getpid()}}
"""
PROCESS = "(process=True)"


@pytest.fixture
def served(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Serve:
    """A gateway with one type `thing`, any object, and the handler a test gives it."""

    def serve(source: str, *flags: str) -> Gateway:
        (tmp_path / "schemas").mkdir()
        (tmp_path / "schemas" / "thing.json").write_text('{"type": "object"}')
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "thing.py").write_text(source)
        folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
        return new_gateway(*folders, *flags)

    return serve


def posting(gateway: Gateway, count: int = 1) -> tuple[list[threading.Thread], list[Answer]]:
    """Clients that each post an event and wait for the answer."""
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(gateway.post("/v1/events/thing", {})))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads, answers


def value(gateway: Gateway, name: str, kind: str) -> float:
    return gateway.metric(f'ingest_offload_{name}{{kind="{kind}"}}')


@pytest.mark.parametrize(("how", "kind"), [("", "thread"), (PROCESS, "process")])
def test_the_loop_serves_on_while_a_call_runs(
    served: Serve, tmp_path: Path, how: str, kind: str
) -> None:
    gateway = served(WAITING.format(how=how))
    threads, answers = posting(gateway)
    until(lambda: value(gateway, "in_use", kind) == 1)
    assert gateway.request("GET", "/livez").status == 200
    (tmp_path / "handlers" / "go").touch()
    threads[0].join()
    assert answers[0].status == 202
    data = gateway.journal()[0]["data"]
    assert (data["pid"] == data["own"]) == (kind == "thread")
    assert value(gateway, "in_use", kind) == 0
    assert value(gateway, "seconds_count", kind) == 1
    assert gateway.metric('ingest_hub_blocked_total{handler="thing"}') == 0


@pytest.mark.parametrize(("how", "kind"), [("", "thread"), (PROCESS, "process")])
def test_calls_beyond_the_bound_wait_and_beyond_that_are_told_to_retry(
    served: Serve, tmp_path: Path, how: str, kind: str
) -> None:
    bounds = ("--offload-threads", "2", "--offload-processes", "2", "--offload-queue-max", "3")
    gateway = served(WAITING.format(how=how), *bounds)
    threads, answers = posting(gateway, 5)
    until(lambda: value(gateway, "waiting", kind) == 3)
    assert value(gateway, "in_use", kind) == 2
    refused = gateway.post("/v1/events/thing", {})
    assert (refused.status, refused.json()["code"]) == (503, "overloaded")
    assert "retry-after" in refused.headers
    assert value(gateway, "refused_total", kind) == 1
    (tmp_path / "handlers" / "go").touch()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [202] * 5
    assert len(gateway.journal()) == 5
    assert value(gateway, "waiting", kind) == value(gateway, "in_use", kind) == 0


@pytest.mark.parametrize("how", ["", PROCESS])
def test_what_the_function_raises_is_raised_where_it_was_called(served: Serve, how: str) -> None:
    gateway = served(
        f"import ingest\n@ingest.offload{how}\ndef check(n):\n"
        "    if n: raise ingest.Reject('not that', pointer='/n')\n    return 1 / n\n"
        "def handle(event):\n    check(event.data['n'])\n"
    )
    rejected = gateway.post("/v1/events/thing", {"n": 1})
    assert (rejected.status, rejected.json()["errors"][0]["pointer"]) == (422, "/n")
    assert gateway.post("/v1/events/thing", {"n": 0}).status == 500
    gateway.stop()
    assert "in check" in gateway.log() and "ZeroDivisionError" in gateway.log()


@pytest.mark.parametrize("how", ["", PROCESS])
def test_a_whole_handler_can_be_offloaded(served: Serve, how: str) -> None:
    gateway = served(
        f"import ingest\n@ingest.offload{how}\ndef handle(event):\n"
        "    return {'type': event.type, 'id': event.id, 'n': event.data['n'] + 1}\n"
    )
    answer = gateway.post("/v1/events/thing", {"n": 1})
    assert gateway.journal()[0]["data"] == {"type": "thing", "id": answer.json()["id"], "n": 2}


def test_objects_of_the_handlers_own_classes_travel_both_ways(served: Serve) -> None:
    gateway = served(
        "from dataclasses import dataclass\nimport ingest\n"
        "@dataclass\nclass Point:\n    x: int\n"
        "@ingest.offload(process=True)\ndef moved(point, by=0):\n    return Point(point.x + by)\n"
        "def handle(event):\n    return {'x': moved(Point(event.data['x']), by=3).x}\n"
    )
    assert gateway.post("/v1/events/thing", {"x": 4}).status == 202
    assert gateway.journal()[0]["data"] == {"x": 7}


def test_a_process_that_dies_fails_its_call_and_is_replaced(served: Serve) -> None:
    gateway = served(
        "import os, signal\nimport ingest\n"
        "@ingest.offload(process=True)\ndef work(how):\n"
        "    if how: os.kill(os.getpid(), signal.SIGKILL)\n    return os.getpid()\n"
        "def handle(event):\n    return {'pid': work(event.data['die'])}\n",
        "--offload-processes",
        "1",
    )
    first = gateway.post("/v1/events/thing", {"die": False})
    died = gateway.post("/v1/events/thing", {"die": True})
    after = gateway.post("/v1/events/thing", {"die": False})
    assert [answer.status for answer in (first, died, after)] == [202, 500, 202]
    assert gateway.metric("ingest_offload_deaths_total") == 1
    pids = [record["data"]["pid"] for record in gateway.journal()]
    assert len(set(pids)) == 2
    gateway.stop()
    assert "signal SIGKILL" in gateway.log() and "OffloadDied" in gateway.log()


def test_a_call_whose_handler_ran_out_of_time_is_ended_with_its_process(served: Serve) -> None:
    gateway = served(
        WAITING.format(how=PROCESS) + "\nTIMEOUT_SECONDS = 0.3\n", "--offload-processes", "1"
    )
    assert gateway.post("/v1/events/thing", {}).status == 504
    assert value(gateway, "in_use", "process") == 0


def test_a_thread_stays_in_use_until_its_call_ends(served: Serve, tmp_path: Path) -> None:
    gateway = served(WAITING.format(how="") + "\nTIMEOUT_SECONDS = 0.3\n")
    assert gateway.post("/v1/events/thing", {}).status == 504
    assert value(gateway, "in_use", "thread") == 1
    (tmp_path / "handlers" / "go").touch()
    until(lambda: value(gateway, "in_use", "thread") == 0)


def test_the_processes_end_with_their_worker(served: Serve) -> None:
    gateway = served(
        "import os\nimport ingest\n"
        "@ingest.offload(process=True)\ndef pid():\n    return os.getpid()\n"
        "def handle(event):\n    return {'pid': pid()}\n"
    )
    assert gateway.post("/v1/events/thing", {}).status == 202
    child = gateway.journal()[0]["data"]["pid"]
    gateway.send_signal(signal.SIGKILL)
    gateway.wait()
    until(lambda: not alive(child))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Killed and not waited for by whoever took it over is dead enough.
    return f"{pid} (" in (stat := Path(f"/proc/{pid}/stat").read_text()) and ") Z" not in stat


def test_without_a_service_the_function_is_simply_called() -> None:
    @ingest.offload
    def double(n: int) -> int:
        """Twice the number."""
        return 2 * n

    assert (double(4), double.__name__, double.__doc__) == (8, "double", "Twice the number.")
