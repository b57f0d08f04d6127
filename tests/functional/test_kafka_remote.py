"""`ack: remote`: a 2xx says that Kafka has the event. Against librdkafka's pretended brokers."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import ROOT, Gateway
from tests.support.mock_kafka import MockBrokers, consume
from tests.support.waiting import until

NDJSON = {"Content-Type": "application/x-ndjson"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
REMOTE = {"sink": "kafka", "ack": "remote"}
TYPES: dict[str, dict[str, Any]] = {
    "plain": REMOTE,
    "keyed": {"sink": {"kafka": {"key": "/user", "mode": "structured"}}, "ack": "remote"},
    "both": {"sink": ["journal", "kafka"], "ack": "remote"},
    "local": {},
    "kept": {**REMOTE, "on_reject": "keep"},
}


def deployment(directory: Path, types: dict[str, dict[str, Any]]) -> Path:
    (directory / "schemas").mkdir(parents=True)
    for name, options in types.items():
        schema = {"required": ["n"], "properties": {"n": {"type": "number"}}, "x-ingest": options}
        (directory / "schemas" / f"{name}.json").write_text(json.dumps(schema))
    return directory


@pytest.fixture(scope="module")
def brokers() -> Iterator[MockBrokers]:
    with MockBrokers() as running:
        yield running


Start = Callable[..., Gateway]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start gateways; what they said when they end has no fault of ours."""
    made: list[Gateway] = []

    def begin(brokers: MockBrokers, *flags: str, types: Any = TYPES) -> Gateway:
        directory = deployment(tmp_path / "deployment", types)
        gateway = Gateway(
            tmp_path / "data", "--kafka-brokers", brokers.addresses, *flags, cwd=directory
        )
        made.append(gateway)
        return gateway.start()

    yield begin
    for gateway in made:
        gateway.stop()
        assert "Traceback" not in gateway.log()


def test_every_form_of_request_is_answered_when_kafka_has_its_events(
    brokers: MockBrokers, start: Start
) -> None:
    gateway = start(brokers, "--kafka-topic", "forms.{type}")
    single = gateway.post("/v1/events/plain", b'{"n": 1.50,\n "s": "a"}')
    lines = gateway.request("POST", "/v1/events/plain", b'{"n":2}\n{"n":3}\n', NDJSON)
    array = gateway.post("/v1/batch/plain", [{"n": 4}, {"n": 5}])
    event = {"specversion": "1.0", "id": 'a"b', "source": "/shop", "type": "plain"}
    ours = gateway.request(
        "POST", "/v1/events", json.dumps({**event, "data": {"n": 6}}).encode(), STRUCTURED
    )
    binary = {f"ce-{name}": value for name, value in {**event, "id": "c d"}.items()}
    theirs = gateway.post("/v1/events", {"n": 7}, **binary)
    assert [a.status for a in (single, lines, array, ours, theirs)] == [202] * 5

    found = {
        message.json()["n"]: message for message in consume(brokers.addresses, "forms.plain", 7)
    }
    assert sorted(found) == [1.5, 2, 3, 4, 5, 6, 7]
    assert found[1.5].value == b'{"n": 1.50,  "s": "a"}'
    assert found[1.5].id == single.json()["id"]
    assert [found[n].id for n in (2, 3)] == lines.json()["ids"]
    assert [found[n].id for n in (4, 5)] == array.json()["ids"]
    assert (found[6].id, found[7].id) == ('a"b', "c d")
    assert found[6].headers["ce_source"] == b"/shop"
    assert found[2].headers["content-type"] == b"application/json"
    assert gateway.metric('ingest_kafka_delivered_total{producer="remote"}') == 7
    assert gateway.metric('ingest_kafka_inflight_bytes{producer="remote"}') == 0
    assert gateway.metric('ingest_events_accepted_total{type="plain"}') == 7
    assert gateway.stop() == 0
    assert gateway.journal() == []


