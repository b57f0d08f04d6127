"""What the typed judge says yes to, the strict decoder takes and the validator finds valid."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.codec import DecodeError, make_decoder
from ingest.validation import Schemas, Validator
from ingest.validation_dialects import DEFAULT, DIALECTS, Dialect
from ingest.validation_typed import PROBES, Typed, typed
from tests.protocol.json.corpus import REJECT, Case

DRAFT_7 = DIALECTS["http://json-schema.org/draft-07/schema"]
decode = make_decoder("orjson", 128, "accept")


def validator(schema: Any, dialect: Dialect = DEFAULT) -> Validator:
    uri = "file:///made.json"
    return Validator(schema, uri, dialect, Schemas.of([(uri, schema, dialect)]))


def good(judge: Validator, raw: bytes) -> bool:
    """What those who decide say."""
    try:
        return judge.is_valid(decode(raw))
    except DecodeError:
        return False


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1, "maxLength": 3}
#: A schema, documents that are told at once to be good, and others that must not be.
CASES: list[tuple[Any, list[str], list[str]]] = [
    ({"type": "string"}, ['"a"', ' "\\ud83d\\ude00" '], ["1", "null", '"\\ud800"', '"a" "b"']),
    (TEXT, ['"abc"', '"\U0001f600é\\n"'], ['""', '"abcd"']),
    ({"enum": ["a", "b"]}, ['"a"', '"\\u0061"'], ['"c"', "1"]),
    ({"const": "a"}, ['"a"'], ['"b"']),
    ({"type": "boolean"}, ["true"], ["0", '"true"', "null"]),
    ({"type": "null"}, ["null"], ["0", "false"]),
    ({"type": "number"}, ["1", "-0", "1e3", "1.5", "9" * 300], ["1e999", "9" * 400, "true", "01"]),
    ({"type": "integer"}, ["1", "-5"], ["1.5", "9" * 400, "true", '"1"']),
    ({"type": "number", "minimum": 0, "exclusiveMaximum": 2.5}, ["0", "2.4"], ["2.5", "-1"]),
    ({"type": "number", "maximum": 2**53}, [str(2**53)], [str(2**53 + 1), "1e16"]),
    ({"type": "integer", "exclusiveMinimum": 1.5, "maximum": 4}, ["2", "4"], ["1", "5"]),
    ({"type": "integer", "exclusiveMinimum": 1, "minimum": 1}, ["2"], ["1"]),
    ({"type": ["string", "null"], "maxLength": 1}, ["null", '"a"'], ['"ab"', "1"]),
    ({"type": "array", "items": TEXT, "maxItems": 2}, ["[]", '["a","b"]'], ['["","b"]', '["a",]']),
    (closed({"a": TEXT}, "a"), ['{"a":"x"}'], ['{"a":""}', "{}", '{"a":"x","b":1}']),
    (closed({"a": TEXT, "b": TEXT}, "a", "b"), ['{"b":"x","a":"y"}'], ['{"a":"x","a":"y"}']),
    (closed({"a": TEXT, "b c": TEXT}, "b c"), ['{"b c":"x"}'], ['{"b c":"","a":"x"}', '{"a":"x"}']),
    (closed({"a": {"type": "string"}}), ["{}", '{"a":"x"}'], ['{"a":null}', '{"a":1,"a":2}']),
    (
        {"type": "object", "additionalProperties": TEXT, "minProperties": 1, "maxProperties": 2,
         "propertyNames": {"maxLength": 2}},
        ['{"a":"x","bc":"y"}'],
        ["{}", '{"abc":"x"}', '{"a":"x","b":"y","c":"z"}', '{"a":"xxxx"}'],
    ),
    (
        {"$defs": {"t": TEXT}, "type": "array", "items": {"$ref": "#/$defs/t"}},
        ['["abc"]'],
        ['["abcd"]'],
    ),
    ({"$id": "https://a.b/c", "title": "A", "x-ingest": {}, "type": "string"}, ['"a"'], ["1"]),
]  # fmt: skip

#: What no type says, or not exactly.
UNFIT: list[Any] = [
    True,
    {},
    {"type": "object"},
    {"type": "object", "properties": {"a": TEXT}},
    {"type": "object", "additionalProperties": TEXT, "minProperties": 2},
    {"type": "object", "additionalProperties": TEXT, "required": ["a"]},
    {"type": "object", "additionalProperties": TEXT, "propertyNames": {"pattern": "^a"}},
    closed({"a": TEXT}, "b"),
    closed({'a"b': TEXT}),
    {**closed({"a": TEXT}), "patternProperties": {"^x": {}}},
    {**closed({"a": TEXT}), "minProperties": 1},
    {"type": "array"},
    {"type": "array", "items": TEXT, "uniqueItems": True},
    {"type": "array", "prefixItems": [TEXT], "items": TEXT},
    {"type": "string", "pattern": "^a"},
    {"type": "string", "format": "date"},
    {"type": "string", "enum": ["a"], "maxLength": 3},
    {"enum": ["a", 1]},
    {"type": "number", "multipleOf": 2},
    {"type": "number", "maximum": 2**53 + 2},
    {"type": ["integer", "number"]},
    {"type": "string", "maxLength": 3.0},
    {"anyOf": [TEXT]},
    {"not": TEXT},
    {"type": "string", "if": TEXT},
    {"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}},
    {"type": "string", "contentEncoding": "base64"},
]


JUDGES = [judge for schema, _, _ in CASES if isinstance(judge := typed(schema, "2020-12"), Typed)]


@pytest.mark.parametrize(("schema", "yes", "no"), CASES)
def test_what_is_plainly_good_is_told_from_what_is_not(
    schema: Any, yes: list[str], no: list[str]
) -> None:
    judge = validator(schema)
    assert judge.typed is not None
    for text in yes:
        assert judge.typed.accepts([text.encode()]), text
        assert good(judge, text.encode()), text
        assert judge.typed.accepts_array(f"[{text},{text}]".encode())
    for text in no:
        assert not judge.typed.accepts([yes[0].encode(), text.encode()]), text
        assert not good(judge, text.encode()), text
        assert not judge.typed.accepts_array(f"[{yes[0]},{text}]".encode())


@pytest.mark.parametrize("schema", UNFIT)
def test_what_no_type_says_exactly_is_left_to_the_validator(schema: Any) -> None:
    assert typed(schema, "2020-12") is None


def test_draft_4_has_other_bounds_and_is_left_to_the_validator() -> None:
    assert typed({"type": "string"}, "4") is None
    assert validator({"type": "string"}, DRAFT_7).typed is not None


def test_depth_is_that_of_the_deepest_event() -> None:
    nested = {"type": "array", "items": closed({"a": {"type": "array", "items": TEXT}, "b": TEXT})}
    found = typed(nested, "2020-12")
    assert found is not None
    assert found.depth == 3


@pytest.mark.parametrize("case", REJECT, ids=lambda case: case.name)
def test_no_document_of_the_corpus_is_taken_that_is_no_json(case: Case) -> None:
    for judge in JUDGES:
        assert not judge.accepts([case.raw])
        assert not judge.accepts_array(case.raw)


def test_the_probes_are_what_the_strict_decoder_or_the_type_refuses() -> None:
    assert sum(len(probes) for _, probes in PROBES) > 40


# -- made up ----------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "ä", "a b", ""])
sizes = st.integers(0, 3)


def sized(least: str, most: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={least: sizes, most: sizes})


leaves = st.one_of(
    sized("minLength", "maxLength").map(lambda more: {"type": "string", **more}),
    st.lists(names, min_size=1, unique=True).map(lambda values: {"enum": values}),
    st.tuples(
        st.sampled_from(["integer", "number"]),
        st.dictionaries(
            st.sampled_from(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
            st.integers(-3, 3) | st.sampled_from([0.5, -2.5, 2**53, 1e15]),
            max_size=2,
        ),
    ).map(lambda both: {"type": both[0], **both[1]}),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null", "number"]}]
    ),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.tuples(inner, sized("minItems", "maxItems")).map(
            lambda both: {"type": "array", "items": both[0], **both[1]}
        ),
        st.tuples(inner, sized("minProperties", "maxProperties")).map(
            lambda both: {"type": "object", "additionalProperties": both[0], **both[1]}
        ),
        st.tuples(st.dictionaries(names, inner, max_size=3), st.randoms()).map(
            lambda both: closed(both[0], *(name for name in both[0] if both[1].random() < 0.5))
        ),
    )


schemas = st.recursive(leaves, containers, max_leaves=5)
numbers = st.sampled_from(
    ["0", "-0", "1", "2.5", "1e0", "-3", "9007199254740993", "9007199254740992", "1e400", "01",
     "18446744073709551616", "1" * 310, "0.5", "1E+2", "-", "3.0"]
)  # fmt: skip
strings = st.one_of(
    names.map(json.dumps),
    st.sampled_from(['"\\u0061"', '"\\ud800"', '"\\ud83d\\ude00"', '"a', '"\t"', '"\x7f"', "'a'"]),
)
scalars = st.one_of(numbers, strings, st.sampled_from(["true", "false", "null", "nul", ""]))


def written(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    seam = st.sampled_from([",", " , ", ",,", " "] + [","] * 20)
    members = st.lists(st.tuples(strings, inner), max_size=3)
    return st.one_of(
        st.tuples(st.lists(inner, max_size=3), seam).map(lambda both: f"[{both[1].join(both[0])}]"),
        st.tuples(members, seam).map(
            lambda both: "{" + both[1].join(f"{name}:{value}" for name, value in both[0]) + "}"
        ),
    )


documents = st.recursive(scalars, written, max_leaves=6)


def instance(schema: Any, draw: Any) -> str:
    """A document that a schema takes, or nearly so, often with members out of order or twice."""
    if draw(st.integers(0, 9)) == 0:
        return str(draw(documents))
    kind = schema.get("type", "string")
    kind = draw(st.sampled_from(kind)) if isinstance(kind, list) else kind
    if kind == "array":
        items = [instance(schema["items"], draw) for _ in range(draw(sizes))]
        return "[" + ",".join(items) + "]"
    if kind == "object":
        known = schema.get("properties", {})
        wanted = [*schema.get("required", ()), *draw(st.lists(names, max_size=2))]
        parts = schema.get("additionalProperties") or {"type": "null"}
        members = [(name, instance(known.get(name, parts), draw)) for name in wanted]
        return "{" + ",".join(f"{json.dumps(n)}:{v}" for n, v in members) + "}"
    if kind == "string":
        return str(
            draw(st.sampled_from(list(map(json.dumps, schema.get("enum", ["", "a", "bb"])))))
        )
    return str(draw(numbers if kind in ("number", "integer") else scalars))


@settings(max_examples=1500, deadline=None)
@given(st.data(), schemas)
def test_a_yes_is_a_yes_of_decoder_and_validator(data: st.DataObject, schema: Any) -> None:
    judge = validator(schema)
    if judge.typed is None:
        return
    for _ in range(4):
        raw = instance(schema, data.draw).encode(errors="surrogatepass")
        if judge.typed.accepts([raw]):
            assert good(judge, raw), (schema, raw)


@settings(max_examples=500, deadline=None)
@given(st.data(), st.sampled_from([case[0] for case in CASES]))
def test_a_yes_is_a_yes_of_decoder_and_validator_for_the_cases_above(
    data: st.DataObject, schema: Any
) -> None:
    test = test_a_yes_is_a_yes_of_decoder_and_validator.hypothesis.inner_test  # type: ignore[attr-defined]
    test(data, schema)
