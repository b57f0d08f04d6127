"""Any bytes, on the way from body to journal line: `check` fails when a promise is broken.

The first byte of an input chooses the event type (low bits) and whether the document is
put into an array (highest bit); the rest is the document.

What is promised, for every document:

* The decoders raise nothing but `DecodeError`, whose parts can be put into an answer.
* What is accepted is what the standard library's parser, made strict, accepts, and it is
  the same value. Repeated names are found when, and only when, there are any.
* The lenient decoder takes only what can be encoded again as JSON.
* The stored line is one line, it parses back to the same value, its `data` is found again
  byte by byte, and the journal's scanner finds it as one whole commit: no payload forges,
  hides or splits one.
* An array is cut into the elements that it has, exactly as sent.
* Both validators give the same verdict, and a refusal is explained: bounded messages, at
  pointers that exist.
* What is taken for good by its type, undecoded, is accepted and valid.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import orjson

from ingest.codec import DecodeError, dumps, make_decoder, one_line, split_array
from ingest.journal.frame import Commit, Scanner, mark
from ingest.journal.record import LINE_END, LINE_START, data_of, middle
from ingest.registry import EventType, Registry
from ingest.validation import Schemas, Validator
from ingest.validation_dialects import DEFAULT

SCHEMAS = Path(__file__).resolve().parent.parent.parent / "schemas"
#: Small, so that a short input can exceed it.
DEPTH_MAX = 24
ERRORS_MAX = 5
EVENT_ID = b"0193578a-7b1c-7c52-9d0a-4f2f5e1f9a10"
TIME = "2026-11-23T01:02:03.456Z"

decode = make_decoder("orjson", DEPTH_MAX, "accept")
decode_unique = make_decoder("orjson", DEPTH_MAX, "reject")
decode_lenient = make_decoder("ujson", DEPTH_MAX, "accept")
types: list[EventType] = list(Registry.load(SCHEMAS))


def validator(schema: dict[str, Any]) -> Validator:
    uri = "file:///fuzzed.json"
    return Validator(schema, uri, DEFAULT, Schemas.of([(uri, schema, DEFAULT)]))


_SCALARS = {"type": ["string", "number", "boolean", "null"], "maxLength": 8, "maximum": 2**53}
#: Most small documents are good by one of them.
TYPED = [
    validator(schema)
    for schema in (
        _SCALARS,
        {"type": "integer"},
        {"type": "array", "items": {"type": "array", "items": _SCALARS}},
        {"type": "object", "additionalProperties": _SCALARS},
        {
            "type": "object",
            "properties": {"a": _SCALARS, "b": {"type": "array", "items": _SCALARS}},
            "required": ["a"],
            "additionalProperties": False,
        },
    )
]


def check(data: bytes) -> None:
    """Try one input.

    Raises:
        AssertionError: a promise is broken.
    """
    if not data:
        return
    event_type = types[(data[0] & 0x7F) % len(types)]
    raw = data[1:]
    if data[0] & 0x80:
        raw = b"[" + raw + b"]"
    check_lenient(raw)
    accepted, value = attempt(decode, raw)
    assert_decoders_agree(raw, accepted, value)
    assert_typed(event_type.validator, raw, accepted, value)
    for each in TYPED:
        assert_typed(each, raw, accepted, value)
    if not accepted:
        return
    assert_line(raw, value, event_type)
    if isinstance(value, list):
        assert_elements(raw, value)
    assert_verdict(event_type, value)


def assert_typed(judge: Validator, raw: bytes, accepted: bool, value: Any) -> None:
    """A yes is never wrong."""
    if judge.typed is None or judge.typed.depth > DEPTH_MAX:
        return
    if judge.typed.accepts([raw]):
        assert accepted and judge.is_valid(value) and judge.reference_is_valid(value)
    if judge.typed.accepts_array(raw):
        assert accepted and all(map(judge.is_valid, value))


def attempt(decoder: Any, raw: bytes) -> tuple[bool, Any]:
    """Decode; a refusal must be fit to be answered."""
    try:
        return True, decoder(raw)
    except DecodeError as error:
        assert 1 <= error.line <= raw.count(b"\n") + 1
        assert 1 <= error.column <= len(raw) + 1
        assert error.message and error.message.isprintable() and len(error.message) <= 200
        assert error.excerpt.isprintable() and len(error.excerpt) <= 400
        document = {"message": error.message, "excerpt": error.excerpt}
        assert orjson.loads(dumps(document)) == document
        return False, None


# -- a second parser --------------------------------------------------------------------------


class Repeated(Exception):
    """An object has a name twice."""


class Refused(Exception):
    """The reference parser does not take it."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Repeated
    return members


