"""Handing over to new code: this process becomes it, and keeps what clients have hold of.

    trial process: would the new code serve? ─┬─ no: said why, everything goes on as it was
                                              └─ yes ─▶ drain ─▶ exec, with the same pid
    across the exec stay open: listening sockets (whose backlog holds clients meanwhile), the
    lock of the data directory; with several workers also the links to them

The new code begins in a fresh interpreter, so that nothing of the old is left. This module must
not know how anything is served.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import NoReturn

import gevent
import ujson
from gevent import subprocess
from gevent.event import Event

from ingest.findings import Finding
from ingest.logs import get_logger
from ingest.metrics import Metrics
from ingest.settings import Reread, Settings

log = get_logger(__name__)

#: Holds descriptors across the exec: `main:7,admin:8,lock:5`.
LISTENER_VARIABLE = "_INGEST_LISTENER"
#: Holds the types whose consumers are paused.
PAUSED_VARIABLE = "_INGEST_PAUSED"
#: Tells the new process that it is to end at once.
END_VARIABLE = "_INGEST_END"
#: Tells a process that it is a trial, and how far it is to go; the command line knows it.
TRIAL_VARIABLE = "_INGEST_TRIAL"
#: A trial that takes longer has failed.
TRIAL_SECONDS = 120.0
#: Signals that end the service, and others that it is told by.
ENDING = (signal.SIGTERM, signal.SIGINT)
TELLING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
MAIN, ADMIN, LOCK = "main", "admin", "lock"
#: What a process has that it cannot change without letting go of clients or of its data.
FIXED = ("bind", "admin_bind", "data", "workers")


class StartAnew(Exception):
    """This process is to become a new one that takes over what is kept.

    Args:
        kept: names and open descriptors; they are this object's.
        environ: further variables for the new process.
        ended: whether the end was asked for meanwhile.
    """

    def __init__(
        self,
        kept: Iterable[tuple[str, int]],
        environ: Mapping[str, str],
        ended: Callable[[], bool],
    ) -> None:
        super().__init__("start anew")
        self._kept = list(kept)
        self._ended = ended
        self._environ = environ

    def now(self) -> NoReturn:
        """Become it."""
        # Until it heeds them they would kill it; they wait, as `heed_no_signals_yet` knows.
        signal.pthread_sigmask(signal.SIG_BLOCK, (*ENDING, *TELLING))
        gevent.sleep(0)  # those that came before are heeded now, or by the new process
        if self._ended():
            os.environ[END_VARIABLE] = "1"
        for _, descriptor in self._kept:
            os.set_inheritable(descriptor, True)
        kept = ",".join(f"{name}:{descriptor}" for name, descriptor in self._kept)
        os.environ.update({LISTENER_VARIABLE: kept, **self._environ})
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class Inherited:
    """What the process had before it became this one.

    Attributes:
        lock: descriptor of the data directory's lock; None where there is none.
        paused: the types whose consumers were paused.
        end_asked: the process is to end at once.
    """

    def __init__(self) -> None:
        kept = os.environ.pop(LISTENER_VARIABLE, "")
        self._found: dict[str, list[int]] = {}
        for name, _, number in (part.partition(":") for part in kept.split(",") if part):
            os.set_inheritable(int(number), False)
            self._found.setdefault(name, []).append(int(number))
        self.lock = self.descriptor(LOCK)
        self.end_asked = bool(os.environ.pop(END_VARIABLE, ""))
        self.paused = [name for name in os.environ.pop(PAUSED_VARIABLE, "").split(",") if name]

    def descriptor(self, name: str) -> int | None:
        """What was kept by that name, the caller's; None if nothing was."""
        return next(iter(self._found.pop(name, [])), None)

    def sockets(self, name: str) -> list[socket.socket]:
        """The listening sockets of that name, which are the caller's."""
        found = []
        for descriptor in self._found.pop(name, []):
            listener = socket.socket(fileno=descriptor)
            listener.setblocking(False)
            found.append(listener)
        return found


def kept_sockets(sockets: Iterable[tuple[str, socket.socket | None]]) -> list[tuple[str, int]]:
    """Copies of sockets that outlive them, for `StartAnew`."""
    return [(name, os.dup(sock.fileno())) for name, sock in sockets if sock is not None]


class HandOver:
    """Tries new code when asked, and says when this process is to become it.

    Args:
        settings: as they were at the start.
        reread: reads them anew.
        metrics: where hand-overs that are refused are counted.
    """

    def __init__(self, settings: Settings, reread: Reread, metrics: Metrics) -> None:
        self._settings = settings
        self._reread = reread
        self._metrics = metrics
        self._asked = Event()
        self._greenlet: gevent.Greenlet | None = None
        #: the process is to become a new one
        self.wanted = False

    def start(self, passed: Callable[[], None]) -> None:
        """Heed `ask` from now on.

        Args:
            passed: called once, when the new code has passed its trial.
        """
        self._greenlet = gevent.spawn(self._run, passed)

    def ask(self) -> None:
        """Hand over soon; returns at once."""
        self._asked.set()

    def cancel(self) -> None:
        """The process is to end for good."""
        self.wanted = False
        if self._greenlet is not None:
            self._greenlet.kill(block=False)

    def refuse(self, why: str) -> None:
        """What passed its trial is not to be after all."""
        self.wanted = False
        self._refused([_found(why)])

    def _refused(self, problems: Sequence[Finding]) -> None:
        self._metrics.handovers_refused.value += 1
        for problem in problems:
            log.error("handover.refused", **asdict(problem))

    def _run(self, passed: Callable[[], None]) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            log.info("handover.begins")
            problems = self._fixed() or trial(set_up=False)
            if problems:
                self._refused(problems)
            else:
                log.info("handover.accepted")
                self.wanted = True
                passed()

    def _fixed(self) -> list[Finding]:
        """Settings that have changed and must not."""
        settings, _ = self._reread()  # what is wrong with them the trial tells
        changed = {setting.name for setting in self._settings.differences(settings)}
        return [
            Finding("settings", name, None, None, f"{name} has changed, which takes a restart")
            for name in FIXED
            if name in changed
        ]


def trial(*, set_up: bool) -> list[Finding]:
    """Have a process of the same command line say what is wrong, with the code as it is now.

    Args:
        set_up: whether handlers are set up and torn down, too.

    Returns:
        all that is wrong; nothing where it would serve.
    """
    try:
        done = subprocess.run(
            [sys.executable, *sys.orig_argv[1:]],
            env={**os.environ, TRIAL_VARIABLE: "set-up" if set_up else "check"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [_found(f"the trial took longer than {TRIAL_SECONDS:g} s")]
    except OSError as error:
        return [_found(f"no trial can be started: {error}")]
    return [] if done.returncode == 0 else _problems(done.stdout, done.returncode)


def _problems(output: bytes, code: int) -> list[Finding]:
    """What a trial said: its last line is the report; without one, all of it."""
    text = output.decode(errors="replace").strip()
    try:
        return [Finding(**found) for found in ujson.loads(text.splitlines()[-1])["problems"]]
    except (ValueError, LookupError, TypeError):
        return [_found(text[-2000:] or f"the trial ended with exit code {code}")]


def _found(message: str) -> Finding:
    return Finding("trial", "-", None, None, message)
