"""Keys and the secrets of webhooks, read anew together: all of them or none."""

from __future__ import annotations

from ingest.access.gate import Gate
from ingest.access.webhooks import Webhooks


class Access:
    """What lets senders in and can change while it does.

    Args:
        gate: who has a key; None where keys are off.
        webhooks: of the types whose events are signed.
    """

    def __init__(self, gate: Gate | None, webhooks: Webhooks) -> None:
        self._gate = gate
        self._webhooks = webhooks

    def reload(self) -> list[str]:
        """Read all files anew; a bad one keeps all as it was.

        Returns:
            what is wrong.
        """
        problems = self._webhooks.problems()
        if not problems and self._gate is not None:
            problems = self._gate.reload()
        # What the webhooks' files say was good a moment ago; if that has changed since, the secrets
        # before are kept, and the keys are the new ones.
        return problems or self._webhooks.reload()
