"""One program under valgrind's callgrind: started, counted, stopped.

callgrind counts every instruction of every thread in user space. `Counted.count` gives the
instructions of what happens within it; what happens outside costs only time.

Sources: valgrind manual, sections 6 (callgrind) and 3.2 (vgdb).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 60
CONTROL_SECONDS = 60
_TOTALS = re.compile(r"^(?:totals|summary): (\d+)$", re.MULTILINE)
#: Everything that the counted program gets of the environment: other variables would shift its
#: stack, and a hash seed would shuffle its dictionaries.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class CountingFailed(Exception):
    """There is no count; the message says why."""


def missing() -> str | None:
    """What has to be installed; None when everything is there."""
    for name in ("valgrind", "callgrind_control"):
        if not shutil.which(name):
            return f"`{name}` is missing: apt-get install valgrind"
    return None


class Counted:
    """A Python program whose instructions can be counted.

    Args:
        arguments: the interpreter's command line.
        directory: where callgrind's files go.
    """

    def __init__(self, arguments: Sequence[str], directory: Path) -> None:
        self._directory = directory
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [
                "valgrind", "--tool=callgrind", "--instr-atstart=no", "--vgdb=yes",
                f"--callgrind-out-file={directory / 'counts'}", sys.executable, *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            cwd=ROOT,
            env={"PATH": os.environ.get("PATH", os.defpath), **ENVIRONMENT},
        )  # fmt: skip
        self._counting = False

    def __enter__(self) -> Counted:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_line(self) -> str:
        """The next line of its output.

        Raises:
            CountingFailed: it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return line

    def write_line(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def count(self, exchange: Callable[[], object], keep: Path | None = None) -> int:
        """Instructions executed while `exchange` runs.

        Args:
            exchange: what makes the program do the work; returns when that is done.
            keep: where to leave callgrind's profile, for callgrind_annotate.

        Raises:
            CountingFailed: callgrind does not answer.
        """
        if not self._counting:
            self._control("--instr=on")
            self._counting = True
            exchange()  # what is executed for the first time is translated for counting first
        self._control("--zero")
        before = set(self._directory.iterdir())
        exchange()
        self._control("--dump")
        fresh = [path for path in set(self._directory.iterdir()) - before if path.stat().st_size]
        totals = _TOTALS.findall(fresh[0].read_text()) if len(fresh) == 1 else []
        if not totals:
            raise CountingFailed("callgrind wrote no count")
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(fresh[0], keep)
        fresh[0].unlink()
        return int(totals[-1])

    def _control(self, command: str) -> None:
        if self._process.poll() is not None:
            raise self._ended()
        done = subprocess.run(
            ["callgrind_control", command, str(self.pid)],
            capture_output=True,
            encoding="utf-8",
            timeout=CONTROL_SECONDS,
        )
        if done.returncode or "OK" not in done.stdout:
            said = (done.stdout + done.stderr).strip()
            raise CountingFailed(f"`callgrind_control {command}`: {said[-500:]}")

    def _ended(self) -> CountingFailed:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        return CountingFailed(f"the counted program has ended:\n{text[-2000:]}")
