"""The JSON Schema drafts as both validators understand them, brought to agree.

`jsonschema` and `jsonschema-rs` read the same schemas, but differ in places that a schema
author or a hostile client can reach. Here the Python side is given the native side's meaning
in just those places, so that what is explained is what was decided:

- `format`: asserted in every draft, by the native checks. jsonschema's own are looser (it
  takes any string with an @ for an email address) or wrong (no leap seconds, `P-1D`).
- `pattern`, `patternProperties` and what depends on them: ECMA-262 as JSON Schema says, run
  by an engine that takes linear time. Python's `re` backtracks, which a client can abuse,
  lets `$` match before a final newline and takes other alphabets' digits for `\\d`.
- `multipleOf`: exact in decimal. In binary 19.99 is no multiple of 0.01.
- `uniqueItems`: without comparing each with each.
- `contentEncoding`, `contentMediaType`: assertions in drafts 6 and 7, annotations elsewhere.

Every keyword draws on a `Budget`, so that explaining a hostile event ends soon, and
`unevaluatedProperties` and `unevaluatedItems` are left out of explanations.

This module must not know files, event types or HTTP.

Source: JSON Schema drafts 4, 6, 7, 2019-09, 2020-12 (Validation sections 6 and 7).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jsonschema
import jsonschema_rs as native
import orjson
from jsonschema.exceptions import FormatError, ValidationError
from jsonschema.validators import extend
from referencing import Specification
from referencing.jsonschema import DRAFT4, DRAFT6, DRAFT7, DRAFT201909, DRAFT202012

#: Steps of the backtracking engine on one string before it gives up and does not match.
BACKTRACK_LIMIT = 100_000

#: Characters of a message, and of the value it may start with.
MESSAGE_MAX = 200
_SHOWN_MAX = 80

EMAIL_OPTIONS = native.EmailOptions(allow_display_text=False)
LINEAR_PATTERNS = native.RegexOptions()
BACKTRACKING_PATTERNS = native.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT)

Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]
Verdict = Callable[[Any], bool]


class BudgetSpent(Exception):
    """The steps allowed for one explanation are used up."""


class Budget:
    """Steps that one explanation may take; a step is about two microseconds.

    Args:
        steps: how many; None for as many as it takes.
    """

    __slots__ = ("_left", "limited")

    def __init__(self, steps: int | None) -> None:
        self.limited = steps is not None
        self._left: float = float("inf") if steps is None else steps

    def spend(self, steps: int) -> None:
        """Take steps off.

        Raises:
            BudgetSpent: none are left.
        """
        self._left -= steps
        if self._left < 0:
            raise BudgetSpent


class Dialect(NamedTuple):
    """One draft.

    Attributes:
        name: as people call it.
        uri: its metaschema, without an empty fragment.
        specification: how identifiers, references and subschemas are found.
        native: compiles schemas for verdicts.
        reference: jsonschema's validator for the draft, with the meaning described above.
        metaschema: checks schemas; jsonschema's own validator.
    """

    name: str
    uri: str
    specification: Specification[Any]
    native: Any
    reference: Any
    metaschema: Any


class FormatChecker(jsonschema.FormatChecker):
    """jsonschema's view of the native format checks; also carries the budget about.

    Args:
        dialect: the draft whose formats count.
        budget: what keywords draw on.
    """

    def __init__(self, dialect: str, budget: Budget) -> None:
        self.dialect = dialect
        self.budget = budget
        self.checkers = {}

    def check(self, instance: object, format: str) -> None:
        """Raise jsonschema's FormatError unless a string is of the format, or it is unknown."""
        verdict = format_check(self.dialect, format)
        if verdict is not None and isinstance(instance, str) and not verdict(instance):
            raise FormatError(f"{instance!r} is not a {format!r}")


@lru_cache(maxsize=1024)
def format_check(dialect: str, name: str) -> Verdict | None:
    """The check for a format, or None when the draft does not know it."""
    for known in DIALECTS.values():
        if known.name == dialect:
            try:
                return known.native(
                    {"format": name},
                    validate_formats=True,
                    ignore_unknown_formats=False,
                    email_options=EMAIL_OPTIONS,
                ).is_valid
            except native.ValidationError:
                return None
    raise LookupError(dialect)


class Matcher(NamedTuple):
    """A compiled regular expression.

    Attributes:
        search: whether it matches anywhere in a string.
        engine: `linear`, `bounded` (backtracks, up to a limit) or `python` (unbounded).
    """

    search: Callable[[str], Any]
    engine: str


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Matcher | None:
    """Compile a pattern for the best engine that takes it; None when none does."""
    for options, engine in ((LINEAR_PATTERNS, "linear"), (BACKTRACKING_PATTERNS, "bounded")):
        try:
            compiled = native.Draft202012Validator({"pattern": pattern}, pattern_options=options)
        except native.ValidationError:
            continue
        return Matcher(compiled.is_valid, engine)
    try:
        return Matcher(re.compile(pattern).search, "python")
    except (re.error, RecursionError, OverflowError):
        return None


@lru_cache(maxsize=4096)
def _native_verdict(schema: bytes, draft7: bool) -> Verdict:
    """A tiny schema compiled by the native validator."""
    compiler = native.Draft7Validator if draft7 else native.Draft202012Validator
    return compiler(schema.decode()).is_valid


def _matches(pattern: str, text: str) -> bool:
    found = matcher(pattern)
    return found is not None and bool(found.search(text))


# -- keywords -------------------------------------------------------------------------------


