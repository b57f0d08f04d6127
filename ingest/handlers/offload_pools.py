"""Runs offloaded calls: the threads, the processes, and which of them a call goes to.

    greenlet ─ call() ─ slot? ─┬─ native thread ─────────────┐
       ▲                       └─ process, over a socketpair ─┤
       └────────── the loop serves on meanwhile ──────────────┘

A call that nobody waits for any more, because its handler's time was over, keeps its thread
until it ends: a thread cannot be stopped. A process can, and is. This module must not know
requests or handlers.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import gevent
from gevent.monkey import get_original
from gevent.threadpool import ThreadPool

from ingest.handlers.offload import State
from ingest.handlers.offload_processes import Processes
from ingest.handlers.offload_slots import Slots
from ingest.metrics import Metrics
from ingest.settings import Settings

_get_ident = get_original("_thread", "get_ident")

#: How long stopping waits for calls that run.
STOP_SECONDS = 2.0


class Offload:
    """What runs the offloaded calls of one worker.

    Args:
        settings: numbers of threads and processes, and how many calls may wait.
        metrics: counters.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        waiting = settings.offload_queue_max
        self._ident = _get_ident()
        self._threads = Threads(
            settings.offload_threads, Slots("thread", settings.offload_threads, waiting, metrics)
        )
        self._processes = Processes(
            settings.offload_processes,
            Slots("process", settings.offload_processes, waiting, metrics),
            metrics,
        )

    def start(self) -> None:
        """Run this process's offloaded calls from now on."""
        State.runner = self
        if State.processes_wanted:
            self._processes.start()

    def stop(self) -> None:
        """End the threads and processes; calls made later are made in place."""
        if State.runner is self:
            State.runner = None
        self._processes.stop()
        self._threads.stop(STOP_SECONDS)

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        process: bool,
    ) -> Any:
        """Call a function elsewhere and wait for what it returns or raises."""
        if _get_ident() != self._ident:
            return function(*args, **kwargs)  # it is beside the event loop already
        pool = self._processes if process else self._threads
        return pool.call(function, args, kwargs)


class Threads:
    """Native threads for calls.

    Args:
        size: how many.
        slots: bounds them.
    """

    def __init__(self, size: int, slots: Slots) -> None:
        self._pool = ThreadPool(size)
        self._slots = slots

    def call(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a function in a thread; it sees the caller's context variables."""
        self._slots.take()
        started = monotonic()
        try:
            outcome = self._pool.spawn(_attempt, contextvars.copy_context(), function, args, kwargs)
        except BaseException:
            self._slots.give_back(monotonic() - started)
            raise
        # When the call ends, not when its caller stops waiting.
        outcome.rawlink(lambda _: self._slots.give_back(monotonic() - started))
        result: Any = outcome.get()
        value, error = result
        if error is not None:
            raise error
        return value

    def stop(self, timeout_seconds: float) -> None:
        """End the threads; what still runs then ends with the process."""
        gevent.spawn(self._pool.kill).join(timeout_seconds)


def _attempt(
    context: contextvars.Context,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> tuple[Any, BaseException | None]:
    """What a call returned or raised; the pool would report the latter as nobody's."""
    try:
        return context.run(function, *args, **kwargs), None
    except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
        return None, error
