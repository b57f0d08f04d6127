"""A record as the row of a table, and the columns that a table of records has.

PURE but for the JSON libraries: values in, values out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

#: Columns that are there whatever the records hold, in this order; then others as they come.
ALWAYS = ("partition", "offset", "id", "source", "type", "time")
#: More are no table; whoever has them names the ones that are wanted.
COLUMNS_MAX = 1000

#: The same in every record, or about the file and not the event.
_LEFT_OUT = frozenset({"specversion", "ingestcommit"})
#: Columns of ours; an extension attribute of that name has `event.` before it.
_OURS = frozenset({"partition", "offset"})
#: A number that may not survive as a 64-bit integer or double; rare, so it may cost more.
_LONG_NUMBER = re.compile(rb"[0-9.]{16}|[0-9][eE][+-]?[0-9]{3}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_INT64 = range(-(1 << 63), 1 << 63)

Row = dict[str, Any]


class Number(str):
    """A number as it was written, because Python's would be another."""

    __slots__ = ()


class TooManyColumns(Exception):
    """The records have more different members than a table has columns."""


def row_of(partition: int, offset: int, line: bytes) -> Row:
    """The values of a record by column; missing ones are missing."""
    record = _loads(line)
    row: Row = {"partition": partition, "offset": offset}
    data = record.pop("data", None)
    for name, value in record.items():
        if name not in _LEFT_OUT:
            row[f"event.{name}" if name in _OURS else name] = value
    if isinstance(data, Mapping):
        for name, value in data.items():
            row[f"data.{name}"] = value
    elif data is not None:
        row["data"] = data
    return row


def _loads(line: bytes) -> dict[str, Any]:
    if not _LONG_NUMBER.search(line):
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            pass  # an escaped lone surrogate: RFC 8259 allows it, orjson does not
    return json.loads(line, parse_float=Number, parse_int=_integer)


def _integer(text: str) -> int | Number:
    return int(text) if len(text) < 18 else Number(text)


def text_of(value: Any) -> str:
    """A value as the text of a cell; what is nested as JSON."""
    if isinstance(value, str):  # Number is one
        return value
    if value is None:
        return ""
    return json_text(value)


def json_text(value: Any) -> str:
    """A value as compact JSON, numbers as they were."""
    if isinstance(value, Number):
        return value
    if isinstance(value, dict):
        members = (f"{json.dumps(k, ensure_ascii=False)}:{json_text(v)}" for k, v in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class Columns:
    """The columns of a table, and what kinds of values they hold.

    Args:
        names: of the columns; None to find them.
    """

    def __init__(self, names: list[str] | None) -> None:
        self._found = names is None
        self._kinds: dict[str, set[str]] = {name: set() for name in names or ALWAYS}

    @property
    def names(self) -> list[str]:
        """In order: attributes first, then the data's members."""
        if not self._found:
            return list(self._kinds)
        return sorted(self._kinds, key=lambda name: name == "data" or name.startswith("data."))

    def look_at(self, row: Row) -> None:
        """Take note of a row's columns and kinds.

        Raises:
            TooManyColumns: that is one too many.
        """
        kinds = self._kinds
        for name, value in row.items():
            known = kinds.get(name)
            if known is None:
                if not self._found:
                    continue
                if len(kinds) >= COLUMNS_MAX:
                    raise TooManyColumns(
                        f"the events have more than {COLUMNS_MAX} different members: choose some "
                        f"with --columns"
                    )
                known = kinds[name] = set()
            known.add(_kind(value))

    def kind(self, name: str) -> str:
        """What a column holds: boolean, integer, number, time or text."""
        kinds = self._kinds[name] - {"null"}
        if kinds == {"integer", "number"}:
            return "number"
        return kinds.pop() if len(kinds) == 1 else "text"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INT64 else "text"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "time" if not isinstance(value, Number) and _is_time(value) else "text"
    return "text"


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:-1])
    except ValueError:  # the thirteenth month
        return False
    return True
