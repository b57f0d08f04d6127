"""The native validator and jsonschema give the same verdict on generated events.

For every shipped schema, events are made from the schema itself, so that they are valid or
nearly so, and then damaged in one to three places: a member taken out, put in, or replaced.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.registry import EventType, Registry

SCHEMAS = Path("schemas")
REGISTRY = Registry.load(SCHEMAS)
TYPES = list(REGISTRY)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)

#: Valid and invalid alike: what decides is whether both say the same.
FORMATS = {
    "date": ["2026-11-23", "2024-02-29", "2026-02-29", "0000-01-01", "2026-1-1", "٢٠٢٦-01-01"],
    "date-time": [
        "2026-11-23T10:15:00Z", "2026-11-23t10:15:00.1z", "2026-11-23T10:15:00",
        "2016-12-31T23:59:60Z", "2026-11-23T24:00:00Z", "2026-11-23T10:15:00+01:00",
        "2026-11-23T10:15:00Z\n",
    ],
    "email": ["a@b.c", "@", "a@", "a b@c.d", "A <a@b.c>", '"a b"@c.d', "é@b.c", "a@b.c\n"],
    "uri": ["https://example.com/", "/a", "a:", "http://a b", "http://é", "http://[::1]/", "http://a\n"],
    "uuid": ["0193578a-7b1c-7c52-9d0a-4f2f5e1f9a10", "0193578a7b1c7c529d0a4f2f5e1f9a10", "x"],
}  # fmt: skip


def instances(schema: Any, file: str) -> st.SearchStrategy[Any]:
    """Values that match a schema, or come close, from the keywords the shipped schemas use."""
    if not isinstance(schema, dict):
        return json_values
    if "$ref" in schema:
        return instances(orjson.loads((SCHEMAS / schema["$ref"]).read_bytes()), schema["$ref"])
    if "oneOf" in schema:
        return st.one_of([instances(choice, file) for choice in schema["oneOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "string")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return st.one_of([of_type(kind, schema, file) for kind in kinds])


def of_type(kind: str, schema: dict[str, Any], file: str) -> st.SearchStrategy[Any]:
    if kind == "object":
        members = {name: instances(sub, file) for name, sub in schema.get("properties", {}).items()}
        required = {name: members.pop(name) for name in schema.get("required", ())}
        fixed = st.fixed_dictionaries(required, optional=members)
        extra = schema.get("additionalProperties", True)
        if extra is False:
            return fixed
        others = st.dictionaries(st.text(max_size=5), instances(extra, file), max_size=2)
        return st.tuples(others, fixed).map(lambda both: {**both[0], **both[1]})
    if kind == "array":
        least = schema.get("minItems", 0)
        return st.lists(instances(schema.get("items"), file), min_size=least, max_size=least + 2)
    if kind == "string" and "format" in schema:
        return st.sampled_from(FORMATS[schema["format"]])
    if kind == "string" and "pattern" in schema:
        return st.from_regex(schema["pattern"])  # its $ lets a final newline through: wanted
    if kind == "string":
        return st.text(min_size=schema.get("minLength", 0), max_size=6)
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**64 - 1)
        near = st.sampled_from([low, high, low - 1, high + 1, float(low), 0.5, -0.0, 1e308, 5e-324])
        return st.integers(low, high) | near | st.floats(allow_nan=False, allow_infinity=False)
    return {"null": st.none(), "boolean": st.booleans()}[kind]


def containers(value: Any) -> list[Any]:
    """Every object and array in a value that has members, outermost first."""
    found = [value] if isinstance(value, dict | list) and value else []
    children = value.values() if isinstance(value, dict) else value
    for child in children if isinstance(value, dict | list) else ():
        found += containers(child)
    return found


@st.composite
def damaged(draw: st.DrawFn, good: st.SearchStrategy[Any]) -> Any:
    value = copy.deepcopy(draw(good))
    for _ in range(draw(st.integers(1, 3))):
        places = containers(value)
        if not places:
            return draw(json_values)
        container = draw(st.sampled_from(places))
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        key = draw(st.sampled_from(keys))
        how = draw(st.sampled_from(["take", "put", "replace"]))
        if how == "take":
            del container[key]
        elif how == "replace":
            container[key] = draw(json_values)
        elif isinstance(container, dict):
            container[draw(st.text(max_size=4))] = draw(json_values)
        else:
            container.insert(key, draw(json_values))
    return value


def agree(event_type: EventType, event: Any) -> bool:
    """The verdict both give; what is refused is also explained."""
    event = orjson.loads(json.dumps(event))  # as it would come from a producer
    verdict = event_type.validator.is_valid(event)
    assert event_type.validator.reference_is_valid(event) is verdict
    if not verdict:
        faults, total = event_type.validator.explain(event, 5)
        assert 1 <= len(faults) <= min(5, total)
        assert all(len(fault.message) <= 200 and fault.keyword for fault in faults)
    return verdict


QUICK = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("event_type", TYPES, ids=lambda each: each.name)
def test_both_validators_agree_on_events_made_from_the_schema(event_type: EventType) -> None:
    verdicts: Counter[bool] = Counter()

    @QUICK
    @given(instances(event_type.schema, event_type.path.as_posix()))
    def check(event: Any) -> None:
        verdicts[agree(event_type, event)] += 1

    check()
    assert verdicts[True]  # not only rubbish was tried


@pytest.mark.parametrize("event_type", TYPES, ids=lambda each: each.name)
def test_both_validators_agree_on_damaged_events(event_type: EventType) -> None:
    verdicts: Counter[bool] = Counter()
    good = st.sampled_from(event_type.schema["examples"])
    made = instances(event_type.schema, event_type.path.as_posix())

    @QUICK
    @given(damaged(good | made))
    def check(event: Any) -> None:
        verdicts[agree(event_type, event)] += 1

    check()
    assert verdicts[False] > 50


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.01, 0.1, 0.5, 3, 1e-7]))
def test_both_validators_agree_on_multiples(value: float, divisor: float) -> None:
    from ingest.validation_dialects import DEFAULT, Budget, FormatChecker

    schema = {"multipleOf": divisor}
    reference = DEFAULT.reference(schema, format_checker=FormatChecker("2020-12", Budget(None)))
    for number in (value, round(value, 2), math.trunc(value) if abs(value) < 2**63 else value):
        assert DEFAULT.native(schema).is_valid(number) is reference.is_valid(number)
