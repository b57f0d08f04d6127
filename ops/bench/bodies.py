"""Events to post: many different ones, the same in every run."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

NAMES = ("http.server.requests", "process.memory.rss", "http.server.duration", "queue.depth.max")
TYPES = ("counter", "gauge", "histogram", "summary")


def dumps(value: Any) -> bytes:
    """Without blanks, as producers send it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def metric(source: random.Random) -> dict[str, Any]:
    """One metric of about 85 bytes; no two are alike."""
    return {
        "name": source.choice(NAMES),
        "value": source.randrange(10**7) / 4,
        "type": source.choice(TYPES),
        "tags": {"host": f"web-{source.randrange(10000)}"},
    }


def event(source: random.Random, metrics: int) -> bytes:
    """One event of the type `metrics`."""
    return dumps({"metrics": [metric(source) for _ in range(metrics)]})


def ndjson(events: Sequence[bytes]) -> bytes:
    return b"\n".join(events) + b"\n"


def array(events: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(events) + b"]"
