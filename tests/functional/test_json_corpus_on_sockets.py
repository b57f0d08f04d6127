"""The corpus of JSON documents against the whole server, over a real socket."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.json.corpus import ACCEPT, LIMITS, REJECT, Case
from tests.protocol.json.test_json_corpus import LISTS, same
from tests.support.gateway import Client, Gateway

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}

#: What can stand on one line of NDJSON, and is not passed over as an empty one.
ACCEPTED_LINES = [case for case in ACCEPT if b"\n" not in case.raw]
REFUSED_LINES = [c for c in [*REJECT, *LIMITS] if b"\n" not in c.raw and c.raw.strip(b" \t\r")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = Path(tmp_path_factory.mktemp("json"))
    (directory / "schemas").mkdir()
    (directory / "schemas" / "any.json").write_text("{}")
    (directory / "handlers").mkdir()
    running = Gateway(directory / "data", cwd=directory).start()
    yield running
    assert running.stop() == 0
    assert "Traceback" not in running.log()


@pytest.fixture(scope="module")
def client(server: Gateway) -> Iterator[Client]:
    """One connection for all: a fault in a document leaves it open."""
    with server.connect() as connected:
        yield connected


def ids(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", ACCEPT, ids=ids)
def test_what_the_grammar_allows_is_accepted(client: Client, case: Case) -> None:
    answer = client.request("POST", "/v1/events/any", case.raw, JSON)
    assert (answer.status, answer.json()["accepted"]) == (202, 1), case.why


@pytest.mark.parametrize("case", [*REJECT, *LIMITS], ids=ids)
def test_everything_else_is_refused_with_a_place(client: Client, case: Case) -> None:
    answer = client.request("POST", "/v1/events/any", case.raw, JSON)
    assert answer.status == 400, case.why
    problem = answer.json()
    if case.raw:
        assert problem["code"] == "malformed_json"
        assert problem["line"] >= 1 and problem["column"] >= 1
        assert problem["excerpt"].isprintable()
    else:
        assert problem["code"] == "empty_body"


@pytest.mark.parametrize("case", [c for c in [*REJECT, *LIMITS] if c.raw not in LISTS], ids=ids)
def test_an_array_that_holds_it_is_refused_whole(client: Client, case: Case) -> None:
    answer = client.request("POST", "/v1/batch/any", b"[1,%s]" % case.raw, JSON)
    assert (answer.status, answer.json()["code"]) == (400, "malformed_json"), case.why


def test_as_lines_the_good_ones_get_in_and_the_others_are_named(client: Client) -> None:
    cases = [case for pair in zip(ACCEPTED_LINES, REFUSED_LINES, strict=False) for case in pair]
    body = b"\n".join(case.raw for case in cases)
    answer = client.request("POST", "/v1/events/any", body, NDJSON)
    assert answer.status == 207
    outcome = answer.json()
    assert [bool(event_id) for event_id in outcome["ids"]] == [True, False] * (len(cases) // 2)
    assert outcome["errors_total"] == len(cases) // 2
    assert {fault["keyword"] for fault in outcome["errors"]} == {"json"}
    assert [fault["index"] for fault in outcome["errors"]] == [*range(1, len(cases), 2)][:100]


def test_what_is_stored_is_what_was_sent(server: Gateway, client: Client) -> None:
    before = len(server.journal())
    cases = [case for case in ACCEPT if not case.name.startswith("depth")]
    body = b"[%s]" % b",".join(case.raw for case in cases)
    assert client.request("POST", "/v1/batch/any", body, JSON).status == 202
    stored = [record["data"] for record in server.journal()[before:]]
    assert all(map(same, stored, [json.loads(case.raw) for case in cases]))
    assert len(stored) == len(cases) >= 100


def test_nothing_of_it_was_a_server_error(server: Gateway, client: Client) -> None:
    text = client.request("GET", "/metrics").body.decode()
    statuses = [line for line in text.splitlines() if line.startswith("ingest_requests_total{")]
    assert statuses and not [line for line in statuses if 'status="5' in line]
