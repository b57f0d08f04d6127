"""Schemas written into one document, in one draft, mean what they meant in their files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry as References
from referencing.jsonschema import DRAFT202012

from ingest.openapi import openapi_document
from ingest.openapi_schemas import Bundle
from ingest.registry import Registry

DRAFT = {
    "4": "http://json-schema.org/draft-04/schema#",
    "6": "http://json-schema.org/draft-06/schema#",
    "7": "http://json-schema.org/draft-07/schema#",
    "2019-09": "https://json-schema.org/draft/2019-09/schema",
    "2020-12": "https://json-schema.org/draft/2020-12/schema",
}


def load(directory: Path, files: dict[str, Any]) -> tuple[Registry, dict[str, Any]]:
    """A registry of these files, and the description made of it, which must be sound."""
    for name, schema in files.items():
        path = directory / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema))
    registry = Registry.load(directory)
    document = json.loads(json.dumps(openapi_document(registry)))
    validate(document)
    return registry, document


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]
    return []


def component(document: dict[str, Any], name: str) -> Draft202012Validator:
    resource = DRAFT202012.create_resource(document)
    known: References[Any] = References().with_resource("urn:document", resource)
    return Draft202012Validator(
        {"$ref": f"urn:document#/components/schemas/{name}"}, registry=known
    )


def assert_same_verdicts(
    registry: Registry, document: dict[str, Any], name: str, good: list[Any], bad: list[Any]
) -> None:
    described = component(document, f"event.{name}")
    original = registry.types[name].validator
    for verdict, values in ((True, good), (False, bad)):
        for value in values:
            assert original.is_valid(value) is verdict, f"the file on {value}"
            assert described.is_valid(value) is verdict, f"the description on {value}"


def test_every_reference_leads_to_a_component(tmp_path: Path) -> None:
    files = {
        "a": {"$ref": "b.json#/$defs/part", "properties": {"c": {"$ref": "_x/c.json"}}},
        "b": {"$id": "http://example.com/b", "$defs": {"part": {"$ref": "#named"},
              "other": {"$anchor": "named", "type": "object"}}},
        "_x/c": {"items": {"$ref": "d.json"}},
        "_x/d": {"anyOf": [{"$ref": "c.json"}, {"$ref": "/a.json"}, {"type": "integer"}]},
    }  # fmt: skip
    registry, document = load(tmp_path, files)
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.startswith("#/components/")
    for reference in references(schemas):
        assert reference.removeprefix("#/components/schemas/") in schemas
    text = json.dumps(schemas)
    for keyword in ("$id", "$anchor", "$defs", "$schema", "x-ingest"):
        assert f'"{keyword}":' not in text
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)
    assert {"event.a", "event.b", "shared._x.c", "shared._x.d"} <= set(schemas)
    assert_same_verdicts(registry, document, "a", [{}, {"c": [[1]]}, {"c": [{}]}], [1, []])


@pytest.mark.parametrize("definitions", ["definitions", "$defs"])
def test_a_schema_may_refer_to_itself(tmp_path: Path, definitions: str) -> None:
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": f"#/{definitions}/a~1b%25"}},
        definitions: {"a/b%": {"$ref": "tree.json"}},
    }
    registry, document = load(tmp_path, {"tree": tree})
    good = [{}, {"left": {"right": {"left": {}}}}]
    assert_same_verdicts(registry, document, "tree", good, [{"right": {"left": 1}}, []])


@pytest.mark.parametrize("draft", ["4", "6", "7", "2019-09"])
def test_a_list_of_items_and_what_follows_it(tmp_path: Path, draft: str) -> None:
    files = {
        "open": {"$schema": DRAFT[draft], "items": [{"type": "string"}]},
        "closed": {
            "$schema": DRAFT[draft], "items": [{"type": "string"}, {}], "additionalItems": False,
        },
        "rest": {
            "$schema": DRAFT[draft], "items": [{}], "additionalItems": {"$ref": "open.json"},
        },
        "idle": {
            "$schema": DRAFT[draft], "items": {"type": "integer"}, "additionalItems": False,
        },
    }  # fmt: skip
    registry, document = load(tmp_path, files)
    assert_same_verdicts(registry, document, "open", [[], ["a"], ["a", 1]], [[1]])
    assert_same_verdicts(registry, document, "closed", [[], ["a", 1]], [[1], ["a", 1, 2]])
    assert_same_verdicts(registry, document, "rest", [[1], [1, ["a"]]], [[1, [1]]])
    assert_same_verdicts(registry, document, "idle", [[1, 2, 3]], [["a"]])


@pytest.mark.parametrize("draft", ["4", "6", "7"])
def test_dependencies_and_references_that_stand_alone(tmp_path: Path, draft: str) -> None:
    schema = {
        "$schema": DRAFT[draft],
        "dependencies": {
            "a": ["b"],
            "c": {"required": ["d"], "properties": {"d": {"$ref": "#/definitions/n"}}},
        },
        "properties": {"e": {"$ref": "#/definitions/n", "maximum": 0}},
        "definitions": {"n": {"type": "integer"}},
    }  # fmt: skip
    registry, document = load(tmp_path, {"t": schema})
    good = [{}, {"a": 1, "b": 2}, {"c": 1, "d": 2}, {"e": 5}]
    assert_same_verdicts(
        registry, document, "t", good, [{"a": 1}, {"c": 1}, {"c": 1, "d": "x"}, {"e": "x"}]
    )


@pytest.mark.parametrize("draft", ["2019-09", "2020-12"])
def test_dependencies_count_beside_what_replaced_them(tmp_path: Path, draft: str) -> None:
    schema = {
        "$schema": DRAFT[draft],
        "dependencies": {"a": ["b"], "s": {"required": ["t"]}},
        "dependentRequired": {"a": ["c", "b"]},
        "dependentSchemas": {"s": {"required": ["u"]}},
    }
    registry, document = load(tmp_path, {"t": schema})
    good = [{"a": 1, "b": 1, "c": 1}, {"s": 1, "t": 1, "u": 1}]
    bad = [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"s": 1, "t": 1}, {"s": 1, "u": 1}]
    assert_same_verdicts(registry, document, "t", good, bad)


def test_draft_4_has_flags_for_exclusive_bounds_and_another_word_for_id(tmp_path: Path) -> None:
    schema = {
        "$schema": DRAFT["4"],
        "id": "http://example.com/other.json",
        "properties": {
            "a": {"minimum": 1, "exclusiveMinimum": True, "maximum": 3, "exclusiveMaximum": False},
            "id": {"$ref": "#/properties/a"},
        },
    }
    registry, document = load(tmp_path, {"t": schema})
    good, bad = [{"a": 2, "id": 3}, {"a": 3}], [{"a": 1}, {"a": 4}, {"id": 1}]
    assert_same_verdicts(registry, document, "t", good, bad)


@pytest.mark.parametrize(
    ("draft", "schema"),
    [
        ("4", {"const": 1}),
        ("4", {"contains": {"type": "null"}}),
        ("6", {"if": {}, "then": False}),
        ("7", {"dependentRequired": {"a": ["b"]}}),
        ("7", {"contains": {"type": "null"}, "minContains": 2}),
        ("7", {"prefixItems": [False]}),
        ("2019-09", {"prefixItems": [False]}),
        ("2020-12", {"additionalItems": False, "items": True}),
        ("4", {"examples": 3, "readOnly": "yes", "$comment": {}, "deprecated": 1}),
    ],
)
def test_what_a_draft_ignores_is_not_said_in_the_description(
    tmp_path: Path, draft: str, schema: dict[str, Any]
) -> None:
    registry, document = load(tmp_path, {"t": {"$schema": DRAFT[draft], **schema}})
    assert_same_verdicts(registry, document, "t", [{"a": 1}, 2, [1, None]], [])


def test_recursive_and_dynamic_references_are_bound(tmp_path: Path) -> None:
    recursive = {
        "$schema": DRAFT["2019-09"],
        "type": "object",
        "additionalProperties": {"$recursiveRef": "#", "minProperties": 1},
    }
    dynamic = {
        "$dynamicAnchor": "node",
        "type": "object",
        "additionalProperties": {"$dynamicRef": "#node", "$ref": "#/$defs/small"},
        "$defs": {"small": {"maxProperties": 1}},
    }
    registry, document = load(tmp_path, {"r": recursive, "d": dynamic})
    assert_same_verdicts(registry, document, "r", [{}, {"a": {"b": {"c": 1}}}][:1], [{"a": {}}, 1])
    assert_same_verdicts(
        registry, document, "d", [{"a": {"b": {}}}], [{"a": {"b": {}, "c": {}}}, {"a": 1}]
    )


def test_a_draft_within_another_keeps_its_meaning(tmp_path: Path) -> None:
    files = {
        "new": {"properties": {"old": {"$ref": "_old.json#/definitions/pair"}}},
        "_old": {"$schema": DRAFT["7"], "definitions": {"pair": {"items": [{"type": "null"}]}}},
        "both": {
            "items": {
                "$id": "within.json",
                "$schema": DRAFT["7"],
                "type": ["object"],
                "dependentRequired": {"a": ["b"]},
            }
        },
    }
    registry, document = load(tmp_path, files)
    assert_same_verdicts(registry, document, "new", [{"old": [None, 1]}], [{"old": [1]}])
    assert_same_verdicts(registry, document, "both", [[{"a": 1}]], [[1]])


def test_the_newest_version_of_a_type_is_described(tmp_path: Path) -> None:
    files = {
        "t/1": {"type": "string"},
        "t/2": {"type": ["string", "null"]},
        "u": {"$ref": "t/1.json"},
    }
    registry, document = load(tmp_path, files)
    assert_same_verdicts(registry, document, "t", ["a", None], [1])
    assert_same_verdicts(registry, document, "u", ["a"], [None])


def test_names_that_collide_are_told_apart(tmp_path: Path) -> None:
    files = {
        "a": {"properties": {"x": {"$ref": "#/$defs/p%20q"}, "y": {"$ref": "#/$defs/p_q"}},
              "$defs": {"p q": {"type": "null"}, "p_q": {"type": "string"}}},
        "Problem": {"type": "integer"},
    }  # fmt: skip
    registry, document = load(tmp_path, files)
    assert_same_verdicts(registry, document, "a", [{"x": None, "y": ""}], [{"x": ""}, {"y": None}])
    assert_same_verdicts(registry, document, "Problem", [1], [{}])
    assert document["components"]["schemas"]["Problem"]["type"] == "object"


def test_deep_schemas_are_written_without_recursion() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(5000):
        schema = {"items": schema}
    bundle = Bundle(
        References().with_resource("file:///t.json", DRAFT202012.create_resource(schema)), {}
    )
    assert bundle.add("file:///t.json") == {"$ref": "#/components/schemas/shared.t"}
    described = bundle.schemas["shared.t"]
    for _ in range(5000):
        described = described["items"]
    assert described == {"type": "integer"}


def test_the_shipped_types_are_described_as_they_are() -> None:
    registry = Registry.load(Path("schemas"))
    document = openapi_document(registry)
    for event_type in registry:
        described = component(document, f"event.{event_type.name}")
        assert all(described.is_valid(value) for value in event_type.schema["examples"])
        wrong = [
            json.loads(path.read_bytes())
            for path in sorted(Path("tests/data/events", event_type.name).glob("*.json"))
        ]
        # jsonschema takes format for an annotation here, and its `$` matches before a newline
        told = [case for case in wrong if case["keyword"] not in ("format", "pattern")]
        assert len(told) >= 2
        assert not any(described.is_valid(case["event"]) for case in told)
