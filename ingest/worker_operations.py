"""What operators ask of one worker and the supervisor does for all of them.

This module must not know how workers are replaced.
"""

from __future__ import annotations

from collections.abc import Callable

from ingest import consumers
from ingest.errors import IngestError
from ingest.findings import Finding
from ingest.link import Message
from ingest.reload_outcome import Outcome

#: A trial of what is new has ended by then.
RELOAD_SECONDS = 180.0
SWITCH_SECONDS = 5.0

#: Asks the supervisor something: kind, seconds it may take, fields; None: it did not answer.
Ask = Callable[..., "Message | None"]


class BySupervisor:
    """Has the supervisor reload, or pause and resume consumers.

    Args:
        ask: reaches it.
    """

    #: the supervisor says it
    busy = False

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def reload(self, by: str) -> Outcome:
        """Have all workers replaced; returns when what is new has been checked.

        Raises:
            IngestError: reload_in_progress, overloaded.
        """
        fields = self._answer("reload", RELOAD_SECONDS, by=by).fields
        if fields["conflict"]:
            raise IngestError("reload_in_progress")
        outcome = Outcome(**fields["outcome"])
        outcome.problems = [Finding(**found) for found in fields["outcome"]["problems"]]
        return outcome

    def switch(self, pause_them: bool) -> list[str]:
        """Pause or resume the consumers of all workers.

        Returns:
            the types where that changed something in this worker.

        Raises:
            IngestError: overloaded.
        """
        before = set(consumers.paused())
        self._answer("switch", SWITCH_SECONDS, pause=pause_them)
        return sorted(before ^ set(consumers.paused()))

    def _answer(self, kind: str, seconds: float, **fields: object) -> Message:
        answer = self._ask(kind, seconds, **fields)
        if answer is None:
            raise IngestError("overloaded", "The supervisor does not answer.")
        return answer
