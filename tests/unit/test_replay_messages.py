"""What is sent of a record."""

from __future__ import annotations

import json

import pytest

from ingest.journal.replay_messages import Unsendable, message_of

OURS = (
    b'{"specversion":"1.0","id":"0190-1","source":"/ingest","type":"order",'
    b'"time":"2026-01-01T00:00:00.000Z","datacontenttype":"application/json",'
    b'"dataschema":"/v1/schemas/order?version=1"%s,"data":{"n":1.10,"data":2}}'
)
THEIRS = (
    b'{"specversion":"1.0","id":"A \\"1\\" \\u00e9","source":"/shop","type":"order",'
    b'"time":"2020-01-01T00:00:00Z","ingestid":"0190-2","ingesttime":"2026-01-01T00:00:00.000Z",'
    b'"subject":"cart","datacontenttype":"application/json","dataschema":"%s"%s,"level":3,'
    b'"ingestkey":"e 00","data":{"n":1.10}}'
)


def test_data_are_the_bytes_that_were_sent_and_the_key_is_our_id() -> None:
    message = message_of(OURS % b"", None, None)
    assert message == ("order", "0190-1", "application/json", b'{"n":1.10,"data":2}')
    message = message_of(THEIRS % (b"/v1/schemas/order", b""), False, "other")
    assert message == ("other", "0190-2", "application/json", b'{"n":1.10}')


def test_what_came_as_an_event_goes_as_one_without_our_attributes() -> None:
    message = message_of(THEIRS % (b"/v1/schemas/order", b""), None, "other")
    assert message.is_event and message.key == "0190-2"
    assert message.body.endswith(b'"data":{"n":1.10}}')
    assert json.loads(message.body) == {
        "specversion": "1.0",
        "id": 'A "1" é',
        "source": "/shop",
        "type": "other",
        "time": "2020-01-01T00:00:00Z",
        "subject": "cart",
        "datacontenttype": "application/json",
        "level": 3,
        "data": {"n": 1.1},
    }


def test_a_dataschema_goes_along_if_it_is_the_producers() -> None:
    own = b',"ingestschema":"/v1/schemas/order?version=1"'
    event = json.loads(message_of(THEIRS % (b"https://example.com/s", own), None, None).body)
    assert event["dataschema"] == "https://example.com/s" and "ingestschema" not in event
    event = json.loads(message_of(OURS % b"", True, None).body)
    assert "dataschema" not in event and event["id"] == "0190-1"


def test_a_rejected_record_goes_as_it_came() -> None:
    why = b',"rejectedcode":"schema","rejectedreason":"\\",\\"data\\":","rejectedcount":2'
    assert message_of(OURS % why, None, None).body == b'{"n":1.10,"data":2}'
    assert not any(
        name.startswith("rej") for name in json.loads(message_of(OURS % why, True, None).body)
    )
    coded = (OURS % why).replace(b'"data":{"n":1.10,"data":2}', b'"data_base64":"eyJuIjoxLH0="')
    assert message_of(coded, None, None).body == b'{"n":1,}'
    assert json.loads(message_of(coded, True, None).body)["data_base64"] == "eyJuIjoxLH0="


@pytest.mark.parametrize("line", [b"", b"{}", b'{"specversion":"1.0","id":"x"}'])
def test_there_is_nothing_to_send_of_what_is_no_record(line: bytes) -> None:
    with pytest.raises(Unsendable):
        message_of(line, None, None)


def test_the_beginning_of_an_event_is_not_sent() -> None:
    with pytest.raises(Unsendable, match="only the beginning of its 70,000 bytes"):
        message_of(OURS % b',"rejectedsize":70000', None, None)
