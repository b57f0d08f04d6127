"""CloudEvents over HTTP: the three modes, what is refused, and what is read back."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from ingest.settings import Settings
from tests.support.gateway import ROOT, Answer, Gateway
from tests.support.waiting import until

PATH = "/v1/events"
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCHED = {"Content-Type": "application/cloudevents-batch+json"}
BINARY = {
    "Content-Type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "1",
    "ce-source": "/s",
    "ce-type": "counted",
}
SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": "number", "minimum": 0}, "s": {"type": "string"}},
    "x-ingest": {"on_reject": "keep", "max_event_bytes": 3000},
}
HANDLER = """
from ingest import Reject

def handle(event):
    if event.data["n"] == 13:
        raise Reject("unlucky", pointer="/n")
    if event.data["n"] == 14:
        raise RuntimeError("a fault of the handler")
    return {"n": event.data["n"], "s": f"{event.id} {event.type}"}
"""
GATED = """
import pathlib, time

def handle(event):
    while not pathlib.Path(event.data["s"]).exists():
        time.sleep(0.01)
"""
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def write_types(directory: Path) -> Path:
    (directory / "schemas").mkdir(parents=True)
    (directory / "handlers").mkdir()
    for name in ("counted", "handled", "gated"):
        (directory / "schemas" / f"{name}.json").write_text(json.dumps(SCHEMA))
    (directory / "schemas" / "any.json").write_text("{}")
    (directory / "handlers" / "handled.py").write_text(HANDLER)
    (directory / "handlers" / "gated.py").write_text(GATED)
    return directory


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Gateway]:
    directory = write_types(tmp_path / "deployment")
    running = Gateway(tmp_path / "data", cwd=directory, env={"PYTHONPATH": str(ROOT)}).start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """For tests that only look at answers and at how much is stored."""
    directory = write_types(tmp_path_factory.mktemp("shared") / "deployment")
    running = Gateway(directory / "data", cwd=directory, env={"PYTHONPATH": str(ROOT)}).start()
    assert structured(running, event()).status == 202
    yield running
    assert running.stop() == 0


def stored(gateway: Gateway) -> int:
    """How many events are stored."""
    (partition,) = gateway.request("GET", "/v1/journal").json()["partitions"]
    number: int = partition["next_offset"]
    return number


def event(**members: Any) -> dict[str, Any]:
    """An event in the JSON format; what is None is left out."""
    whole = {"specversion": "1.0", "id": "1", "source": "/s", "type": "counted", "data": {"n": 1}}
    return {name: value for name, value in {**whole, **members}.items() if value is not None}


def structured(gateway: Gateway, document: Any) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return gateway.request("POST", PATH, body, STRUCTURED)


def batched(gateway: Gateway, document: Any, query: str = "") -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return gateway.request("POST", PATH + query, body, BATCHED)


def rejected(gateway: Gateway) -> list[dict[str, Any]]:
    """What the rejected journal holds after a clean stop."""
    assert gateway.stop() == 0
    return [
        json.loads(line)
        for path in sorted((gateway.data / "rejected" / "0").iterdir())
        for line in path.read_bytes().splitlines()
    ]


# -- the three modes -------------------------------------------------------------------------


def test_binary_mode_keeps_the_attributes_and_the_bytes_of_the_data(served: Gateway) -> None:
    fields = {
        **BINARY,
        "Content-Type": "application/vnd.x+json; charset=utf-8",
        "Ce-Id": "caf%C3%A9 1",
        "CE-Time": "2020-02-29T23:59:59.5+01:00",
        "ce-subject": '"a%20b"',
        "ce-dataschema": "https://a.example/counted",
        "ce-traceparent": TRACE,
        "ce-myext": "5",
    }
    del fields["ce-id"]
    answer = served.request("POST", PATH, b'{"n": 1.50,\r\n"s":"x"}', fields)
    assert (answer.status, answer.json()) == (202, {"accepted": 1, "id": "café 1"})
    (record,) = served.journal()
    assert record == {
        "specversion": "1.0",
        "id": "café 1",
        "source": "/s",
        "type": "counted",
        "time": "2020-02-29T23:59:59.5+01:00",
        "ingestid": record["ingestid"],
        "ingesttime": record["ingesttime"],
        "subject": "a b",
        "datacontenttype": "application/vnd.x+json; charset=utf-8",
        "dataschema": "https://a.example/counted",
        "ingestschema": "/v1/schemas/counted?version=1",
        "traceparent": TRACE,
        "myext": "5",
        "data": {"n": 1.5, "s": "x"},
    }
    assert answer.headers["x-request-id"] == record["ingestid"]
    (segment,) = (served.data / "journal" / "0").glob("*.ndjson")
    assert b',"data":{"n": 1.50,  "s":"x"}' in segment.read_bytes()


def test_structured_mode_keeps_the_attributes_and_the_bytes_of_the_data(served: Gateway) -> None:
    body = (
        b'{ "data" : {"n":0.10000000000000000001} ,\n "id":"x\\"1", "type":"counted", "n":-5,'
        b'"flag":true, "unset":null, "source":"urn:a:b", "specversion":"1.0" }'
    )
    answer = served.request(
        "POST", PATH, body, {"Content-Type": "Application/CloudEvents+JSON; charset=UTF-8"}
    )
    assert (answer.status, answer.json()["id"]) == (202, 'x"1')
    (record,) = served.journal()
    assert (record["n"], record["flag"], record["source"]) == (-5, True, "urn:a:b")
    assert "unset" not in record and record["time"] == record["ingesttime"]
    (segment,) = (served.data / "journal" / "0").glob("*.ndjson")
    assert b',"data":{"n":0.10000000000000000001}' in segment.read_bytes()


def test_structured_mode_takes_json_in_base64(served: Gateway) -> None:
    encoded = base64.b64encode(b'{"n":\n2.0}').decode()
    assert structured(served, event(data=None, data_base64=encoded)).status == 202
    bad = base64.b64encode(b'{"n":').decode()
    answer = structured(served, event(data=None, data_base64=bad))
    assert (answer.status, answer.json()["code"]) == (400, "malformed_json")
    (record,) = served.journal()
    assert record["data"] == {"n": 2.0} and "data_base64" not in record


def test_data_may_be_any_json_that_its_schema_takes(served: Gateway) -> None:
    sent = [None, False, 0, "", "text", [], {}, {"data": 1}]
    for number, data in enumerate(sent):
        document = {**event(id=str(number), type="any"), "data": data}
        assert structured(served, document).status == 202
    assert [record["data"] for record in served.journal()] == sent


def test_batched_mode_takes_events_of_several_types(served: Gateway) -> None:
    document = [
        event(id="a", data={"n": 1}),
        event(id="b", type="any", data=[1]),
        event(id="c", type="handled", data={"n": 3}),
    ]
    answer = batched(served, document)
    assert (answer.status, answer.json()) == (
        202,
        {"accepted": 3, "rejected": 0, "ids": ["a", "b", "c"]},
    )
    records = served.journal()
    assert [(record["id"], record["type"]) for record in records] == [
        ("a", "counted"),
        ("b", "any"),
        ("c", "handled"),
    ]
    assert records[2]["data"] == {"n": 3, "s": "c handled"}
    ids = [record["ingestid"] for record in records]
    assert ids == sorted(set(ids))
    for name in ("counted", "any", "handled"):
        assert served.metric(f'ingest_events_accepted_total{{type="{name}"}}') == 1


def test_of_a_batch_the_good_are_stored_and_the_others_named(served: Gateway) -> None:
    document = [
        event(id="good"),
        event(id="wrong", data={"n": "x"}),
        event(id="nix", type="nix"),
        event(id=""),
        event(id="unlucky", type="handled", data={"n": 13}),
        event(id="large", data={"n": 1, "s": "x" * 3000}),
        event(id="coded", data=None, data_base64="e"),
        event(id="odd", data=None, data_base64="ew=="),
        5,
    ]
    answer = batched(served, document)
    told = answer.json()
    assert answer.status == 207
    assert (told["accepted"], told["rejected"], told["errors_total"]) == (1, 8, 8)
    assert told["ids"] == ["good", *[None] * 8]
    assert [(fault["index"], fault["pointer"], fault["keyword"]) for fault in told["errors"]] == [
        (1, "/data/n", "type"),
        (2, "/type", "unknown_type"),
        (3, "/id", "minLength"),
        (4, "/data/n", "handler"),
        (5, "/data", "max_event_bytes"),
        (6, "/data_base64", "contentEncoding"),
        (7, "/data", "json"),
        (8, "", "type"),
    ]
    assert [record["id"] for record in served.journal()] == ["good"]
    counted = 'ingest_events_rejected_total{reason="%s",type="%s"}'
    assert served.metric(counted % ("schema", "counted")) == 3
    assert served.metric(counted % ("too_large", "counted")) == 1
    assert served.metric(counted % ("malformed", "counted")) == 1
    assert served.metric(counted % ("handler", "handled")) == 1
    assert served.metric(counted % ("schema", "-")) == 2


def test_a_batch_may_be_atomic_and_without_ids(served: Gateway) -> None:
    answer = batched(served, [event(), event(data={})], "?atomic=true")
    assert (answer.status, answer.json()["accepted"]) == (422, 0)
    assert served.journal() == []
    assert batched(served, [event(), event()], "?atomic=true&ids=false").json() == {
        "accepted": 2,
        "rejected": 0,
    }
    answer = batched(served, [event(data={})])
    assert (answer.status, answer.json()["rejected"]) == (422, 1)
    assert batched(served, []).json() == {"accepted": 0, "rejected": 0, "ids": []}
    assert batched(served, [event()], "?atomic=1").status == 400
    # Also where they mean nothing, as for single events of a type.
    body = json.dumps(event()).encode()
    for fields in (STRUCTURED, BINARY):
        assert served.request("POST", f"{PATH}?ids=no", body, fields).status == 400


def test_many_events_of_a_batch_stay_in_order(served: Gateway) -> None:
    names = [f"e{number}" for number in range(2000)]
    document = [event(id=name, data={"n": number}) for number, name in enumerate(names)]
    assert batched(served, document).json()["ids"] == names
    assert [record["id"] for record in served.journal()] == names


def test_listed_faults_are_bounded_and_all_are_counted(served: Gateway) -> None:
    answer = batched(served, [*[event(data={"n": -1})] * 150, event(id=""), event()])
    told = answer.json()
    assert (answer.status, len(told["errors"]), told["errors_total"]) == (207, 100, 151)


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "body", "status", "code", "pointer"),
    [
        ({"ce-id": None}, b'{"n":1}', 422, "invalid_cloudevent", "/id"),
        ({"ce-source": None}, b'{"n":1}', 422, "invalid_cloudevent", "/source"),
        ({"ce-specversion": None}, b'{"n":1}', 422, "invalid_cloudevent", "/specversion"),
        ({"ce-type": None}, b'{"n":1}', 422, "invalid_cloudevent", "/type"),
        ({"ce-specversion": "0.3"}, b'{"n":1}', 422, "invalid_cloudevent", "/specversion"),
        ({"ce-id": ""}, b'{"n":1}', 422, "invalid_cloudevent", "/id"),
        ({"ce-id": "%C0%A0"}, b'{"n":1}', 422, "invalid_cloudevent", "/id"),
        ({"ce-id": "a%0Ab"}, b'{"n":1}', 422, "invalid_cloudevent", "/id"),
        ({"ce-source": "a%20b"}, b'{"n":1}', 422, "invalid_cloudevent", "/source"),
        ({"ce-time": "now"}, b'{"n":1}', 422, "invalid_cloudevent", "/time"),
        ({"ce-ingestid": "x"}, b'{"n":1}', 422, "invalid_cloudevent", "/ingestid"),
        ({"ce-rejectedby": "x"}, b'{"n":1}', 422, "invalid_cloudevent", "/rejectedby"),
        ({"ce-my-ext": "x"}, b'{"n":1}', 422, "invalid_cloudevent", "/my-ext"),
        ({"ce-datacontenttype": "a/json"}, b"1", 422, "invalid_cloudevent", "/datacontenttype"),
        ({"ce-type": "nix"}, b'{"n":1}', 404, "unknown_type", None),
        ({"Content-Type": None}, b'{"n":1}', 415, "unsupported_media_type", None),
        ({"Content-Type": "text/plain"}, b'{"n":1}', 415, "unsupported_media_type", None),
        ({}, b"", 400, "empty_body", None),
        ({}, b'{"n":', 400, "malformed_json", None),
        ({}, b'{"n":-1}', 422, "schema_violation", "/data/n"),
        ({}, b'{"n":1,"s":"%s"}' % (b"x" * 3000), 413, "event_too_large", None),
        ({"ce-type": "handled"}, b'{"n":13}', 422, "rejected", "/data/n"),
        ({"ce-type": "handled"}, b'{"n":14}', 500, "handler_error", None),
    ],
)
def test_what_is_wrong_in_binary_mode_is_answered_and_nothing_stored(
    shared: Gateway,
    fields: dict[str, str | None],
    body: bytes,
    status: int,
    code: str,
    pointer: str | None,
) -> None:
    merged = {name: value for name, value in {**BINARY, **fields}.items() if value is not None}
    before = stored(shared)
    with shared.connect() as client:
        answer = client.request("POST", PATH, body, merged)
        assert (answer.status, answer.json()["code"]) == (status, code)
        if pointer is not None:
            assert answer.json()["errors"][0]["pointer"] == pointer
        again = client.request("POST", PATH, b'{"n":0}', {**BINARY, "ce-id": "next"})
        assert again.status == 202, "the connection is kept"
    assert stored(shared) == before + 1


@pytest.mark.parametrize(
    ("document", "status", "code", "pointer"),
    [
        (event(id=5), 422, "invalid_cloudevent", "/id"),
        (event(source="a b"), 422, "invalid_cloudevent", "/source"),
        (event(type="nix"), 404, "unknown_type", None),
        (event(data=None), 422, "invalid_cloudevent", "/data"),
        (event(data_base64="eA=="), 422, "invalid_cloudevent", "/data_base64"),
        (event(datacontenttype="text/plain"), 422, "invalid_cloudevent", "/datacontenttype"),
        (event(ingestcommit="0 1 0 9 00000000"), 422, "invalid_cloudevent", "/ingestcommit"),
        (event(data={"n": "x"}), 422, "schema_violation", "/data/n"),
        (b"", 400, "empty_body", None),
        (b'{"id":', 400, "malformed_json", None),
        (b"[]", 422, "invalid_cloudevent", ""),
        (b'{"data":0,"id":"1","id":"2"}', 422, "invalid_cloudevent", "/specversion"),
        (
            b'{"specversion":"1.0","source":"/s","type":"any","data":1,"id":"1","id":"2"}',
            422,
            "invalid_cloudevent",
            "",
        ),
        (event(type="handled", data={"n": 14}), 500, "handler_error", None),
    ],
)
def test_what_is_wrong_in_structured_mode_is_answered_and_nothing_stored(
    shared: Gateway, document: Any, status: int, code: str, pointer: str | None
) -> None:
    before = stored(shared)
    answer = structured(shared, document)
    assert (answer.status, answer.json()["code"]) == (status, code)
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert structured(shared, event()).status == 202
    assert stored(shared) == before + 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"[", 400, "malformed_json"),
        (b"{}", 400, "not_a_batch"),
    ],
)
def test_a_batch_that_is_none_is_refused(
    shared: Gateway, body: bytes, status: int, code: str
) -> None:
    answer = batched(shared, body)
    assert (answer.status, answer.json()["code"]) == (status, code)


def test_a_handler_that_fails_for_one_event_of_a_batch_fails_the_batch(served: Gateway) -> None:
    document = [event(id="a"), event(id="b", type="handled", data={"n": 14})]
    answer = batched(served, document)
    assert (answer.status, answer.json()["code"], answer.json()["index"]) == (
        500,
        "handler_error",
        1,
    )
    assert served.journal() == []


def test_other_formats_and_methods_are_refused_with_what_is_taken(served: Gateway) -> None:
    for media in (
        "application/cloudevents",
        "application/cloudevents+xml",
        "application/cloudevents-batch",
        "application/cloudevents-batch+avro",
        "application/x-ndjson",
    ):
        answer = served.request("POST", PATH, b"{}", {"Content-Type": media})
        assert answer.status == 415
        assert "application/cloudevents-batch+json" in answer.headers["accept-post"]
    answer = served.request("GET", PATH)
    assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, POST")
    assert served.request("OPTIONS", PATH).status == 204
    with served.connect() as client:
        client.send(b"POST /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().status == 411


def test_a_batch_with_too_many_events_is_refused(
    new_gateway: type[Gateway], tmp_path: Path
) -> None:
    directory = write_types(tmp_path / "deployment")
    gateway = new_gateway(
        cwd=directory, env={"INGEST_BATCH_EVENTS_MAX": "3", "PYTHONPATH": str(ROOT)}
    )
    assert batched(gateway, [event()] * 3).status == 202
    assert batched(gateway, [event()] * 4).json()["code"] == "batch_too_large"


def test_refused_events_are_kept_with_their_attributes(served: Gateway) -> None:
    assert structured(served, event(id="s", myext="x", data={"n": -1})).status == 422
    assert structured(served, event(id="", data={"n": 1})).status == 422
    fields = {**BINARY, "ce-id": "b"}
    assert served.request("POST", PATH, b'{"n":\xff', fields).status == 400
    document = [event(id="h", type="handled", data={"n": 13}), event(id="nix", type="nix")]
    assert batched(served, document).status == 422
    assert structured(served, event(id="f", type="handled", data={"n": 14})).status == 500
    schema, invalid, malformed, unwanted, failed = rejected(served)
    assert (schema["id"], schema["source"], schema["myext"]) == ("s", "/s", "x")
    assert (schema["rejectedcode"], schema["rejectedpointer"]) == ("schema", "/data/n")
    assert (schema["data"], schema["ingestid"] > "01") == ({"n": -1}, True)
    assert (invalid["rejectedpointer"], invalid["type"]) == ("/id", "counted")
    assert (invalid["data"], "ingestid" in invalid) == ({"n": 1}, False)
    assert (malformed["id"], malformed["rejectedcode"]) == ("b", "malformed")
    assert base64.b64decode(malformed["data_base64"]) == b'{"n":\xff'
    assert (unwanted["id"], unwanted["type"]) == ("h", "handled")
    assert (unwanted["rejectedcode"], unwanted["rejectedreason"]) == ("handler", "unlucky")
    assert (failed["id"], failed["rejectedcode"]) == ("f", "handler_error")


# -- beside everything else ------------------------------------------------------------------


def test_handlers_are_given_the_producers_id_and_replace_the_data(served: Gateway) -> None:
    fields = {**BINARY, "ce-type": "handled", "ce-id": "a%20b"}
    answer = served.request("POST", PATH, b'{"n":1}', fields)
    assert (answer.status, answer.json()["id"]) == (202, "a b")
    (record,) = served.journal()
    assert record["data"] == {"n": 1, "s": "a b handled"}


@pytest.mark.parametrize("send", [structured, batched])
def test_handlers_that_wait_hold_nobody_up(
    served: Gateway, tmp_path: Path, send: Callable[[Gateway, Any], Answer]
) -> None:
    gate = tmp_path / "gate"
    many = 2 * int(Settings().pool_residents)
    document: Any = event(type="gated", data={"n": 1, "s": str(gate)})
    document = [document] if send is batched else document
    waiting = [gevent.spawn(send, served, document) for _ in range(many)]
    until(lambda: served.metric("ingest_pool_in_use") == many)
    assert structured(served, event()).status == 202
    assert served.post("/v1/events/counted", {"n": 1}).status == 202
    gate.touch()
    assert {greenlet.get(timeout=60).status for greenlet in waiting} == {202}


def test_bodies_may_be_coded(served: Gateway) -> None:
    coding = {"Content-Encoding": "deflate"}
    for media, document in ((STRUCTURED, event(id="s")), (BATCHED, [event(id="b")])):
        body = zlib.compress(json.dumps(document).encode())
        assert served.request("POST", PATH, body, {**media, **coding}).status == 202
    body = zlib.compress(b'{"n":1}')
    assert served.request("POST", PATH, body, {**BINARY, **coding}).status == 202
    for media in (STRUCTURED, BATCHED, BINARY):
        answer = served.request("POST", PATH, b"no", {**media, **coding})
        assert answer.json()["code"] == "malformed_encoding"
    assert [record["id"] for record in served.journal()] == ["s", "b", "1"]


def test_pipelined_events_are_answered_in_order(served: Gateway) -> None:
    with served.connect() as client:
        requests = []
        for number in range(50):
            if number % 2:
                body, media = json.dumps(event(id=str(number))).encode(), STRUCTURED
            else:
                body, media = b'{"n":1}', {**BINARY, "ce-id": str(number)}
            fields = "".join(f"{name}: {value}\r\n" for name, value in media.items())
            head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
            requests.append(head.encode() + body)
        client.send(b"".join(requests))
        assert [client.answer().json()["id"] for _ in requests] == [str(n) for n in range(50)]
    assert [record["id"] for record in served.journal()] == [str(n) for n in range(50)]


def test_the_lenient_decoder_stores_what_it_understood(
    new_gateway: type[Gateway], tmp_path: Path
) -> None:
    directory = write_types(tmp_path / "deployment")
    gateway = new_gateway(
        cwd=directory, env={"INGEST_JSON_DECODER": "ujson", "PYTHONPATH": str(ROOT)}
    )
    raw = (
        b'{"specversion":"1.0","id":"1","source":"/s","type":"counted","data":{"n":01,"s":"a\tb"}}'
    )
    assert structured(gateway, raw).status == 202
    assert batched(gateway, b"[%s]" % raw).status == 202
    assert gateway.request("POST", PATH, b'{"n":01}', BINARY).status == 202
    assert structured(gateway, raw.replace(b"01,", b'"x",')).status == 422
    assert [record["data"]["n"] for record in gateway.journal()] == [1, 1, 1]


def test_ids_of_ours_go_on_after_a_restart_whatever_the_producers_say(served: Gateway) -> None:
    late, early = "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"
    for event_id, time in (("zz", late), ("00", early), ("01936f0e", late)):
        assert structured(served, event(id=event_id, time=time)).status == 202
    assert served.post("/v1/events/counted", {"n": 5}).status == 202
    assert structured(served, event(id="last", time=early)).status == 202
    before = served.journal()
    served.kill()
    served.start()
    assert structured(served, event(id="after", time=early)).status == 202
    assert served.post("/v1/events/counted", {"n": 6}).status == 202
    records = served.journal()
    assert records[:5] == before
    ids = [record.get("ingestid", record["id"]) for record in records]
    times = [record.get("ingesttime", record["time"]) for record in records]
    assert (ids, times) == (sorted(set(ids)), sorted(times))
    assert [record["id"] for record in records if "ingestid" in record] == [
        "zz", "00", "01936f0e", "last", "after",
    ]  # fmt: skip


def test_what_was_sent_is_read_back_over_http_and_by_time_of_arrival(served: Gateway) -> None:
    early = "0001-01-01T00:00:00Z"
    assert structured(served, event(id="old", time=early)).status == 202
    answer = served.request("GET", "/v1/journal/0")
    (record,) = [json.loads(line) for line in answer.body.splitlines()]
    assert (record["id"], record["time"]) == ("old", early)
    listed = served.request("GET", "/v1/journal").json()["partitions"][0]["segments"][0]
    assert listed["first_time"] == record["ingesttime"]
    assert served.journal("--since", record["ingesttime"]) == served.journal() != []
    until(lambda: served.metric("ingest_journal_records_total") == 1)