def test_many_at_once_are_each_answered_and_keep_the_order_of_their_connection(
    brokers: MockBrokers, start: Start
) -> None:
    gateway = start(brokers, "--kafka-topic", "many.{type}")
    body = b'{"n":%d,"user":"u%d"}'
    count, ids = 500, []
    with gateway.connect() as client:
        requests = []
        for n in range(count):
            data = body % (n, n % 7)
            requests.append(
                b"POST /v1/events/keyed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
            )
        client.send(b"".join(requests))
        for _ in range(count):
            answer = client.answer()
            assert answer.status == 202
            ids.append(answer.json()["id"])
    found = consume(brokers.addresses, "many.keyed", count)
    events = [json.loads(message.value) for message in found]
    assert sorted(event["id"] for event in events) == sorted(ids)
    for key in {message.key for message in found}:
        of_key = [e for m, e in zip(found, events, strict=True) if m.key == key]
        assert [e["data"]["n"] for e in of_key] == sorted(e["data"]["n"] for e in of_key)
        assert {e["data"]["user"].encode() for e in of_key} == {key}


def test_what_a_handler_made_of_an_event_is_sent_and_codings_are_taken_off(
    brokers: MockBrokers, start: Start, tmp_path: Path
) -> None:
    handlers = tmp_path / "deployment" / "handlers"
    handlers.mkdir(parents=True)
    (handlers / "plain.py").write_text(
        "def handle(event):\n    return {'n': event.data['n'] + 1}\n"
    )
    gateway = start(brokers, "--kafka-topic", "handled.{type}")
    assert gateway.post("/v1/events/plain", {"n": 1}).status == 202
    lines = gzip.compress(b'{"n":2}\n{"n":3}\n')
    coded = {**NDJSON, "Content-Encoding": "gzip"}
    assert gateway.request("POST", "/v1/events/plain", lines, coded).status == 202
    found = consume(brokers.addresses, "handled.plain", 3)
    assert sorted(message.json()["n"] for message in found) == [2, 3, 4]


def test_each_worker_sends_and_their_figures_are_added_up(
    brokers: MockBrokers, start: Start
) -> None:
    gateway = start(brokers, "--kafka-topic", "workers.{type}", "--workers", "2")
    ids = {gateway.post("/v1/events/plain", {"n": n}).json()["id"] for n in range(40)}
    assert {message.id for message in consume(brokers.addresses, "workers.plain", 40)} == ids
    assert gateway.metric('ingest_kafka_delivered_total{producer="remote"}') == 40
    assert gateway.request("GET", "/readyz").status == 200


def test_a_type_with_both_sinks_is_in_both(brokers: MockBrokers, start: Start) -> None:
    gateway = start(brokers, "--kafka-topic", "fan.{type}")
    lines = b"".join(b'{"n":%d}\n' % n for n in range(1000))
    ids = gateway.request("POST", "/v1/events/both", lines, NDJSON).json()["ids"]
    ids.append(gateway.post("/v1/events/both", {"n": 1000}).json()["id"])
    assert {message.id for message in consume(brokers.addresses, "fan.both", 1001)} == set(ids)
    assert gateway.stop() == 0
    assert [event["id"] for event in gateway.journal()] == ids


def test_cloudevents_of_one_batch_go_each_where_its_type_says(
    brokers: MockBrokers, start: Start
) -> None:
    gateway = start(brokers, "--kafka-topic", "mixed.{type}")
    batch = [
        {"specversion": "1.0", "id": f"{name}-{n}", "source": "/s", "type": name, "data": {"n": n}}
        for n, name in enumerate(["plain", "local", "both", "plain", "local"])
    ]
    batch[3]["data"] = {"n": "no number"}
    answer = gateway.request("POST", "/v1/events", json.dumps(batch).encode(), BATCH)
    assert answer.status == 207
    assert answer.json()["ids"] == ["plain-0", "local-1", "both-2", None, "local-4"]
    assert [m.id for m in consume(brokers.addresses, "mixed.plain", 1)] == ["plain-0"]
    assert [m.id for m in consume(brokers.addresses, "mixed.both", 1)] == ["both-2"]
    refused = gateway.request(
        "POST", "/v1/events?atomic=true", json.dumps(batch[:2]).encode(), BATCH
    )
    assert (refused.status, refused.json()["code"]) == (400, "bad_parameter")
    assert gateway.stop() == 0
    assert [event["id"] for event in gateway.journal()] == ["local-1", "both-2", "local-4"]


