"""What the API fuzzer has to be told: how a list of events becomes NDJSON."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "application/ndjson", "application/jsonl")
def lines(_context: Any, value: Any) -> bytes:
    """One event a line, an empty one for none; what is no list is sent to be refused."""
    if isinstance(value, bytes):
        return value
    events = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(event).encode() + b"\n" for event in events) or b"\n"
