"""Changes JSON documents as documents, so that most of what is tried is still JSON.

Bytes changed at random are nearly always refused by the decoder and never reach the
validators; half of the inputs are therefore changed here.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

WORDS = (
    "", "a", "metrics", "name", "value", "type", "gauge", "tags", "url", "at", "é", "\u2028",
    "2026-11-23T10:15:00Z", "2016-12-31T23:59:60Z", "2026-02-29T00:00:00+23:59", "http://a/",
    "AB-123456", "a@b.example", "0193578a-7b1c-7c52-9d0a-4f2f5e1f9a10", "1.00", "EUR", "0" * 300,
    "\x00", "😀", ',"ingestcommit":"0 1 0 1 00000000"}', "a\n", "~1/~0",
)  # fmt: skip
NUMBERS = (
    0, -0.0, 1, -1, 0.5, 1e308, 5e-324, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63),
    1.0, 86400000, 86400001, 10000, 10001, 1e20,
)  # fmt: skip


def mutate(data: bytes, random: Random) -> bytes | None:
    """Change the document behind the first byte; None when it is none."""
    try:
        value = json.loads(data[1:])
        for _ in range(random.randint(1, 3)):
            value = changed(value, random)
        text = json.dumps(
            value, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 0))
        )
        return data[:1] + text.encode()
    except (ValueError, RecursionError):
        return None


def changed(value: Any, random: Random) -> Any:
    """The value with one change at one place."""
    if isinstance(value, dict | list) and value and random.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = random.choice(keys)
        way = random.randrange(6)
        if way < 3:
            value[key] = changed(value[key], random)
        elif way == 3:
            del value[key]
        elif isinstance(value, dict):
            name = random.choice(WORDS)
            value[name] = value.pop(key) if way == 4 else anything(random)
        else:
            value.insert(key, value[key] if way == 4 else anything(random))
        return value
    return anything(random)


def anything(random: Random) -> Any:
    way = random.randrange(8)
    if way < 3:
        return random.choice(WORDS)
    if way < 5:
        return random.choice(NUMBERS)
    if way == 5:
        return random.choice((None, True, False))
    few = range(random.randrange(3))
    if way == 6:
        return [anything(random) for _ in few]
    return {random.choice(WORDS): anything(random) for _ in few}
