"""A disk that may lose power: which states can a recorded sequence of calls leave behind?

What POSIX promises, and no more:

    fdatasync or fsync of a file that succeeds   its content up to then is durable
    fsync of a directory that succeeds           its entries up to then are durable
    anything else                                may or may not be there, in any combination

A file's change that is not durable has one of these fates, whatever becomes of the others:
it is there; it is lost; the file has grown but zeros stand where the bytes belong; only some
of its blocks of 512 bytes or of 4 KiB are there; the file has not grown, so that only what
was written over older bytes is there. A directory's change is there or not. What fdatasync
has failed for stays in doubt for ever, whatever a later fdatasync of the file says.

    disk = Disk(root)
    for call in log: disk.apply(call)
    states = [disk.crash(chance) for _ in range(10)]
"""

from __future__ import annotations

import os
import random
import re
from base64 import b64decode
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.support.recorder import Call

FATES = ("there", "lost", "zeros", "torn 512", "torn 4096", "not grown")
_ID = re.compile(rb'^\{"specversion":"1\.0","id":"([^"]+)"', re.MULTILINE)

#: Path below the root -> content, None for a directory.
State = dict[str, bytes | None]


class Change:
    """A write (`data` at `at`) or a truncation (to `at`, `data` is None) of a file."""

    __slots__ = ("at", "data", "ids", "standing")

    def __init__(self, at: int, data: bytes | None) -> None:
        self.at = at
        self.data = data
        self.ids = [found.decode() for found in _ID.findall(data)] if data else []
        self.standing = "pending"  # or durable, or doubtful


