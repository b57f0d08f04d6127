"""Writes log lines from a native thread, so that a stuck reader never stops the service.

    any thread                      writer thread (native)
    ----------                      ----------------------
    write(line) ─ full? count it
         └────── queue ───────────→ take what is there, join, os.write (may block for ever)
                                    fits again and some were lost? write one line that says so

The process is monkey-patched, so everything here that waits is taken unpatched: patched
locks and queues would switch greenlets, which a native thread must not do.

Invariants:
    `write` never blocks and never raises;
    at most `queue_max` entries wait, each at most `BLOCK_MAX_BYTES` unless one line is longer;
    every line is written once, or counted in `dropped`; lines stay in order and whole.

This module must not know what a line says, except the one it writes about lost lines.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.monkey import get_original

if TYPE_CHECKING:
    from ingest.metrics import Metrics

_SimpleQueue = get_original("queue", "SimpleQueue")
_start_new_thread = get_original("_thread", "start_new_thread")
_allocate_lock = get_original("_thread", "allocate_lock")
_poll = get_original("select", "poll")

#: Up to this many bytes a write to a pipe is not mixed with those of other processes
#: (POSIX.1-2017, write, PIPE_BUF): workers share one pipe. Whole lines are joined up to it.
BLOCK_MAX_BYTES = select.PIPE_BUF
#: Joined up to this when nobody else's writes can come between.
FILE_BLOCK_MAX_BYTES = 64 * 1024

_writers: weakref.WeakSet[LogWriter] = weakref.WeakSet()


def _after_fork() -> None:
    # A child has a copy of the lines but not the thread; its parent writes them.
    for writer in _writers:
        writer._begin()


os.register_at_fork(after_in_child=_after_fork)


class LogWriter:
    """The way out for every log line of the process.

    Args:
        fd: descriptor to write to; it stays the caller's and is left as it is.
        queue_max: most entries that wait to be written; an entry is a log line or a
            block of access log lines.
        service: names this program in every line.
        worker: number of this worker in every line; None for the supervisor of several.
        console: whether lines are for a person on a terminal, not JSON.
        colors: whether that terminal shows colours.
        metrics: counts lines by level, and those lost.
        report: makes the line that tells how many lines were lost; it runs in the
            writer thread and must not log.
    """

    def __init__(
        self,
        fd: int,
        *,
        queue_max: int,
        report: Callable[[int], bytes],
        metrics: Metrics | None = None,
        service: str = "ingest",
        worker: int | None = 0,
        console: bool = False,
        colors: bool = False,
    ) -> None:
        self.service = service
        self.worker = worker
        self.console = console
        self.colors = colors
        self._metrics = metrics
        if metrics is not None:
            metrics.log_lines_dropped.set_function(lambda: self.dropped)
        self._fd = fd
        self._queue_max = queue_max
        self._report = report
        self._sources: list[Callable[[], None]] = []
        self._stopped = False
        self._refused = 0  # counted by those who write
        self._failed = 0  # counted by the thread only, and so is the next
        self._reported = 0
        self._begin()
        _writers.add(self)

    def _begin(self) -> None:
        self._queue = _SimpleQueue()
        self._running = False

    @property
    def dropped(self) -> int:
        """Lines lost so far: the queue was full, or the write failed."""
        return self._refused + self._failed

    def count(self, level: str) -> None:
        """Count one line made, by level."""
        if self._metrics is not None:
            self._metrics.log_lines.cell(level).value += 1

    def add_source(self, flush: Callable[[], None]) -> None:
        """Call `flush` before everything is flushed: someone keeps lines back to join them."""
        self._sources.append(flush)

    def write(self, data: bytes, lines: int = 1) -> None:
        """Queue whole lines, or count them as lost when there is no room.

        Args:
            data: ends with a newline.
            lines: how many log lines `data` holds.
        """
        queue = self._queue
        if self._stopped or queue.qsize() >= self._queue_max:
            self._refused += lines
            return
        queue.put((data, lines))
        if not self._running:
            self._running = True
            _start_new_thread(self._run, (queue,))

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything queued so far was written.

        It blocks the whole thread that calls it, event loop included.

        Returns:
            False when the time passed first.
        """
        for flush in self._sources:
            flush()
        if not self._running:
            return True
        done = _allocate_lock()
        done.acquire()
        self._queue.put((done, 0))
        return bool(done.acquire(timeout=timeout_seconds))

    def stop(self, timeout_seconds: float) -> bool:
        """Flush, then end the thread; what is written later is counted as lost.

        Returns:
            False when the time passed before everything was written.
        """
        if self._stopped:
            return True
        flushed = self.flush(timeout_seconds)
        self._stopped = True
        if self._running:
            self._queue.put((None, 0))
        return flushed

    # -- the writer thread ----------------------------------------------------------

    def _run(self, queue: Any) -> None:
        try:
            self._write_all(queue)
        finally:
            self._running = False  # should it ever die, the next line starts another one

    def _write_all(self, queue: Any) -> None:
        block_max = BLOCK_MAX_BYTES if _is_pipe(self._fd) else FILE_BLOCK_MAX_BYTES
        held: tuple[Any, int] | None = None
        while True:
            data, lines = held or queue.get()
            held = None
            if data is None:
                return
            if not isinstance(data, bytes):
                self._report_lost(queue)
                data.release()
                continue
            parts, size = [data], len(data)
            while queue.qsize():
                held = queue.get()
                if not isinstance(held[0], bytes) or size + len(held[0]) > block_max:
                    break
                parts.append(held[0])
                size += len(held[0])
                lines += held[1]
                held = None
            if not self._write_out(b"".join(parts)):
                self._failed += lines
            else:
                self._report_lost(queue)

    def _report_lost(self, queue: Any) -> None:
        """Say once how many lines were lost, as soon as new ones fit in again."""
        dropped = self.dropped
        # At half full those who write are not being refused any more, so the number is
        # final and one line tells it; at the brim there would be a line for every gap.
        if dropped == self._reported or queue.qsize() > self._queue_max // 2:
            return
        if self._write_out(self._report(dropped - self._reported)):
            self._reported = dropped

    def _write_out(self, data: bytes) -> bool:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    return False  # EPIPE, EIO, ENOSPC: nobody reads; the lines are counted
                # Someone who shares the descriptor made it non-blocking.
                waiting = _poll()
                waiting.register(self._fd, select.POLLOUT)
                waiting.poll()
        return True


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