def _pattern(validator: Any, pattern: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for name, member in instance.items():
            if _matches(pattern, name):
                yield from validator.descend(member, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, additional: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    named = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    extras = [
        name
        for name in instance
        if name not in named and not any(_matches(pattern, name) for pattern in patterns)
    ]
    if isinstance(additional, dict):
        for name in extras:
            yield from validator.descend(instance[name], additional, path=name)
    elif additional is False and extras:
        listed = ", ".join(repr(name) for name in extras)
        verb = "was" if len(extras) == 1 else "were"
        yield ValidationError(f"Additional properties are not allowed ({listed} {verb} unexpected)")


def _multiple_of(
    validator: Any, divisor: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "number"):
        verdict = _native_verdict(orjson.dumps({"multipleOf": divisor}), False)
        if not verdict(instance):
            yield ValidationError(f"{instance!r} is not a multiple of {divisor}")


def _unique_items(validator: Any, unique: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if unique and isinstance(instance, list):
        verdict = _native_verdict(b'{"uniqueItems":true}', False)
        if not verdict(instance):
            yield ValidationError(f"{instance!r} has non-unique elements")


def _content(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, str):
        return
    described = {key: schema[key] for key in _CONTENT_KEYWORDS if key in schema}
    if not _native_verdict(orjson.dumps(described), True)(instance):
        yield ValidationError(f"{instance!r} is not encoded as {described!r}")


_CONTENT_KEYWORDS = ("contentEncoding", "contentMediaType")
_OVERRIDES: dict[str, Keyword] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
    "uniqueItems": _unique_items,
}
#: What jsonschema does in quadratic time and with `re`: left out of explanations. Where
#: nothing else is at fault, the native validator words the fault.
_UNBOUNDED = frozenset({"unevaluatedItems", "unevaluatedProperties"})


def _metered(keyword: str, function: Keyword) -> Keyword:
    """A keyword that draws on the budget by the size of what it looks at and says."""
    unbounded = keyword in _UNBOUNDED

    def run(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        budget = validator.format_checker.budget
        if unbounded and budget.limited:
            return
        size = len(instance) if isinstance(instance, dict | list) else 0
        budget.spend(1 + size // 8)
        for error in function(validator, value, instance, schema) or ():
            if len(error.message) > MESSAGE_MAX:
                budget.spend(len(error.message) // 256)
                error.message = _shortened(error.message, repr(instance))
            yield error

    return run


def _shortened(message: str, shown: str) -> str:
    """Shorten the value that a message starts with, so that the reason behind it is kept."""
    if message.startswith(shown) and len(shown) > _SHOWN_MAX:
        message = f"{shown[:_SHOWN_MAX]}...{message[len(shown) :]}"
    return bounded(message)


def bounded(message: str) -> str:
    """A message of at most 200 characters."""
    return message if len(message) <= MESSAGE_MAX else f"{message[: MESSAGE_MAX - 3]}..."


def _located(descend: Callable[..., Iterator[ValidationError]]) -> Any:
    """jsonschema's `descend`, which does not say where a schema that is `false` stood."""

    def run(
        self: Any,
        instance: Any,
        schema: Any,
        path: Any = None,
        schema_path: Any = None,
        resolver: Any = None,
    ) -> Iterator[ValidationError]:
        if schema is False and path is not None:
            message = f"False schema does not allow {instance!r}"
            error = ValidationError(
                message,
                validator=None,  # type: ignore[arg-type]
                validator_value=None,
                instance=instance,
                schema=schema,
                path=(path,),
            )
            return iter((error,))
        return descend(self, instance, schema, path, schema_path, resolver)

    return run


def _evolve(self: Any, **changes: Any) -> Any:
    """As jsonschema's own, but a subschema that names its draft gets our class for it."""
    schema = changes.setdefault("schema", self.schema)
    kind = type(self)
    if isinstance(schema, dict) and "$schema" in schema:
        dialect = dialect_of(schema)
        if dialect is not None and dialect.reference is not kind:
            kind = dialect.reference
            changes["format_checker"] = FormatChecker(dialect.name, self.format_checker.budget)
    for field in type(self).__attrs_attrs__:
        if field.init and field.alias not in changes:
            changes[field.alias] = getattr(self, field.name)
    return kind(**changes)


def _dialect(name: str, base: Any, compiler: Any, specification: Specification[Any]) -> Dialect:
    keywords: dict[str, Any] = {**base.VALIDATORS, **_OVERRIDES}
    if name in ("6", "7"):
        keywords.update(dict.fromkeys(_CONTENT_KEYWORDS, _content))
    reference: Any = extend(
        base, {key: _metered(key, function) for key, function in keywords.items()}
    )
    reference.evolve = _evolve
    reference.descend = _located(reference.descend)
    uri = base.ID_OF(base.META_SCHEMA).rstrip("#")
    return Dialect(name, uri, specification, compiler, reference, base)


#: By metaschema URI, oldest first.
DIALECTS: dict[str, Dialect] = {
    dialect.uri: dialect
    for dialect in (
        _dialect("4", jsonschema.Draft4Validator, native.Draft4Validator, DRAFT4),
        _dialect("6", jsonschema.Draft6Validator, native.Draft6Validator, DRAFT6),
        _dialect("7", jsonschema.Draft7Validator, native.Draft7Validator, DRAFT7),
        _dialect(
            "2019-09", jsonschema.Draft201909Validator, native.Draft201909Validator, DRAFT201909
        ),
        _dialect(
            "2020-12", jsonschema.Draft202012Validator, native.Draft202012Validator, DRAFT202012
        ),
    )
}
DEFAULT = DIALECTS["https://json-schema.org/draft/2020-12/schema"]


def dialect_of(schema: Any) -> Dialect | None:
    """The draft a schema is written in; 2020-12 when it does not say, None when unknown."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    if named is None:
        return DEFAULT
    return DIALECTS.get(named.rstrip("#")) if isinstance(named, str) else None
