"""Power loss at any moment of a recorded life: what was acknowledged is there afterwards.

A gateway's calls are recorded (`tests/support/recording.py`), every moment between two of
them is turned into the states that a disk may be found in (`tests/support/disk.py`), and the
journal is recovered on each. `make crash` goes through many more states, and through the
calls that strace saw.
"""

import os
import random
from collections.abc import Iterator

import pytest

from ingest.journal.storage import Storage
from tests.crash.conftest import Report
from tests.support.chance import SCALE, SEED
from tests.support.disk import Disk
from tests.support.recording import Recording, record
from tests.support.replay import (
    Bench,
    acknowledgement,
    empty,
    place,
    points,
    recorded,
    recover_and_append,
    replay,
)
from tests.support.small_life import FAILING, Fate, live

STATES = 1000
#: Different states of one moment that are looked at.
MOST = 6 * SCALE
#: States on which recovery itself is interrupted.
RECOVERIES = 50 * SCALE


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("recording"), answers=60)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with place() as root:
        yield Bench(root)


def test_the_recording_holds_what_it_is_to_be_tested_with(recording: Recording) -> None:
    calls = [line["call"] for line in recording.log]
    failed = {line["call"] for line in recording.log if "error" in line}
    assert calls.count("start") == 4
    assert {"sync", "write"} <= failed
    made = [line for line in recording.log if line["call"] == "open" and line["flags"] & os.O_CREAT]
    assert len(made) > 8, "segments"
    assert any(line["call"] == "rename" and "zst" in line["target"] for line in recording.log)
    acks = [line["ack"] for line in recording.log if line["call"] == "ack"]
    assert min(acks.count("fsync"), acks.count("write")) > 50


def test_power_lost_between_any_two_calls_costs_nothing_acknowledged(
    recording: Recording, bench: Bench, report: Report
) -> None:
    states = replay(recording.log, Disk(recording.root), bench, seed=SEED, most=MOST)
    report(f"{states} states of {len(recording.log)} calls and acknowledgements")
    assert states >= STATES


def test_power_lost_in_recovery_costs_nothing_acknowledged_before(
    recording: Recording, bench: Bench, report: Report
) -> None:
    chance = random.Random(SEED)
    moments = [
        (point, point.disk.crash(chance), point.disk.unsynced > 1)
        for point in points(recording.log, Disk(recording.root), {})
        if point.disk.unsynced
    ]
    states = 0
    for point, state, may_be_damaged in chance.sample(moments, min(RECOVERIES, len(moments))):
        bench.put(state)
        (directory,) = bench.partitions()
        with recorded() as calls:
            added = recover_and_append(Storage(), directory)
        calls.append(acknowledgement(added))
        states += replay(
            calls,
            Disk(bench.root, state),
            bench,
            seed=SEED,
            most=5 * SCALE,
            required=point.required,
            may_be_damaged=may_be_damaged,
            where=f"call {point.number},",
        )
    report(f"{states} states of {RECOVERIES} recoveries")


@pytest.mark.parametrize("failing", [False, True], ids=["well", "failing"])
def test_a_process_killed_at_any_call_and_power_lost_in_the_next_ones_life(
    bench: Bench, report: Report, failing: bool
) -> None:
    """What the killed one did not sync is still in the kernel's hands, and only there."""
    with place() as root:
        faults = FAILING if failing else {}
        whole = live(root / "data", "a", Fate(failing=faults))
        assert {line["call"] for line in whole if "error" in line} >= {c for c, _ in faults}
        states = 0
        for kill_at in range(len(whole)):
            empty(root)
            first = live(root / "data", "a", Fate(kill_at, faults))
            second = live(root / "data", "b", Fate())
            assert second[-1]["call"] == "close"
            where = f"killed at {kill_at}"
            log = [*first, *second]
            states += replay(log, Disk(root), bench, seed=SEED, most=3 * SCALE, where=where)
    report(f"{states} states of {len(whole)} kills")
