"""Pausing and resuming the consumers of this worker, for handlers and for the service.

    from ingest import consumers

    consumers.pause("order")      # no further batch is given to consume() of handlers/order.py
    consumers.resume("order")

A call of `consume()` that runs goes on to its end. The state is the worker's own and lasts
as long as its process: other workers are told by signal (docs/consumers.md).

This module must not know how events are consumed.
"""

from __future__ import annotations

from gevent.event import Event

from ingest.logs import get_logger
from ingest.metrics import Metrics

log = get_logger(__name__)


class Switch:
    """Whether the consumer of a type is to go on.

    Args:
        type_name: whose.
        metrics: where it is shown.
    """

    def __init__(self, type_name: str, metrics: Metrics) -> None:
        self.type = type_name
        self._on = Event()
        self._on.set()
        self._gauge = metrics.consumer_paused.cell(type_name)
        self._gauge.value = 0

    @property
    def paused(self) -> bool:
        """Whether it is off."""
        return not self._on.is_set()

    def pause(self, by: str) -> bool:
        """Turn it off; whether it was on."""
        if self.paused:
            return False
        self._on.clear()
        self._gauge.value = 1
        log.warning("consumer.paused", type=self.type, by=by)
        return True

    def resume(self, by: str) -> bool:
        """Turn it on; whether it was off."""
        if not self.paused:
            return False
        self._on.set()
        self._gauge.value = 0
        log.info("consumer.resumed", type=self.type, by=by)
        return True

    def wait(self) -> None:
        """Wait until it is on, or `release` is called."""
        self._on.wait()

    def release(self) -> None:
        """Let go whoever waits, for good; it is the end."""
        self._on.set()


#: Of the service that runs in this process.
_switches: dict[str, Switch] = {}


def install(switches: dict[str, Switch]) -> None:
    """Make these the ones that the functions below work on."""
    _switches.clear()
    _switches.update(switches)


def pause(type_name: str | None = None, *, by: str = "call") -> list[str]:
    """Pause the consumer of a type, or all of them.

    Args:
        type_name: None for all.
        by: who wants it, for the log.

    Returns:
        the types whose consumer was not paused before.

    Raises:
        LookupError: no handler of that type has a consume().
    """
    return [switch.type for switch in _chosen(type_name) if switch.pause(by)]


def resume(type_name: str | None = None, *, by: str = "call") -> list[str]:
    """Let the consumer of a type, or all of them, go on.

    Args:
        type_name: None for all.
        by: who wants it, for the log.

    Returns:
        the types whose consumer was paused before.

    Raises:
        LookupError: no handler of that type has a consume().
    """
    return [switch.type for switch in _chosen(type_name) if switch.resume(by)]


def toggle(*, by: str = "call") -> list[str]:
    """Pause all consumers; where all are paused already, let them go on.

    Returns:
        the types whose consumer has changed.
    """
    running = any(not switch.paused for switch in _switches.values())
    return pause(by=by) if running else resume(by=by)


def paused() -> list[str]:
    """The types whose consumer is paused."""
    return [name for name, switch in _switches.items() if switch.paused]


class Here:
    """Pauses and resumes those of this process, for operators."""

    def switch(self, pause_them: bool) -> list[str]:
        """Pause or resume all; returns the types where that changed something."""
        return pause(by="admin") if pause_them else resume(by="admin")


def _chosen(type_name: str | None) -> list[Switch]:
    if type_name is None:
        return list(_switches.values())
    if type_name not in _switches:
        raise LookupError(
            f"{type_name!r} has no consumer; there are: {', '.join(_switches) or '-'}"
        )
    return [_switches[type_name]]
