"""One server process with all its children: start, stop, CPU time and memory.

Every server is started in a session of its own, so that whatever it forks is found by the
session id, however deep it stands and whoever adopted it.

Source: proc_pid_stat(5).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STOP_SECONDS = 15.0


class Stat(NamedTuple):
    """What is needed of one `/proc/<pid>/stat`."""

    pid: int
    session: int
    state: str
    cpu_ticks: int
    rss_pages: int


class Usage(NamedTuple):
    """CPU time used so far and memory resident now, over a whole session."""

    cpu_seconds: float
    rss_bytes: int


def parse_stat(text: str) -> Stat:
    """Read one `/proc/<pid>/stat`; the command may hold blanks and parentheses.

    The times of reaped children stand in their parent's line (cutime, cstime), so that the
    sum over a session does not fall when a child ends.
    """
    before, _, after = text.rpartition(")")
    fields = after.split()  # fields[0] is the third field of the manual page
    return Stat(
        pid=int(before.split(" ", 1)[0]),
        session=int(fields[3]),
        state=fields[0],
        cpu_ticks=sum(int(field) for field in fields[11:15]),
        rss_pages=int(fields[21]),
    )


def session_stats(session: int, proc: Path = Path("/proc")) -> Iterator[Stat]:
    """The processes of a session; zombies too, for their time still counts."""
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                stat = parse_stat((entry / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended between the listing and the reading
            if stat.session == session:
                yield stat


def free_port() -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerFailed(Exception):
    """A server did not start, did not judge as it should, or did not stop."""


class ServerProcess:
    """A server under measurement.

    Args:
        command: its command line.
        cpu: the core it may run on, None for any.
        environment: variables beside those of this process.
        directory: its working directory.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cpu: int | None,
        environment: Mapping[str, str],
        directory: Path,
    ) -> None:
        pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [*pinned, *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **environment},
            cwd=directory,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The first process, which is also the id of the session."""
        return self._process.pid

    def usage(self) -> Usage:
        """CPU time and resident memory of all its processes.

        Shared pages count once for each process, as in `ps`.
        """
        ticks = pages = 0
        for stat in session_stats(self.pid):
            ticks += stat.cpu_ticks
            pages += stat.rss_pages
        return Usage(ticks / TICKS_PER_SECOND, pages * PAGE_BYTES)

    def check_alive(self) -> None:
        """Raise ServerFailed with the end of its output when it has ended."""
        code = self._process.poll()
        if code is not None:
            raise ServerFailed(f"ended with exit code {code}:\n{self.output_tail()}")

    def output_tail(self, lines: int = 12) -> str:
        """The end of what it has printed."""
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        return "\n".join("    " + line for line in text.splitlines()[-lines:])

    def terminate(self) -> int | None:
        """SIGTERM and wait; returns the exit code, None when it does not end in time."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to whatever is left of its session."""
        self.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while left := [s.pid for s in session_stats(self.pid) if s.state != "Z"]:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it ended by itself
            if time.monotonic() > deadline:
                raise ServerFailed(f"processes {left} do not die")
            time.sleep(0.05)
        self._process.wait(STOP_SECONDS)
        self._log.close()
