"""A real Prometheus evaluates the shipped alerts; each fires about what it names, and resolves.

All outages happen at the same time, each to a gateway of its own; `tests/support/outages.py` says
how, and `tests/support/alerts.py` which times of the rules are shortened. Beside them runs a
gateway to which nothing happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread

import pytest

from tests.support.alerts import Alert, Prometheus, shipped
from tests.support.outages import OUTAGES, TRACE, Outage, start
from tests.support.waiting import until

#: An alert that has not fired, or not resolved, by then never will.
LIMIT_SECONDS = 90.0
PAUSE_SECONDS = 0.2
#: The disk is everybody's, so these are about each gateway on it.
SHARED = {"IngestDiskFilling"}


class Course:
    """The course of all outages, watched by one Prometheus."""

    def __init__(self, prometheus: Prometheus, outages: list[Outage]) -> None:
        self.prometheus = prometheus
        self.outages = outages
        self.fired: dict[Alert, float] = {}
        self.resolved: dict[Alert, float] = {}
        self.errors: list[str] = []
        self._states: dict[Alert, str] = {}
        self._began = 0.0
        self._over = Event()

    def run(self) -> None:
        """Let all of them happen, and end."""
        self.watch()
        # An increase is seen only of what was seen before.
        until(lambda: len(self.prometheus.query("up == 1")) == len(self.outages))
        self._began = time.monotonic()
        threads = [Thread(target=self._life, args=(outage,)) for outage in self.outages]
        for thread in threads:
            thread.start()
        while any(outage.stages and thread.is_alive() for outage, thread in self._with(threads)):
            self._look()
            time.sleep(PAUSE_SECONDS)
        self._look()
        self._over.set()
        for thread in threads:
            thread.join()

    def _with(self, threads: list[Thread]) -> Iterator[tuple[Outage, Thread]]:
        yield from zip(self.outages, threads, strict=True)

    def watch(self) -> None:
        """Tell Prometheus where the gateways are now."""
        ports: dict[bool, dict[str, int]] = {False: {}, True: {}}
        for outage in self.outages:
            ports[outage.several][outage.name] = outage.port
        self.prometheus.watch(ports[False], ports[True])

    def _look(self) -> None:
        states = self.prometheus.alerts()
        now = time.monotonic() - self._began
        for alert, state in states.items():
            if state == "firing":
                self.fired.setdefault(alert, now)
        for alert in self.fired:
            if alert in states:
                self.resolved.pop(alert, None)
            else:
                self.resolved.setdefault(alert, now)
        self._states = states

    def _life(self, outage: Outage) -> None:
        try:
            for stage, alerts in enumerate(outage.stages):
                outage.stage = stage
                if stage:
                    outage.turn()
                    self.watch()
                self._keep_up(outage.cause, partial(self._all_fired, outage, alerts))
            if outage.stages:
                outage.heal()
                self.watch()
                self._keep_up(outage.calm, lambda: not self._any_left(outage))
            else:
                self._keep_up(outage.cause, self._over.is_set)
        except Exception as error:  # noqa: BLE001 - the tests about it say so
            self.errors.append(f"{outage.name} in stage {outage.stage}: {error!r}")

    def _keep_up(self, do: Callable[[], None], done: Callable[[], bool]) -> None:
        while not done() and time.monotonic() - self._began < LIMIT_SECONDS:
            do()
            time.sleep(PAUSE_SECONDS)

    def _all_fired(self, outage: Outage, alerts: set[str]) -> bool:
        return {Alert(outage.name, name) for name in alerts} <= self.fired.keys()

    def _any_left(self, outage: Outage) -> bool:
        names = set().union(*outage.stages)
        return any(Alert(outage.name, name) in self._states for name in names)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    directory = tmp_path_factory.mktemp("alerts")
    outages = [outage(directory) for outage in OUTAGES]
    prometheus = Prometheus(directory)
    try:
        start(outages)
        happened = Course(prometheus.start(), outages)
        happened.run()
        yield happened
    finally:
        prometheus.stop()
        for outage in outages:
            outage.end()


CAUSED = [(kind.__name__, name) for kind in OUTAGES for stage in kind.stages for name in stage]


@pytest.mark.parametrize(("outage", "alert"), sorted(CAUSED))
def test_an_alert_fires_about_what_it_names_and_resolves_when_that_is_over(
    course: Course, outage: str, alert: str
) -> None:
    assert not [error for error in course.errors if error.startswith(f"{outage} ")], course.errors
    key = Alert(outage, alert)
    assert key in course.fired, f"never fired; fired: {course.fired}"
    assert key in course.resolved, f"fired and did not resolve; resolved: {course.resolved}"


def test_each_shipped_alert_is_caused() -> None:
    assert {name for _, name in CAUSED} == {rule["alert"] for rule in shipped()}


def test_no_alert_is_about_a_gateway_that_only_works(course: Course) -> None:
    about = {alert.name for alert in course.fired if alert.instance == "Nothing"}
    assert about <= SHARED
    assert course.prometheus.query('ingest_events_accepted_total{instance="Nothing"} > 0')


def test_prometheus_keeps_the_trace_of_a_request_as_an_exemplar(course: Course) -> None:
    series = course.prometheus.exemplars("ingest_request_duration_seconds_bucket")
    traces = {e["labels"]["trace_id"] for found in series for e in found["exemplars"]}
    assert traces == {TRACE.split("-")[1]}


def test_prometheus_had_nothing_to_complain_about(course: Course) -> None:
    log = course.prometheus.log()
    assert "level=error" not in log and "Error" not in log, log
