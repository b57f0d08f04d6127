"""Bodies used all over the tests."""

from __future__ import annotations

from typing import Any

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
