"""One view of health for all workers, whichever of them is asked.

The supervisor tells each worker how the others are, whenever that changes, so a probe is
answered from memory here as well. Of itself a worker knows best.

This module must not know how workers are started, or how they talk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingest.health import Health, Results, probe_answer

#: What a worker is said to be about that has told nothing yet.
UNKNOWN = "unknown"


class WorkersHealth:
    """Answers probes as `Health` does, `ready` for all workers together.

    Ready are they as long as one of them serves and no shutdown has begun: what comes to
    one that does not serve is taken by one that does.

    Args:
        own: this worker's checks.
        number: this worker's.
        workers: how many there are.
    """

    def __init__(self, own: Health, number: int, workers: int) -> None:
        self._own = own
        self._number = number
        self._others: list[str | None] = [UNKNOWN] * workers
        #: a shutdown of all has begun
        self.stopping = False
        #: this worker is to be replaced by a new one
        self.leaving = False

    def learn(self, reasons: Sequence[str | None], stopping: bool) -> None:
        """What the supervisor knows.

        Args:
            reasons: by worker, why it does not serve; None when it does.
            stopping: a shutdown has begun.
        """
        self._others = list(reasons)
        self.stopping = self.stopping or stopping

    def why_not(self) -> str | None:
        """Why this worker does not serve, or None."""
        failed = [f"{name}: {why}" for name, why in self._own.results("ready") if why is not None]
        if self.leaving:
            failed.append("it makes room for its successor")
        return "; ".join(failed) or None

    def probe(self, kind: str, verbose: bool = False, accept: str | None = None) -> Any:
        """As `Health.probe`; only `ready` is about all workers."""
        if kind != "ready":
            return self._own.probe(kind, verbose, accept)
        reasons = list(self._others)
        reasons[self._number] = self.why_not()
        results: Results = [(f"worker-{number}", why) for number, why in enumerate(reasons)]
        passed = not self.stopping and None in reasons
        if self.stopping:
            results.append(("draining", "all workers stop"))
        return probe_answer(kind, results, passed, verbose, accept)
