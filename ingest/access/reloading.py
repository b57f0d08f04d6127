"""Keys, secrets of webhooks and certificates, read anew together: all of them or none."""

from __future__ import annotations

from typing import Protocol

from ingest.access.gate import Gate
from ingest.access.webhooks import Webhooks


class Certificates(Protocol):
    """What the listener speaks TLS with."""

    def problems(self) -> list[str]: ...

    def reload(self) -> list[str]: ...


class Access:
    """What lets senders in and can change while it does.

    Args:
        gate: who has a key; None where keys are off.
        webhooks: of the types whose events are signed.
        tls: None where it is not spoken.
    """

    def __init__(
        self, gate: Gate | None, webhooks: Webhooks, tls: Certificates | None = None
    ) -> None:
        self._gate = gate
        self._webhooks = webhooks
        self._tls = tls

    def reload(self) -> list[str]:
        """Read all files anew; a bad one keeps all as it was.

        Returns:
            what is wrong.
        """
        problems = self._webhooks.problems()
        if self._tls is not None:
            problems += self._tls.problems()
        if not problems and self._gate is not None:
            problems = self._gate.reload()
        # What the other files say was good a moment ago; if that has changed since, what was before
        # is kept, and the keys are the new ones.
        if problems:
            return problems
        return (self._tls.reload() if self._tls is not None else []) + self._webhooks.reload()
