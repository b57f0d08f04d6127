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

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import gevent
import ujson
from gevent import subprocess

from ingest.logs import get_logger

log = get_logger(__name__)

#: Holds the descriptor of the listening socket across the exec.
LISTENER_VARIABLE = "_INGEST_LISTENER"
#: Tells a process that it is a trial; the command line knows it.
TRIAL_VARIABLE = "_INGEST_TRIAL"
#: How often files are looked at; a change counts when the next look finds no further one.
LOOK_SECONDS = 0.25
#: A trial that takes longer has failed.
TRIAL_SECONDS = 120.0
#: What is watched in a directory, and below.
SUFFIXES = frozenset({".json", ".py"})

Seen = dict[Path, tuple[int, int, int]]


class StartAnew(Exception):
    """This process is to become a new one that takes over the listening socket.

    Args:
        descriptor: the socket's.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__("start anew")
        self.descriptor = descriptor

    def now(self) -> NoReturn:
        """Become it."""
        os.environ[LISTENER_VARIABLE] = str(self.descriptor)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def inherited() -> socket.socket | None:
    """The listening socket that the process had before it became this one."""
    descriptor = os.environ.pop(LISTENER_VARIABLE, None)
    if descriptor is None:
        return None
    os.set_inheritable(int(descriptor), False)
    listener = socket.socket(fileno=int(descriptor))
    listener.setblocking(False)
    return listener


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

    def keep(self, listener: socket.socket) -> StartAnew:
        """Keep the listening socket for the process to come; to be raised at the end."""
        descriptor = os.dup(listener.fileno())
        os.set_inheritable(descriptor, True)
        return StartAnew(descriptor)

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
        try:
            done = subprocess.run(
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, TRIAL_VARIABLE: "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            log.error("reload.refused", problem=f"the trial took longer than {TRIAL_SECONDS:g} s")
            return False
        if done.returncode == 0:
            log.info("reload.accepted")
            return True
        for problem in _problems(done.stdout):
            log.error("reload.refused", **problem)
        return False


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


def _problems(output: bytes) -> list[dict[str, Any]]:
    """What a trial said: its last line is the report; without one, all of it."""
    text = output.decode(errors="replace").strip()
    try:
        problems = ujson.loads(text.splitlines()[-1])["problems"]
    except (ValueError, LookupError, TypeError):
        return [{"problem": text[-2000:]}]
    return [
        {"problem": found["message"], "file": found["file"], "line": found["line"]}
        for found in problems
    ]
