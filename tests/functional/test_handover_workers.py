"""SIGUSR2 with several workers: the supervisor becomes the new code, then replaces them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.reloads import Deployment
from tests.support.waiting import until
from tests.support.workers import Producers, alive, all_ready, kill, pids, stored

HANDLER = "def handle(event):\n    event.data['by'] = {!r}\n    return event.data\n"


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def deploy(*flags: str, **keywords: object) -> Deployment:
        (tmp_path / "handlers").mkdir()
        (tmp_path / "handlers" / "thing.py").write_text(HANDLER.format("old"))
        deployment = Deployment(tmp_path, "--workers", "2", *flags, **keywords)
        made.append(deployment)
        deployment.schema("metrics", {"type": "object"})
        deployment.start()
        until(lambda: all_ready(deployment.gateway, 2))
        return deployment

    yield deploy
    for deployment in made:
        deployment.gateway.stop()


def hand_over(served: Deployment) -> None:
    before = len(served.logged("reload.done"))
    served.gateway.send_signal(signal.SIGUSR2)
    until(lambda: len(served.logged("reload.done")) > before)


def test_the_supervisor_and_all_workers_are_new_and_no_client_is_refused(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    served = deploy()
    gateway, pid, before = served.gateway, served.gateway.pid, pids(served.gateway)
    assert gateway.post("/v1/events/thing", {}).status == 202
    with Producers(gateway, 2) as producers:
        producers.more()
        (tmp_path / "handlers" / "thing.py").write_text(HANDLER.format("new"))
        hand_over(served)
        producers.more()
    assert producers.failures == []
    assert len(served.logged("supervisor.becomes_new")) == 1
    assert (gateway.pid, gateway.alive()) == (pid, True)
    assert not set(before) & set(pids(gateway)) and not any(alive(p) for p in before)
    assert gateway.post("/v1/events/thing", {}).status == 202
    assert served.operate("/livez", "GET").status == 200
    assert gateway.stop() == 0
    things = [e["data"]["by"] for e in gateway.journal("--type", "thing")]
    assert sorted(things) == ["new", "old"]  # of two partitions
    assert sorted(stored(gateway, "--type", "metrics")) == sorted(producers.acknowledged)


def test_new_code_that_would_not_serve_keeps_the_old(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    served = deploy()
    before = pids(served.gateway)
    (tmp_path / "handlers" / "thing.py").write_text("import no_such_package\n")
    served.gateway.send_signal(signal.SIGUSR2)
    until(lambda: served.logged("handover.refused"))
    assert "ModuleNotFoundError" in served.logged("handover.refused")[0]["message"]
    assert pids(served.gateway) == before
    assert served.gateway.post("/v1/events/thing", {}).status == 202
    assert served.metric("ingest_handovers_refused_total") == 1


def test_the_new_supervisor_looks_after_workers_it_did_not_start(
    deploy: Callable[..., Deployment],
) -> None:
    """One is gone when it comes, and paused consumers stay so."""
    served = deploy("--worker-restart-min", "1h", "--worker-restart-max", "1h")
    served.gateway.send_signal(signal.SIGUSR1)
    kill(served.gateway, 1, signal.SIGKILL)
    until(lambda: served.logged("supervisor.worker_pauses"))
    hand_over(served)
    until(lambda: all_ready(served.gateway, 2))
    one = kill(served.gateway, 0, signal.SIGKILL)
    until(lambda: len(served.logged("supervisor.worker_died")) == 2)
    assert served.logged("supervisor.worker_died")[1]["pid"] == one
    assert served.gateway.stop() == 0


def test_the_end_is_the_end_also_while_workers_are_taken_over(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    with Producers(served.gateway, 2) as producers:
        producers.more()
        served.gateway.send_signal(signal.SIGUSR2)
        until(lambda: served.logged("handover.accepted"))
        served.gateway.send_signal(signal.SIGTERM)
        assert served.gateway.wait() == 0
    assert set(producers.acknowledged) <= set(stored(served.gateway, "--type", "metrics"))