def test_an_event_that_kafka_finds_too_large_is_413_and_the_rest_of_its_batch_is_stored(
    brokers: MockBrokers, start: Start
) -> None:
    gateway = start(brokers, "--kafka-topic", "large.{type}", "--kafka", "message.max.bytes=2000")
    large = b'{"n":1,"s":"%b"}' % (b"x" * 3000)
    answer = gateway.post("/v1/events/plain", large)
    assert (answer.status, answer.json()["code"]) == (413, "message_too_large")
    assert "retry-after" not in answer.headers
    answer = gateway.request("POST", "/v1/events/plain", large + b"\n" + large, NDJSON)
    assert answer.status == 413
    answer = gateway.request("POST", "/v1/events/plain", b'{"n":1}\n%b\n{"n":2}' % large, NDJSON)
    assert answer.status == 207
    document = answer.json()
    assert (document["accepted"], document["rejected"], document["errors_total"]) == (2, 1, 1)
    assert document["ids"][1] is None
    (error,) = document["errors"]
    assert (error["index"], error["keyword"]) == (1, "message_too_large")
    found = {message.id for message in consume(brokers.addresses, "large.plain", 2)}
    assert found == {document["ids"][0], document["ids"][2]}
    assert gateway.metric('ingest_events_accepted_total{type="plain"}') == 2
    labels = '{code="MSG_SIZE_TOO_LARGE",producer="remote"}'
    assert gateway.metric(f"ingest_kafka_errors_total{labels}") == 4


def test_refused_events_go_to_the_topic_that_is_named_for_them(
    brokers: MockBrokers, start: Start
) -> None:
    gateway = start(brokers, "--kafka-rejected-topic", "rejected.{type}")
    assert gateway.post("/v1/events/kept", {"n": "x"}).status == 422
    assert gateway.post("/v1/events/kept", b'{"n":').status == 400
    found = {
        m.headers["ce_rejectedcode"]: m for m in consume(brokers.addresses, "rejected.kept", 2)
    }
    assert found[b"schema"].value == b'{"n": "x"}'
    assert found[b"schema"].headers["ce_rejectedpointer"] == b"/n"
    assert found[b"malformed"].value == b'{"n":'
    assert found[b"malformed"].headers["content-type"] == b"application/octet-stream"
    kept = 'ingest_rejected_kept_total{code="%s",type="kept"}'
    until(lambda: gateway.metric(kept % "schema") + gateway.metric(kept % "malformed") == 2)
    assert not (gateway.data / "rejected").exists()


def test_while_brokers_hang_what_waits_is_bounded_and_the_rest_is_told_to_retry(
    start: Start,
) -> None:
    with MockBrokers() as brokers:
        gateway = start(
            brokers, "--kafka-inflight-max", "4KiB", "--kafka-unready-after", "200ms",
            "--queue-delay-max", "0",
        )  # fmt: skip
        assert gateway.post("/v1/events/plain", {"n": 0}).status == 202
        assert gateway.request("GET", "/readyz").status == 200
        brokers.hold()
        clients = [gateway.connect() for _ in range(30)]
        for n, client in enumerate(clients):
            client.send(
                b"POST /v1/events/plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b'Content-Length: 8\r\n\r\n{"n":%02d}' % (10 + n)
            )
        remote = '{producer="remote"}'

        def decided() -> float:
            refused = gateway.metric('ingest_errors_total{code="overloaded"}')
            waiting = gateway.metric(f"ingest_kafka_inflight_messages{remote}")
            return refused + waiting + gateway.metric(f"ingest_kafka_delivered_total{remote}")

        until(lambda: decided() == 31)
        assert gateway.metric('ingest_kafka_inflight_bytes{producer="remote"}') <= 4096
        until(lambda: gateway.request("GET", "/readyz").status == 503)
        assert b"nothing was delivered" in gateway.request("GET", "/readyz?verbose").body
        assert gateway.post("/v1/events/local", {"n": 1}).status == 202
        brokers.go_on()
        answers = [client.answer() for client in clients]
        stored = {answer.json()["id"] for answer in answers if answer.status == 202}
        refused = [answer for answer in answers if answer.status == 503]
        assert len(stored) + len(refused) == 30
        assert (
            stored
            and refused
            and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        )
        assert {answer.json()["code"] for answer in refused} == {"overloaded"}
        until(lambda: gateway.request("GET", "/readyz").status == 200)
        found = {m.id for m in consume(brokers.addresses, "events.plain", len(stored) + 1)}
        assert stored < found and len(found) == len(stored) + 1
        for client in clients:
            client.sock.close()


