"""Says yes to events at a third of the cost: their schema as a type that msgspec decodes into.

msgspec reads bytes and judges them by a type in one pass. Many schemas are such types: closed
objects, maps, arrays, strings and numbers with bounds. For these an event is asked here first.
Only a yes counts, and it must mean that the strict decoder takes the bytes and the validator
the value. Whatever is not plainly good is decoded, judged and explained as ever; so is all
that has a keyword which no type expresses exactly.

What makes a yes trustworthy: every byte is read by a type (nothing is skipped, unknown members
are refused), numbers stay within what a double and JSON Schema's arithmetic agree on, and
`PROBES` are refused at import. Tests compare verdicts on generated schemas and events.

This module must not know HTTP, files or event types.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import ceil, floor
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec

#: Drafts whose keywords mean what is said below; draft 4 has other bounds and integers.
DRAFTS = frozenset({"2020-12", "2019-09", "7", "6"})
_SAYS_NOTHING = frozenset({
    "$comment", "$defs", "$schema", "default", "definitions", "deprecated", "description",
    "examples", "readOnly", "title", "writeOnly",
})  # fmt: skip
#: By the kind of value, what else a schema of it may say.
_KEYWORDS = {
    "object": {"additionalProperties", "maxProperties", "minProperties", "properties",
               "propertyNames", "required"},
    "array": {"items", "maxItems", "minItems"},
    "string": {"maxLength", "minLength"},
    "number": {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"},
    "integer": {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"},
    "boolean": set(),
    "null": set(),
}  # fmt: skip
_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
#: Bounds beyond this are not the same for an integer and the double nearest to it.
BOUND_MAX = 2**53
#: msgspec takes integers of any length; what does not fit in here is judged by others.
INTEGERS: dict[str, int | float] = {"ge": -(2**63), "le": 2**63 - 1}
#: msgspec compares names as they stand in the bytes.
_PLAIN_NAME = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')
_LOCAL = re.compile(r"#/(?:\$defs|definitions)/([^/~%]+)")


#: Subscribed at run time.
_list: Any = list
_dict: Any = dict


class Unfit(Exception):
    """No type says what the schema says."""


class Typed(NamedTuple):
    """A schema as a type.

    Attributes:
        accepts: whether each of some JSON texts is an event, for certain.
        accepts_array: whether a JSON text is an array of events, for certain.
        depth: how many arrays and objects are within each other at most.
    """

    accepts: Callable[[Iterable[bytes]], bool]
    accepts_array: Callable[[bytes], bool]
    depth: int


def typed(schema: Any, draft: str) -> Typed | None:
    """A schema as a type; None where there is none that means the same.

    Args:
        schema: known to be one.
        draft: name of its dialect.
    """
    if draft not in DRAFTS or not _STRICT:
        return None
    try:
        kind, depth = _Types(schema).of(schema, ())
        decode = msgspec.json.Decoder(kind).decode
        array = msgspec.json.Decoder(_list[kind]).decode
    except (Unfit, TypeError, ValueError):
        return None  # msgspec has the last word on which types there are
    return Typed(_all(decode), lambda raw: _all(array)((raw,)), depth)


def _all(decode: Callable[[bytes], Any]) -> Callable[[Iterable[bytes]], bool]:
    def accepts(raws: Iterable[bytes]) -> bool:
        try:
            deque(map(decode, raws), 0)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        return True

    return accepts


class _Types:
    """Makes types of the parts of a schema.

    Args:
        root: what `$ref` refers to.
    """

    def __init__(self, root: Any) -> None:
        self._root = root

    def of(self, schema: Any, within: tuple[str, ...]) -> tuple[Any, int]:
        """The type of a part, and its depth.

        Args:
            within: references on the way here.

        Raises:
            Unfit: there is none.
        """
        if not isinstance(schema, dict):
            raise Unfit
        said = {name for name in schema if name not in _SAYS_NOTHING}
        if not within and schema is self._root:
            said -= {"x-ingest", "$id"}
        if said == {"$ref"}:
            return self._referred(schema["$ref"], within)
        if said <= {"type", "enum"} and "enum" in said:
            return self._strings(schema["enum"], schema.get("type", "string")), 0
        if said <= {"type", "const"} and "const" in said:
            return self._strings([schema["const"]], schema.get("type", "string")), 0
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or {"integer", "number"} <= set(kinds):
            raise Unfit
        if not said <= {"type"}.union(*(_KEYWORDS[kind] for kind in kinds)):
            raise Unfit
        types, depths = zip(*(self._kind(kind, schema, within) for kind in kinds), strict=True)
        return Union[types], max(depths)  # noqa: UP007 - made at run time

    def _referred(self, reference: Any, within: tuple[str, ...]) -> tuple[Any, int]:
        found = _LOCAL.fullmatch(reference) if isinstance(reference, str) else None
        if found is None or reference in within:
            raise Unfit
        part = self._root.get(reference.split("/")[1], {}).get(found[1])
        return self.of(part, (*within, reference))

    @staticmethod
    def _strings(values: Any, kind: Any) -> Any:
        if kind != "string" or not all(isinstance(value, str) for value in values):
            raise Unfit
        return Literal[tuple(values)]

    def _kind(self, kind: str, schema: dict[str, Any], within: tuple[str, ...]) -> tuple[Any, int]:
        if kind == "object":
            return self._object(schema, within)
        if kind == "array":
            item, depth = self.of(schema.get("items"), within)
            return _sized(_list[item], schema, "minItems", "maxItems"), depth + 1
        if kind == "string":
            return _sized(str, schema, "minLength", "maxLength"), 0
        if kind == "boolean":
            return bool, 0
        if kind == "null":
            return None, 0
        bounds = {short: _bound(schema[name]) for name, short in _BOUNDS.items() if name in schema}
        whole = Annotated[int, _meta(INTEGERS | _whole(bounds))]
        if kind == "integer":
            return whole, 0
        if not bounds:
            return float, 0
        # As a float an integer near 2^53 would be another one.
        return Union[whole, Annotated[float, _meta(bounds)]], 0  # noqa: UP007

    def _object(self, schema: dict[str, Any], within: tuple[str, ...]) -> tuple[Any, int]:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        if properties or others is False:
            if others is not False or schema.keys() & {
                "minProperties", "maxProperties", "propertyNames",
            }:  # fmt: skip
                raise Unfit
            return self._record(properties, schema.get("required", ()), within)
        # A name that stands twice counts once for JSON Schema; the type need not see it so.
        if schema.get("required") or schema.get("minProperties", 0) > 1:
            raise Unfit
        value, depth = self.of(others, within)
        names = schema.get("propertyNames", {})
        if not isinstance(names, dict) or not names.keys() <= {"minLength", "maxLength", "type"}:
            raise Unfit
        if names.get("type", "string") != "string":
            raise Unfit
        name = _sized(str, names, "minLength", "maxLength")
        return _sized(_dict[name, value], schema, "minProperties", "maxProperties"), depth + 1

    def _record(
        self, properties: Mapping[str, Any], required: Iterable[str], within: tuple[str, ...]
    ) -> tuple[Any, int]:
        required = set(required)
        if not required <= properties.keys():
            raise Unfit  # nothing could ever match
        fields: list[Any] = []
        rename = {}
        deepest = 0
        # Those with a default come last.
        for number, name in enumerate(sorted(properties, key=lambda each: each not in required)):
            if not _PLAIN_NAME.fullmatch(name):
                raise Unfit
            kind, depth = self.of(properties[name], within)
            deepest = max(deepest, depth)
            field = f"f{number}"
            rename[field] = name
            if name in required:
                fields.append((field, kind))
            else:
                fields.append((field, Union[kind, msgspec.UnsetType], msgspec.UNSET))  # noqa: UP007
        record = msgspec.defstruct(
            "Record", fields, rename=rename, forbid_unknown_fields=True, gc=False
        )
        return record, deepest + 1


def _sized(kind: Any, schema: Mapping[str, Any], least: str, most: str) -> Any:
    """A type with bounds on its length."""
    if least not in schema and most not in schema:
        return kind
    bounds = {"min_length": schema.get(least, 0)}
    if most in schema:
        bounds["max_length"] = schema[most]
    if not all(type(bound) is int for bound in bounds.values()):
        raise Unfit  # 1.0 is an integer to JSON Schema
    return Annotated[kind, _meta(bounds)]


def _bound(value: Any) -> int | float:
    if type(value) not in (int, float) or abs(value) > BOUND_MAX:
        raise Unfit
    found: int | float = value
    return found


def _whole(bounds: Mapping[str, int | float]) -> dict[str, int | float]:
    """The same bounds for integers: with both kinds on a side, the narrower one."""
    found: dict[str, int | float] = {}
    low = [ceil(bounds["ge"])] if "ge" in bounds else []
    low += [floor(bounds["gt"]) + 1] if "gt" in bounds else []
    high = [floor(bounds["le"])] if "le" in bounds else []
    high += [ceil(bounds["lt"]) - 1] if "lt" in bounds else []
    if low:
        found["ge"] = max(low)
    if high:
        found["le"] = min(high)
    return found


def _meta(bounds: Mapping[str, Any]) -> msgspec.Meta:
    return msgspec.Meta(**bounds)


#: What a decoder must refuse before it is trusted with anything, by the type it is asked for.
PROBES: tuple[tuple[Any, tuple[bytes, ...]], ...] = (
    (float, (b"01", b"-", b"1.", b".5", b"+1", b"1e", b"1e999", b"1" * 400, b"NaN", b"Infinity",
             b"1 2", b"\xef\xbb\xbf1", b"1\x00", b"\x0c1", b"true", b'"1"', b"")),
    (Annotated[int, _meta(INTEGERS)], (b"1" * 400, b"01", b"-", b"1.5", b"true")),
    (str, (b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\n"',
           b'"\x00"', b'"\\x"', b'"\\u00zz"', b"'a'", b'"a', b'"a"b', b'"\xf4\x90\x80\x80"')),
    (list[int], (b"[1,]", b"[,1]", b"[1 2]", b"[1", b"[1]]", b"[1]//", b"[1]{}")),
    (dict[str, int], (b'{"a":1,}', b"{a:1}", b'{"a":1 "b":2}', b'{"\xff":1}', b'{"\\ud800":1}',
                      b'{"\n":1}', b'{"a":1}}', b"{1:2}")),
    (msgspec.defstruct("Record", [("a", int), ("b", int)], forbid_unknown_fields=True),
     (b'{"a":1,"a":2}', b'{"a":1,"b":2,"c":3}', b'{"a":1,"b":2,}', b'{"a":1}', b"[1,2]")),
)  # fmt: skip

#: Whether this msgspec refuses them all.
_STRICT = not any(
    _all(msgspec.json.Decoder(kind).decode)((probe,)) for kind, probes in PROBES for probe in probes
)
