"""Stacks of greenlets and threads, counts of objects, and levels that are changed for a while."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event as Signal
from gevent.monkey import get_original

from ingest import debug
from ingest.logs_levels import Levels, UnknownLogger


class Peculiar:
    """Of this type there is nothing else."""


def waits_here(signal: Signal) -> None:
    signal.wait()


def test_greenlets_with_the_same_stack_are_one_group_with_their_number() -> None:
    signal = Signal()
    waiting = [gevent.spawn(waits_here, signal) for _ in range(17)]
    gevent.sleep(0)
    groups, looked = debug.greenlet_groups()
    signal.set()
    gevent.joinall(waiting)
    ((count, kind, stack),) = [g for g in groups if any("waits_here" in line for line in g[2])]
    assert (count, kind) == (17, "Greenlet")
    assert any(line.rpartition(":")[0] == __file__ for line in stack)
    assert looked >= 18
    assert groups == sorted(groups, key=lambda group: -group[0])


def test_a_greenlet_that_was_there_before_the_collector_was_told_to_leave_it_is_found() -> None:
    signal = Signal()
    early = gevent.spawn(waits_here, signal)
    gevent.sleep(0)
    debug.remember_greenlets()
    gc.freeze()
    try:
        groups, _ = debug.greenlet_groups()
    finally:
        gc.unfreeze()
        signal.set()
        early.join()
    assert [g[0] for g in groups if any("waits_here" in line for line in g[2])] == [1]


def test_one_that_has_ended_is_not_shown() -> None:
    done = gevent.spawn(waits_here, Signal())
    gevent.sleep(0)
    done.kill()
    groups, _ = debug.greenlet_groups()
    assert not [g for g in groups if any("waits_here" in line for line in g[2])]


def test_a_deep_stack_is_cut_at_its_outer_end() -> None:
    def deeper(left: int) -> debug.Stack:
        if left:
            return deeper(left - 1)
        return debug.stack_of(sys._getframe())

    stack = deeper(200)
    assert len(stack) == debug.LINES_MAX + 1
    assert stack[0] == "…"
    assert stack[-1].endswith(" deeper")


def test_native_threads_are_shown_and_this_one_is_named() -> None:
    pool = gevent.get_hub().threadpool
    begun, held = (get_original("_thread", "allocate_lock")() for _ in range(2))
    begun.acquire()
    held.acquire()

    def busy_elsewhere() -> None:
        begun.release()
        held.acquire()

    busy = pool.spawn(busy_elsewhere)
    begun.acquire()
    threads = debug.thread_stacks()
    held.release()
    busy.get()
    assert sum(here for _, here, _ in threads) == 1
    (other,) = [t for t in threads if any(line.endswith(" busy_elsewhere") for line in t[2])]
    assert not other[1]


def test_objects_are_counted_by_type_and_what_was_frozen_is_not() -> None:
    kept = [Peculiar() for _ in range(5000)]
    name = f"{__name__}.Peculiar"
    counts, looked, complete = debug.object_counts()
    assert (counts.get(name), complete) == (len(kept), True)
    assert looked >= 5000
    gc.freeze()
    try:
        assert name not in debug.object_counts()[0]
    finally:
        gc.unfreeze()


def test_counting_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "COUNT_SECONDS", -1.0)
    _, looked, complete = debug.object_counts()
    assert (looked, complete) == (debug.CHUNK, False)


def test_counting_lets_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "SLICE_SECONDS", 0.0)
    ran: list[int] = []
    other = gevent.spawn(ran.append, 1)
    debug.object_counts()
    assert ran == [1]
    other.join()


def test_the_kernels_figures_are_of_this_process() -> None:
    found = debug.process_memory()
    assert found["resident_bytes"] > 1 << 20
    assert found["resident_peak_bytes"] >= found["resident_bytes"]
    assert found["threads"] >= 1 and found["descriptors"] >= 3


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("tests.levels.one")
    yield found
    found.setLevel(logging.NOTSET)


def test_a_level_applies_at_once_and_until_it_is_changed_again(logger: logging.Logger) -> None:
    levels = Levels()
    levels.change(logger.name, "DEBUG", None)
    assert logger.isEnabledFor(logging.DEBUG)
    assert levels.state()["levels"][logger.name] == "DEBUG"
    assert levels.state()["temporary"] == {}
    levels.change(logger.name, "NOTSET", None)
    assert logger.name not in levels.state()["levels"]


def test_a_level_for_a_while_goes_back_to_what_was_before_the_first_of_them(
    logger: logging.Logger,
) -> None:
    logger.setLevel(logging.ERROR)
    levels = Levels()
    levels.change(logger.name, "DEBUG", 3600.0)
    levels.change(logger.name, "INFO", 0.01)
    state = levels.state()["temporary"][logger.name]
    assert state["before"] == "ERROR" and 0 <= state["ends_in_seconds"] <= 0.1
    while logger.level == logging.INFO:
        gevent.sleep(0.005)
    assert logger.level == logging.ERROR
    assert levels.state()["temporary"] == {}


def test_one_for_good_ends_one_for_a_while(logger: logging.Logger) -> None:
    levels = Levels()
    levels.change(logger.name, "DEBUG", 0.01)
    levels.change(logger.name, "INFO", None)
    gevent.sleep(0.05)
    assert logger.level == logging.INFO


def test_a_package_of_loggers_and_the_root_have_levels_too(logger: logging.Logger) -> None:
    levels = Levels()
    levels.change("tests.levels", "DEBUG", None)
    assert logger.isEnabledFor(logging.DEBUG)
    levels.change("tests.levels", "NOTSET", None)
    before = logging.root.level
    levels.change("root", "CRITICAL", None)
    assert logging.root.level == logging.CRITICAL
    logging.root.setLevel(before)


def test_a_name_that_no_logger_has_is_refused_with_the_nearest_ones(
    logger: logging.Logger,
) -> None:
    known = len(logging.root.manager.loggerDict)
    with pytest.raises(UnknownLogger, match=r"tests\.levels\.one"):
        Levels().change("tests.levels.oen", "DEBUG", None)
    assert len(logging.root.manager.loggerDict) == known
