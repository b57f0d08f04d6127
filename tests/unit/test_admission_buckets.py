"""Token buckets, with a clock of the test's own."""

import pytest

from ingest.admission.buckets import Allowance, Allowances, Bucket


def test_a_bucket_begins_full_and_comes_back_at_its_rate_up_to_its_burst() -> None:
    bucket = Bucket(10, 20, now=100.0)
    assert bucket.wait(20, 100.0) == 0
    bucket.take(20)
    assert bucket.wait(1, 100.0) == pytest.approx(0.1)
    assert bucket.wait(5, 100.25) == pytest.approx(0.25)
    assert bucket.wait(20, 102.0) == 0
    bucket.fill(1000.0)
    assert bucket.level == 20


def test_a_batch_may_overdraw_and_then_the_bucket_owes() -> None:
    bucket = Bucket(10, 10, now=0.0)
    assert bucket.wait(1, 0.0) == 0
    bucket.take(1 + 99)
    assert bucket.level == -90
    assert bucket.wait(1, 0.0) == pytest.approx(9.1)
    assert bucket.wait(1, 9.0) == pytest.approx(0.1)
    assert bucket.wait(1, 9.2) == 0


def test_what_is_larger_than_the_burst_waits_for_a_full_bucket_only() -> None:
    bucket = Bucket(10, 10, now=0.0)
    assert bucket.wait(1000, 0.0) == 0
    bucket.take(1)
    assert bucket.wait(1000, 0.0) == pytest.approx(0.1)


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    bucket = Bucket(10, 10, now=5.0)
    bucket.take(10)
    assert bucket.wait(1, 4.0) == bucket.wait(1, 5.0) == pytest.approx(0.1)


def test_a_slow_rate_still_has_room_for_one_event() -> None:
    allowance = Allowance(0.1, None, 1.0, 0.0)
    assert allowance.lacks(1, 10**9, 0.0) is None
    allowance.charge(1, 10**9)
    short = allowance.lacks(1, 0, 0.0)
    assert short is not None
    assert (short[0], short[2]) == ("events", pytest.approx(10))


def test_of_events_and_bytes_the_one_with_the_longer_wait_is_named() -> None:
    allowance = Allowance(10, 1000, 1.0, 0.0)
    allowance.charge(15, 3000)
    short = allowance.lacks(1, 100, 0.0)
    assert short is not None
    assert (short[0], short[2]) == ("bytes", pytest.approx(2.1))
    assert allowance.lacks(1, 100, 3.0) is None


def test_only_so_many_addresses_are_remembered_and_the_least_recent_is_forgotten() -> None:
    kept = Allowances(lambda now: Allowance(1, None, 1.0, now), 2)
    first = kept.of("a", 0.0)
    first.charge(1, 0)
    kept.of("b", 0.0)
    assert kept.of("a", 0.0) is first
    kept.of("c", 0.0)
    assert len(kept) == 2
    assert kept.of("a", 0.0) is first
    second = kept.of("b", 0.0)
    assert second.lacks(1, 0, 0.0) is None
    assert len(kept) == 2
