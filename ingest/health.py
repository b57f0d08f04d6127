"""Health: the checks behind the probes, and the monitor of the event loop.

A check is a function that answers at once, from memory: None when all is well, otherwise
why not. Probes are answered by Kubernetes' conventions (`?verbose` lists the checks).

This module must not know HTTP framing, or what the checks look at.

Source: https://kubernetes.io/docs/reference/using-api/health-checks/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import gevent
import ujson

from ingest.logs import get_logger

if TYPE_CHECKING:
    from ingest.metrics import Metrics

log = get_logger(__name__)

Check = Callable[[], "str | None"]
#: Names of checks, each with None or why it failed.
Results = list[tuple[str, "str | None"]]

KINDS = frozenset({"live", "ready", "startup"})
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
#: Longest reason shown, in characters.
REASON_MAX = 200

#: How often the event loop is measured.
MONITOR_SECONDS = 0.1
#: A timer that did not run for so long means that the event loop starves.
STARVED_SECONDS = 10.0


class _Entry(NamedTuple):
    name: str
    kinds: frozenset[str]
    check: Check


class Health:
    """The checks, and the answers to probes made of them.

    Args:
        metrics: counts checks that raise.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics
        self._checks: list[_Entry] = []
        self._failing: set[str] = set()

    def add(self, name: str, kinds: Iterable[str], check: Check) -> None:
        """Add a check.

        Args:
            name: one word; shown to whoever probes.
            kinds: which probes it counts for: `live`, `ready`, `startup`.
            check: None when all is well, otherwise why not. It must not block.

        Raises:
            ValueError: an unknown kind, none, or a name that exists.
        """
        wanted = frozenset(kinds)
        if not wanted or wanted - KINDS:
            raise ValueError(f"kinds of check {name!r} must be from {sorted(KINDS)}")
        if any(entry.name == name for entry in self._checks):
            raise ValueError(f"there is a check named {name!r} already")
        self._checks.append(_Entry(name, wanted, check))

    def probe(
        self, kind: str, verbose: bool = False, accept: str | None = None
    ) -> tuple[int, bytes, str]:
        """Answer a probe.

        Args:
            kind: `live`, `ready` or `startup`.
            verbose: list each check.
            accept: the request's Accept field; JSON if it asks for it.

        Returns:
            status (200 or 503), body and content type.
        """
        results = self.results(kind)
        passed = all(why is None for _, why in results)
        return probe_answer(kind, results, passed, verbose, accept)

    def results(self, kind: str) -> Results:
        """Each check of a probe, by name: None when all is well, otherwise why not."""
        return [(entry.name, self._run(entry)) for entry in self._checks if kind in entry.kinds]

    def _run(self, entry: _Entry) -> str | None:
        try:
            why = entry.check()
        except Exception as error:  # a check that cannot tell has failed
            if entry.name not in self._failing:
                log.error("health.check_raised", check=entry.name, exc_info=error)
            if self._metrics is not None:
                self._metrics.unhandled_errors.cell("health").value += 1
            why = f"the check raised {type(error).__name__}"
        if why is None:
            if entry.name in self._failing:
                self._failing.discard(entry.name)
                log.info("health.check_recovered", check=entry.name)
            return None
        why = " ".join(why.split())[:REASON_MAX]
        # Probes come every few seconds; a line for each would say nothing new.
        if entry.name not in self._failing:
            self._failing.add(entry.name)
            log.warning("health.check_failed", check=entry.name, reason=why)
        return why


def probe_answer(
    kind: str, results: Results, passed: bool, verbose: bool, accept: str | None
) -> tuple[int, bytes, str]:
    """The answer to a probe: status, body and content type; arguments as for `probe`.

    Args:
        passed: the verdict on the results.
    """
    status = 200 if passed else 503
    if _asks_for_json(accept):
        return status, _as_json(results, passed), JSON
    if verbose:
        lines = [
            f"[+]{name} ok" if why is None else f"[-]{name} failed: {why}" for name, why in results
        ]
        lines.append(f"{kind} check {'passed' if passed else 'failed'}")
        text = "\n".join(lines)
    else:
        failed = ", ".join(name for name, why in results if why is not None)
        text = "ok" if passed else f"unavailable: {failed}"
    return status, text.encode("utf-8", "backslashreplace") + b"\n", TEXT


def _asks_for_json(accept: str | None) -> bool:
    """Whether JSON is named and not refused (RFC 9110 section 12.5.1)."""
    for part in (accept or "").lower().split(","):
        media_type, *parameters = (piece.strip(" \t") for piece in part.split(";"))
        if media_type == JSON:
            return not any(p.startswith("q=") and not p[2:].strip("0.") for p in parameters)
    return False


def _as_json(results: Results, passed: bool) -> bytes:
    checks = {
        name: {"status": "ok"} if why is None else {"status": "failed", "reason": _utf8(why)}
        for name, why in results
    }
    document = {"status": "ok" if passed else "unavailable", "checks": checks}
    text = ujson.dumps(document, ensure_ascii=False, escape_forward_slashes=False)
    return text.encode() + b"\n"


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class HubMonitor:
    """Measures how late the event loop's timers run.

    Args:
        metrics: `hub_lag_seconds`, `hub_lag_last_seconds`.
        interval_seconds: between measurements.
        clock: monotonic seconds.
        sleep: lets the event loop run.
    """

    def __init__(
        self,
        metrics: Metrics,
        interval_seconds: float = MONITOR_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = gevent.sleep,
    ) -> None:
        self._metrics = metrics
        self._interval = interval_seconds
        self._clock = clock
        self._sleep = sleep
        self._last = clock()
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Start measuring; nothing happens if it measures already."""
        if self._greenlet is None:
            self._last = self._clock()
            self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop measuring."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def check(self) -> str | None:
        """For `Health`: why the event loop is not well, or None."""
        if self._greenlet is None or self._greenlet.dead:
            return "the event loop is not measured"
        late = self._clock() - self._last - self._interval
        return f"timers run {late:.1f} s late" if late > STARVED_SECONDS else None

    def _run(self) -> None:
        while True:
            try:
                self.measure()
            except Exception as error:  # logged and counted; it must go on
                self._metrics.unhandled_errors.cell("hub_monitor").value += 1
                log.error("health.hub_monitor_failed", exc_info=error)
                gevent.sleep(self._interval)

    def measure(self) -> None:
        """Wait one interval and record how much longer it took."""
        before = self._clock()
        self._sleep(self._interval)
        self._last = self._clock()
        lag = max(0.0, self._last - before - self._interval)
        self._metrics.hub_lag_seconds.observe(lag)
        self._metrics.hub_lag_last_seconds.value = lag
