"""POST one event: what is answered and what is stored, over a real socket."""

import re
from pathlib import Path

import pytest

from tests.support.events import METRICS, metric
from tests.support.gateway import Gateway

UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_a_valid_event_is_answered_202_with_its_id_and_stored_as_sent(gateway: Gateway) -> None:
    body = b'{"metrics": [{"name":"x","value":0.10000000000000000000001,"type":"gauge"}]}'
    answer = gateway.post("/v1/events/metrics", body)
    assert answer.status == 202
    assert answer.headers["content-type"] == "application/json"
    accepted = answer.json()
    assert UUID7.fullmatch(accepted["id"])
    assert accepted == {"accepted": 1, "id": accepted["id"]}
    (record,) = gateway.journal()
    assert record["id"] == accepted["id"]
    assert record["type"] == "metrics"
    assert record["specversion"] == "1.0"
    assert record["source"] == "/ingest"
    assert record["dataschema"].startswith("/v1/schemas/metrics")
    assert "ingestcommit" not in record
    segment = next((gateway.data / "journal" / "0").glob("*.ndjson")).read_bytes()
    assert body in segment


def test_the_shipped_alias_takes_the_reference_clients_url(gateway: Gateway) -> None:
    answer = gateway.post("/metrics", METRICS)
    assert answer.status == 202
    assert [r["data"] for r in gateway.journal()] == [METRICS]


def test_get_on_the_same_path_still_shows_the_services_metrics(gateway: Gateway) -> None:
    gateway.post("/metrics", METRICS)
    answer = gateway.request("GET", "/metrics")
    assert answer.status == 200
    assert b'ingest_events_accepted_total{type="metrics"} 1.0' in answer.body


def test_line_breaks_within_a_document_do_not_break_the_journals_lines(gateway: Gateway) -> None:
    body = b'{\r\n  "metrics": [\r\n {"name":"a\\nb","value":1,"type":"gauge"}\n ]\n}\n'
    assert gateway.post("/v1/events/metrics", body).status == 202
    (record,) = gateway.journal()
    assert record["data"]["metrics"][0]["name"] == "a\nb"


def test_a_request_id_is_taken_over_and_one_is_made_where_none_or_a_bad_one_came(
    gateway: Gateway,
) -> None:
    taken = gateway.post("/v1/events/metrics", METRICS, **{"X-Request-Id": "abc-1"})
    assert taken.headers["x-request-id"] == "abc-1"
    made = gateway.post("/v1/events/metrics", METRICS)
    assert made.headers["x-request-id"] == made.json()["id"]
    bad = gateway.post("/v1/events/metrics", METRICS, **{"X-Request-Id": "x" * 200})
    assert bad.headers["x-request-id"] == bad.json()["id"]


def test_a_valid_traceparent_is_stored_and_an_invalid_one_is_ignored(gateway: Gateway) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    gateway.post("/v1/events/metrics", METRICS, traceparent=parent)
    gateway.post("/v1/events/metrics", METRICS, traceparent="ff" + parent[2:])
    first, second = gateway.journal()
    assert first["traceparent"] == parent
    assert "traceparent" not in second


