"""Reloads of several workers: what is new is checked first, then rolled out with its settings."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.reloads import Deployment
from tests.support.waiting import until
from tests.support.workers import Producers, all_ready, kill, pids, stored

SMALL = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def deploy(*flags: str, text: str = "", **keywords: object) -> Deployment:
        deployment = Deployment(tmp_path, "--workers", "2", *flags, text=text, **keywords)
        made.append(deployment)
        deployment.schema("metrics", {"type": "object"})
        deployment.start()
        until(lambda: all_ready(deployment.gateway, 2))
        return deployment

    yield deploy
    for deployment in made:
        deployment.gateway.stop()


def statuses(served: Deployment, name: str, document: object) -> set[int]:
    """Of enough requests that each worker has had some."""
    return {served.gateway.post(f"/v1/events/{name}", document).status for _ in range(24)}


def test_new_schemas_and_settings_are_rolled_out_and_no_request_fails(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy(text="event_max_bytes: 10000\n")
    before = pids(served.gateway)
    with Producers(served.gateway, 2) as producers:
        producers.more()
        served.schema("other", SMALL)
        served.settings("event_max_bytes: 1000\npool_size: 100\nworkers: 3\n")
        (done,) = served.hup("reload.done")
        producers.more()
    assert producers.failures == []
    assert done["settings"] == {"event_max_bytes": [10000, 1000], "pool_size": [4096, 100]}
    assert statuses(served, "other", {"n": 1}) == {202}
    assert statuses(served, "thing", {"n": "x" * 1000}) == {413}
    assert not set(before) & set(pids(served.gateway))
    assert served.metric('ingest_reloads_total{result="ok"}') == 1
    assert served.metric("ingest_reload_last_success_timestamp_seconds") > 1.7e9
    kill(served.gateway, 0, signal.SIGKILL)  # the next one has the new settings, too
    until(lambda: len(served.logged("worker.started")) == 5)
    until(lambda: all_ready(served.gateway, 2))
    assert statuses(served, "thing", {"n": "x" * 1000}) == {413}
    assert served.gateway.stop() == 0
    assert set(producers.acknowledged) <= set(stored_metrics(served))


def stored_metrics(served: Deployment) -> list[int]:
    return stored(served.gateway, "--type", "metrics")


def test_what_is_bad_reaches_no_worker_and_all_of_it_is_said(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    before = pids(served.gateway)
    served.schema("thing", {"type": "objekt"})
    served.schema("other", "{")
    served.hup("reload.refused")
    until(lambda: len(served.logged("reload.refused")) == 2)
    served.settings("event_max_bytes: many\n")
    served.hup("reload.refused")
    assert "event_max_bytes" in served.logged("reload.refused")[2]["message"]
    assert pids(served.gateway) == before
    assert statuses(served, "thing", {}) == {202}
    assert served.metric('ingest_reloads_total{result="failed"}') == 2
    assert served.metric("ingest_reload_failed") == 1


def test_a_worker_that_cannot_be_set_up_keeps_its_predecessor_with_its_settings(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    served = deploy(text="event_max_bytes: 100\n")
    before = pids(served.gateway)
    (tmp_path / "handlers").mkdir()
    fails = "def setup():\n    1 / 0\n\ndef handle(event):\n    pass\n"
    (tmp_path / "handlers" / "thing.py").write_text(fails)
    served.settings("event_max_bytes: 1000\n")
    served.hup("reload.refused")
    assert "ZeroDivisionError" in served.logged("reload.refused")[0]["message"]
    assert pids(served.gateway) == before
    (tmp_path / "handlers" / "thing.py").unlink()
    kill(served.gateway, 1, signal.SIGKILL)
    until(lambda: len(served.logged("worker.started")) == 3)
    until(lambda: all_ready(served.gateway, 2))
    assert statuses(served, "thing", {"n": "x" * 200}) == {413}


def test_operators_ask_any_worker_and_the_supervisor_does_it(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    served.schema("other", SMALL)
    served.settings("errors_max: 7\n")
    answer = served.operate("/admin/reload")
    assert (answer.status, answer.json()) == (200, {
        "settings": {"errors_max": [100, 7]}, "restart": [], "types": {}, "rolling": True,
    })  # fmt: skip
    again = served.operate("/admin/reload")
    assert (again.status, again.json()["code"]) == (409, "reload_in_progress")
    until(lambda: served.logged("reload.done"))
    assert statuses(served, "other", {"n": 1}) == {202}
    served.schema("other", {"type": "objekt"})
    refused = served.operate("/admin/reload")
    assert (refused.status, refused.json()["code"]) == (422, "reload_refused")
    assert "other.json" in refused.json()["problems"][0]["file"]


def test_consumers_of_all_workers_pause_and_stay_paused_when_one_is_replaced(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "thing.py").write_text("def consume(events):\n    pass\n")
    served = deploy()
    paused = 'ingest_consumer_paused{type="thing"}'
    assert served.operate("/admin/consumers/pause").json() == {"paused": ["thing"]}
    until(lambda: served.metric(paused) == 2)
    served.hup("reload.done")
    assert served.metric(paused) == 2
    assert served.operate("/admin/consumers/resume").json() == {"resumed": ["thing"]}
    until(lambda: served.metric(paused) == 0)
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.metric(paused) == 2)
    served.gateway.send_signal(signal.SIGUSR1)
    until(lambda: served.metric(paused) == 0)


def test_a_storm_of_signals_rolls_no_more_often_than_it_has_to(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    with Producers(served.gateway, 2) as producers:
        for _ in range(20):
            served.gateway.send_signal(signal.SIGHUP)
            producers.more(2)
        until(lambda: len(served.logged("reload.done")) >= 2)
        producers.more()
    assert producers.failures == []
    assert not re.search(r'"supervisor\.(worker_died|worker_killed)"', served.gateway.log())
