"""SIGUSR2: the process becomes what the code is now, and no client notices."""

from __future__ import annotations

import fcntl
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.journal.lock import LOCK_NAME
from tests.support.reloads import Deployment
from tests.support.waiting import until
from tests.support.workers import Producers, stored

HANDLER = "def handle(event):\n    event.data['by'] = {!r}\n    return event.data\n"
METRICS_SCHEMA = {"type": "object"}


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def deploy(*flags: str, **keywords: object) -> Deployment:
        (tmp_path / "handlers").mkdir(exist_ok=True)
        (tmp_path / "handlers" / "thing.py").write_text(HANDLER.format("old"))
        deployment = Deployment(tmp_path, *flags, **keywords)
        deployment.schema("metrics", METRICS_SCHEMA)
        made.append(deployment)
        return deployment.start()

    yield deploy
    for deployment in made:
        deployment.gateway.stop()


def starts(served: Deployment) -> int:
    return len(served.logged("service.started"))


def test_clients_that_send_all_the_time_get_the_new_code_and_none_is_refused(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    served = deploy()
    gateway, pid = served.gateway, served.gateway.pid
    assert gateway.post("/v1/events/thing", {}).status == 202
    with Producers(gateway, 2) as producers:
        producers.more()
        (tmp_path / "handlers" / "thing.py").write_text(HANDLER.format("new"))
        gateway.send_signal(signal.SIGUSR2)
        until(lambda: starts(served) == 2)
        producers.more()
    assert producers.failures == []
    assert gateway.post("/v1/events/thing", {}).status == 202
    assert (gateway.pid, gateway.alive()) == (pid, True)
    assert served.operate("/livez", "GET").status == 200  # on the same port
    assert gateway.stop() == 0
    events = gateway.journal()
    assert [e["data"]["by"] for e in events if e["type"] == "thing"] == ["old", "new"]
    values = [e["data"]["metrics"][0]["value"] for e in events if e["type"] == "metrics"]
    assert sorted(values) == sorted(producers.acknowledged)


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("schemas/thing.json", '{"type": "objekt"}', "objekt"),
        ("handlers/thing.py", "import no_such_package\n", "ModuleNotFoundError"),
        ("ingest.yaml", "errors_max: none\n", "errors_max"),
        ("ingest.yaml", "bind: 127.0.0.1:1\nworkers: 3\n", "workers has changed"),
    ],
    ids=["schema", "handler", "settings", "fixed"],
)
def test_new_code_that_would_not_serve_is_refused_and_the_old_goes_on(
    deploy: Callable[..., Deployment], tmp_path: Path, file: str, text: str, why: str
) -> None:
    served = deploy()
    (tmp_path / file).write_text(text)
    served.gateway.send_signal(signal.SIGUSR2)
    until(lambda: served.logged("handover.refused"))
    assert why in served.logged("handover.refused")[0]["message"]
    with served.gateway.connect() as client:
        assert client.request("GET", "/readyz").status == 200
    assert served.gateway.post("/v1/events/thing", {}).status == 202
    assert served.metric("ingest_handovers_refused_total") == 1
    assert starts(served) == 1


def test_what_was_paused_stays_so_and_systemd_is_told(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "metrics.py").write_text("def consume(events):\n    pass\n")
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        sock.settimeout(60)
        served = deploy(env={"NOTIFY_SOCKET": name})

        def told() -> dict[str, str]:
            return dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())

        assert told()["READY"] == "1"
        assert served.operate("/admin/consumers/pause").json() == {"paused": ["metrics"]}
        for number in (signal.SIGHUP, signal.SIGUSR2):
            served.gateway.send_signal(number)
            begun = told()
            assert begun["RELOADING"] == "1"
            assert 0 < int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert told()["READY"] == "1"
        until(lambda: starts(served) == 2)
        assert served.operate("/admin/consumers/pause").json() == {"paused": []}
        assert served.operate("/admin/consumers/resume").json() == {"resumed": ["metrics"]}
        assert served.gateway.stop() == 0
        assert told()["STOPPING"] == "1"


def test_nobody_else_gets_the_data_in_between(deploy: Callable[..., Deployment]) -> None:
    served = deploy()

    def is_free() -> bool:
        with (served.gateway.data / LOCK_NAME).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    served.gateway.send_signal(signal.SIGUSR2)
    until(lambda: is_free() or starts(served) == 2)
    assert not is_free()
    assert served.gateway.stop() == 0
    assert is_free()


def test_the_end_that_is_asked_for_meanwhile_is_the_end(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    with Producers(served.gateway, 2) as producers:
        producers.more()
        served.gateway.send_signal(signal.SIGUSR2)
        until(lambda: served.logged("handover.accepted"))
        served.gateway.send_signal(signal.SIGTERM)
        assert served.gateway.wait() == 0
    assert starts(served) == 1
    assert set(producers.acknowledged) <= set(stored(served.gateway))
