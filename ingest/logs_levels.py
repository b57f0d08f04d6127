"""Log levels that are changed while the service runs, for good or for a while.

What logging.yaml says stays in the file: a restart forgets what was set here.

This module must not know who asks.
"""

from __future__ import annotations

import difflib
import logging
from time import monotonic
from typing import Any, NamedTuple

from gevent.hub import get_hub

from ingest.logs_loggers import get_logger

log = get_logger(__name__)

#: As logging.yaml names them; NOTSET takes a logger's own level away.
LEVELS = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ROOT = "root"
#: Longest time after which a level goes back, in seconds.
DURATION_MAX_SECONDS = 86400.0


class UnknownLogger(Exception):
    """No logger has that name; the message names the nearest ones."""


class _Temporary(NamedTuple):
    before: int
    ends: float
    timer: Any


class Levels:
    """Changes levels, and takes them back."""

    def __init__(self) -> None:
        self._temporary: dict[str, _Temporary] = {}

    def state(self) -> dict[str, Any]:
        """Every logger with a level of its own, and when which of them goes back."""
        named = {ROOT: logging.root, **_loggers()}
        now = monotonic()
        return {
            "levels": {
                name: logging.getLevelName(logger.level)
                for name, logger in sorted(named.items())
                if logger.level
            },
            "temporary": {
                name: {
                    "before": logging.getLevelName(kept.before),
                    "ends_in_seconds": round(max(0.0, kept.ends - now), 1),
                }
                for name, kept in sorted(self._temporary.items())
            },
        }

    def change(self, name: str, level: str, seconds: float | None) -> None:
        """Give a logger a level.

        Args:
            name: of a logger there is, or of a package of such; `root` for all without one.
            level: one of `LEVELS`.
            seconds: after them what was there before applies again; None: until the restart.

        Raises:
            UnknownLogger: there is none of that name.
        """
        logger = _find(name)
        kept = self._temporary.pop(name, None)
        before = logger.level if kept is None else kept.before
        if kept is not None:
            kept.timer.stop()
        logger.setLevel(level)
        if seconds is not None:
            # Unreferenced: it must not keep the loop alive by itself.
            timer = get_hub().loop.timer(seconds, ref=False)
            self._temporary[name] = _Temporary(before, monotonic() + seconds, timer)
            timer.start(self._revert, name)
        was = logging.getLevelName(before)
        log.warning("logs.level_changed", of=name, to=level, before=was, seconds=seconds)

    def _revert(self, name: str) -> None:
        kept = self._temporary.pop(name)
        kept.timer.close()
        _find(name).setLevel(kept.before)
        log.warning("logs.level_reverted", of=name, to=logging.getLevelName(kept.before))


def _loggers() -> dict[str, logging.Logger]:
    found = logging.root.manager.loggerDict.items()
    return {name: logger for name, logger in list(found) if isinstance(logger, logging.Logger)}


def _find(name: str) -> logging.Logger:
    if name == ROOT:
        return logging.root
    # Packages of loggers are there as place holders.
    known = logging.root.manager.loggerDict
    if name not in known:
        near = difflib.get_close_matches(name, [ROOT, *known], n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UnknownLogger(f"There is no logger named {name[:100]!r}.{hint}")
    return logging.getLogger(name)
