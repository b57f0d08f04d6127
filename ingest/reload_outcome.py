"""What became of a reload, in words for the log, the metrics and the one who asked.

This module must not know how anything is reloaded.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ingest.findings import Finding
from ingest.logs import get_logger
from ingest.settings_sources import Problem

if TYPE_CHECKING:
    from ingest.metrics import Metrics
    from ingest.registry import Registry
    from ingest.settings import Settings
    from ingest.settings_values import Setting

log = get_logger(__name__)


@dataclass
class Outcome:
    """How a reload ended.

    Attributes:
        problems: why nothing was changed; empty when all was.
        settings: the settings that have another value now: name → before, after.
        restart: what has changed on the disk and is taken at a restart or a hand-over only.
        types: event types that were added, removed, or have another schema.
        rolling: the workers are being replaced one by one, which is not done yet.
    """

    problems: list[Finding] = field(default_factory=list)
    settings: dict[str, list[Any]] = field(default_factory=dict)
    restart: list[str] = field(default_factory=list)
    types: dict[str, list[str]] = field(default_factory=dict)
    rolling: bool = False

    def document(self) -> dict[str, Any]:
        """For an answer."""
        return asdict(self)

    def note(self, metrics: Metrics, by: str) -> None:
        """Log and count it.

        Args:
            by: who asked, for the log.
        """
        metrics.reload_failed.value = int(bool(self.problems))
        if self.problems:
            metrics.reloads.cell("failed").value += 1
            for found in self.problems:
                log.error("reload.refused", by=by, **asdict(found))
            return
        metrics.reloads.cell("ok").value += 1
        metrics.reload_last_success_timestamp_seconds.value = time.time()
        if self.restart:
            log.warning("reload.needs_restart", changed=self.restart)
        log.info("reload.done", by=by, settings=self.settings, **self.types, rolling=self.rolling)


def setting_findings(problems: Sequence[Problem]) -> list[Finding]:
    """What is wrong with settings."""
    return [Finding("settings", p.source, None, None, p.message) for p in problems]


def changed_values(before: Settings, after: Settings, changed: Sequence[Setting]) -> dict[str, Any]:
    """Name → value before and after; of one that may hold secrets neither."""
    return {
        s.name: ["…", "…"] if s.secret else [getattr(before, s.name), getattr(after, s.name)]
        for s in changed
    }


def changed_types(before: Registry, after: Registry) -> Mapping[str, list[str]]:
    """How the event types differ."""
    both = before.types.keys() & after.types.keys()
    return {
        "added": sorted(after.types.keys() - before.types.keys()),
        "removed": sorted(before.types.keys() - after.types.keys()),
        "changed": sorted(name for name in both if _differ(before, after, name)),
    }


def _differ(before: Registry, after: Registry, name: str) -> bool:
    """Whether a type has other versions, or one of them another schema."""
    one, other = ([(v.version, v.schema) for v in r.versions(name)] for r in (before, after))
    return one != other
