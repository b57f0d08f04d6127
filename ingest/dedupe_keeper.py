"""Runs the key store: once before the service, then beside it in a native thread.

This module must not know requests, or what a key file holds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import gevent
from gevent.hub import get_hub
from gevent.monkey import get_original

from ingest.dedupe_store import KeyStore, Notice, Stopped
from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)

#: How often it is looked whether a segment was closed.
KEEP_SECONDS = 5.0
#: The thread works so long at most before it leaves the interpreter to the event loop, and
#: then rests so many times as long.
WORK_SECONDS = 0.0005
REST_SHARE = 3
#: How long a shutdown waits for the thread to see it.
STOP_SECONDS = 1.0

# What gevent put in its place would want a hub in the thread.
_sleep = get_original("time", "sleep")


class Keeper:
    """Looks after the key files of one partition.

    Args:
        store: does the work.
        metrics: what failed is counted here.
    """

    def __init__(self, store: KeyStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._greenlet: gevent.Greenlet | None = None
        self._stopping = False
        self._since = 0.0

    def load(self) -> None:
        """Fill the windows from the journal; blocks. After its recovery, before serving."""
        started = time.monotonic()
        found = self._store.load(int(time.time() * 1000))
        seconds = time.monotonic() - started
        self._metrics.dedupe_load_seconds.value = seconds
        self._tell(found.notices)
        log.info(
            "dedupe.loaded",
            entries=found.entries,
            key_files=found.files,
            segments=found.segments,
            seconds=round(seconds, 3),
        )

    def start(self) -> None:
        """Begin to make key files of the segments that are closed."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End; a key file that is half made is made at the next start."""
        self._stopping = True
        if self._greenlet is not None:
            self._greenlet.join(0)
            self._greenlet.kill(timeout=STOP_SECONDS)

    def _run(self) -> None:
        pool = get_hub().threadpool
        while not self._stopping:
            gevent.sleep(KEEP_SECONDS)
            try:
                self._tell(pool.apply(self._keep))
            except Exception:
                self._metrics.unhandled_errors.cell("dedupe").value += 1
                log.exception("dedupe.keep_failed")

    def _keep(self) -> Sequence[Notice]:
        self._since = time.monotonic()
        return self._store.keep(int(time.time() * 1000), self._pause)

    def _pause(self) -> None:
        """Called by the thread between two steps."""
        if self._stopping:
            raise Stopped
        worked = time.monotonic() - self._since
        if worked >= WORK_SECONDS:
            _sleep(REST_SHARE * worked)
            self._since = time.monotonic()

    def _tell(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if notice.failure:
                self._metrics.dedupe_failures.cell(notice.failure).value += 1
            getattr(log, notice.level)(notice.event, **notice.data)
