"""Readings as bytes, on their way from a worker to the supervisor.

PURE: this module must not know which metrics exist, or how the bytes travel.
"""

from __future__ import annotations

from typing import Any

import orjson

from ingest.metrics_exposition import Cells, Readings, Value


def pack(readings: Readings) -> bytes:
    """The bytes: JSON, each family a list of label values and value."""
    return orjson.dumps({name: list(cells.items()) for name, cells in readings.items() if cells})


def unpack(packed: bytes) -> Readings:
    """What was packed. A number that JSON does not have (not a number, infinite) is left out."""
    return {name: _cells(found) for name, found in orjson.loads(packed).items()}


def _cells(found: list[tuple[list[str], Any]]) -> Cells:
    return {tuple(labels): _value(value) for labels, value in found if value is not None}


def _value(value: Any) -> Value:
    if isinstance(value, list):
        counts, total, examples = value
        return counts, total, [tuple(example) for example in examples]
    number: float = value
    return number
