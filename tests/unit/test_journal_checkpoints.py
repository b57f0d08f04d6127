"""Checkpoints: what a consumer still needs, put down so that a crash leaves the old or the new."""

import errno
import os
from pathlib import Path

import pytest

from ingest.journal.checkpoints import CheckpointBroken, Checkpoints
from ingest.journal.storage import Storage
from tests.support.cuts import cuts, recorded, state_of


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "data" / "checkpoints", Storage())


def test_what_was_saved_is_loaded_by_consumer_and_partition(checkpoints: Checkpoints) -> None:
    assert checkpoints.load("kafka", 0) is None
    checkpoints.save("kafka", 0, 17)
    checkpoints.save("kafka", 1, 0)
    checkpoints.save("billing.v2", 0, 4)
    checkpoints.save("kafka", 0, 18)
    assert checkpoints.load("kafka", 0) == 18
    assert checkpoints.load("kafka", 1) == 0
    assert checkpoints.load("kafka", 2) is None
    assert checkpoints.names() == ["billing.v2", "kafka"]


def test_the_oldest_is_that_of_the_consumer_farthest_behind(checkpoints: Checkpoints) -> None:
    assert checkpoints.oldest(0) is None
    checkpoints.save("a", 0, 9)
    checkpoints.save("b", 0, 5)
    checkpoints.save("b", 1, 1)
    assert checkpoints.oldest(0) == ("b", 5)
    assert checkpoints.oldest(1) == ("b", 1)
    assert checkpoints.oldest(2) is None


def test_a_removed_consumer_needs_nothing_any_more(checkpoints: Checkpoints) -> None:
    checkpoints.remove("nobody")
    checkpoints.save("a", 0, 9)
    checkpoints.save("a", 1, 9)
    checkpoints.save("b", 0, 10)
    checkpoints.remove("a")
    assert checkpoints.names() == ["b"]
    assert checkpoints.oldest(0) == ("b", 10)


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "x" * 65, "ä", "a b", "-a"])
def test_a_name_that_could_lead_elsewhere_is_refused(checkpoints: Checkpoints, name: str) -> None:
    for call in (
        lambda: checkpoints.save(name, 0, 1),
        lambda: checkpoints.load(name, 0),
        lambda: checkpoints.remove(name),
    ):
        with pytest.raises(ValueError, match="name"):
            call()
    assert checkpoints.names() == []


def test_a_change_of_any_bit_is_found_and_counts_as_needing_everything(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    checkpoints.save("kafka", 0, 123456)
    path = tmp_path / "data" / "checkpoints" / "kafka" / "0"
    sound = path.read_bytes()
    for bit in range(len(sound) * 8):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(CheckpointBroken, match=str(path)):
            checkpoints.load("kafka", 0)
        assert checkpoints.oldest(0) == ("kafka", 0)
        assert len(list(checkpoints.broken())) == 1
    for end in range(len(sound)):
        path.write_bytes(sound[:end])
        assert checkpoints.oldest(0) == ("kafka", 0)
    checkpoints.save("kafka", 0, 5)
    assert (checkpoints.load("kafka", 0), list(checkpoints.broken())) == (5, [])


class Failing(Storage):
    """Fails the Nth of its calls that change something."""

    def __init__(self, at: int) -> None:
        self._left = at

    def _ask(self) -> None:
        self._left -= 1
        if not self._left:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open_write(self, path: Path, *, create: bool) -> int:
        self._ask()
        return super().open_write(path, create=create)

    def write(self, descriptor: int, parts, position: int) -> None:  # type: ignore[no-untyped-def]
        self._ask()
        super().write(descriptor, parts, position)

    def sync(self, descriptor: int) -> None:
        self._ask()
        super().sync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._ask()
        super().rename(old, new)

    def sync_directory(self, path: Path) -> None:
        self._ask()
        super().sync_directory(path)


def test_a_save_that_fails_anywhere_leaves_the_old_offset_or_the_new_and_the_next_works(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    directory = tmp_path / "data" / "checkpoints"
    checkpoints.save("kafka", 0, 1)
    for at in range(1, 100):
        failing = Checkpoints(directory, Failing(at))
        try:
            failing.save("kafka", 0, 2)
        except OSError:
            assert checkpoints.load("kafka", 0) in (1, 2), at
            checkpoints.save("kafka", 0, 1)
        else:
            assert at > 5
            break
    assert checkpoints.load("kafka", 0) == 2
    assert os.listdir(directory / "kafka") == ["0"]


def test_a_power_cut_at_any_call_leaves_the_old_offset_or_the_new(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    checkpoints.save("kafka", 0, 1)
    state = state_of(tmp_path)
    log = recorded(lambda: checkpoints.save("kafka", 0, 2))
    found = []
    for place in cuts(tmp_path, state, log, tmp_path / "after"):
        after = Checkpoints(place / "data" / "checkpoints", Storage())
        found.append(after.load("kafka", 0))
        after.save("kafka", 0, 3)
        assert after.load("kafka", 0) == 3
    assert set(found) == {1, 2}
    assert set(found[-14:]) == {2}, "when save has returned, it is the new one"
