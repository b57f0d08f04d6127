"""Decoding, encoding, and cutting arrays into the bytes of their elements."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.codec import (
    DEPTH_CEILING,
    DecodeError,
    dumps,
    make_decoder,
    make_encoder,
    make_many_decoder,
    one_line,
    split_array,
)
from ingest.codec_scan import depth_exceeded_at, repeated_name
from tests.protocol.json.corpus import ACCEPT, LIMITS, REJECT, Case

strict = make_decoder("orjson", 128, "accept")
unique = make_decoder("orjson", 128, "reject")
lenient = make_decoder("ujson", 128, "accept")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(['"', "\\", "},{", "]", '\\"', "},", "[{", "é😀"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
)
layouts = st.sampled_from(
    [
        lambda value: orjson.dumps(value),
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode(),
        lambda value: json.dumps(value, separators=(" ,\r\n", "\t: ")).encode(),
    ]
)


# -- where a fault is ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "line", "column", "excerpt"),
    [
        (b'{"a":1,\n "b":nul}', 2, 6, '{"a":1,\\n "b":nul}'),
        (b"", 1, 1, ""),
        ('["é", x]'.encode(), 1, 7, '["é", x]'),
        (b'["abc\xc3\xa9\xff"]', 1, 7, '["abcé\\xff"]'),
        (b'\n\n["\xff"]', 3, 3, '\\n\\n["\\xff"]'),
        (b'["' + b"a" * 100 + b'" x', 1, 105, "a" * 18 + '" x'),
        (b'"\x1b[31m"', 1, 2, '"\\x1b[31m"'),
    ],
)
def test_an_error_says_line_column_and_excerpt(
    raw: bytes, line: int, column: int, excerpt: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        strict(raw)
    error = caught.value
    assert (line, column) == (error.line, error.column)
    assert excerpt == error.excerpt
    assert error.message in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused_with_a_printable_excerpt(raw: bytes) -> None:
    for decode in (strict, unique, lenient):
        try:
            decode(raw)
        except DecodeError as error:
            assert error.excerpt.isprintable()
            assert error.line >= 1 and error.column >= 1
            dumps({"excerpt": error.excerpt, "message": error.message})


# -- depth --------------------------------------------------------------------------------


def nested(levels: int) -> bytes:
    """Objects and arrays in turn."""
    opening = b"".join(b"[" if i % 2 else b'{"a":' for i in range(levels))
    closing = b"".join(b"]" if i % 2 else b"}" for i in reversed(range(levels)))
    return opening + b"1" + closing


@pytest.mark.parametrize("levels", [1, 2, 5, 128, DEPTH_CEILING])
def test_nesting_is_allowed_up_to_the_limit_and_not_beyond(levels: int) -> None:
    decode = make_decoder("orjson", levels, "accept")
    decode_leniently = make_decoder("ujson", levels, "accept")
    assert decode(nested(levels)) == decode_leniently(nested(levels))
    for decoder in (decode, decode_leniently):
        with pytest.raises(DecodeError, match=f"more than {levels} levels"):
            decoder(nested(levels + 1))
        with pytest.raises(DecodeError, match=f"more than {levels} levels"):
            decoder(b"[%s]" % b",".join([b"{}"] * levels + [nested(levels)]))


@pytest.mark.parametrize("levels", [1, 2, 5, 128, DEPTH_CEILING])
def test_the_shortest_document_that_is_too_deep_is_refused(levels: int) -> None:
    decode = make_decoder("orjson", levels, "accept")
    for opening, closing in ((b'{"":', b"}"), (b"[", b"]")):
        tight = opening * (levels - 1) + b"{}" + closing * (levels - 1)
        assert decode(tight) is not None
        with pytest.raises(DecodeError, match="levels"):
            decode(opening + tight + closing)


def test_an_event_at_the_highest_ceiling_can_be_split_and_looked_through() -> None:
    decode = make_decoder("orjson", DEPTH_CEILING, "reject")
    raw = b"[1," + nested(DEPTH_CEILING - 1) + b"]"
    assert decode(raw) == [1, decode(nested(DEPTH_CEILING - 1))]
    assert split_array(raw) == [b"1", nested(DEPTH_CEILING - 1)]


@given(values, layouts, st.integers(1, 6))
@example([[], {"a": [{}]}, "[[[[[["], orjson.dumps, 2)
@example({"]}": {"{": {"a": {}}}}, orjson.dumps, 3)
def test_depth_is_that_of_the_value_whatever_the_text_looks_like(
    value: Any, layout: Any, limit: int
) -> None:
    def depth(value: Any) -> int:
        if isinstance(value, dict):
            return 1 + max(map(depth, value.values()), default=0)
        if isinstance(value, list):
            return 1 + max(map(depth, value), default=0)
        return 0

    decode = make_decoder("orjson", limit, "accept")
    raw = layout(value)
    if depth(value) <= limit:
        assert decode(raw) == value
    else:
        with pytest.raises(DecodeError, match="levels"):
            decode(raw)
        at = depth_exceeded_at(raw, limit)
        assert raw[at : at + 1] in (b"[", b"{")


@pytest.mark.parametrize(
    ("kind", "depth_max", "duplicate_keys", "message"),
    [
        ("json", 128, "accept", "orjson or ujson"),
        ("orjson", 0, "accept", "depth_max"),
        ("orjson", DEPTH_CEILING + 1, "accept", "depth_max"),
        ("orjson", 128, "maybe", "accept or reject"),
        ("ujson", 128, "reject", "orjson decoder only"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(
    kind: str, depth_max: int, duplicate_keys: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_decoder(kind, depth_max, duplicate_keys)


# -- repeated names -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "name", "column"),
    [
        (b'{"a":1,"a":2}', "a", 8),
        (b'{"a":{"b":1,"\\u0062":2}}', "b", 13),
        (b'[{"a":"a"},{"a":[{"x":1}],"y":0,"a":1}]', "a", 33),
        (b'{"":1,"":1}', "", 7),
    ],
)
def test_a_repeated_name_is_refused_where_it_stands(raw: bytes, name: str, column: int) -> None:
    assert strict(raw) is not None
    with pytest.raises(DecodeError, match="twice") as caught:
        unique(raw)
    assert caught.value.column == column
    assert repeated_name(raw) == (name, column - 1)


@given(values, layouts)
def test_documents_without_repeated_names_are_not_refused(value: Any, layout: Any) -> None:
    raw = layout(value)
    assert unique(raw) == value
    assert repeated_name(raw) is None


# -- elements of an array -----------------------------------------------------------------


@given(st.lists(values), layouts)
@example([{"a": "},{"}, {"b": 1}], orjson.dumps)
@example([{"a": "}", "b": [{"c": 1}, {"d": 2}]}], orjson.dumps)
@example([{"a": '\\"},{\\"'}, {"b": [{}, {}]}], orjson.dumps)
@example([{"a": 1}, [{"a": 1}, {"b": 2}]], orjson.dumps)
def test_elements_are_cut_out_exactly_as_they_were_sent(elements: list[Any], layout: Any) -> None:
    raw = layout(elements)
    parts = split_array(raw)
    assert [orjson.loads(part) for part in parts] == elements
    position = 0
    for part in parts:
        position = raw.index(part, position) + len(part)
        assert part == part.strip(b" \t\r\n")


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b" [ ] ", []),
        (b"[1.10,1e5 , -0.0]", [b"1.10", b"1e5", b"-0.0"]),
        (b"[" + b"1" * 5000 + b".5]", [b"1" * 5000 + b".5"]),
        (b'[{"n":1.10} ,\n{"n":123456789012345678901234567890}]',
         [b'{"n":1.10}', b'{"n":123456789012345678901234567890}']),
        (b'[["a",1.10],{"\\u0061":1}]', [b'["a",1.10]', b'{"\\u0061":1}']),
        ('["é😀", ["é"]]'.encode(), ['"é😀"'.encode(), '["é"]'.encode()]),
    ],
)  # fmt: skip
def test_numbers_keep_their_precision_in_elements(raw: bytes, parts: list[bytes]) -> None:
    assert split_array(raw) == parts


# -- the lenient decoder ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (b"[-01]", b"[-1]"),
        (b'"a\nb"', b'"a\\nb"'),
        (b"[1.]", b"[1.0]"),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b"123456789012345678901234567890", b"123456789012345678901234567890"),
    ],
)
def test_what_the_lenient_decoder_takes_is_stored_as_strict_json(raw: bytes, stored: bytes) -> None:
    encode = make_encoder("ujson")
    assert encode is not None
    assert encode(lenient(raw)) == stored
    assert orjson.loads(stored) is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"[1",
        b"",
        b"9" * 400,
        b'{"a":-%s}' % (b"9" * 310),
    ],
)
def test_what_json_cannot_say_the_lenient_decoder_refuses_too(raw: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        lenient(raw)
    assert caught.value.line == 1


@given(values, layouts)
def test_strict_json_is_the_same_to_both_decoders(value: Any, layout: Any) -> None:
    raw = layout(value)
    assert lenient(raw) == strict(raw) == value


def test_the_strict_decoder_needs_no_encoder() -> None:
    assert make_encoder("orjson") is None


# -- out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ({"a": "é/😀", "b": [1, 2.5, None, True]}, '{"a":"é/😀","b":[1,2.5,null,true]}'.encode()),
        ("line\r\nend", b'"line\\r\\nend"'),
        ("\ud800", b'"\\ud800"'),
        ({"\udfff": "é"}, b'{"\\udfff":"\\u00e9"}'),
        ([float("nan"), {"a": float("inf")}, (1.5, -float("inf"))],
         b'[null,{"a":null},[1.5,null]]'),
        ([float("nan"), "\ud800"], b'[null,"\\ud800"]'),
    ],
)  # fmt: skip
def test_any_text_and_number_can_be_encoded(value: Any, encoded: bytes) -> None:
    assert dumps(value) == encoded


def test_what_is_no_json_is_not_encoded() -> None:
    for value in (b"bytes", object(), [b""]):
        with pytest.raises(TypeError):
            dumps(value)


@given(values, layouts)
def test_a_line_is_the_same_json_without_line_ends(value: Any, layout: Any) -> None:
    line = one_line(layout(value))
    assert not {10, 13} & set(line)
    assert orjson.loads(line) == value


# -- many texts at once -------------------------------------------------------------------

many = make_many_decoder("orjson", 128, "accept")


@given(st.lists(st.sampled_from([*ACCEPT, *REJECT, *LIMITS]), min_size=1, max_size=8))
def test_many_texts_decode_at_once_as_one_by_one_or_not_at_all(cases: list[Case]) -> None:
    raws = [case.raw.replace(b"\n", b" ") for case in cases]
    assert many is not None
    values = many(raws)
    if values is not None:
        assert repr(values) == repr([strict(raw) for raw in raws])
    elif all(len(raw) <= 256 for raw in raws):
        with pytest.raises(DecodeError):
            for raw in raws:
                strict(raw)


@pytest.mark.parametrize(
    "raws",
    [
        [b"1,2", b"[1", b"2]"],
        [b"[1", b"2]", b"3,4"],
        [b"1,0,2", b"[", b"]"],
        [b'"a', b'b"'],
        [b"1", b""],
        [b"", b"1"],
        [b" ", b"1"],
        [b"1]", b"[2"],
        [b"1],[2", b"3"],
        [b'{"a":1', b'"b":2}'],
        [b"1,", b",2"],
        [b"\xe2\x82", b"\xac"],
        [b"[" * 129 + b"]" * 129],
    ],
)
def test_texts_that_are_whole_only_together_are_not(raws: list[bytes]) -> None:
    assert many is not None
    assert many(raws) is None


def test_only_the_strict_decoder_takes_many_at_once() -> None:
    assert make_many_decoder("ujson", 128, "accept") is None
    assert make_many_decoder("orjson", 128, "reject") is None