class File:
    """One file, by whatever name: what is durable, and what came since."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.changes: list[Change] = []

    def synced(self, well: bool) -> list[Change]:
        """A sync was done; returns the changes that it was to make durable."""
        pending = [change for change in self.changes if change.standing == "pending"]
        for change in pending:
            change.standing = "durable" if well else "doubtful"
        while self.changes and self.changes[0].standing == "durable":
            self.durable = _changed(self.durable, self.changes.pop(0), "there", None)
        return pending

    def crash(self, fate_of: _FateOf) -> bytes:
        """What may be in it after a crash."""
        content = self.durable
        for change in self.changes:
            fate = "there" if change.standing == "durable" else fate_of.change(change)
            content = _changed(content, change, fate, fate_of.chance)
        return content


class Entry(NamedTuple):
    """A change of a directory: `name` becomes `file` (None: goes), `old` goes."""

    name: str
    file: File | None
    old: str | None


class _FateOf:
    """Decides; `only` makes everything share one fate."""

    def __init__(self, chance: random.Random, only: str | None) -> None:
        self.chance = chance
        self._only = only

    def change(self, change: Change) -> str:
        fates = FATES if change.data is not None else FATES[:2]
        if self._only is not None:
            return self._only if self._only in fates else "lost"
        return self.chance.choice(fates)

    def entry(self) -> bool:
        return self._only != "lost" if self._only is not None else self.chance.random() < 0.5


DIRECTORY = File()


class Disk:
    """The disk below one directory.

    Args:
        root: what the paths of the calls start with.
        state: what is durably there already.

    Attributes:
        durable_ids: the events whose bytes a sync that succeeded has covered.
        doubtful_ids: those for whose bytes one failed.
    """

    def __init__(self, root: Path, state: State | None = None) -> None:
        self._root = str(root)
        self._open: dict[int, File | str] = {}
        self._entries: dict[str, File] = {
            name: DIRECTORY if content is None else File(content)
            for name, content in (state or {}).items()
        }
        self._live = dict(self._entries)
        self._pending: dict[str, list[Entry]] = {}
        self.durable_ids: set[str] = set()
        self.doubtful_ids: set[str] = set()

    # -- calls -----------------------------------------------------------------------------

    def apply(self, call: Call) -> None:
        """Take the next call; those that failed changed nothing, but for a sync."""
        if call["call"] == "start":
            self._open.clear()
        elif "error" not in call or call["call"] == "sync":
            getattr(self, "_take_" + call["call"])(call)

    def _name(self, path: str) -> str:
        assert path == self._root or path.startswith(self._root + os.sep), path
        return path[len(self._root) + 1 :]

    def _enter(self, name: str, file: File | None, old: str | None = None) -> None:
        if old is not None:
            assert os.path.dirname(old) == os.path.dirname(name), "a rename within a directory"
            del self._live[old]
        if file is None:
            del self._live[name]
        else:
            self._live[name] = file
        self._pending.setdefault(os.path.dirname(name), []).append(Entry(name, file, old))

    def _take_open(self, call: Call) -> None:
        name = self._name(call["path"])
        if call["flags"] & os.O_DIRECTORY:
            self._open[call["fd"]] = name
            return
        if name not in self._live:
            assert call["flags"] & os.O_CREAT, f"{name} is not known"
            self._enter(name, File())
        file = self._open[call["fd"]] = self._live[name]
        if call["flags"] & os.O_TRUNC:
            file.changes.append(Change(0, None))

    def _file(self, call: Call) -> File:
        file = self._open[call["fd"]]
        assert isinstance(file, File)
        return file

    def _take_close(self, call: Call) -> None:
        del self._open[call["fd"]]

    def _take_write(self, call: Call) -> None:
        self._file(call).changes.append(Change(call["at"], b64decode(call["data"])))

    def _take_truncate(self, call: Call) -> None:
        self._file(call).changes.append(Change(call["size"], None))

    def _take_sync(self, call: Call) -> None:
        file = self._open[call["fd"]]
        if isinstance(file, File):
            well = "error" not in call
            for change in file.synced(well):
                (self.durable_ids if well else self.doubtful_ids).update(change.ids)
        elif "error" not in call:
            for entry in self._pending.pop(file, []):
                _entered(self._entries, entry)

    def _take_rename(self, call: Call) -> None:
        old, name = self._name(call["path"]), self._name(call["target"])
        self._enter(name, self._live[old], old)

    def _take_unlink(self, call: Call) -> None:
        self._enter(self._name(call["path"]), None)

    _take_rmdir = _take_unlink

    def _take_mkdir(self, call: Call) -> None:
        self._enter(self._name(call["path"]), DIRECTORY)

    # -- crashes ---------------------------------------------------------------------------

    @property
    def unsynced(self) -> int:
        """Changes of files that are neither durable nor lost for certain."""
        changes = (change for file in set(self._live.values()) for change in file.changes)
        return sum(change.data is not None for change in changes)

    def crash(self, chance: random.Random, only: str | None = None) -> State:
        """A state that may be found after losing power now.

        Args:
            chance: decides.
            only: the one fate of everything that is not durable, None for any.
        """
        fate_of = _FateOf(chance, only)
        entries = dict(self._entries)
        for directory in sorted(self._pending):
            for entry in self._pending[directory]:
                if fate_of.entry():
                    _entered(entries, entry)
        state: State = {}
        for name in sorted(entries):
            above = os.path.dirname(name)
            if above and above not in state:
                continue  # its directory is lost, and with it all that is below
            file = entries[name]
            state[name] = None if file is DIRECTORY else file.crash(fate_of)
        return state


def _entered(entries: dict[str, File], entry: Entry) -> None:
    if entry.old is not None and entries.get(entry.old) is entry.file:
        del entries[entry.old]
    if entry.file is None:
        entries.pop(entry.name, None)
    else:
        entries[entry.name] = entry.file


def _changed(content: bytes, change: Change, fate: str, chance: random.Random | None) -> bytes:
    """The content of a file after a change with this fate."""
    at, data = change.at, change.data
    if fate == "lost":
        return content
    if data is None:
        return content[:at] + bytes(max(0, at - len(content)))
    end = at + len(data)
    grown = content + bytes(max(0, end - len(content)))
    if fate == "zeros":
        data = bytes(len(data))
    elif fate.startswith("torn"):
        assert chance is not None
        data = _torn(grown[at:end], data, at, int(fate.split()[1]), chance)
    written = grown[:at] + data + grown[end:]
    return written[: len(content)] if fate == "not grown" else written


def _torn(old: bytes, new: bytes, at: int, block: int, chance: random.Random) -> bytes:
    """Some blocks of the new bytes, in the disk's own grid; all up to one, or any."""
    borders = [0, *range(block - at % block, len(new), block), len(new)]
    blocks = list(pairwise(borders))
    if chance.random() < 0.5:
        upto = chance.randrange(len(blocks))
        kept = [n < upto for n in range(len(blocks))]
    else:
        kept = [chance.random() < 0.5 for _ in blocks]
    return b"".join(
        (new if keep else old)[start:end] for keep, (start, end) in zip(kept, blocks, strict=True)
    )
