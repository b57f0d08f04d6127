"""CloudEvents sent twice, for types with `x-ingest.dedupe`: stored once, answered alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.support.gateway import ROOT, Answer, Gateway
from tests.support.waiting import until

PATH = "/v1/events"
REPLAYED = "idempotency-replayed"
HANDLER = """
import pathlib, time
from ingest import Reject

def handle(event):
    gate = pathlib.Path(event.data["gate"])
    gate.with_suffix(".reached").touch()
    while not gate.exists():
        time.sleep(0.01)
    if gate.read_text() == "reject":
        raise Reject("unlucky")
"""


def write_types(directory: Path) -> Path:
    (directory / "schemas").mkdir(parents=True)
    (directory / "handlers").mkdir()
    number = {"type": "object", "properties": {"n": {"type": "integer"}}}
    for name, dedupe in (
        ("once", "cloudevents"),
        ("other", "cloudevents"),
        ("slow", "cloudevents"),
        ("plain", "none"),
        ("pointed", {"pointer": "/n", "required": True}),
        ("keyed", {"by": "idempotency-key", "required": True}),
    ):
        schema = {**number, "x-ingest": {"dedupe": dedupe}}
        (directory / "schemas" / f"{name}.json").write_text(json.dumps(schema))
    (directory / "handlers" / "slow.py").write_text(HANDLER)
    return directory


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Gateway]:
    directory = write_types(tmp_path / "deployment")
    running = Gateway(tmp_path / "data", cwd=directory, env={"PYTHONPATH": str(ROOT)}).start()
    yield running
    assert running.stop() == 0


def event(event_id: str, **members: Any) -> dict[str, Any]:
    whole = {"specversion": "1.0", "id": event_id, "source": "/s", "type": "once", "data": {}}
    return {**whole, **members}


def send(gateway: Gateway, document: Any, query: str = "") -> Answer:
    kind = "-batch" if isinstance(document, list) else ""
    media = {"Content-Type": f"application/cloudevents{kind}+json"}
    return gateway.request("POST", PATH + query, json.dumps(document).encode(), media)


def ids(gateway: Gateway) -> list[str]:
    return [record["id"] for record in gateway.journal()]


def test_the_same_source_and_id_is_stored_once_in_whatever_mode_it_comes(served: Gateway) -> None:
    first = send(served, event("1", data={"n": 1}))
    again = send(served, event("1", data={"n": 2}))
    fields = {"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "1",
              "ce-source": "/s", "ce-type": "once"}  # fmt: skip
    binary = served.request("POST", PATH, b'{"n":3}', fields)
    batch = send(served, [event("1")])
    assert [answer.status for answer in (first, again, binary, batch)] == [202] * 4
    assert first.json() == again.json() == binary.json() == {"accepted": 1, "id": "1"}
    assert batch.json() == {"accepted": 1, "rejected": 0, "duplicates": 1, "ids": ["1"]}
    assert REPLAYED not in first.headers
    assert {answer.headers[REPLAYED] for answer in (again, binary, batch)} == {"true"}
    (record,) = served.journal()
    assert record["data"] == {"n": 1}
    assert served.metric('ingest_dedupe_hits_total{type="once"}') == 3
    assert served.metric('ingest_events_accepted_total{type="once"}') == 1


def test_another_source_id_or_type_is_another_event(served: Gateway) -> None:
    for document in (
        event("1"),
        event("2"),
        event("1", source="/t"),
        event("1", type="other"),
        event("1", type="plain"),
        event("1", type="plain"),
    ):
        answer = send(served, document)
        assert (answer.status, REPLAYED in answer.headers) == (202, False)
    assert len(served.journal()) == 6


def test_what_came_before_is_known_after_a_crash(served: Gateway) -> None:
    assert send(served, event("1")).status == 202
    assert send(served, [event("2"), event("3", type="other")]).status == 202
    served.kill()
    served.start()
    for document in (event("1"), event("2"), event("3", type="other")):
        assert send(served, document).headers[REPLAYED] == "true"
    assert send(served, event("4")).status == 202
    assert ids(served) == ["1", "2", "3", "4"]


def test_of_a_batch_duplicates_are_told_apart(served: Gateway) -> None:
    assert send(served, event("b")).status == 202
    document = [
        event("a"),
        event("b"),
        event("a"),
        event("c", type="other"),
        event("d", type="plain"),
        event("d", type="plain"),
        event("e", data=5),
    ]
    answer = send(served, document)
    assert answer.status == 207 and REPLAYED not in answer.headers
    told = answer.json()
    assert (told["accepted"], told["rejected"], told["duplicates"]) == (6, 1, 2)
    assert told["ids"] == ["a", "b", "a", "c", "d", "d", None]
    assert ids(served) == ["b", "a", "c", "d", "d"]


def test_an_event_that_was_refused_may_come_again(served: Gateway) -> None:
    assert send(served, event("1", data=5)).status == 422
    assert send(served, [event("1"), event("2", data=5)], "?atomic=true").status == 422
    answer = send(served, event("1"))
    assert (answer.status, REPLAYED in answer.headers) == (202, False)
    assert ids(served) == ["1"]


@pytest.mark.parametrize(
    ("outcome", "statuses"), [("keep", [202, 202, 202]), ("reject", [422, 503, 503])]
)
def test_a_duplicate_waits_for_the_first_that_is_on_its_way(
    served: Gateway, tmp_path: Path, outcome: str, statuses: list[int]
) -> None:
    gate = tmp_path / "gate"
    document = event("1", type="slow", data={"gate": str(gate)})
    first = gevent.spawn(send, served, document)
    until(gate.with_suffix(".reached").exists)
    again, batch = (gevent.spawn(send, served, one) for one in (document, [document]))
    until(lambda: served.metric("ingest_pool_in_use") == 3)
    (tmp_path / "outcome").write_text(outcome)
    (tmp_path / "outcome").rename(gate)
    answers = [greenlet.get(timeout=60) for greenlet in (first, again, batch)]
    assert [answer.status for answer in answers] == statuses
    if outcome == "reject":
        assert answers[1].json()["code"] == answers[2].json()["code"] == "first_not_stored"
        assert "retry-after" in answers[1].headers
        gate.write_text("keep")
        assert send(served, document).status == 202
    else:
        assert answers[1].headers[REPLAYED] == answers[2].headers[REPLAYED] == "true"
    assert ids(served) == ["1"]


def test_pipelined_duplicates_are_stored_once(served: Gateway) -> None:
    body = json.dumps(event("1")).encode()
    request = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/cloudevents+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    with served.connect() as client:
        client.send(request * 20)
        answers = [client.answer() for _ in range(20)]
    assert {answer.status for answer in answers} == {202}
    assert [REPLAYED in answer.headers for answer in answers] == [False, *[True] * 19]
    assert ids(served) == ["1"]
    assert served.metric("ingest_pool_in_use") == 0


def test_types_with_a_pointer_look_into_the_data(served: Gateway) -> None:
    assert send(served, event("1", type="pointed", data={"n": 7})).status == 202
    answer = send(served, event("2", type="pointed", data={"n": 7}))
    assert (answer.status, answer.headers[REPLAYED]) == (202, "true")
    plain = served.post("/v1/events/pointed", {"n": 7})
    assert plain.headers[REPLAYED] == "true"
    (record,) = served.journal()
    assert plain.json()["id"] == record["ingestid"]
    answer = send(served, event("3", type="pointed"))
    (fault,) = answer.json()["errors"]
    assert (answer.status, fault["pointer"], fault["keyword"]) == (422, "/data/n", "dedupe")


def test_types_that_need_a_key_of_the_request_have_none_here(served: Gateway) -> None:
    answer = send(served, event("1", type="keyed"))
    assert (answer.status, answer.json()["code"]) == (400, "idempotency_key_required")
    answer = send(served, [event("1", type="keyed"), event("2")])
    assert (answer.status, answer.json()["errors"][0]["keyword"]) == (207, "dedupe")
