"""SIGHUP and `POST /admin/reload` of a single process: all that has changed, or nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.reloads import JSON, Deployment, post
from tests.support.waiting import until

SMALL = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    made: list[Deployment] = []

    def deploy(*flags: str, text: str = "", **keywords: object) -> Deployment:
        made.append(Deployment(tmp_path, *flags, text=text, **keywords))
        return made[-1].start()

    yield deploy
    for deployment in made:
        deployment.gateway.stop()


def test_a_type_is_added_and_a_limit_changed_while_a_client_keeps_its_connection(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy(text="event_max_bytes: 100\n")
    with served.gateway.connect() as client:
        assert post(client, "thing", {"n": "x" * 200}).status == 413
        assert post(client, "other", {"n": 1}).status == 404
        served.schema("other", SMALL)
        served.settings("event_max_bytes: 1000\n")
        (done,) = served.hup("reload.done")
        assert (done["added"], done["removed"], done["changed"]) == (["other"], [], [])
        assert done["settings"] == {"event_max_bytes": [100, 1000]}
        assert post(client, "thing", {"n": "x" * 200}).status == 202
        assert post(client, "other", {"n": 1}).status == 202
        assert post(client, "other", {"n": "no"}).status == 422
        openapi = client.request("GET", "/openapi.json").json()
        assert "/v1/events/other" in openapi["paths"]
        listed = client.request("GET", "/v1/schemas").json()["types"]
        assert [found["type"] for found in listed] == ["other", "thing"]
    assert served.metric('ingest_reloads_total{result="ok"}') == 1
    assert served.metric("ingest_reload_failed") == 0
    assert served.metric("ingest_reload_last_success_timestamp_seconds") > 1.7e9
    assert served.gateway.stop() == 0


def test_a_changed_schema_and_a_removed_one_hold_for_the_next_request(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    with served.gateway.connect() as client:
        assert post(client, "thing", {}).status == 202
        served.schema("thing", SMALL)
        (done,) = served.hup("reload.done")
        assert done["changed"] == ["thing"]
        assert post(client, "thing", {}).status == 422
        served.schema("other", SMALL)
        (served.schemas / "thing.json").unlink()
        served.hup("reload.done")
        assert post(client, "thing", {"n": 1}).status == 404
        assert post(client, "other", {"n": 1}).status == 202
        event = {"specversion": "1.0", "id": "1", "source": "/x", "data": {"n": 1}}
        media = {"Content-Type": "application/cloudevents+json"}
        for name, status in (("thing", 404), ("other", 202)):
            body = json.dumps({**event, "type": name}).encode()
            assert client.request("POST", "/v1/events", body, media).status == status


def test_all_that_is_wrong_is_said_and_nothing_changes(deploy: Callable[..., Deployment]) -> None:
    served = deploy(text="event_max_bytes: 100\n")
    served.schema("thing", {"type": "objekt"})
    served.schema("other", "{")
    served.schema("third", SMALL)
    served.settings("event_max_bytes: 1000\nerrors_max: none\n")
    served.hup("reload.refused")
    until(lambda: len(served.logged("reload.refused")) == 3)
    found = {(line["area"], Path(line["file"]).name) for line in served.logged("reload.refused")}
    assert found == {
        ("schemas", "thing.json"), ("schemas", "other.json"), ("settings", "ingest.yaml:2"),
    }  # fmt: skip
    with served.gateway.connect() as client:
        assert post(client, "thing", {}).status == 202
        assert post(client, "third", {"n": 1}).status == 404
        assert post(client, "thing", {"n": "x" * 200}).status == 413
    assert served.metric('ingest_reloads_total{result="failed"}') == 1
    assert served.metric("ingest_reload_failed") == 1
    served.schema("thing", {"type": "object"})
    (served.schemas / "other.json").unlink()
    served.settings("")
    served.hup("reload.done")
    assert served.metric("ingest_reload_failed") == 0


def test_a_request_in_flight_is_judged_by_the_types_it_came_under(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    body = b'{"free": true}'
    head = (
        b"POST /v1/events/thing HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with served.gateway.connect() as client:
        assert post(client, "thing", {}).status == 202  # accepted before what follows is read
        client.send(head + b"{")
        with served.gateway.connect() as other:
            other.request("GET", "/livez")  # so the gateway has read the head
        served.schema("thing", SMALL)
        served.hup("reload.done")
        client.send(body[1:])
        assert client.answer().status == 202
        client.send(head + body)
        assert client.answer().status == 422


def test_a_batch_of_cloudevents_in_flight_is_judged_by_the_types_it_came_under(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    event = {"specversion": "1.0", "source": "/x", "type": "thing", "data": {"free": True}}
    body = json.dumps([{**event, "id": str(number)} for number in range(3)]).encode()
    head = (
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
        b"Content-Type: application/cloudevents-batch+json\r\n\r\n" % len(body)
    )
    with served.gateway.connect() as client:
        assert post(client, "thing", {}).status == 202
        client.send(head + body[:1])
        with served.gateway.connect() as other:
            other.request("GET", "/livez")
        served.schema("other", SMALL)
        (served.schemas / "thing.json").unlink()
        served.hup("reload.done")
        client.send(body[1:])
        assert client.answer().status == 202
        client.send(head + body)
        assert client.answer().status == 422


def test_operators_reload_and_get_what_changed_or_all_that_is_wrong(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    served.schema("other", SMALL)
    served.settings("idle_timeout_seconds: 9\npool_size: 17\n")
    answer = served.operate("/admin/reload")
    assert (answer.status, answer.json()) == (200, {
        "settings": {"idle_timeout_seconds": [75.0, 9.0]},
        "restart": ["pool_size"],
        "types": {"added": ["other"], "removed": [], "changed": []},
        "rolling": False,
    })  # fmt: skip
    until(lambda: served.logged("reload.needs_restart"))
    assert served.logged("reload.needs_restart")[0]["changed"] == ["pool_size"]
    served.schema("other", {"type": "objekt"})
    served.settings("pool_sise: 17\n")
    answer = served.operate("/admin/reload")
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["code"] == "reload_refused"
    assert [found["area"] for found in problem["problems"]] == ["settings", "schemas"]
    assert served.gateway.request("POST", "/admin/reload").status == 404
    assert served.operate("/admin/reload", "GET").status == 405


def test_settings_that_do_not_stand_with_those_that_stay_are_refused(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    both = "request_body_max_bytes: 100MiB\nbuffered_max_bytes: 400MiB\n"
    served.settings(both)  # fine at a start, but the second one takes a start
    (problem,) = served.operate("/admin/reload").json()["problems"]
    assert "buffered_max_bytes must be at least four times" in problem["message"]


def test_limits_of_requests_change_on_connections_that_are_open(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    with served.gateway.connect() as client:
        assert post(client, "thing", {"n": "x" * 500}).status == 202
        served.settings("request_body_max_bytes: 200\n")
        served.hup("reload.done")
        assert post(client, "thing", {"n": "x" * 500}).status == 413


def test_what_does_not_go_with_a_handler_or_takes_a_restart_is_refused(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "thing.py").write_text("def handle(event):\n    return {'n': 1}\n")
    served = deploy()
    served.schema("other", {"type": "object", "x-ingest": {"dedupe": {"by": "idempotency-key"}}})
    (served.schemas / "thing.json").unlink()
    problems = served.operate("/admin/reload").json()["problems"]
    assert [(found["area"], Path(found["file"]).name) for found in problems] == [
        ("handlers", "thing.py"), ("schemas", "other.json"),
    ]  # fmt: skip
    assert served.gateway.post("/v1/events/thing", {}).status == 202
    served.schema("thing", SMALL)
    (served.schemas / "other.json").unlink()
    (tmp_path / "handlers" / "thing.py").write_text("def handle(event):\n    return {'n': 22}\n")
    answer = served.operate("/admin/reload").json()
    assert answer["restart"] == [f"files in {tmp_path}/handlers"]
    assert served.gateway.post("/v1/events/thing", {"n": 1}).status == 202
    assert [event["data"] for event in served.gateway.journal()] == [{"n": 1}, {"n": 1}]


def test_the_first_type_that_keeps_refused_events_keeps_them(
    deploy: Callable[..., Deployment],
) -> None:
    served = deploy()
    served.schema("thing", {**SMALL, "x-ingest": {"on_reject": "keep"}})
    served.hup("reload.done")
    assert served.gateway.post("/v1/events/thing", {"n": "no"}).status == 422
    assert served.gateway.stop() == 0
    (segment,) = (served.gateway.data / "rejected" / "0").glob("*.ndjson")
    (kept,) = (json.loads(x) for x in segment.read_bytes().splitlines() if b'"rejectedcode"' in x)
    assert kept["data"] == {"n": "no"}


def test_a_storm_of_signals_under_load_fails_nobody(deploy: Callable[..., Deployment]) -> None:
    served = deploy()
    body = b'{"n": 1}'
    statuses = []
    with served.gateway.connect() as client:
        while len(served.logged("reload.done")) < 10:
            served.gateway.send_signal(signal.SIGHUP)
            statuses.append(client.request("POST", "/v1/events/thing", body, JSON).status)
    assert set(statuses) == {202}
    assert served.gateway.stop() == 0
    assert len(served.gateway.journal()) == len(statuses)