def test_brokers_that_are_gone_for_too_long_are_503_and_turn_readyz_red(start: Start) -> None:
    with MockBrokers() as brokers:
        gateway = start(
            brokers, "--kafka-delivery-timeout", "1s", "--kafka-unready-after", "100ms",
            types={"plain": REMOTE},
        )  # fmt: skip
        brokers.kill()
        answer = gateway.post("/v1/events/plain", {"n": 1})
        assert (answer.status, answer.json()["code"]) == (503, "sink_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert "whether it is stored is not known" in answer.json()["detail"]
        answer = gateway.request("POST", "/v1/events/plain", b'{"n":1}\n{"n":2}\n', NDJSON)
        assert (answer.status, answer.json()["code"]) == (503, "sink_unavailable")
        until(lambda: gateway.request("GET", "/readyz").status == 503)
        assert gateway.metric("ingest_kafka_delivered_total") == 0
        assert gateway.metric('ingest_kafka_troubles_total{code="_TRANSPORT"}') > 0
        assert gateway.stop() == 0


def test_what_is_in_flight_at_sigterm_is_delivered_and_answered(start: Start) -> None:
    with MockBrokers() as brokers:
        gateway = start(brokers, types={"plain": REMOTE})
        assert gateway.post("/v1/events/plain", {"n": 0}).status == 202
        brokers.hold()
        with gateway.connect() as client:
            client.send(
                b"POST /v1/events/plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b'Content-Length: 7\r\n\r\n{"n":1}'
            )
            until(lambda: gateway.metric('ingest_kafka_inflight_messages{producer="remote"}') == 1)
            gateway.send_signal(15)
            until(lambda: "service.draining" in gateway.log())
            brokers.go_on()
            assert client.answer().status == 202
        assert gateway.wait() == 0
        assert len(consume(brokers.addresses, "events.plain", 2)) == 2


def test_refused_events_on_their_way_at_sigterm_are_delivered(start: Start) -> None:
    with MockBrokers() as brokers:
        gateway = start(
            brokers, "--kafka-rejected-topic", "rejected", types={"kept": TYPES["kept"]}
        )
        assert gateway.post("/v1/events/kept", {"n": 0}).status == 202
        assert gateway.post("/v1/events/kept", {"n": "first"}).status == 422
        assert len(consume(brokers.addresses, "rejected", 1)) == 1
        brokers.hold()
        assert gateway.post("/v1/events/kept", {"n": "second"}).status == 422
        gateway.send_signal(15)
        until(lambda: "service.draining" in gateway.log())
        brokers.go_on()
        assert gateway.wait() == 0
        assert len(consume(brokers.addresses, "rejected", 2)) == 2


@pytest.mark.parametrize(
    ("flags", "types", "words"),
    [
        (("--kafka", "linger.msec=5"), TYPES, 'No such configuration property: "linger.msec"'),
        (("--kafka", "acks=1"), TYPES, "kafka must not set acks"),
        ((), {"a": {"ack": "remote"}}, "ack remote needs the sink kafka"),
        (
            (),
            {"a": {**REMOTE, "dedupe": "cloudevents"}},
            "does not go with ack remote",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_check_and_at_start_in_the_same_words(
    tmp_path: Path, flags: tuple[str, ...], types: dict[str, Any], words: str
) -> None:
    directory = deployment(tmp_path / "deployment", types)
    ingest = [sys.executable, "-m", "ingest"]
    flags = ("--kafka-brokers", "127.0.0.1:1", *flags)
    for command in ("check", "serve"):
        done = subprocess.run(
            [*ingest, command, "--data", str(tmp_path / "data"), *flags],
            cwd=directory,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        assert words in (done.stdout + done.stderr).replace('\\"', '"')
        assert "Traceback" not in done.stderr
