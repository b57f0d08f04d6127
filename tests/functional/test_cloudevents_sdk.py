"""The CloudEvents project's own SDK as producer, and as reader of what is stored."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.support.events import METRICS
from tests.support.gateway import Answer, Gateway

FORMAT = JSONFormat()


def made(event_id: str, **more: Any) -> CloudEvent:
    attributes = {
        "specversion": "1.0",
        "id": event_id,
        "source": "https://a.example/b%C3%BCro?x=1",
        "type": "metrics",
        "time": datetime(2026, 11, 23, 10, 15, 0, 123456, tzinfo=timezone.utc),
        "datacontenttype": "application/json",
        "subject": 'café 100% "quoted" ☕',
        "myext": "ünïcode & more",
        **more,
    }
    return CloudEvent(attributes, METRICS)


def send(gateway: Gateway, message: HTTPMessage) -> Answer:
    return gateway.request("POST", "/v1/events", message.body, dict(message.headers))


@pytest.mark.parametrize("encode", [to_binary, to_structured])
def test_an_event_that_the_sdk_sends_is_what_it_reads_back(gateway: Gateway, encode: Any) -> None:
    sent = made("ünï 1%")
    answer = send(gateway, encode(sent, FORMAT))
    assert (answer.status, answer.json()) == (202, {"accepted": 1, "id": "ünï 1%"})
    (record,) = gateway.journal()
    stored = FORMAT.read(CloudEvent, json.dumps(record).encode())
    for name, value in sent.get_attributes().items():
        assert stored.get_attributes()[name] == value, name
    assert stored.get_data() == METRICS


def test_a_batch_that_the_sdk_sends_is_stored(gateway: Gateway) -> None:
    events = [made(str(number), number=number) for number in range(10)]
    body = b"[%s]" % b",".join(FORMAT.write(one) for one in events)
    media = {"content-type": "application/cloudevents-batch+json"}
    answer = send(gateway, HTTPMessage(media, body))
    assert (answer.status, answer.json()["accepted"]) == (202, 10)
    records = gateway.journal()
    assert [(record["id"], record["number"]) for record in records] == [
        (str(number), number) for number in range(10)
    ]


def test_every_record_of_the_journal_is_a_cloudevent_to_the_sdk(gateway: Gateway) -> None:
    assert gateway.post("/v1/events/metrics", METRICS).status == 202
    assert send(gateway, to_binary(made("1"), FORMAT)).status == 202
    answer = gateway.request("GET", "/v1/journal/0")
    for line in answer.body.splitlines():
        event = FORMAT.read(CloudEvent, line)
        assert (event.get_type(), event.get_data()) == ("metrics", METRICS)