def integer(text: str) -> int | float:
    """64 bits are exact, more are a double, as far as that goes."""
    if len(text) <= 20 and -(2**63) <= int(text) < 2**64:
        return int(text)
    return real(text)


def real(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Refused("beyond the range of a double")
    return number


def constant(text: str) -> Any:
    raise Refused(f"{text} is not JSON")


def reference(raw: bytes, pairs_hook: Any = None) -> Any:
    """The standard library's parser, as strict as RFC 8259 sections 6, 8 and 9 allow.

    Raises:
        Refused: it is not strict JSON, or nests too deep.
        Repeated: only with `unique` as its hook.
    """
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=pairs_hook,
            parse_int=integer,
            parse_float=real,
            parse_constant=constant,
        )
        if depth_of(value) > DEPTH_MAX:
            raise Refused("too deep")
        # what has a lone surrogate cannot be encoded
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    return value


def depth_of(value: Any) -> int:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def same(one: Any, other: Any) -> bool:
    """Equal in type, too: 1, 1.0 and true are different, and so are 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


# -- the promises -----------------------------------------------------------------------------


def assert_decoders_agree(raw: bytes, accepted: bool, value: Any) -> None:
    try:
        expected = reference(raw)
    except Refused as refused:
        assert not accepted, f"accepted what the reference refuses: {refused}"
        assert not attempt(decode_unique, raw)[0]
        return
    if not accepted:
        # A repeated name may hide what the decoder minds (a lone surrogate, depth):
        # the reference sees only the last value.
        assert has_repeated(raw), "refused what the reference accepts"
        assert not attempt(decode_unique, raw)[0]
        return
    assert same(value, expected), "another value than the reference's"
    unique_accepted, unique_value = attempt(decode_unique, raw)
    if has_repeated(raw):
        assert not unique_accepted, "a repeated name was accepted"
    else:
        assert unique_accepted, "a repeated name was found where there is none"
        assert same(unique_value, value)


def has_repeated(raw: bytes) -> bool:
    try:
        json.loads(raw.decode(), object_pairs_hook=unique)
    except Repeated:
        return True
    return False


def check_lenient(raw: bytes) -> None:
    accepted, value = attempt(decode_lenient, raw)
    if accepted:
        # not orjson: a lenient document may have integers that no double can hold
        json.loads(dumps(value), parse_int=str)


def assert_line(raw: bytes, value: Any, event_type: EventType) -> None:
    """Build the journal's line as the pipeline does, and read it as a consumer does."""
    data = one_line(raw)
    assert b"\n" not in data and b"\r" not in data and len(data) == len(raw)
    before = middle("/ingest", event_type.name, TIME, event_type.dataschema)
    line = LINE_START + EVENT_ID + before + data + LINE_END
    record = orjson.loads(line)
    assert same(record["data"], value), "the stored value is another one"
    assert record["id"] == EVENT_ID.decode() and record["type"] == event_type.name
    body = line + line[: -len(LINE_END)]
    segment = body + mark(body, 7, 2, 0)
    for pieces in ([segment], [segment[:-1], segment[-1:]], thirds(segment), [segment, segment]):
        scanner = Scanner(7)
        found = [item for piece in pieces for item in scanner.feed(piece)]
        # the same commit again does not count: its mark says that it stands elsewhere
        assert len(found) == 1, "the payload confuses the scanner"
        commit = found[0]
        assert isinstance(commit, Commit)
        assert (commit.first, commit.records, commit.end) == (7, 2, len(segment))
        assert commit.lines == [line[:-1], line[:-1]]
    assert data_of(line[:-1]) == data


def thirds(data: bytes) -> list[bytes]:
    third = len(data) // 3
    return [data[:third], data[third:-third], data[-third:]]


def assert_elements(raw: bytes, value: list[Any]) -> None:
    pieces = split_array(raw)
    assert len(pieces) == len(value), "the array was cut in the wrong places"
    position = 0
    for piece, element in zip(pieces, value, strict=True):
        assert same(decode(piece), element)
        position = raw.index(piece, position) + len(piece)


def assert_verdict(event_type: EventType, value: Any) -> None:
    validator = event_type.validator
    verdict = validator.is_valid(value)
    assert verdict is validator.reference_is_valid(value), f"verdicts differ: native {verdict}"
    if verdict:
        return
    faults, total = validator.explain(value, ERRORS_MAX)
    assert 1 <= len(faults) <= ERRORS_MAX and len(faults) <= total
    for fault in faults:
        assert len(fault.message) <= 200 and len(fault.pointer) <= 512
        assert points_into(fault.pointer, value), f"{fault.pointer!r} points at nothing"
    dumps([fault._asdict() for fault in faults])


def points_into(pointer: str, value: Any) -> bool:
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list):
            if not name.isdigit() or int(name) >= len(value):
                return False
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return False
    return True
