"""What a handler is given: one event and where it came from.

PURE: plain data, so that a handler can be tested without a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Event:
    """One event, decoded and valid, before it is stored.

    Attributes:
        data: the decoded JSON value. A change made in place is not stored: return the
            new value from `handle` instead, so that it is validated again.
        id: the id under which it will be stored.
        type: the event type's name.
        time: when it was received, RFC 3339 in UTC.
        headers: the request's header fields, names in lower case.
        request_id: the id that stands in the answer and in the logs.
        key: name of the API key that sent it; None when keys are off.
    """

    __slots__ = ("data", "headers", "id", "key", "request_id", "time", "type")

    def __init__(
        self,
        *,
        data: Any,
        id: str = "",
        type: str = "",
        time: str = "",
        headers: Mapping[str, str] | None = None,
        request_id: str = "",
        key: str | None = None,
    ) -> None:
        self.data = data
        self.id = id
        self.type = type
        self.time = time
        self.headers: Mapping[str, str] = headers or {}
        self.request_id = request_id
        self.key = key

    def __repr__(self) -> str:
        return f"<Event {self.type} {self.id}>"
