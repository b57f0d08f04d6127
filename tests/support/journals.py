"""Data directories written by hand, and looks at a gateway until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ingest.journal.frame import mark
from ingest.journal.record import LINE_END, LINE_START, IdSource, middle, time_text
from ingest.journal.seekable import FrameWriter
from ingest.journal.segment import compressed_path, segment_path

#: 2026-01-01T00:00:00Z; record n was stored n seconds later.
START = 1_767_225_600


class Written:
    """A data directory to which commits are written by hand."""

    def __init__(self, data: Path, name: str = "journal") -> None:
        self.data = data
        self.directory = data / name
        self.numbers: dict[int, int] = {0: 0}
        self.path = data
        self.base = 0
        self.new_segment(0)

    def new_segment(self, partition: int = 0) -> None:
        directory = self.directory / str(partition)
        directory.mkdir(parents=True, exist_ok=True)
        self.partition = partition
        self.base = self.numbers.setdefault(partition, 0)
        self.path = segment_path(directory, self.base)
        self.path.touch()

    def commit(
        self, *types: str, sure: bool = True, datas: list[bytes] | None = None, more: bytes = b""
    ) -> bytes:
        """Write a commit with one record of each of these types.

        Args:
            datas: of the records; by default an object with the record's number.
            more: what stands before `data` beside the usual attributes.
        """
        first = self.numbers[self.partition]
        lines = []
        for number, kind in enumerate(types, first):
            ids = IdSource(lambda: START + number, lambda bits: 0)  # noqa: B023
            part = middle("/ingest", kind, time_text(ids.ms), f"/v1/schemas/{kind}")
            part = part.replace(b',"data":', more + b',"data":')
            data = datas[number - first] if datas else b'{"n": %d}' % number
            lines.append(LINE_START + ids.next() + part + data + LINE_END)
        body = b"".join(lines)[:-2]
        whole = body + mark(body, first, len(types), self.path.stat().st_size)
        if sure:
            with self.path.open("ab") as file:
                file.write(whole)
            self.numbers[self.partition] += len(types)
        return whole

    def flip(self, byte: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(byte)
            changed = file.read(1)[0] ^ 1
            file.seek(byte)
            file.write(bytes([changed]))

    def compress(self) -> Path:
        """Replace the segment that is written to by its compressed form; start a new one."""
        content = self.path.read_bytes()
        writer = FrameWriter(3)
        frames = [
            writer.frame(content[at : at + (64 << 10)]) for at in range(0, len(content), 64 << 10)
        ]
        target = compressed_path(self.path)
        end = writer.close(self.base, self.numbers[self.partition])
        target.write_bytes(b"".join(frames) + end)
        self.path.unlink()
        self.new_segment(self.partition)
        return target


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait until something is so, and fail when it does not come to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)
