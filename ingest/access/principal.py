"""Who sends: a name, and what it may do. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

#: In metrics, logs and for handlers: nobody in particular.
NOBODY = "-"


class Quota(NamedTuple):
    """How much somebody may send.

    Attributes:
        events_per_second, bytes_per_second: None for no limit.
    """

    events_per_second: float | None = None
    bytes_per_second: float | None = None


class Principal:
    """Somebody who sends or reads; plans of requests are shared by all that it sends.

    Attributes:
        name: stands in logs, metrics and stored events.
        types: patterns of the event types it may send; None for all.
        rights: of `send`, `read`.
        quota: None for no limit.
        usage: what it has used of its quota; for those who enforce that.
    """

    __slots__ = ("name", "quota", "rights", "types", "usage")

    def __init__(
        self,
        name: str,
        types: Sequence[str] | None = None,
        rights: frozenset[str] = frozenset(("send", "read")),
        quota: Quota | None = None,
    ) -> None:
        self.name = name
        self.types = types
        self.rights = rights
        self.quota = quota
        self.usage: Any = None

    def may_send(self, type_name: str) -> bool:
        """Whether it may send events of a type."""
        if "send" not in self.rights:
            return False
        return self.types is None or any(fnmatchcase(type_name, t) for t in self.types)


#: Everybody, where keys are off.
ANONYMOUS = Principal(NOBODY)
