"""Looks after stored segments in the background: compresses, removes, counts.

One native thread for a data directory does the work (`sweeper`), beside the one that
writes. This is the hub's half: it starts and stops the thread, and logs and counts what the
thread says. Most of the time the thread waits: it looks every few seconds, and while it
works it rests three times as long as it has used the processor, so that it takes at most
about a quarter of a core; zstd runs without the interpreter's lock.

This module must not know how journals are written.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple, Protocol

import gevent
from gevent.event import Event
from gevent.hub import get_hub
from gevent.monkey import get_original

from ingest.journal.checkpoints import Checkpoints
from ingest.journal.retention import Retention
from ingest.journal.storage import Storage
from ingest.journal.survey import JournalDirectory
from ingest.journal.sweeper import (
    Compression,
    Found,
    Message,
    Notice,
    SegmentCompressed,
    SegmentRemoved,
    Sweeper,
    Trouble,
)
from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)

#: Between two looks, unless a setting asks for something sooner.
SWEEP_SECONDS = 5.0
SHORTEST_SWEEP_SECONDS = 0.1
#: Of a core, while there is work.
CPU_SHARE = 0.25
#: Processor time after which the thread rests: as long as the event loop may have to wait.
_WORK_SECONDS = 0.001

_start_thread = get_original("_thread", "start_new_thread")
_SimpleQueue = get_original("queue", "SimpleQueue")


class LifeCycleSettings(Protocol):
    """The settings about closed segments; see docs/settings.md."""

    @property
    def segment_compression(self) -> str: ...
    @property
    def segment_compression_level(self) -> int: ...
    @property
    def segment_compress_after_seconds(self) -> float: ...
    @property
    def retention_max_age_seconds(self) -> float: ...
    @property
    def retention_max_bytes(self) -> int: ...
    @property
    def retention_ignores_checkpoints(self) -> str: ...
    @property
    def rejected_retention_max_age_seconds(self) -> float: ...
    @property
    def rejected_retention_max_bytes(self) -> int: ...
    @property
    def dead_retention_max_age_seconds(self) -> float: ...
    @property
    def dead_retention_max_bytes(self) -> int: ...


class Stopping(Exception):
    """The thread was told to stop in the middle of something."""


class Failed(NamedTuple):
    """A sweep ended with an error that nobody expected."""

    trace: str


class Stopped(NamedTuple):
    """The thread will say nothing more."""


def journals_of(
    data: Path, settings: LifeCycleSettings, types: Mapping[str, float | None]
) -> list[JournalDirectory]:
    """The journals of a data directory under the settings' retention.

    Args:
        data: the data directory.
        types: retention of each event type in seconds, 0 for ever; None leaves it to the
            settings.
    """
    retention = Retention(
        settings.retention_max_age_seconds,
        settings.retention_max_bytes,
        {name: seconds for name, seconds in types.items() if seconds is not None},
        settings.retention_ignores_checkpoints == "true",
    )
    checkpoints = Checkpoints(data / "checkpoints", Storage())
    return [
        JournalDirectory("journal", data / "journal", retention, checkpoints),
        JournalDirectory(
            "rejected",
            data / "rejected",
            Retention(
                settings.rejected_retention_max_age_seconds,
                settings.rejected_retention_max_bytes,
                {},
                False,
            ),
        ),
        JournalDirectory(
            "dead",
            data / "dead",
            Retention(
                settings.dead_retention_max_age_seconds,
                settings.dead_retention_max_bytes,
                {},
                False,
            ),
        ),
    ]


class Janitor:
    """Looks after journals from `start` to `stop`. All of it on one hub.

    Args:
        journals: to look after; they may appear later.
        settings: read once.
        metrics: the worker's.
        removed: by journal, what is told on the hub how many of its segments have gone.
        storage: does the file system calls.
    """

    def __init__(
        self,
        journals: Sequence[JournalDirectory],
        settings: LifeCycleSettings,
        metrics: Metrics,
        removed: Mapping[str, Callable[[int], None]],
        storage: Storage | None = None,
    ) -> None:
        self._metrics = metrics
        self._removed = removed
        self._found: dict[str, Found] = {}
        self._messages: deque[Message | Failed | Stopped] = deque()
        self._awake = Event()
        self._stopped = Event()
        self._wake: Any = None
        self._queue: Any = _SimpleQueue()
        after = settings.segment_compress_after_seconds
        ages = [journal.retention.shortest for journal in journals]
        self._interval = max(SHORTEST_SWEEP_SECONDS, min(SWEEP_SECONDS, after, *filter(None, ages)))
        self._sweeper = Sweeper(
            list(journals),
            Compression(
                settings.segment_compression == "zstd", settings.segment_compression_level, after
            ),
            storage or Storage(),
            self._tell,
            _Pace(self._wait),
            time.monotonic,
            time.time,
        )
        for journal in journals:
            self._show_gauges(journal.name)

    def start(self) -> None:
        """Start the thread; its journals are recovered by now."""
        self._wake = get_hub().loop.async_()
        self._wake.start(self._awake.set)
        gevent.spawn(self._run)
        _start_thread(self._serve, ())

    def keep_for(self, journals: Sequence[JournalDirectory]) -> None:
        """Keep what is stored for as long as these say, from the next look on.

        Args:
            journals: the same ones, with other retentions.
        """
        self._sweeper.coming = list(journals)

    def stop(self, timeout: float) -> bool:
        """End the thread; work that is not finished leaves everything as it was.

        Args:
            timeout: seconds to wait.

        Returns:
            whether it ended in time.
        """
        if self._wake is None:
            return True
        self._queue.put(None)
        if not self._stopped.wait(timeout):
            log.error("journal.janitor_stop_timed_out")
            return False
        return True

    # -- the thread ------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                more = self._sweeper.sweep()
            except Stopping:
                break
            except Exception:  # noqa: BLE001 - told to the hub, which logs and counts it
                more = False
                self._tell(Failed(traceback.format_exc()))
            if self._wait(0.0 if more else self._interval):
                break
        self._tell(Stopped())

    def _wait(self, seconds: float) -> bool:
        """Wait in the thread; whether it is to stop."""
        try:
            self._queue.get(True, seconds)
        except Empty:
            return False
        return True

    def _tell(self, message: Message | Failed | Stopped) -> None:
        self._messages.append(message)
        self._wake.send()

    # -- the hub ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._awake.wait()
            self._awake.clear()
            while self._messages:
                self._handle(self._messages.popleft())
        # Not closed: the thread may be about to send for its last message.
        self._wake.stop()

    def _handle(self, message: Message | Failed | Stopped) -> None:
        metrics = self._metrics
        if isinstance(message, Found):
            self._found[message.journal] = message
        elif isinstance(message, SegmentCompressed):
            name = message.journal
            metrics.journal_compressed_segments.cell(name).value += 1
            metrics.journal_compress_read_bytes.cell(name).value += message.plain_bytes
            metrics.journal_compress_written_bytes.cell(name).value += message.stored_bytes
            metrics.journal_compress_seconds.observe(message.seconds)
            log.info("journal.segment_compressed", **message._asdict())
        elif isinstance(message, SegmentRemoved):
            metrics.journal_removed_segments.cell(message.journal, message.reason).value += 1
            metrics.journal_removed_bytes.cell(
                message.journal, message.reason
            ).value += message.bytes
            log.info("journal.segment_removed", **message._asdict())
            if message.journal in self._removed:
                self._removed[message.journal](1)
        elif isinstance(message, Trouble):
            metrics.journal_janitor_failures.cell(message.operation).value += 1
            log.error("journal.janitor_failure", **message._asdict())
        elif isinstance(message, Notice):
            getattr(log, message.level)(message.event, **message.data)
        elif isinstance(message, Failed):
            metrics.unhandled_errors.cell("janitor").value += 1
            log.error("journal.janitor_failed", traceback=message.trace)
        else:
            self._stopped.set()

    def _show_gauges(self, name: str) -> None:
        metrics = self._metrics
        self._found[name] = Found(name, 0, 0, None, 0, 0)

        def age() -> float:
            oldest = self._found[name].oldest
            return max(0.0, time.time() - oldest) if oldest is not None else 0.0

        metrics.journal_stored_bytes.cell(name).set_function(lambda: self._found[name].stored_bytes)
        metrics.journal_uncompressed_segments.cell(name).set_function(
            lambda: self._found[name].plain
        )
        metrics.journal_retention_blocked_segments.cell(name).set_function(
            lambda: self._found[name].blocked
        )
        metrics.journal_oldest_record_age_seconds.cell(name).set_function(age)


class _Pace:
    """Keeps the thread's use of the processor to a share of a core.

    Args:
        wait: waits that many seconds; whether the thread is to stop.
    """

    def __init__(self, wait: Callable[[float], bool]) -> None:
        self._wait = wait
        self._since = 0.0

    def __call__(self) -> None:
        """Rest if enough was done since the last time.

        Raises:
            Stopping: the thread is to stop.
        """
        busy = time.thread_time() - self._since
        if busy < _WORK_SECONDS:
            return
        if self._wait(busy * (1 / CPU_SHARE - 1)):
            raise Stopping
        self._since = time.thread_time()
