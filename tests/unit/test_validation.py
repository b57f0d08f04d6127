"""Verdicts and their reasons; where the two validators differed, they are shown to agree."""

# ruff: noqa: RUF001 - digits of other alphabets are the point

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.registry import Registry
from ingest.registry_checks import Document, schemas_of
from ingest.validation import POINTER_MAX, Fault, Validator, pointer
from ingest.validation_dialects import DIALECTS, MESSAGE_MAX

DRAFTS = {dialect.name: uri for uri, dialect in DIALECTS.items()}


def compile(schema: Any, draft: str = "2020-12", **others: Any) -> Validator:
    """A validator of a schema that may refer to others by `<name>.json`."""
    documents = [Document("main.json", {"$schema": DRAFTS[draft], **schema}, True)]
    documents += [Document(f"{name}.json", other, False) for name, other in others.items()]
    main = documents[0]
    return Validator(main.schema, main.uri, main.dialect, schemas_of(documents))


def verdict(validator: Validator, value: Any) -> bool:
    """What both say; and if it is no, that there is a reason."""
    said = validator.is_valid(value)
    assert validator.reference_is_valid(value) is said, value
    if not said:
        faults, total = validator.explain(value, 10)
        assert 1 <= len(faults) <= total
    return said


# -- drafts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draft", "schema", "good", "bad"),
    [
        ("4", {"minimum": 1, "exclusiveMinimum": True}, 2, 1),
        ("4", {"type": "integer"}, 1, 1.0),
        ("6", {"exclusiveMinimum": 1}, 2, 1),
        ("6", {"type": "integer"}, 1.0, 1.5),
        ("6", {"propertyNames": {"maxLength": 1}}, {"a": 1}, {"ab": 1}),
        ("7", {"if": {"minimum": 5}, "then": {"multipleOf": 2}}, 6, 7),
        ("7", {"items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", 1]),
        ("7", {"contentEncoding": "base64"}, "YQ==", "%"),
        ("7", {"contentMediaType": "application/json"}, "{}", "{"),
        ("2019-09", {"dependentRequired": {"a": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ("2019-09", {"$recursiveAnchor": True, "properties": {"c": {"$recursiveRef": "#"}},
                     "required": ["n"]}, {"n": 1, "c": {"n": 2}}, {"n": 1, "c": {}}),
        ("2020-12", {"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
        ("2020-12", {"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]},
         {"a": 1}, {"b": 1}),
        ("2020-12", {"unevaluatedItems": False, "prefixItems": [{}]}, [1], [1, 2]),
        ("2020-12", {"$defs": {"n": {"$dynamicAnchor": "n", "type": "object"}},
                     "properties": {"c": {"$dynamicRef": "#n"}}}, {"c": {}}, {"c": 1}),
        ("2020-12", {"contains": {"const": 1}, "minContains": 2}, [1, 1], [1, 2]),
    ],
)  # fmt: skip
def test_each_draft_means_what_it_says(draft: str, schema: Any, good: Any, bad: Any) -> None:
    validator = compile(schema, draft)
    assert verdict(validator, good)
    assert not verdict(validator, bad)


@pytest.mark.parametrize("draft", ["4", "2019-09", "2020-12"])
def test_how_content_is_encoded_is_an_annotation_only(draft: str) -> None:
    assert verdict(compile({"contentEncoding": "base64"}, draft), "%")


def test_a_reference_into_another_draft_is_followed_in_that_draft() -> None:
    tuple_of_7 = {"$schema": DRAFTS["7"], "items": [{"type": "string"}]}
    validator = compile({"properties": {"t": {"$ref": "part.json"}}}, part=tuple_of_7)
    assert verdict(validator, {"t": ["a", 1]})
    assert not verdict(validator, {"t": [1]})
    pattern_of_4 = {"$schema": DRAFTS["4"], "pattern": "^(a+)+$"}
    validator = compile({"items": {"$ref": "part.json"}}, part=pattern_of_4)
    assert verdict(validator, ["aaa"])
    assert not verdict(validator, ["a" * 5000 + "!"])


def test_a_shared_part_keeps_our_meaning_of_patterns_although_it_names_its_draft() -> None:
    part = {"$schema": DRAFTS["2020-12"], "pattern": "^[0-9]$"}
    assert not verdict(compile({"items": {"$ref": "part.json"}}, part=part), ["1\n"])


# -- formats ------------------------------------------------------------------------------

FORMATS = {
    "date-time": (
        ["2026-11-23T10:15:00Z", "2026-11-23t10:15:00.123456789z", "2016-12-31T23:59:60Z",
         "1998-12-31T15:59:60.123-08:00", "2026-11-23T10:15:00+01:00"],
        ["2026-11-23T10:15:00", "2026-02-29T00:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23",
         "2026-11-23 10:15:00Z", "2026-11-23T10:15:00Z\n", "٢026-11-23T10:15:00Z", ""],
    ),
    "date": (["2026-11-23", "2024-02-29"], ["2026-02-29", "20261123", "2026-1-1", "2026-11-23\n"]),
    "time": (["10:15:00Z", "23:59:60Z", "10:15:00.5+01:00"], ["10:15:00", "24:00:00Z", "10:15Z"]),
    "duration": (["P1D", "PT1S", "P1Y2M3DT4H5M6S", "P1W"], ["P", "PT", "P-1D", "1D", "P1Y2W"]),
    "email": (["a@b.c", '"a b"@c.d', "te~st@x.y"],
              ["@", "a@", "@b", "a b@c.d", ".a@c.d", "A <a@b.c>", "é@b.c", "a@b.c\n"]),
    "idn-email": (["é@b.c", "실례@실례.테스트"], ["2962", "@"]),
    "hostname": (["a", "a.b", "xn--4gbwdl.xn--wgbh1c"], ["-a", "a_b", "a..b", "", "a" * 64, "a\n"]),
    "idn-hostname": (["실례.테스트", "é"], ["-a", "a..b", "〮한"]),
    "ipv4": (["1.2.3.4"], ["1.2.3", "256.1.1.1", "01.2.3.4", "1.2.3.4\n", "١.2.3.4"]),
    "ipv6": (["::1", "::ffff:1.2.3.4"], ["1::2::3", "fe80::1%eth0", "::1/64", "[::1]", "::1\n"]),
    "uri": (["https://a/?q=1#f", "mailto:a@b", "urn:a:b"], ["/a", "http://a b", "http://é", "a"]),
    "uri-reference": (["/a", "", "#x", "//a"], ["http://a b", "é", "#a#b"]),
    "iri": (["http://é", "http://a/ü?q=ü#ü"], ["é", "http://a b"]),
    "iri-reference": (["é", "#ƒrägmênt"], ["\\\\a"]),
    "uri-template": (["http://a/{x}", "{?x,y}"], ["{", "{x", "{a b}"]),
    "json-pointer": (["", "/a/~01"], ["a", "#/a", "/~2"]),
    "relative-json-pointer": (["0", "1/a", "0#"], ["01", "-1", "/a", "٢"]),
    "regex": (["^a$", "(?<n>a)", "\\d"], ["(", "\\Z", "(?P<n>a)", "a**"]),
    "uuid": (["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
             ["2eb8aa08aa9811eab4aa73b441d16380", "{2eb8aa08-aa98-11ea-b4aa-73b441d16380}"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_asserted_and_both_agree_on_it(name: str) -> None:
    validator = compile({"format": name})
    good, bad = FORMATS[name]
    assert [text for text in good if not verdict(validator, text)] == []
    assert [text for text in bad if verdict(validator, text)] == []
    assert verdict(validator, 1), "a format is about strings only"


@pytest.mark.parametrize("draft", DRAFTS)
def test_formats_are_asserted_in_every_draft(draft: str) -> None:
    validator = compile({"format": "date-time"}, draft)
    assert not verdict(validator, "yesterday")
    assert verdict(compile({"format": "unheard-of"}, draft), "anything")


# -- patterns -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": "^[a-z]+$"}, "abc", "abc\n"),
        ({"pattern": "^\\d$"}, "1", "١"),
        ({"pattern": "^\\w$"}, "a", "é"),
        ({"pattern": "^\\p{L}$"}, "é", "1"),
        ({"patternProperties": {"^a$": {"type": "string"}}}, {"a": "x", "a\n": 1}, {"a": 1}),
        ({"patternProperties": {"^\\d$": {}}, "additionalProperties": False}, {"1": 1}, {"١": 1}),
        ({"patternProperties": {"^x": {}}, "additionalProperties": {"type": "string"}},
         {"x": 1, "y": "a"}, {"x": 1, "y": 1}),
        ({"pattern": "^(?!bad)"}, "good", "bad"),
    ],
)  # fmt: skip
def test_patterns_mean_what_ecma_262_says_to_both(schema: Any, good: Any, bad: Any) -> None:
    validator = compile(schema)
    assert verdict(validator, good)
    assert not verdict(validator, bad)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^(a+)+$"},
        {"pattern": "^(a|aa)+$"},
        {"patternProperties": {"^(a+)+$": False}, "required": ["b"]},
        {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
        {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
        {"pattern": "^(?=a)(a+)+\\1?$"},
    ],
)
def test_a_hostile_string_cannot_make_a_pattern_run_away(schema: Any) -> None:
    validator = compile(schema)
    text = "a" * 20_000 + "!"
    value = text if "pattern" in schema else {text: 1}
    assert not validator.is_valid(value)  # would take longer than the universe by backtracking
    faults, total = validator.explain(value, 10)
    assert total >= 1
    assert all(len(fault.message) <= MESSAGE_MAX for fault in faults)


def test_what_the_native_validator_cannot_compile_jsonschema_decides_with_a_warning() -> None:
    validator = compile({"pattern": "^a{1,1000000}$", "maxLength": 4})
    assert "jsonschema-rs cannot compile" in validator.warning
    assert validator.is_valid("aa")
    assert not validator.is_valid("b")
    faults, _ = validator.explain("bbbbb", 5)
    assert {fault.keyword for fault in faults} == {"pattern", "maxLength"}
    assert compile({"pattern": "^a$"}).warning == ""


# -- numbers and equality -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"multipleOf": 0.01}, [19.99, 0.07, 4.35, 1, 1e308], [0.075, 1.001]),
        ({"multipleOf": 0.1}, [0.3, 1.1], [0.35]),
        ({"multipleOf": 3}, [9.0, 3e20, -6], [1, 9.5]),
        ({"uniqueItems": True}, [[1, True], [0, False], [{"a": 1}, {"a": 2}]],
         [[1, 1.0], [{"a": 1}, {"a": 1.0}], ["a", 1, "a"]]),
        ({"enum": [1, "a"]}, [1, 1.0, "a"], [True, "A"]),
        ({"const": {"a": [1]}}, [{"a": [1.0]}], [{"a": [True]}]),
        ({"maximum": 2**53}, [2**53, float(2**53)], [2**53 + 1]),
        ({"maxLength": 1}, ["😀"], ["e\u0301"]),
    ],
)  # fmt: skip
def test_numbers_and_equality_are_the_same_to_both(schema: Any, good: Any, bad: Any) -> None:
    validator = compile(schema)
    assert [value for value in good if not verdict(validator, value)] == []
    assert [value for value in bad if verdict(validator, value)] == []


# -- reasons ------------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "tags": {"items": {"type": "string"}}},
    "additionalProperties": False,
}


def test_every_fault_is_explained_in_the_order_of_pointers() -> None:
    faults, total = compile(PERSON).explain({"tags": [1, "a", 2], "x": 1, "name": 3}, 10)
    assert faults == [
        Fault("", "additionalProperties",
              "Additional properties are not allowed ('x' was unexpected)"),
        Fault("/name", "type", "3 is not of type 'string'"),
        Fault("/tags/0", "type", "1 is not of type 'string'"),
        Fault("/tags/2", "type", "2 is not of type 'string'"),
    ]  # fmt: skip
    assert total == 4


def test_elements_are_ordered_by_number_and_the_list_is_cut_to_the_limit() -> None:
    faults, total = compile(PERSON).explain({"name": "a", "tags": list(range(12))}, 3)
    assert [fault.pointer for fault in faults] == ["/tags/0", "/tags/1", "/tags/2"]
    assert total == 12
    faults, _ = compile(PERSON).explain({"name": "a", "tags": list(range(12))}, 12)
    assert faults[-1].pointer == "/tags/11"


def test_of_alternatives_the_closest_is_explained() -> None:
    schema = {
        "oneOf": [
            {"type": "object", "required": ["card"], "properties": {"card": {"type": "string"}}},
            {"type": "string"},
        ]
    }
    faults, total = compile(schema).explain({"card": 1}, 5)
    assert [(fault.pointer, fault.keyword) for fault in faults] == [("/card", "type")]
    assert total == 1


def test_a_schema_that_is_false_has_no_keyword_to_blame() -> None:
    faults, _ = compile({"properties": {"a": False}}).explain({"a": 1}, 5)
    assert faults == [Fault("/a", "", "False schema does not allow 1")]


def test_messages_are_short_but_keep_the_reason() -> None:
    (fault,), _ = compile({"type": "integer"}).explain("x" * 10_000, 5)
    assert fault.message.endswith("is not of type 'integer'")
    assert len(fault.message) <= MESSAGE_MAX
    (fault,), _ = compile({"additionalProperties": False}).explain({"k" * 10_000: 1}, 5)
    assert len(fault.message) == MESSAGE_MAX
    assert fault.message.endswith("...")


def test_unevaluated_members_are_worded_by_the_native_validator() -> None:
    validator = compile({"properties": {"a": {}}, "unevaluatedProperties": False})
    (fault,), total = validator.explain({"a": 1, "b": 2}, 5)
    assert (fault.keyword, total) == ("unevaluatedProperties", 1)
    assert "b" in fault.message


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("",), "/"),
        (("a", 0, "b"), "/a/0/b"),
        (("a/b", "m~n", "~1"), "/a~1b/m~0n/~01"),
        (("é", " "), "/é/ "),
        (("a", "k" * POINTER_MAX, "b"), "/a"),
    ],
)
def test_a_pointer_follows_rfc_6901_and_stays_short(path: Any, text: str) -> None:
    assert pointer(path) == text


# -- hostile events -----------------------------------------------------------------------


def deep(levels: int) -> Any:
    value: Any = {"name": 1}
    for _ in range(levels):
        value = {"child": value}
    return value


@pytest.mark.parametrize(
    ("schema", "value", "keyword"),
    [
        ({"items": {"type": "string"}}, [0] * 300_000, "type"),
        ({"items": {"type": "integer"}}, [*[0] * 300_000, "x"], "type"),
        ({"items": {}, "maxItems": 10}, [0] * 300_000, "maxItems"),
        ({"uniqueItems": True}, [*({"a": i} for i in range(20_000)), {"a": 0}], "uniqueItems"),
        ({"unevaluatedProperties": False}, {str(i): 1 for i in range(50_000)},
         "unevaluatedProperties"),
        ({"unevaluatedItems": False}, [0] * 300_000, "unevaluatedItems"),
        ({"additionalProperties": False}, {str(i): 1 for i in range(20_000)},
         "additionalProperties"),
        ({"properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}}, deep(500), "type"),
        ({"items": {"anyOf": [{"items": {"type": "string"}}, {"type": "null"}]}},
         [[0] * 1000] * 300, "type"),
    ],
    ids=["all wrong", "last wrong", "too many", "not unique", "unevaluated members",
         "unevaluated items", "extra members", "deep", "alternatives"],
)  # fmt: skip
def test_explaining_a_hostile_event_ends_soon(schema: Any, value: Any, keyword: str) -> None:
    validator = compile(schema)
    assert not validator.is_valid(value)
    faults, total = validator.explain(value, 100)
    assert keyword in {fault.keyword for fault in faults}
    assert 1 <= len(faults) <= 100
    assert total <= 10_000
    json.dumps(faults).encode()


def test_endless_references_are_survived() -> None:
    for schema in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}):
        assert compile(schema).is_valid(1) in (True, False)
        assert compile(schema).reference_is_valid(1) is False


# -- shipped events -----------------------------------------------------------------------

REGISTRY = Registry.load(Path("schemas"))
INVALID = sorted(Path("tests/data/events").glob("*/*.json"))


@pytest.mark.parametrize("name", REGISTRY.types)
def test_the_examples_of_a_shipped_schema_are_valid(name: str) -> None:
    event_type = REGISTRY.types[name]
    assert len(event_type.schema["examples"]) >= 2
    for event in event_type.schema["examples"]:
        assert verdict(event_type.validator, event)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_invalid_event_is_refused_where_it_is_at_fault(path: Path) -> None:
    case = json.loads(path.read_text())
    validator = REGISTRY.types[path.parent.name].validator
    assert not verdict(validator, case["event"])
    faults, total = validator.explain(case["event"], 10)
    assert [(fault.pointer, fault.keyword) for fault in faults] == [
        (case["pointer"], case["keyword"])
    ], case["why"]
    assert total == 1


def test_there_are_invalid_events_for_every_shipped_type() -> None:
    assert {path.parent.name for path in INVALID} == set(REGISTRY.types)
