"""Many events in one request: NDJSON and arrays, partial and atomic."""

import json

from tests.support.events import metric
from tests.support.gateway import Gateway

NDJSON = {"Content-Type": "application/x-ndjson"}
JSON = {"Content-Type": "application/json"}
BAD = {"metrics": []}


def lines(*documents: object) -> bytes:
    return b"".join(json.dumps(d).encode() + b"\n" for d in documents)


def test_ndjson_stores_one_event_a_line_and_lists_the_ids(gateway: Gateway) -> None:
    body = lines(metric(1), metric(2)) + b"\r\n  \n" + json.dumps(metric(3)).encode()
    answer = gateway.request("POST", "/v1/events/metrics", body, NDJSON)
    assert answer.status == 202
    result = answer.json()
    assert (result["accepted"], result["rejected"]) == (3, 0)
    stored = gateway.journal()
    assert [r["id"] for r in stored] == result["ids"]
    assert [r["data"]["metrics"][0]["value"] for r in stored] == [1, 2, 3]
    assert result["ids"] == sorted(result["ids"])


def test_an_array_stores_one_event_an_element_with_its_own_bytes(gateway: Gateway) -> None:
    body = b'[{"metrics":[{"name":"a]","value":1.00000000000000000001,"type":"gauge"}]} ,\n%s]'
    answer = gateway.request("POST", "/v1/batch/metrics", body % lines(metric(2)), JSON)
    assert answer.status == 202
    assert len(gateway.journal()) == 2
    segment = next((gateway.data / "journal" / "0").glob("*.ndjson")).read_bytes()
    assert b"1.00000000000000000001" in segment


def test_a_part_that_is_at_fault_is_207_with_index_and_pointer(gateway: Gateway) -> None:
    body = lines(metric(1)) + b"{oops\n" + lines(BAD, metric(4))
    answer = gateway.request("POST", "/v1/events/metrics", body, NDJSON)
    assert answer.status == 207
    result = answer.json()
    assert (result["accepted"], result["rejected"], result["errors_total"]) == (2, 2, 2)
    assert [(e["index"], e["pointer"], e["keyword"]) for e in result["errors"]] == [
        (1, "", "json"),
        (2, "/metrics", "minItems"),
    ]
    assert result["ids"][1:3] == [None, None]
    assert [r["id"] for r in gateway.journal()] == [result["ids"][0], result["ids"][3]]


def test_none_that_gets_in_is_422(gateway: Gateway) -> None:
    answer = gateway.request("POST", "/v1/batch/metrics", json.dumps([BAD, BAD]).encode(), JSON)
    assert answer.status == 422
    problem = answer.json()
    assert problem["accepted"] == 0
    assert {e["index"] for e in problem["errors"]} == {0, 1}
    assert gateway.journal() == []


def test_atomic_is_all_or_nothing(gateway: Gateway) -> None:
    mixed = json.dumps([metric(1), BAD]).encode()
    assert gateway.request("POST", "/v1/batch/metrics?atomic=true", mixed, JSON).status == 422
    assert gateway.journal() == []
    good = json.dumps([metric(1), metric(2)]).encode()
    assert gateway.request("POST", "/v1/batch/metrics?atomic=true", good, JSON).status == 202
    for query in ("atomic=", "atomic=1", "atomic", "ids=TRUE", "atomic=true&atomic=false"):
        refused = gateway.request("POST", f"/v1/batch/metrics?{query}", good, JSON)
        assert (refused.status, refused.json()["code"]) == (400, "bad_parameter")
    assert len(gateway.journal()) == 2


def test_an_empty_array_is_accepted_and_stores_nothing(gateway: Gateway) -> None:
    answer = gateway.request("POST", "/v1/batch/metrics", b"[]", JSON)
    assert answer.status == 202
    assert answer.json() == {"accepted": 0, "rejected": 0, "ids": []}
    assert gateway.journal() == []


def test_what_is_no_array_is_400(gateway: Gateway) -> None:
    answer = gateway.request("POST", "/v1/batch/metrics", b"{}", JSON)
    assert (answer.status, answer.json()["code"]) == (400, "not_a_batch")


def test_the_list_of_faults_is_cut_but_counted(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway(env={"INGEST_ERRORS_MAX": "3"})
    body = json.dumps([metric(1)] + [BAD] * 10).encode()
    result = gateway.request("POST", "/v1/batch/metrics?ids=false", body, JSON).json()
    assert len(result["errors"]) == 3
    assert result["errors_total"] == 10
    assert "ids" not in result


def test_too_many_events_in_a_request_are_413(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway(env={"INGEST_BATCH_EVENTS_MAX": "5"})
    body = json.dumps([metric(1)] * 6).encode()
    answer = gateway.request("POST", "/v1/batch/metrics", body, JSON)
    assert (answer.status, answer.json()["code"]) == (413, "batch_too_large")
    assert gateway.journal() == []


def test_a_large_batch_is_one_commit_and_does_not_stop_the_others(gateway: Gateway) -> None:
    body = lines(*[metric(n) for n in range(20_000)])
    with gateway.connect() as slow, gateway.connect() as quick:
        slow.send(
            b"POST /v1/events/metrics?ids=false HTTP/1.1\r\nHost: t\r\n"
            b"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert quick.request("GET", "/livez").status == 200
        assert slow.answer().json()["accepted"] == 20_000
    stored = gateway.journal()
    assert [r["data"]["metrics"][0]["value"] for r in stored] == list(range(20_000))
