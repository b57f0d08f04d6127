"""Figures of several workers become one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.metrics import CATALOGUE, Metrics
from ingest.metrics_sums import Share, combine
from ingest.metrics_wire import pack, unpack


def counted(requests: int, seconds: tuple[float, ...] = (), free: int = 0) -> Metrics:
    metrics = Metrics()
    metrics.requests.cell("order", "202").value = requests
    for value in seconds:
        metrics.request_duration.observe(value)
    metrics.journal_free_bytes.value = free
    metrics.connections.value = requests
    return metrics


def share(metrics: Metrics) -> Share:
    found = Share()
    found.say(unpack(pack(metrics.read())))
    return found


def together(*shares: Share) -> Any:
    return combine(CATALOGUE, shares)


def test_readings_come_through_the_wire_as_they_were() -> None:
    metrics = counted(2**53, (0.5, 700.0), 2**62)
    before = {name: cells for name, cells in metrics.read().items() if cells}
    assert unpack(pack(metrics.read())) == before


def test_a_gauge_that_is_no_number_is_left_out() -> None:
    metrics = counted(1)
    metrics.connections.value = float("nan")
    assert unpack(pack(metrics.read()))["connections"] == {}


def test_counters_and_histograms_are_summed_and_gauges_combined_as_declared() -> None:
    found = together(share(counted(3, (0.01,), 50)), share(counted(4, (0.01, 9.0), 20)))
    assert found["requests"] == {("order", "202"): 7}
    counts, total, _ = found["request_duration"][()]
    assert sum(counts) == 3
    assert total == pytest.approx(9.02)
    assert found["journal_free_bytes"] == {(): 20}
    assert found["connections"] == {(): 7}


def test_what_a_worker_counted_stays_when_it_ends_and_its_gauges_go() -> None:
    first, second = share(counted(3)), share(counted(4))
    first.end(CATALOGUE)
    assert together(first, second)["requests"] == {("order", "202"): 7}
    assert together(first, second)["connections"] == {(): 4}
    first.say(unpack(pack(counted(10).read())))
    assert together(first, second)["requests"] == {("order", "202"): 17}


def test_one_that_does_not_answer_is_missing_from_gauges_only() -> None:
    silent = share(counted(3))
    silent.current = False
    found = together(silent, share(counted(4)))
    assert (found["requests"], found["connections"]) == ({("order", "202"): 7}, {(): 4})


@given(st.lists(st.lists(st.floats(0, 1e9), max_size=6), min_size=1, max_size=6))
def test_a_sum_does_not_fall_when_workers_are_replaced(lives: list[list[float]]) -> None:
    one, other = Share(), share(counted(1, (0.3,)))
    last = 0.0
    for observed in lives:
        metrics = Metrics()
        for value in observed:
            metrics.request_duration.observe(value)
            one.say(metrics.read_counted())
            total = together(one, other)["request_duration"][()][1]
            assert total >= last
            last = total
        one.end(CATALOGUE)
        total = together(one, other)["request_duration"][()][1]
        assert total >= last
        last = total
