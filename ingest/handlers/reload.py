"""`--reload`, for development: what is saved is served.

    a file changed ─▶ trial process: loads everything, setup(), teardown() ─┬─ problems: logged,
         ▲                                                                  │  the old code stays
         └──────────────────────────────────────────────────────────────────┘
                                                     none ─▶ this process drains and execs itself

The new code begins in a fresh interpreter, so that nothing of the old is left; the listening
socket stays open across the exec, so that clients wait for a moment and none is refused. This
module must not know how anything is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import gevent

from ingest.handover import trial
from ingest.logs import get_logger

log = get_logger(__name__)

#: How often files are looked at; a change counts when the next look finds no further one.
LOOK_SECONDS = 0.25
#: What is watched in a directory, and below.
SUFFIXES = frozenset({".json", ".py"})

Seen = dict[Path, tuple[int, int, int]]


class Reloader:
    """Watches files, tries what was saved, and asks for a new start.

    Args:
        paths: files, and directories whose Python and JSON files are watched, from now on:
            make it before they are loaded.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._before = look_at(self._paths)
        self._greenlet: gevent.Greenlet | None = None
        self.wanted = False

    def start(self, passed: Callable[[], None]) -> None:
        """Start watching.

        Args:
            passed: called once, when changed files have passed their trial.
        """
        self._greenlet = gevent.spawn(self._watch, self._before, passed)

    def cancel(self) -> None:
        """The process is to end for good."""
        self.wanted = False
        if self._greenlet is not None:
            self._greenlet.kill(block=False)

    def _watch(self, before: Seen, passed: Callable[[], None]) -> None:
        while not self.wanted:
            gevent.sleep(LOOK_SECONDS)
            now = look_at(self._paths)
            if now == before:
                continue
            gevent.sleep(LOOK_SECONDS)
            if look_at(self._paths) != now:
                continue  # an editor is still at it
            changed = sorted(str(path) for path in _changed(before, now))
            before = now
            log.info("reload.changed", files=changed)
            if self._try():
                self.wanted = True
                passed()

    def _try(self) -> bool:
        """Whether a process of the same command line finds nothing wrong."""
        problems = trial(set_up=True)
        for problem in problems:
            log.error("reload.refused", **asdict(problem))
        if not problems:
            log.info("reload.accepted")
        return not problems


def look_at(paths: Iterable[Path]) -> Seen:
    """The files that are there, and what tells one state of each from another.

    Args:
        paths: files, and directories, of which the files with `SUFFIXES` count.
    """
    seen = {}
    for path in _files(paths):
        try:
            status = path.stat()
        except OSError:
            continue  # gone since it was listed, or not there yet
        seen[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return seen


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (file for file in path.rglob("*") if file.suffix in SUFFIXES)
        else:
            yield path


def _changed(before: Seen, now: Seen) -> set[Path]:
    return {path for path in before.keys() | now.keys() if before.get(path) != now.get(path)}
