"""What a process really did to its files and told its clients, as strace saw it.

    Gateway(data, …, wrapper=tracer(output))

`calls(output, root, acks)` reads strace's output into the same calls that
`tests.support.recorder` makes, so that recordings can be compared with it and
`tests.support.replay` can replay it. A call that changes files below the root in a way that
is not known here is an error.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ingest.journal.lock import LOCK_NAME
from tests.support.audit import Acks
from tests.support.recorder import Call, coded

#: Everything that can change a file or a directory, and what tells clients of it.
CHANGING = (
    "open,openat,openat2,creat,close,dup,dup2,dup3,"
    "write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,"
    "copy_file_range,sendfile,splice,mmap,fsync,fdatasync,sync_file_range,msync,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,"
    "sendto,sendmsg"
)
_DONE = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(?: (E[A-Z0-9]+))?.*", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CUT = '"...'


def tracer(output: Path) -> list[str]:
    """A command line to put before another one, which then keeps its process id."""
    return [
        "strace", "-D", "-f", "-qq", "-xx", "-s", str(1 << 24), "-e", f"trace={CHANGING}",
        "-e", "signal=none", "-o", str(output),
    ]  # fmt: skip


def calls(output: Path, root: Path, acks: Acks) -> list[Call]:
    """The calls on files below `root`, and the acknowledgements, in one order.

    Args:
        output: strace's.
        root: as it stands in the calls.
        acks: what the clients have taken note of; tells ids of events from other ids.
    """
    reader = _Reader(root, acks)
    return [call for line in _finished(output) for call in reader.take(*line)]


def _finished(output: Path) -> Iterator[tuple[str, str, str | None]]:
    """(name, arguments, result) of each call when it was done; of what sends when it began,
    for it may have been received before it was done (its result is None then)."""
    begun: dict[str, str] = {}
    for line in output.read_text(encoding="latin-1").splitlines():
        thread, _, text = line.partition(" ")
        text = text.strip()
        if text.startswith("<... "):
            text = begun.pop(thread) + text.partition("resumed>")[2]
            sent = text.startswith("send")
        elif text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>").rstrip()
            if text.startswith("send"):
                name, _, arguments = text.partition("(")
                yield name, arguments, None
            continue
        else:
            sent = False
        found = _DONE.fullmatch(text)
        if found is None:
            assert text.startswith(("+++", "---")) or "exited" in text, text[:200]
        elif not sent:
            yield found[1], found[2], found[4] or found[3]


class _Reader:
    def __init__(self, root: Path, acks: Acks) -> None:
        self._root = str(root)
        self._acks = acks
        self._told: set[str] = set()
        self._descriptors: dict[int, str] = {}

    def take(self, name: str, arguments: str, result: str | None) -> list[Call]:
        assert _CUT not in arguments, "strace has cut a string"
        if name.startswith("send"):
            return self._sent(arguments)
        assert result is not None
        failed: dict[str, Any] = {"error": getattr(errno, result)} if result[0] == "E" else {}
        paths: list[str] = []
        if not name.startswith(("pwrite", "write")):  # their strings are no paths
            paths = [self._path(text) for text in self._strings(arguments)]
        known = self._known(name, arguments, paths, failed, result)
        if known is not None:
            return known
        assert not any(paths), f"{name}({arguments[:200]}) is not known"
        first = arguments.split(",")[0].strip()
        touched = first.isdigit() and int(first) in self._descriptors
        assert not touched, f"{name} of {self._descriptors[int(first)]} is not known"
        return []

    def _known(
        self, name: str, arguments: str, paths: list[str], failed: dict[str, Any], result: str
    ) -> list[Call] | None:
        """What a call did; None when it is not one of those the journal makes."""
        if name == "openat":
            return self._opened(arguments, paths[0], failed, result)
        if name in ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"):
            if not paths[0]:
                return []
            call: Call = {"call": name.removesuffix("2").removesuffix("at"), "path": paths[0]}
            if "AT_REMOVEDIR" in arguments:
                call["call"] = "rmdir"
            if len(paths) > 1:
                call["target"] = paths[1]
            return [{**call, **failed}]
        first = arguments.split(",")[0].strip()
        descriptor = int(first) if first.isdigit() else -1
        if descriptor not in self._descriptors:
            return [] if not any(paths) else None
        on = {"fd": descriptor, **failed}
        if name == "close":
            del self._descriptors[descriptor]
            return [{"call": "close", **on}]
        if name in ("fsync", "fdatasync"):
            return [{"call": "sync", **on}]
        if name == "ftruncate":
            return [{"call": "truncate", "size": int(arguments.split(",")[1]), **on}]
        if name in ("pwrite64", "pwritev", "pwritev2"):
            data = b"".join(self._strings(arguments))
            behind = [word for word in arguments.rpartition('"')[2].split(",") if word.strip()]
            at = int(behind[{"pwrite64": 1, "pwritev": 2, "pwritev2": 2}[name]])
            data = data if failed else data[: int(result)]
            return [{"call": "write", "at": at, "data": coded(data), **on}]
        return None

    def _opened(self, arguments: str, path: str, failed: dict[str, Any], result: str) -> list[Call]:
        if not path or path.endswith(LOCK_NAME):
            return []
        names = re.findall(r"O_[A-Z]+", arguments)
        flags = 0
        for flag in names:
            flags |= getattr(os, flag, 0)
        if failed:
            return [{"call": "open", "path": path, "flags": flags, **failed}]
        self._descriptors[int(result)] = path
        return [{"call": "open", "path": path, "flags": flags, "fd": int(result)}]

    def _sent(self, arguments: str) -> list[Call]:
        data = b"".join(self._strings(arguments))
        ids = [found.decode() for found in _UUID.findall(data)]
        made = []
        for ack, told in (("fsync", self._acks.fsync), ("write", self._acks.write)):
            stored = {one: told[one] for one in ids if one in told and one not in self._told}
            self._told.update(stored)
            if stored:
                made.append({"call": "ack", "ack": ack, "stored": stored})
        return made

    def _strings(self, arguments: str) -> list[bytes]:
        return [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(arguments)]

    def _path(self, text: bytes) -> str:
        """The path if it is below the root, otherwise ""."""
        path = os.fsdecode(text)
        return path if path == self._root or path.startswith(self._root + os.sep) else ""


def effects(log: Sequence[Call]) -> list[tuple[Any, ...]]:
    """What calls did, without descriptors and without what changes nothing."""
    names: dict[int, str] = {}
    done: list[tuple[Any, ...]] = []
    for call in log:
        kind = call["call"]
        error = call.get("error", 0)
        if kind == "open":
            if "fd" in call:
                names[call["fd"]] = call["path"]
            if call["flags"] & (os.O_CREAT | os.O_TRUNC):
                done.append(("create", call["path"], error))
        elif kind in ("write", "truncate", "sync"):
            detail = [call[key] for key in ("at", "size", "data") if key in call]
            done.append((kind, names[call["fd"]], *detail, error))
        elif kind in ("rename", "unlink", "mkdir", "rmdir"):
            done.append((kind, call["path"], call.get("target"), error))
    return done
