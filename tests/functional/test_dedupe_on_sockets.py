"""What is sent twice is stored once: by Idempotency-Key and by a pointer, over real sockets."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import ROOT, Answer, Gateway
from tests.support.waiting import until

EVENT = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}}
TYPES = {
    "keyed": {"by": "idempotency-key"},
    "strict": {"by": "idempotency-key", "required": True},
    "slow": {"by": "idempotency-key"},
    "order": {"by": "pointer", "pointer": "/id"},
    "named": {"by": "pointer", "pointer": "/id", "required": True},
    "short": {"by": "pointer", "pointer": "/id", "window": "1s"},
}
GATE = """
import os, time
def handle(event):
    open(os.environ["GATE"] + ".in", "w").close()
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
"""

New = Callable[..., Gateway]


@pytest.fixture
def new(tmp_path: Path) -> Iterator[New]:
    """Starts gateways one after the other on the same data."""
    for folder in ("schemas", "handlers"):
        (tmp_path / folder).mkdir()
    for name, dedupe in TYPES.items():
        options = {"dedupe": dedupe, "ack": "write" if name == "named" else "fsync"}
        schema = json.dumps({**EVENT, "x-ingest": options})
        (tmp_path / "schemas" / f"{name}.json").write_text(schema)
    (tmp_path / "handlers" / "slow.py").write_text(GATE)
    started: list[Gateway] = []

    def start(*flags: str, **env: str) -> Gateway:
        environ = {"GATE": str(tmp_path / "gate"), "PYTHONPATH": str(ROOT), **env}
        started.append(Gateway(tmp_path / "data", *flags, cwd=tmp_path, env=environ).start())
        return started[-1]

    yield start
    for gateway in started:
        gateway.stop()


def post(gateway: Gateway, name: str, body: Any, key: str | None = None, media: str = "") -> Answer:
    headers = {"Content-Type": media or "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return gateway.request("POST", f"/v1/events/{name}", raw, headers)


def replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


def stored(gateway: Gateway, name: str) -> list[Any]:
    return [record["data"] for record in gateway.journal("--type", name)]


# -- Idempotency-Key ---------------------------------------------------------------------------


def test_a_request_with_the_same_key_is_answered_as_the_first_was_and_stored_once(
    new: New,
) -> None:
    gateway = new()
    first = post(gateway, "keyed", {"n": 1}, '"k-1"')
    again = post(gateway, "keyed", {"n": 1}, '"k-1"')
    other = post(gateway, "keyed", {"n": 1}, '"k-2"')
    without = [post(gateway, "keyed", {"n": 1}) for _ in range(2)]
    assert [a.status for a in (first, again, other, *without)] == [202] * 5
    assert again.json() == first.json()
    assert [replayed(a) for a in (first, again, other, *without)] == [False, True] + [False] * 3
    assert len({a.json()["id"] for a in (first, other, *without)}) == 4
    assert stored(gateway, "keyed") == [{"n": 1}] * 4
    assert gateway.metric('ingest_dedupe_hits_total{type="keyed"}') == 1
    assert gateway.metric('ingest_dedupe_entries{type="keyed"}') == 2


def test_a_key_is_good_for_one_payload_and_one_form(new: New) -> None:
    gateway = new()
    assert post(gateway, "keyed", {"n": 1}, '"k"').status == 202
    for body, media in (({"n": 2}, ""), (b'{"n":1} ', ""), (b'{"n": 1}', "application/x-ndjson")):
        answer = post(gateway, "keyed", body, '"k"', media)
        assert (answer.status, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert stored(gateway, "keyed") == [{"n": 1}]
    mismatches = 'ingest_dedupe_conflicts_total{reason="mismatch",type="keyed"}'
    assert gateway.metric(mismatches) == 3


def test_a_request_that_is_still_worked_on_is_409_with_retry_after(
    new: New, tmp_path: Path
) -> None:
    gateway = new()
    answers: list[Answer] = []

    def first() -> None:
        answers.append(post(gateway, "slow", {"n": 1}, '"k"'))

    thread = threading.Thread(target=first)
    thread.start()
    until(lambda: (tmp_path / "gate.in").exists())
    meanwhile = post(gateway, "slow", {"n": 1}, '"k"')
    assert (meanwhile.status, meanwhile.json()["code"]) == (409, "idempotency_in_flight")
    assert int(meanwhile.headers["retry-after"]) >= 1
    assert post(gateway, "slow", {"n": 2}, '"k"').status == 422
    (tmp_path / "gate").touch()
    thread.join()
    assert answers[0].status == 202
    again = post(gateway, "slow", {"n": 1}, '"k"')
    assert replayed(again)
    assert again.json() == answers[0].json()
    assert stored(gateway, "slow") == [{"n": 1}]


@pytest.mark.parametrize(
    "key", ["k", '"', '"a" "b"', '""', "'k'", '"\\u0001"', '"' + "k" * 300 + '"']
)
def test_a_key_that_is_no_quoted_string_is_refused(new: New, key: str) -> None:
    gateway = new()
    answer = post(gateway, "keyed", {"n": 1}, key)
    assert (answer.status, answer.json()["code"]) == (400, "idempotency_key_malformed")
    assert stored(gateway, "keyed") == []


def test_a_key_may_be_demanded(new: New) -> None:
    gateway = new()
    answer = post(gateway, "strict", {"n": 1})
    assert (answer.status, answer.json()["code"]) == (400, "idempotency_key_required")
    assert post(gateway, "strict", {"n": 1}, '"k"').status == 202


def test_what_was_refused_leaves_its_key_free(new: New) -> None:
    gateway = new()
    assert post(gateway, "keyed", {"n": -1}, '"k"').status == 422
    assert post(gateway, "keyed", b'{"n":', '"k"').status == 400
    answer = post(gateway, "keyed", {"n": 1}, '"k"')
    assert answer.status == 202
    assert not replayed(answer)


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("application/x-ndjson", b'{"n":1}\n{"n":-1}\n{"n":3}\n'),
        ("application/x-ndjson", b'{"n":1}\n{"n":2}\n'),
    ],
)
def test_a_batch_with_a_key_is_one_request(new: New, media: str, body: bytes) -> None:
    gateway = new()
    first = post(gateway, "keyed", body, '"b"', media)
    again = post(gateway, "keyed", body, '"b"', media)
    assert (again.status, again.json()) == (first.status, first.json())
    assert replayed(again)
    assert len(stored(gateway, "keyed")) == first.json()["accepted"]


# -- by a member of the event --------------------------------------------------------------------


def test_an_event_is_known_by_the_member_that_the_type_names(new: New) -> None:
    gateway = new()
    first = post(gateway, "order", {"id": "a", "n": 1})
    again = post(gateway, "order", {"id": "a", "n": 2})
    assert (again.status, again.json()["id"]) == (202, first.json()["id"])
    assert replayed(again)
    for number in (1, 1.0, "1"):  # of these the first two are the same number
        assert post(gateway, "order", {"id": number}).status in (202, 422)
    assert post(gateway, "order", {"n": 5}).status == 202  # without an id it cannot be told
    assert post(gateway, "order", {"n": 5}).status == 202
    kept = stored(gateway, "order")
    assert kept[0] == {"id": "a", "n": 1}
    assert kept.count({"n": 5}) == 2
    assert kept.count({"id": "1"}) == 1


def test_an_event_without_its_key_is_refused_where_it_must_have_one(new: New) -> None:
    gateway = new()
    for event in ({}, {"id": None}, {"id": [1]}):
        answer = post(gateway, "named", event)
        assert answer.status == 422
        assert answer.json()["errors"][0]["pointer"] == "/id"
    assert post(gateway, "named", {"id": "x"}).status == 202
    assert replayed(post(gateway, "named", {"id": "x"}))


@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_repetition_within_a_batch_or_across_batches_is_stored_once(new: New, form: str) -> None:
    gateway = new()

    def send(ids: str) -> Answer:
        events = [{"id": letter} for letter in ids]
        if form == "lines":
            raw = b"".join(json.dumps(event).encode() + b"\n" for event in events)
            return post(gateway, "order", raw, media="application/x-ndjson")
        return gateway.post("/v1/batch/order", events)

    first = send("abca")
    assert first.status == 202
    ids = first.json()["ids"]
    assert ids[3] == ids[0]
    second = send("cdb")
    assert [second.json()["ids"][n] for n in (0, 2)] == [ids[2], ids[1]]
    assert [event["id"] for event in stored(gateway, "order")] == ["a", "b", "c", "d"]


# -- the window ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_came_is_known_after_a_restart(new: New, end: str) -> None:
    small = {"INGEST_SEGMENT_MAX_BYTES": "4096"}
    gateway = new(**small)
    ids = [post(gateway, "order", {"id": f"i{n}"}).json()["id"] for n in range(60)]
    keyed = post(gateway, "keyed", {"n": 7}, '"k"')
    batch = post(gateway, "keyed", b'{"n":1}\n{"n":-2}\n', '"b"', "application/x-ndjson")
    getattr(gateway, end)()
    gateway = new(**small)
    again = [post(gateway, "order", {"id": f"i{n}"}) for n in range(60)]
    assert [answer.json()["id"] for answer in again] == ids
    assert all(map(replayed, again))
    repeated = post(gateway, "keyed", {"n": 7}, '"k"')
    assert (replayed(repeated), repeated.json()) == (True, keyed.json())
    assert post(gateway, "keyed", {"n": 8}, '"k"').status == 422
    repeated = post(gateway, "keyed", b'{"n":1}\n{"n":-2}\n', '"b"', "application/x-ndjson")
    assert (replayed(repeated), repeated.status) == (True, batch.status)
    assert repeated.json()["accepted"] == batch.json()["accepted"]
    assert len(stored(gateway, "order")) == 60
    assert gateway.metric('ingest_dedupe_entries{type="order"}') == 60


def test_the_oldest_are_forgotten_when_there_are_too_many(new: New) -> None:
    gateway = new(INGEST_DEDUPE_ENTRIES_MAX="10")
    for n in range(25):
        post(gateway, "order", {"id": f"i{n}"})
    assert replayed(post(gateway, "order", {"id": "i24"}))
    assert not replayed(post(gateway, "order", {"id": "i0"}))
    assert gateway.metric('ingest_dedupe_entries{type="order"}') <= 10
    evicted = 'ingest_dedupe_evictions_total{reason="count",type="order"}'
    assert gateway.metric(evicted) >= 15


def test_a_key_is_forgotten_after_the_window_of_its_type(new: New) -> None:
    gateway = new()
    assert not replayed(post(gateway, "short", {"id": "a"}))
    until(lambda: not replayed(post(gateway, "short", {"id": "a"})))
    assert gateway.metric('ingest_dedupe_evictions_total{reason="age",type="short"}') >= 1


def test_several_workers_cannot_know_what_the_others_stored(new: New, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "other", "--workers", "2", cwd=tmp_path, env={"GATE": "x"})
    gateway.spawn()
    assert not gateway.listens()
    assert gateway.wait() == 2
    assert "x-ingest.dedupe" in gateway.log()
