"""Requests that wait at the same time are worked on together, and answered each for itself."""

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.gateway import Answer, Gateway

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0}, "pad": {}},
    "required": ["n"],
    "x-ingest": {"max_event_bytes": 2000},
}
PATH = "/v1/events/thing"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def things(tmp_path: Path, new_gateway) -> Gateway:  # type: ignore[no-untyped-def]
    """A gateway with a type `thing`, small events and little room for arrays in arrays."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "thing.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "schemas" / "other.json").write_text(json.dumps({"type": "object"}))
    return new_gateway(
        "--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/none",
        env={"INGEST_JSON_DEPTH_MAX": "20"},
    )  # fmt: skip


def at_once(gateway: Gateway, posts: list[tuple[str, bytes]]) -> list[Answer]:
    """Answers to posts that all lie there when the gateway looks."""
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.connect()) for _ in posts]
        for client, (path, body) in zip(clients, posts, strict=True):
            # The head is known from now on, on this connection as well.
            client.request("POST", path, body, JSON)
        gateway.send_signal(signal.SIGSTOP)
        try:
            for client, (path, body) in zip(clients, posts, strict=True):
                head = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
                client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        finally:
            gateway.send_signal(signal.SIGCONT)
        answers = [client.answer() for client in clients]
    assert gateway.metric('ingest_unhandled_errors_total{where="pool"}') == 0
    return answers


def stored(gateway: Gateway, answers: list[Answer]) -> list[object]:
    """The data under the ids of answers."""
    by_id = {record["id"]: record["data"] for record in gateway.journal()}
    return [by_id[answer.json()["id"]] for answer in answers]


def test_each_of_a_run_is_stored_under_the_id_of_its_own_answer(things: Gateway) -> None:
    bodies = [b'{"n":%d}' % n for n in range(100)]
    runs = things.metric("ingest_pool_runs_total")
    answers = at_once(things, [(PATH, body) for body in bodies])
    assert {answer.status for answer in answers} == {202}
    assert stored(things, answers) == [json.loads(body) for body in bodies]
    assert things.metric("ingest_pool_runs_total") - runs < 150, "they were not worked on together"
    assert things.metric('ingest_events_accepted_total{type="thing"}') == 200
    assert things.metric('ingest_requests_total{status="202",type="thing"}') == 200
    assert things.metric("ingest_request_bytes_total") == 2 * sum(map(len, bodies))
    assert things.metric("ingest_pool_in_use") == 0


@pytest.mark.parametrize("place", [0, 20, 39])
@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (b'{"n":-1}', 422),
        (b'{"n":1,}', 400),
        (b'{"n":1,"pad":' + b"[" * 20 + b"]" * 20 + b"}", 400),
        (b'{"n":1,"pad":"' + b"x" * 2000 + b'"}', 413),
        (b'{"n":1}\xff', 400),
    ],
)
def test_one_that_is_wrong_is_refused_alone(
    things: Gateway, place: int, wrong: bytes, status: int
) -> None:
    bodies = [b'{"n":%d}' % n for n in range(40)]
    bodies[place] = wrong
    answers = at_once(things, [(PATH, body) for body in bodies])
    refused = answers.pop(place)
    bodies.pop(place)
    assert refused.status == status
    assert {answer.status for answer in answers} == {202}
    assert stored(things, answers) == [json.loads(body) for body in bodies]
    assert things.metric("ingest_pool_in_use") == 0


def test_a_run_of_nothing_but_wrong_ones_is_refused(things: Gateway) -> None:
    answers = at_once(things, [(PATH, b'{"n":%d}' % -n) for n in range(1, 30)])
    assert {answer.status for answer in answers} == {422}
    assert [answer.json()["errors"][0]["pointer"] for answer in answers] == ["/n"] * 29
    assert things.journal() == []
    assert things.metric('ingest_events_rejected_total{reason="schema",type="thing"}') == 58


def test_types_and_line_ends_and_long_ones_may_be_mixed(things: Gateway) -> None:
    posts = []
    for n in range(0, 60, 4):
        posts += [
            (PATH, b'{"n":%d}' % n),
            (PATH, b'{\r\n  "n": %d\n}' % (n + 1)),
            ("/v1/events/other", b'{"n":%d,"pad":"%b"}' % (n + 2, b"y" * 9000)),
            ("/v1/events/other", b'{"n":%d}' % (n + 3)),
        ]
    answers = at_once(things, posts)
    assert {answer.status for answer in answers} == {202}
    assert [data["n"] for data in stored(things, answers)] == list(range(60))  # type: ignore[index]


def test_pipelined_requests_of_one_connection_make_a_run_as_well(things: Gateway) -> None:
    head = "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    head += "Content-Length: %d\r\n\r\n"
    bodies = [b'{"n":%d}' % (n - 3 if n % 7 else -1) for n in range(50)]
    with things.connect() as client:
        client.send(b"".join((head % (PATH, len(b))).encode() + b for b in bodies))
        answers = [client.answer() for _ in bodies]
    good = [json.loads(body)["n"] >= 0 for body in bodies]
    assert [answer.status for answer in answers] == [202 if fine else 422 for fine in good]
    kept = [(a, b) for a, b, fine in zip(answers, bodies, good, strict=True) if fine]
    assert stored(things, [a for a, _ in kept]) == [json.loads(b) for _, b in kept]
