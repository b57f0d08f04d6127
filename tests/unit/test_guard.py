"""The guard against regressions: what it compares with, and when it fails."""

import pytest

from ops.guard import calibration
from ops.guard.judge import Counts, judge, nearest, text

HERE = "CPython 3.11 x86_64"
BASELINE = {
    HERE: {
        "python": "3.11.7",
        "versions": {},
        "calibration": 1000,
        "exchanges": {"event": 100, "batch": 20},
    },
    "CPython 3.13 aarch64": {
        "python": "3.13.0",
        "versions": {},
        "calibration": 500,
        "exchanges": {"event": 70, "batch": 15},
    },
}
TITLES = {"event": "one event", "batch": "a batch"}


def counts(event: list[float], calibration: int = 1000, key: str = HERE) -> Counts:
    return Counts(key, calibration, {"event": event, "batch": [20.0]})


def test_a_tenth_more_is_the_limit() -> None:
    assert not judge(counts([109.9]), BASELINE).failed
    judgement = judge(counts([110.1]), BASELINE)
    assert [verdict.failed for verdict in judgement.verdicts] == [True, False]


def test_the_least_of_the_repeats_counts() -> None:
    judgement = judge(counts([130.0, 101.0, 120.0]), BASELINE)
    assert judgement.verdicts[0].measured == 101.0
    assert judgement.verdicts[0].spread == pytest.approx(130 / 101 - 1)
    assert not judgement.failed


def test_another_build_of_the_same_python_is_compared_in_units_of_plain_python() -> None:
    # Everything takes 1.2 times the instructions: nothing of the gateway's has changed.
    judgement = judge(counts([120.0], calibration=1200), BASELINE)
    assert judgement.verdicts[0].change == pytest.approx(0)
    assert "another build" in judgement.basis
    assert judge(counts([133.0], calibration=1200), BASELINE).failed


def test_a_calibration_that_is_a_little_off_scales_nothing() -> None:
    judgement = judge(counts([100.0], calibration=1005), BASELINE)
    assert judgement.verdicts[0].expected == 100


def test_a_version_without_a_baseline_is_compared_with_the_nearest_and_can_fail() -> None:
    newer = "CPython 3.12 x86_64"
    judgement = judge(counts([80.0], calibration=800, key=newer), BASELINE)
    assert not judgement.failed
    assert f"There is no baseline for {newer}, and none is recorded" in judgement.basis
    assert HERE in judgement.basis
    assert judge(counts([105.0], calibration=800, key=newer), BASELINE).failed


def test_the_same_processor_is_nearer_than_a_nearer_version() -> None:
    assert nearest("CPython 3.13 x86_64", list(BASELINE)) == HERE
    assert nearest("CPython 3.11 aarch64", list(BASELINE)) == "CPython 3.13 aarch64"


def test_without_any_baseline_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="guard-update"):
        judge(counts([100.0]), {})


def test_an_exchange_that_the_baseline_lacks_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="'event'"):
        judge(counts([100.0]), {HERE: BASELINE[HERE] | {"exchanges": {"batch": 20}}})


def test_the_table_names_what_failed_what_changed_and_what_got_cheaper() -> None:
    dearer = text(judge(counts([200.0]), BASELINE), TITLES, {"orjson": "1 -> 2"})
    assert "+100.0%" in dearer
    assert dearer.count("FAILED") == 1
    assert "orjson 1 -> 2" in dearer
    assert "It got cheaper" in text(judge(counts([50.0]), BASELINE), TITLES, {})


def test_the_calibration_does_the_same_each_time() -> None:
    assert calibration.run() == calibration.run() > 0
