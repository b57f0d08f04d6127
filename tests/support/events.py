"""Bodies used all over the tests."""

from __future__ import annotations

from hashlib import shake_128
from typing import Any
from zlib import crc32

METRICS: dict[str, Any] = {
    "metrics": [
        {"name": "cpu.load", "value": 0.75, "type": "gauge", "tags": {"host": "a1"}},
        {"name": "http.requests", "value": 1027, "type": "counter"},
        {"name": "http.latency", "value": 12.5, "type": "histogram", "tags": {"route": "/"}},
    ]
}


def metric(value: Any = 1, name: str = "m") -> dict[str, Any]:
    """A `metrics` event with one metric."""
    return {"metrics": [{"name": name, "value": value, "type": "gauge"}]}


def signed(key: str, size: int) -> dict[str, Any]:
    """An event that tells by itself whether it is whole; `size` bytes of it are padding.

    Its type is one of tests/crash/schemas: `durable` or `written`.
    """
    pad = shake_128(key.encode()).hexdigest(size // 2 + 1)[:size]  # does not compress away
    return {"key": key, "check": crc32(f"{key}/{pad}".encode()), "pad": pad}


def is_signed(data: Any) -> bool:
    """Whether this is an event as `signed` made it, to the last byte."""
    return set(data) == {"key", "check", "pad"} and data["check"] == crc32(
        f"{data['key']}/{data['pad']}".encode()
    )
