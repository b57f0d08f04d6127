"""W3C Trace Context: which trace a request belongs to, by its `traceparent` field.

The gateway makes no spans of its own. It keeps the producer's context with the event, and names
it in log lines and exemplars, so that one id finds request, line and record.

PURE: this module must not know where the ids are shown.

Source: W3C Trace Context section 3.2; names of the ids in log lines: OpenTelemetry, "Trace Context
in non-OTLP Log Formats".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

#: W3C Trace Context section 3.2: version ff and all-zero ids are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}"
)


class Trace(NamedTuple):
    """Whom a request belongs to.

    Attributes:
        trace_id: of the whole trace, 32 hexadecimal digits.
        span_id: of the producer's span that sent the request, 16 of them.
    """

    trace_id: str
    span_id: str


def traceparent_of(headers: Mapping[str, str]) -> str | None:
    """The `traceparent` of a request if it is valid."""
    given = headers.get("traceparent")
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None


def trace_of(headers: Mapping[str, str]) -> Trace | None:
    """The ids in a request's `traceparent`; None without a valid one."""
    given = headers.get("traceparent")
    found = _TRACEPARENT.fullmatch(given) if given is not None else None
    return Trace(found[1], found[2]) if found else None


def trace_names(headers: Mapping[str, str]) -> dict[str, str]:
    """The ids by the names that log lines have for them; empty without a valid field."""
    trace = trace_of(headers)
    return trace._asdict() if trace is not None else {}
