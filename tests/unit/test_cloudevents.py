"""CloudEvents as they are sent: the attributes' rules, the fields' text, the record's line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.cloudevents import (
    EXTENSION_MAX_CHARS,
    EXTENSIONS_MAX,
    ID_MAX_CHARS,
    URI_MAX_CHARS,
    CloudEvent,
    Invalid,
    data_of,
    escaped,
    field_text,
    from_fields,
    from_members,
    is_json_media,
    lead_of,
    refusal,
    salvaged_data,
)
from ingest.codec import split_members
from ingest.journal.record import LINE_END, LINE_START, head_of
from ingest.journal.record import data_of as record_data_of

GOOD: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": 1}
FIELDS = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
OUR_ID = b"01936f0e-0000-7000-8000-000000000000"
OUR_TIME = "2026-11-23T01:02:03.456Z"
SCHEMA = "/v1/schemas/t?version=1"


def faults(read: Any, value: Any) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as caught:
        read(value)
    return [(fault.pointer, fault.keyword) for fault in caught.value.faults]


# -- attributes ------------------------------------------------------------------------------


def test_all_attributes_come_out_as_they_were_sent() -> None:
    event = from_members({
        **GOOD,
        "time": "2026-11-23T01:02:03+01:00",
        "subject": "café ☕",
        "datacontenttype": "application/vnd.x+json; charset=utf-8",
        "dataschema": "https://a.example/s#1",
        "text": "",
        "number": -(1 << 31),
        "flag": False,
    })  # fmt: skip
    assert event == CloudEvent(
        "1",
        "/s",
        "t",
        "2026-11-23T01:02:03+01:00",
        "café ☕",
        "application/vnd.x+json; charset=utf-8",
        "https://a.example/s#1",
        {"text": "", "number": -(1 << 31), "flag": False},
    )


def test_null_counts_as_absent() -> None:
    event = from_members({**GOOD, "time": None, "subject": None, "ext": None, "data_base64": None})
    assert (event.time, event.subject, event.extensions) == (None, None, {})
    assert faults(from_members, {**GOOD, "id": None}) == [("/id", "required")]


@pytest.mark.parametrize(
    ("name", "value", "keyword"),
    [
        ("specversion", "0.3", "const"),
        ("specversion", "1.0.2", "const"),
        ("specversion", 1.0, "type"),
        ("id", "", "minLength"),
        ("id", 5, "type"),
        ("id", "x" * (ID_MAX_CHARS + 1), "maxLength"),
        ("id", "a\nb", "pattern"),
        ("id", "a\x7fb", "pattern"),
        ("id", "a\ufffeb", "pattern"),
        ("id", "a\U0010ffffb", "pattern"),
        ("id", "a\ud800b", "pattern"),
        ("source", "", "minLength"),
        ("source", "a b", "format"),
        ("source", "a\\b", "format"),
        ("source", "/caf\u00e9", "format"),
        ("source", "1a:b", "format"),
        ("source", "/a#b#c", "format"),
        ("source", "/" + "a" * URI_MAX_CHARS, "maxLength"),
        ("type", "", "minLength"),
        ("type", ["t"], "type"),
        ("time", "yesterday", "format"),
        ("time", "2026-11-23", "format"),
        ("time", "2026-11-23T01:02:03", "format"),
        ("time", "2026-11-23 01:02:03Z", "format"),
        ("time", "2026-02-29T01:02:03Z", "format"),
        ("time", "2026-11-23T24:00:00Z", "format"),
        ("time", "2026-11-23T01:02:03.Z", "format"),
        ("time", "2026-11-23T01:02:03+25:00", "format"),
        ("time", "\u0662026-11-23T01:02:03Z", "format"),
        ("time", 1_700_000_000, "type"),
        ("subject", "", "minLength"),
        ("subject", {}, "type"),
        ("dataschema", "/relative", "format"),
        ("dataschema", "http://a b", "format"),
        ("datacontenttype", "text/plain", "contentMediaType"),
        ("datacontenttype", "application/jsonx", "contentMediaType"),
        ("datacontenttype", "json", "contentMediaType"),
        ("Upper", "x", "propertyNames"),
        ("under_score", "x", "propertyNames"),
        ("a" * 21, "x", "propertyNames"),
        ("", "x", "propertyNames"),
        ("ingestid", "x", "propertyNames"),
        ("ingest", "x", "propertyNames"),
        ("rejectedcode", "x", "propertyNames"),
        ("ext", 1.5, "type"),
        ("ext", 1 << 31, "type"),
        ("ext", [], "type"),
        ("ext", {}, "type"),
        ("ext", "x" * (EXTENSION_MAX_CHARS + 1), "maxLength"),
        ("ext", "\x00", "pattern"),
    ],
)
def test_an_attribute_that_breaks_a_rule_is_named(name: str, value: Any, keyword: str) -> None:
    assert faults(from_members, {**GOOD, name: value}) == [(f"/{name}", keyword)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "x" * ID_MAX_CHARS),
        ("id", '"\\ü\U0001f600'),
        ("source", "urn:uuid:01936f0e"),
        ("source", "mailto:a@b.example"),
        ("source", "../x?y#z"),
        ("source", "a"),
        ("source", "http://[::1]/%20"),
        ("time", "2024-02-29T23:59:60.123456789z"),
        ("time", "1985-04-12t23:20:50.52Z"),
        ("time", "2026-11-23T01:02:03-23:59"),
        ("dataschema", "urn:x"),
        ("datacontenttype", "text/JSON"),
        ("a" * 20, "x"),
        ("1", "x"),
        ("ext", (1 << 31) - 1),
        ("ext", True),
    ],
)
def test_an_attribute_within_the_rules_is_taken(name: str, value: Any) -> None:
    from_members({**GOOD, name: value})


def test_all_faults_come_at_once_and_the_answer_lists_some() -> None:
    with pytest.raises(Invalid) as caught:
        from_members({"id": "", "source": " ", "time": "now", "data": 1, "data_base64": ""})
    error = refusal(caught.value, 2)
    assert (error.code, error.status) == ("invalid_cloudevent", 422)
    pointers = [fault.pointer for fault in caught.value.faults]
    assert pointers == ["/data_base64", "/specversion", "/type", "/id", "/source", "/time"]
    assert (len(error.extensions["errors"]), error.extensions["errors_total"]) == (2, 6)


def test_the_number_of_extensions_is_bounded() -> None:
    most = {f"e{n}": "x" for n in range(EXTENSIONS_MAX)}
    assert len(from_members({**GOOD, **most}).extensions) == EXTENSIONS_MAX
    many = {f"E{n}": "x" for n in range(10_000)}
    found = faults(from_members, {**GOOD, **many})
    assert found[-1] == ("", "maxProperties")
    assert len(found) == EXTENSIONS_MAX + 1


def test_a_long_name_is_cut_and_escaped_in_the_pointer() -> None:
    ((pointer, _),) = faults(from_members, {**GOOD, "a/b~" + "c" * 1000: "x"})
    assert pointer == "/a~1b~0" + "c" * 60


@pytest.mark.parametrize("value", [[], "x", 1, None, True])
def test_only_an_object_is_an_event(value: Any) -> None:
    assert faults(from_members, value) == [("", "type")]


# -- binary mode -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("a%20b", "a b"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%25", "%"),
        ("%2541", "%41"),
        ("caf\u00c3\u00a9", "café"),  # UTF-8 as it is, in latin-1 as fields are read
        ('"quoted%20\\"text\\""', 'quoted "text"'),
        ('"', '"'),
        ("", ""),
    ],
)
def test_a_field_is_unquoted_and_percent_decoded_once(value: str, text: str) -> None:
    assert field_text(value) == text


@pytest.mark.parametrize(
    "value", ["%", "%2", "100%", "%zz", "%C0%A0", "%ff", "\u00e9", "%ED%A0%80"]
)
def test_a_field_that_is_no_encoded_text_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"UTF-8|hex"):
        field_text(value)
    assert faults(from_fields, {**FIELDS, "ce-id": value}) == [("/id", "percent-encoding")]


def test_fields_become_attributes_and_the_content_type_that_of_the_data() -> None:
    event = from_fields({
        **FIELDS,
        "content-type": "application/json",
        "ce-myext": "5",
        "x-other": "z",
        "traceparent": "of the request",
    })  # fmt: skip
    assert event.extensions == {"myext": "5"}
    assert (event.content_type, event.id) == ("application/json", "1")


@pytest.mark.parametrize(
    ("field", "keyword"),
    [
        ("ce-datacontenttype", "name"),
        ("ce-data", "name"),
        ("ce-data_base64", "name"),
        ("ce-my-ext", "propertyNames"),
        ("ce-", "propertyNames"),
        ("ce-ingestid", "propertyNames"),
    ],
)
def test_fields_that_no_attribute_may_have_are_refused(field: str, keyword: str) -> None:
    assert faults(from_fields, {**FIELDS, field: "x"}) == [(f"/{field[3:]}", keyword)]


def test_missing_fields_are_all_named() -> None:
    assert faults(from_fields, {}) == [
        (f"/{name}", "required") for name in ("specversion", "id", "source", "type")
    ]


@pytest.mark.parametrize(
    ("media", "json_"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/vnd.a.b+json", True),
        ("text/json", True),
        ("application/json5", False),
        ("application/x-ndjson", False),
        ("text/plain", False),
        ("+json", False),
        ("", False),
    ],
)
def test_media_types_of_json_are_told(media: str, json_: bool) -> None:
    assert is_json_media(media) is json_


# -- the data --------------------------------------------------------------------------------

MEMBERS = [
    (b'{"a":1}', [("a", b"1")]),
    (b"{}", []),
    (b" { } ", []),
    (b'{ "a" : 1.50 ,\n"b":[1, {"data":2}] , "c" : "}, \\"data\\":" }\r\n',
     [("a", b"1.50"), ("b", b'[1, {"data":2}]'), ("c", b'"}, \\"data\\":"')]),
    (b'{"d\\u0061ta":1e400,"data":null}', [("data", b"1e400"), ("data", b"null")]),
    ('{"é":"€","":{}}'.encode(), [("é", '"€"'.encode()), ("", b"{}")]),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "members"), MEMBERS)
def test_an_object_is_cut_into_its_members(raw: bytes, members: list[tuple[str, bytes]]) -> None:
    assert split_members(raw) == members


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_members_of_any_object_are_its_values(
    value: dict[str, Any], indent: int | None, ascii_: bool
) -> None:
    raw = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode()
    assert {name: json.loads(part) for name, part in split_members(raw)} == value


def data_from(raw: bytes) -> bytes:
    value = json.loads(raw)
    from_members({**GOOD, **value} if "data" in value else {**GOOD_WITHOUT_DATA, **value})
    return data_of(raw, value)


GOOD_WITHOUT_DATA = {name: value for name, value in GOOD.items() if name != "data"}


def test_data_is_cut_out_as_it_was_sent() -> None:
    assert data_from(b'{"data": {"n" : 1.50000000000000000001} , "id":"2"}') == (
        b'{"n" : 1.50000000000000000001}'
    )
    assert data_from(b'{"data":null}') == b"null"
    assert data_from(b'{"data_base64":"eyJuIjoxfQ=="}') == b'{"n":1}'
    assert data_from(b'{"data_base64":"","id":"3"}') == b""


def test_data_is_encoded_anew_where_the_event_is_not_kept_as_sent() -> None:
    assert data_of(b"", {"data": {"n": [1, "/"]}}) == b'{"n":[1,"/"]}'


def test_data_that_cannot_be_told_is_a_fault() -> None:
    assert faults(from_members, GOOD_WITHOUT_DATA) == [("/data", "required")]
    assert faults(from_members, {**GOOD, "data_base64": "eA=="}) == [("/data_base64", "not")]
    assert faults(from_members, {**GOOD_WITHOUT_DATA, "data_base64": 5}) == [
        ("/data_base64", "type")
    ]
    for text in ("e", "e===", "eyJ\\u00e9", "e y=", "eyJ-_w=="):
        assert faults(data_from, b'{"data_base64":"%s"}' % text.encode()) == [
            ("/data_base64", "contentEncoding")
        ]
    assert faults(data_from, b'{"data":1,"id":"2","data":2}') == [("", "uniqueNames")]
    assert faults(data_from, b'{"id":"1","data":1,"\\u0069d":"2"}') == [("", "uniqueNames")]


def test_what_is_kept_of_a_refused_event_is_its_data() -> None:
    for raw, kept in (
        (b'{"data": [1.0]}', b"[1.0]"),
        (b'{"id":"7"}', b'{"id":"7"}'),
        (b"[1]", b"[1]"),
    ):
        assert salvaged_data(raw, json.loads(raw)) == kept
    assert salvaged_data(b"", {"data": 1}) == b"1"
    assert salvaged_data(b"", [1]) == b"[1]"


# -- records ---------------------------------------------------------------------------------


def line_of(event: CloudEvent, data: bytes) -> bytes:
    lead = lead_of(event, OUR_ID, OUR_TIME, SCHEMA)
    return LINE_START + escaped(event.id) + lead + b',"data":' + data + LINE_END


def test_the_line_keeps_the_attributes_and_has_ours_behind_time() -> None:
    event = from_members({
        **GOOD,
        "id": 'a"b\\c/ü',
        "time": "2020-01-01T00:00:00Z",
        "subject": "s",
        "dataschema": "https://a.example/x",
        "n": 7,
        "flag": True,
        "text": ',"data":',
    })  # fmt: skip
    line = line_of(event, b'{"x":1.0}')
    assert list(json.loads(line).items()) == [
        ("specversion", "1.0"),
        ("id", 'a"b\\c/ü'),
        ("source", "/s"),
        ("type", "t"),
        ("time", "2020-01-01T00:00:00Z"),
        ("ingestid", OUR_ID.decode()),
        ("ingesttime", OUR_TIME),
        ("subject", "s"),
        ("datacontenttype", "application/json"),
        ("dataschema", "https://a.example/x"),
        ("ingestschema", SCHEMA),
        ("n", 7),
        ("flag", True),
        ("text", ',"data":'),
        ("data", {"x": 1.0}),
    ]
    assert record_data_of(line.rstrip(b"\n")) == b'{"x":1.0}'
    head = head_of(line)
    assert head is not None
    assert (head.stored_id, head.stored_time) == (OUR_ID, OUR_TIME.encode())
    assert (head.time, head.type) == (b"2020-01-01T00:00:00Z", b"t")
    assert json.loads(b'"%s"' % head.id) == event.id


def test_an_event_without_a_time_and_a_schema_gets_ours() -> None:
    record = json.loads(line_of(from_members(GOOD), b"1"))
    assert (record["time"], record["ingesttime"]) == (OUR_TIME, OUR_TIME)
    assert record["dataschema"] == SCHEMA and "ingestschema" not in record


@given(st.text(min_size=1, max_size=50), st.text(max_size=50))
def test_no_text_breaks_out_of_its_attribute(event_id: str, text: str) -> None:
    try:
        event = from_members({**GOOD, "id": event_id, "ext": text})
    except Invalid:
        return
    line = line_of(event, b"[1]")
    assert line.count(b"\n") == 1
    record = json.loads(line)
    assert (record["id"], record["ext"], record["data"]) == (event_id, text, [1])
    head = head_of(line)
    assert head is not None and head.stored_id == OUR_ID


def test_the_longest_leading_attributes_fit_into_what_is_read_of_a_segment() -> None:
    event = from_members({
        **GOOD,
        "id": "\U0001f600" * ID_MAX_CHARS,
        "source": "/" * URI_MAX_CHARS,
        "type": "t" * 128,
        "time": "2026-11-23T01:02:03." + "1" * 43 + "Z",
    })  # fmt: skip
    head = head_of(line_of(event, b"1")[:4096])
    assert head is not None and head.stored_id == OUR_ID
