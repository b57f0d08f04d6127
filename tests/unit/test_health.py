"""Probes and the event loop's monitor."""

from __future__ import annotations

import json

import gevent
import pytest
from gevent.event import Event

from ingest.health import REASON_MAX, STARVED_SECONDS, Health, HubMonitor
from ingest.metrics import Metrics


def fine() -> None:
    return None


def full() -> str:
    return "disk full"


def test_a_probe_without_checks_is_ok() -> None:
    assert Health().probe("live") == (200, b"ok\n", "text/plain; charset=utf-8")


def test_a_probe_names_what_fails() -> None:
    health = Health()
    health.add("journal", {"ready"}, full)
    health.add("registry", {"ready"}, fine)
    health.add("sink", {"ready"}, lambda: "down")
    assert health.probe("ready", False)[:2] == (503, b"unavailable: journal, sink\n")


def test_each_probe_asks_only_its_own_checks() -> None:
    health = Health()
    health.add("journal", {"ready", "startup"}, full)
    health.add("hub", {"live", "ready"}, fine)
    assert [health.probe(kind)[0] for kind in ("live", "ready", "startup")] == [200, 503, 503]


def test_verbose_lists_each_check_in_the_order_added() -> None:
    health = Health()
    health.add("hub", {"ready"}, fine)
    health.add("journal", {"ready"}, full)
    status, body, content_type = health.probe("ready", True)
    assert status == 503
    assert body == b"[+]hub ok\n[-]journal failed: disk full\nready check failed\n"
    assert content_type == "text/plain; charset=utf-8"


def test_verbose_says_so_when_all_is_well() -> None:
    health = Health()
    health.add("hub", {"live"}, fine)
    assert health.probe("live", True)[:2] == (200, b"[+]hub ok\nlive check passed\n")


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        ("application/json", True),
        ("text/html, Application/JSON;q=0.9", True),
        ("application/json;q=0", False),
        ("application/json;q=0.000", False),
        ("*/*", False),
        ("text/plain", False),
        ("", False),
        (None, False),
    ],
)
def test_json_is_answered_to_who_asks_for_it(accept: str | None, is_json: bool) -> None:
    content_type = Health().probe("live", False, accept)[2]
    assert (content_type == "application/json") is is_json


def test_the_json_answer_holds_each_check() -> None:
    health = Health()
    health.add("hub", {"ready"}, fine)
    health.add("journal", {"ready"}, full)
    status, body, _ = health.probe("ready", False, "application/json")
    assert status == 503
    assert json.loads(body) == {
        "status": "unavailable",
        "checks": {"hub": {"status": "ok"}, "journal": {"status": "failed", "reason": "disk full"}},
    }


def test_a_check_that_raises_has_failed_and_is_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> None:
        raise OSError("no such thing")

    metrics = Metrics()
    health = Health(metrics)
    health.add("journal", {"ready"}, broken)
    for _ in range(3):
        assert health.probe("ready", True)[1].startswith(
            b"[-]journal failed: the check raised OSError"
        )
    assert metrics.unhandled_errors.cell("health").value == 3
    raised = [r for r in caplog.records if "health.check_raised" in str(r.msg)]
    assert len(raised) == 1


def test_a_change_is_logged_once_and_a_probe_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    why: list[str | None] = [None]
    health = Health()
    health.add("journal", {"ready"}, lambda: why[0])
    for reason in (None, None, "full", "full", None, None):
        why[0] = reason
        health.probe("ready")
    events = [r.msg["event"] for r in caplog.records if isinstance(r.msg, dict)]
    assert events == ["health.check_failed", "health.check_recovered"]


def test_a_long_or_odd_reason_stays_one_short_line() -> None:
    health = Health()
    health.add("journal", {"ready"}, lambda: "a\r\nb \ud800 " + "x" * 5000)
    _, text, _ = health.probe("ready", True)
    assert text.count(b"\n") == 2
    assert b"[-]journal failed: a b \\ud800 xxx" in text
    assert len(text) < REASON_MAX + 100
    _, body, _ = health.probe("ready", False, "application/json")
    assert json.loads(body)["checks"]["journal"]["reason"].startswith("a b \\ud800")


@pytest.mark.parametrize("kinds", [set(), {"alive"}, {"live", "alive"}])
def test_an_unknown_kind_is_refused_when_added(kinds: set[str]) -> None:
    with pytest.raises(ValueError, match="kinds"):
        Health().add("hub", kinds, fine)


def test_a_name_is_given_once() -> None:
    health = Health()
    health.add("hub", {"live"}, fine)
    with pytest.raises(ValueError, match="already"):
        health.add("hub", {"ready"}, fine)


class Clock:
    """A clock whose sleepers wake late by what the test says."""

    def __init__(self) -> None:
        self.now = 100.0
        self.late = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds + self.late


def test_the_monitor_records_how_late_its_timer_ran() -> None:
    clock, metrics = Clock(), Metrics()
    monitor = HubMonitor(metrics, 0.1, clock, clock.sleep)
    for late in (0.0, 3.0, -1.0):
        clock.late = late
        monitor.measure()
    assert metrics.hub_lag_seconds.count == 3
    assert metrics.hub_lag_seconds.sum == pytest.approx(3.0)
    assert metrics.hub_lag_last_seconds.value == 0.0


def test_the_monitor_runs_by_itself_until_it_is_stopped() -> None:
    metrics, measured = Metrics(), Event()

    def sleep(seconds: float) -> None:
        gevent.sleep(0)
        if metrics.hub_lag_seconds.count >= 2:
            measured.set()

    monitor = HubMonitor(metrics, 0.0, sleep=sleep)
    assert monitor.check() == "the event loop is not measured"
    monitor.start()
    monitor.start()
    assert measured.wait(10)
    assert monitor.check() is None
    monitor.stop()
    monitor.stop()
    stopped_at = metrics.hub_lag_seconds.count
    gevent.idle()
    assert metrics.hub_lag_seconds.count == stopped_at
    assert monitor.check() == "the event loop is not measured"


def test_the_check_fails_when_timers_have_not_run_for_long() -> None:
    clock = Clock()
    monitor = HubMonitor(Metrics(), 0.1, clock, lambda _seconds: gevent.sleep(60))
    monitor.start()
    clock.now += STARVED_SECONDS
    assert monitor.check() is None
    clock.now += 1
    assert monitor.check() == "timers run 10.9 s late"
    monitor.stop()


def test_an_error_in_the_monitor_is_counted_and_it_goes_on() -> None:
    metrics, recovered = Metrics(), Event()
    failures = iter([RuntimeError("clock gone")])

    def sleep(_seconds: float) -> None:
        for failure in failures:
            raise failure
        recovered.set()
        gevent.sleep(0)

    monitor = HubMonitor(metrics, 0.0, sleep=sleep)
    monitor.start()
    assert recovered.wait(10)
    monitor.stop()
    assert metrics.unhandled_errors.cell("hub_monitor").value == 1