@pytest.mark.parametrize(
    ("body", "line", "column"),
    [(b'{"metrics": [}', 1, 14), (b"[-01]", 1, 3), (b'{"metrics":[],}', 1, 15)],
)
def test_malformed_json_is_400_with_its_place(
    gateway: Gateway, body: bytes, line: int, column: int
) -> None:
    answer = gateway.post("/v1/events/metrics", body)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "malformed_json"
    assert problem["line"] == line
    assert problem["excerpt"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert gateway.journal() == []


def test_a_schema_violation_is_422_with_a_pointer_to_each_fault(gateway: Gateway) -> None:
    answer = gateway.post(
        "/v1/events/metrics",
        {"metrics": [{"name": "", "value": "1", "type": "gauge"}, {"name": "a", "value": 1}]},
    )
    assert answer.status == 422
    faults = {(f["pointer"], f["keyword"]) for f in answer.json()["errors"]}
    assert ("/metrics/0/name", "minLength") in faults
    assert ("/metrics/0/value", "type") in faults
    assert ("/metrics/1", "required") in faults
    assert gateway.journal() == []


def test_the_connection_is_kept_after_a_fault_in_the_payload(gateway: Gateway) -> None:
    json = {"Content-Type": "application/json"}
    with gateway.connect() as client:
        assert client.request("POST", "/v1/events/metrics", b"{", json).status == 400
        assert client.request("POST", "/v1/events/metrics", b"{}", json).status == 422
        assert client.request("POST", "/v1/events/nope", b"{}", json).status == 404
        assert client.request("PUT", "/v1/events/metrics", b"{}", json).status == 405
        good = b'{"metrics":[{"name":"a","value":1,"type":"gauge"}]}'
        assert client.request("POST", "/v1/events/metrics", good, json).status == 202


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/v1/events/nope", {}, b"{}", 404, "unknown_type"),
        ("POST", "/v1/elsewhere", {}, b"{}", 404, "not_found"),
        ("GET", "/v1/events/metrics", {}, None, 405, "method_not_allowed"),
        ("DELETE", "/metrics", {}, None, 405, "method_not_allowed"),
        ("POST", "/v1/events/metrics", {"Content-Type": "text/plain"}, b"{}", 415,
         "unsupported_media_type"),
        ("POST", "/v1/events/metrics", {"Content-Type": ""}, b"{}", 415, "unsupported_media_type"),
        ("POST", "/v1/events/metrics", {"Content-Encoding": "br"}, b"{}", 415,
         "unsupported_encoding"),
        ("POST", "/v1/events/metrics", {}, b"", 400, "empty_body"),
        ("POST", "/v1/events/metrics", {}, None, 411, "length_required"),
        ("POST", "/v1/events/metrics?atomic=perhaps", {}, b"{}", 400, "bad_parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_taken_is_named(
    gateway: Gateway,
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes | None,
    status: int,
    code: str,
) -> None:
    answer = gateway.request(method, path, body, {"Content-Type": "application/json", **headers})
    assert (answer.status, answer.json()["code"]) == (status, code)
    if status == 405:
        assert "POST" in answer.headers["allow"]
    if code == "unsupported_media_type":
        assert "application/json" in answer.headers["accept-post"]
    assert gateway.journal() == []


def test_head_has_the_fields_of_get_and_no_body(gateway: Gateway) -> None:
    with gateway.connect() as client:
        got = client.request("GET", "/livez")
        head = client.request("HEAD", "/livez")
        assert head.status == 200
        assert head.headers["content-length"] == got.headers["content-length"]
        assert client.request("GET", "/livez").body == b"ok\n"


def test_options_names_the_methods(gateway: Gateway) -> None:
    answer = gateway.request("OPTIONS", "/v1/events/metrics")
    assert answer.status == 204
    assert answer.headers["allow"] == "OPTIONS, POST"
    assert "content-length" not in answer.headers


def test_an_unsynced_acknowledgement_is_a_setting(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--ack", "write")
    assert gateway.post("/v1/events/metrics", metric()).status == 202
    assert len(gateway.journal()) == 1


def test_schemas_can_be_read_and_revalidated(gateway: Gateway) -> None:
    listed = {t["type"]: t for t in gateway.request("GET", "/v1/schemas").json()["types"]}
    assert listed["metrics"]["routes"] == ["POST /metrics"]
    answer = gateway.request("GET", listed["metrics"]["dataschema"])
    assert answer.status == 200
    assert answer.json()["properties"]["metrics"]
    again = gateway.request(
        "GET", listed["metrics"]["dataschema"], headers={"If-None-Match": answer.headers["etag"]}
    )
    assert again.status == 304
    assert gateway.request("GET", "/v1/schemas/nope").status == 404


def test_a_payload_that_holds_a_member_named_like_the_commit_mark_survives_a_restart(
    new_gateway,
) -> None:  # type: ignore[no-untyped-def]
    event = {"url": "https://example.com/", "at": "2026-11-23T10:15:00Z", "ingestcommit": "x"}
    gateway = new_gateway()
    assert gateway.post("/v1/events/page_view", event).status == 202
    assert gateway.stop() == 0
    assert [record["data"] for record in gateway.journal()] == [event]
    again = new_gateway(data=gateway.data)
    assert again.post("/v1/events/page_view", event).status == 202
    assert [record["data"] for record in again.journal()] == [event] * 2


def test_a_stored_event_says_where_its_schema_is_to_be_had(
    new_gateway,  # type: ignore[no-untyped-def]
) -> None:
    gateway = new_gateway("--schemas-url", "https://ingest.example.com/a")
    gateway.post("/v1/events/metrics", metric())
    found = gateway.journal()[0]["dataschema"]
    assert found == "https://ingest.example.com/a/v1/schemas/metrics?version=1"
    listed = {t["type"]: t for t in gateway.request("GET", "/v1/schemas").json()["types"]}
    assert listed["metrics"]["dataschema"] == found
    schema = gateway.request("GET", found.removeprefix("https://ingest.example.com/a"))
    assert schema.json()["properties"]["metrics"]


def test_the_schema_of_an_old_event_is_there_as_long_as_its_file_is(
    new_gateway,  # type: ignore[no-untyped-def]
    tmp_path: Path,
) -> None:
    folder = tmp_path / "schemas" / "thing"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text('{"type": "object", "title": "first"}')
    folders = ("--schemas", str(tmp_path / "schemas"), "--handlers", str(tmp_path / "none"))
    gateway = new_gateway(*folders)
    assert gateway.post("/v1/events/thing", {}).status == 202
    gateway.stop()
    (folder / "2.json").write_text('{"type": "object", "title": "second"}')
    gateway.start()
    assert gateway.post("/v1/events/thing", {}).status == 202
    old, new = (record["dataschema"] for record in gateway.journal())
    answers = [gateway.request("GET", where) for where in (old, new, "/v1/schemas/thing")]
    assert [answer.json()["title"] for answer in answers] == ["first", "second", "second"]
    assert len({answer.headers["etag"] for answer in answers}) == 2
    (listed,) = gateway.request("GET", "/v1/schemas").json()["types"]
    assert listed["versions"] == ["1", "2"]
