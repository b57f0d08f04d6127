"""Replacing the workers one by one, with the settings, schemas, handlers and code of now.

    asked ─▶ settings read ─▶ trial process: would it serve? ─┬─ no: all problems logged
                                                              └─ yes ─▶ one worker after the other

A worker that has not loaded what is new leaves its predecessor as it was, and then those behind
it are not replaced. This module must not know schemas, handlers or the journal's files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from ingest import logs
from ingest.errors import IngestError
from ingest.findings import Finding
from ingest.handover import trial
from ingest.metrics import Metrics
from ingest.reload_outcome import Outcome, changed_values, setting_findings
from ingest.settings import Reread, Settings
from ingest.supervisor_slot import Slot

log = logs.get_logger(__name__)

#: What the supervisor itself goes by: a new value takes a restart.
OWN = (
    "bind", "admin_bind", "backlog", "workers", "cpu_affinity", "config", "data", "log_queue_max",
)  # fmt: skip


class Rolling:
    """Checks what is new, then has it replace what is old.

    Args:
        settings: of the workers that serve.
        reread: reads the settings anew.
        slots: the workers.
        metrics: the supervisor's.
        told: called before and after, for systemd.
    """

    def __init__(
        self,
        settings: Settings,
        reread: Reread,
        slots: Sequence[Slot],
        metrics: Metrics,
        told: Callable[[bool], object],
    ) -> None:
        self._settings = settings
        self._reread = reread
        self._slots = slots
        self._metrics = metrics
        self._told = told
        self._asked = Event()
        self._one_by_one = BoundedSemaphore(1)
        #: what was checked and is to be rolled out
        self._checked: tuple[Settings, Outcome, str] | None = None
        self._has_checked = Event()

    def ask(self) -> None:
        """Reload soon; however often this is called meanwhile, once more is enough."""
        self._asked.set()

    def begin(self) -> None:
        """Replace all workers, which another supervisor has started, without a further check."""
        self._one_by_one.acquire()
        self._told(True)
        self._checked = self._settings, Outcome(rolling=True), "hand-over"
        self._has_checked.set()

    def hold(self) -> None:
        """Wait until nothing is being reloaded, and reload no more."""
        self._one_by_one.acquire()

    def go_on(self) -> None:
        """Reload again."""
        self._one_by_one.release()

    def heed(self) -> None:
        """Reload whenever that is asked for."""
        while True:
            self._asked.wait()
            self._asked.clear()
            self._one_by_one.acquire()
            self._check("signal")

    def reload(self, by: str) -> Outcome:
        """Check what is new; it is rolled out after that.

        Args:
            by: who asked, for the log.

        Raises:
            IngestError: reload_in_progress.
        """
        if not self._one_by_one.acquire(blocking=False):
            raise IngestError("reload_in_progress")
        return self._check(by)

    def _check(self, by: str) -> Outcome:
        """Holds the semaphore, and gives it back unless there is something to roll out."""
        self._told(True)
        try:
            outcome, settings = self._look()
        except BaseException:
            self._end()
            raise
        if outcome.problems:
            outcome.note(self._metrics, by)
            self._end()
        else:
            self._checked = settings, outcome, by
            self._has_checked.set()
        return outcome

    def _look(self) -> tuple[Outcome, Settings]:
        wanted, wrong = self._reread()
        if wrong:
            return Outcome(setting_findings(wrong)), self._settings
        kept: dict[str, Any] = {name: getattr(self._settings, name) for name in OWN}
        settings = replace(wanted, **kept)
        changed = self._settings.differences(settings)
        return Outcome(
            trial(set_up=False),
            settings=changed_values(self._settings, settings, changed),
            restart=[s.name for s in self._settings.differences(wanted) if s.name in OWN],
            rolling=True,
        ), settings

    def _end(self) -> None:
        self._one_by_one.release()
        self._told(False)

    def roll(self) -> None:
        """Replace the workers one by one whenever something has been checked."""
        while True:
            self._has_checked.wait()
            self._has_checked.clear()
            assert self._checked is not None
            settings, outcome, by = self._checked
            try:
                why = self._replace_all(settings)
                if why is None:
                    self._settings = settings
                else:
                    outcome.problems.append(Finding("workers", "-", None, None, why))
                outcome.rolling = False
                outcome.note(self._metrics, by)
            finally:
                self._end()

    def _replace_all(self, settings: Settings) -> str | None:
        """None when all are replaced; otherwise why the first that is not was not."""
        log.info("supervisor.restart_begins", workers=len(self._slots))
        for slot in self._slots:
            why: str | None = slot.replace(settings).get()
            if why is not None:
                log.error(
                    "supervisor.restart_ends_early",
                    number=slot.number,
                    reason=why,
                    remain=len(self._slots) - slot.number,
                )
                return why
        log.info("supervisor.restart_done")
        return None
