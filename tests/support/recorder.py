"""Records every call by which the journal changes its files, in order.

It takes the place of the module `os` in `ingest.journal.storage`, which is where every file
system call of the journal is made. A call it does not know is an error, so a new one cannot
go unnoticed; that nothing goes past that module is proved by `make crash`, which compares a
recording with what strace saw of the same process.

    python -m tests.support.recorder --log FILE [--slow SECONDS] [--fail CALL:N:ERROR]… -- FLAG…

runs a gateway that is recorded. A producer may append what it was told to the same file
(`tests.support.storm --acks FILE`), so both stand in one order.

A line of FILE is JSON with `call` and its arguments: `path`, `target`, `fd`, `flags`, `at`,
`size`, `data` (Base64), and `error`, the errno it failed with. `start` begins a process.
"""

from __future__ import annotations

import argparse
import base64
import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from gevent.monkey import get_original

#: gevent's own would leave the descriptor of a directory open until its loop turns.
really_close = get_original("os", "close")

Call = dict[str, Any]

#: What may be asked of `os` without being written down: it changes nothing.
HARMLESS = {
    "SEEK_CUR", "SEEK_END", "SEEK_SET", "fsdecode", "fspath", "fstat", "listdir", "lseek",
    "path", "pread", "preadv", "scandir", "sendfile", "stat", "statvfs", "strerror",
    "posix_fadvise", "POSIX_FADV_DONTNEED", "POSIX_FADV_SEQUENTIAL", "access", "W_OK", "X_OK",
    "ST_RDONLY",
}  # fmt: skip


class RecordingOs:
    """Stands for `os`.

    Args:
        write_down: is given each call after it was made.
        lock: held around each call, so that the order of the record is that of the calls.
        before: is asked before each call; may raise OSError in its place.
    """

    def __init__(
        self,
        write_down: Callable[[Call], None],
        lock: AbstractContextManager[Any],
        before: Callable[[str], None] = lambda call: None,
    ) -> None:
        self._write_down = write_down
        self._lock = lock
        self._before = before

    def __getattr__(self, name: str) -> Any:
        if name not in HARMLESS and not name.startswith("O_"):
            raise AssertionError(f"the recorder does not know os.{name}")
        return getattr(os, name)

    def _do(self, record: Call, run: Callable[[], Any]) -> Any:
        with self._lock:
            try:
                self._before(record["call"])
                result = run()
            except OSError as error:
                self._write_down({**record, "error": error.errno})
                raise
            if record["call"] == "open":
                record["fd"] = result
            self._write_down(record)
            return result

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        record = {"call": "open", "path": os.fspath(path), "flags": flags}
        descriptor: int = self._do(record, lambda: os.open(path, flags, mode))
        return descriptor

    def close(self, fd: int) -> None:
        self._do({"call": "close", "fd": fd}, lambda: really_close(fd))

    def pwritev(self, fd: int, parts: Sequence[bytes], at: int) -> int:
        return self.pwrite(fd, b"".join(parts), at)

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        record = {"call": "write", "fd": fd, "at": at, "data": coded(data)}
        written: int = self._do(record, lambda: os.pwrite(fd, data, at))
        assert written == len(data), "the tests' disk does not stop short"
        return written

    def write(self, fd: int, data: bytes) -> int:
        return self.pwrite(fd, data, os.lseek(fd, len(data), os.SEEK_CUR) - len(data))

    def ftruncate(self, fd: int, size: int) -> None:
        self._do({"call": "truncate", "fd": fd, "size": size}, lambda: os.ftruncate(fd, size))

    def fdatasync(self, fd: int) -> None:
        self._do({"call": "sync", "fd": fd}, lambda: os.fdatasync(fd))

    def fsync(self, fd: int) -> None:
        self._do({"call": "sync", "fd": fd}, lambda: os.fsync(fd))

    def rename(self, old: Any, new: Any) -> None:
        record = {"call": "rename", "path": os.fspath(old), "target": os.fspath(new)}
        self._do(record, lambda: os.rename(old, new))

    replace = rename

    def unlink(self, path: Any) -> None:
        self._do({"call": "unlink", "path": os.fspath(path)}, lambda: os.unlink(path))

    remove = unlink

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        self._do({"call": "mkdir", "path": os.fspath(path)}, lambda: os.mkdir(path, mode))

    def rmdir(self, path: Any) -> None:
        self._do({"call": "rmdir", "path": os.fspath(path)}, lambda: os.rmdir(path))


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


class Faults:
    """Fails the Nth of some calls, and makes syncs as slow as a disk's.

    Args:
        plan: (call, which one from 1, errno).
        slow_seconds: how long a sync takes, so that an answer that does not wait for it
            would be out before it is written down.
    """

    def __init__(self, plan: Sequence[tuple[str, int, int]], slow_seconds: float) -> None:
        self._plan = {(call, number): code for call, number, code in plan}
        self._slow_seconds = slow_seconds
        self._sleep = get_original("time", "sleep")
        self._made: Counter[str] = Counter()

    def before(self, call: str) -> None:
        self._made[call] += 1
        if call == "sync":
            self._sleep(self._slow_seconds)
        code = self._plan.get((call, self._made[call]))
        if code is not None:
            raise OSError(code, os.strerror(code))


def parse_fault(text: str) -> tuple[str, int, int]:
    call, number, name = text.split(":")
    return call, int(number), int(getattr(errno, name))


def main() -> int:
    """Runs a gateway that is recorded."""
    import ingest.journal.storage as storage
    from ingest.cli import main as run

    argv = sys.argv[1:]
    between = argv.index("--")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", type=Path, required=True, help="file to append to")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds that each sync takes")
    parser.add_argument("--fail", type=parse_fault, action="append", default=[])
    options = parser.parse_args(argv[:between])
    log = os.open(options.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write_down(call: Call) -> None:
        os.write(log, json.dumps(call).encode() + b"\n")

    write_down({"call": "start"})
    faults = Faults(options.fail, options.slow)
    lock = get_original("_thread", "RLock")()
    storage.os = RecordingOs(write_down, lock, faults.before)  # type: ignore[assignment]
    return run(argv[between + 1 :])


if __name__ == "__main__":
    from gevent import monkey

    monkey.patch_all()
    sys.exit(main())
