"""Power cuts in the middle of one piece of work, each state of the disk they may leave.

state = state_of(root)
log = recorded(work)
for place in cuts(root, state, log, elsewhere): …look at what is at `place`…
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import ingest.journal.storage as storage_module
from tests.support.disk import Disk, State
from tests.support.recorder import Call, RecordingOs


def recorded(work: Callable[[], object], fail: tuple[int, int] | None = None) -> list[Call]:
    """The calls of the journal's storage that some work makes.

    Args:
        fail: which of them fails, from 1, and with which errno.
    """
    log: list[Call] = []
    made = 0

    def before(call: str) -> None:
        nonlocal made
        made += 1
        if fail is not None and made == fail[0]:
            raise OSError(fail[1], os.strerror(fail[1]))

    recorder = RecordingOs(log.append, nullcontext(), before)
    with mock.patch.object(storage_module, "os", recorder):
        work()
    return log


def state_of(root: Path) -> State:
    """What is below a directory, all of it durable."""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def cuts(root: Path, state: State, log: list[Call], place: Path, seeds: int = 12) -> Iterator[Path]:
    """Directories that hold what may be found after a power cut behind each of the calls.

    Args:
        root: what the paths of the calls start with.
        state: what was below it before the first of them.
        place: where the directories are made.
        seeds: how many states there are of each call beside that nothing, or all, is there.
    """
    disk = Disk(root, state)
    for number, call in enumerate([{"call": "start"}, *log]):
        disk.apply(call)
        for only, seed in [("there", 0), ("lost", 0), *((None, seed) for seed in range(seeds))]:
            found = disk.crash(random.Random(f"{number} {seed}"), only)
            after = place / f"{number}-{only}-{seed}"
            for name, data in found.items():
                if data is None:
                    (after / name).mkdir(parents=True, exist_ok=True)
                else:
                    (after / name).write_bytes(data)
            yield after
