"""From the line of an event to its message: the CloudEvents Kafka protocol binding."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.cloudevents import escaped
from ingest.journal.record import LINE_START, middle, time_text
from ingest.sinks.kafka_messages import STRUCTURED_HEADERS, Messages, headers_of, parted

ID = b"01a208e9-db98-705e-98ba-26b901e42000"


def line_of(data: bytes = b'{"n":1}', event_id: bytes = ID, ms: int = 1000, **more: str) -> bytes:
    between = middle("/ingest", "order", time_text(ms), "/v1/schemas/order?version=1", **more)
    return LINE_START + event_id + between + data + b"}"


def test_a_binary_message_has_the_data_as_value_and_the_attributes_as_headers() -> None:
    key, value, headers = Messages("binary", None).message(line_of())
    assert key is None
    assert value == b'{"n":1}'
    assert sorted(headers) == [
        ("ce_dataschema", b"/v1/schemas/order?version=1"),
        ("ce_id", ID),
        ("ce_source", b"/ingest"),
        ("ce_specversion", b"1.0"),
        ("ce_time", b"1970-01-01T00:00:01.000Z"),
        ("ce_type", b"order"),
        ("content-type", b"application/json"),
    ]


def test_headers_follow_the_time_the_trace_and_the_producer_of_each_line() -> None:
    message = Messages("binary", None).message
    for _ in range(2):
        for ms in (1000, 2000):
            headers = dict(message(line_of(ms=ms))[2])
            assert headers["ce_time"] == time_text(ms).encode()
            assert "ce_traceparent" not in headers
            headers = dict(message(line_of(ms=ms, traceparent="00-a-b-01", producer="shop"))[2])
            assert headers["ce_traceparent"] == b"00-a-b-01"
            assert headers["ce_ingestproducer"] == b"shop"


def test_a_structured_message_is_the_line_itself() -> None:
    message = Messages("structured", "/n").message(line_of())
    assert message == (b"1", line_of(), STRUCTURED_HEADERS)
    assert json.loads(message[1])["data"] == {"n": 1}


@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b'{"user":{"id":"a/b"}}', b"a/b"),
        ('{"user":{"id":"\N{SNOWMAN}"}}'.encode(), "\N{SNOWMAN}".encode()),
        (b'{"user":{"id":17}}', b"17"),
        (b'{"user":{"id":[1,2]}}', b"[1,2]"),
        (b'{"user":{"id":true}}', b"true"),
        (b'{"user":{"id":null}}', None),
        (b'{"user":{}}', None),
        (b"[1]", None),
    ],
)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_a_key_is_what_stands_at_its_pointer(mode: str, data: bytes, key: bytes | None) -> None:
    assert Messages(mode, "/user/id").message(line_of(data))[0] == key


def sent_by_a_producer(event_id: str, subject: str | None) -> bytes:
    attributes = {"source": "/shop", "type": "order", "time": "2026-01-01T00:00:00Z"}
    attributes |= {"ingestid": ID.decode(), "ingesttime": "2026-01-01T00:00:00.000Z"}
    if subject is not None:
        attributes["subject"] = subject
    lead = json.dumps(attributes | {"retries": 3, "urgent": True}, ensure_ascii=False)[1:-1]
    return LINE_START + escaped(event_id) + b'",' + lead.encode() + b',"data":{"n":1}}'


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_subject_is_the_key_where_that_is_asked_for(mode: str) -> None:
    message = Messages(mode, "subject").message
    assert message(sent_by_a_producer("a", "user-7"))[0] == b"user-7"
    assert message(sent_by_a_producer("a", None))[0] is None
    assert message(line_of())[0] is None


@example([("a" * 34 + '"', None), ("b" * 34 + "\\", None)])  # as long as ours, escaped
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
            | st.text('a",\\', min_size=28, max_size=40),
            st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_ids_producers_choose_come_as_they_are(
    events: list[tuple[str, str | None]],
) -> None:
    message = Messages("binary", "subject").message
    for event_id, subject in events:
        message(line_of())
        key, value, pairs = message(sent_by_a_producer(event_id, subject))
        headers = dict(pairs)
        assert headers["ce_id"].decode() == event_id
        assert headers["ce_ingestid"] == ID
        assert (headers["ce_retries"], headers["ce_urgent"]) == (b"3", b"true")
        assert value == b'{"n":1}'
        assert key == (None if subject is None else subject.encode())


def test_the_quick_way_and_the_general_one_agree() -> None:
    messages = Messages("binary", None)
    for line in (line_of(), line_of(b'{"a":"\\",\\"data\\":1"}'), line_of(producer="x")):
        quick, general = messages.message(line), messages.any_message(line)
        assert quick[:2] == general[:2]
        assert sorted(quick[2]) == sorted(general[2])


def test_bytes_that_are_no_json_come_as_they_were_sent() -> None:
    raw = b'\xff,"data":{'
    line = line_of()[: line_of().index(b',"data":')]
    line += b',"data_base64":"' + base64.b64encode(raw) + b'"}'
    key, value, headers = Messages("binary", "/n").any_message(line)
    assert (key, value) == (None, raw)
    assert dict(headers)["content-type"] == b"application/octet-stream"


def test_parts_are_told_apart_whatever_the_data_says() -> None:
    attributes, data = parted(line_of(b'"x\\",\\"data_base64\\":\\"y"'))
    assert attributes["type"] == "order"
    assert json.loads(data) == 'x","data_base64":"y'
    assert headers_of({"id": "1", "nothing": None}) == [("ce_id", b"1")]
