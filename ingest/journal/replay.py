"""`ingest replay`: sends stored or rejected events again, to a gateway, a URL or standard output.

    journal ── chosen ── message ── paced ── target ──┬── taken
       ▲                                              ├── refused: counted, or the end
       └────────── checkpoint ◀───────────────────────┴── not now: again, later

One event after the other, in the order of each partition. The checkpoint follows what is done,
at most a second behind, so after any end some events may be sent once more: with the
`Idempotency-Key` they had (`replay_messages.py`).

This module must not know HTTP.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from ingest.journal.progress import Progress
from ingest.journal.replay_http import Refused
from ingest.journal.replay_messages import Unsendable
from ingest.journal.replay_place import Place
from ingest.journal.replay_targets import Target
from ingest.journal.selection import (
    Picked,
    Selection,
    UsageProblem,
    extent,
    open_partition,
    partitions_of,
    passed_over,
    picked,
    selection_of,
)
from ingest.journal.storage import Storage

#: So many refusals are reported one by one; of the others there is the number.
REPORTED_MAX = 100


class Stopped(Exception):
    """The target refused an event, and that is to be the end."""


class Pacer:
    """Keeps to a rate, without making up for more than a second that was lost.

    Args:
        rate: events a second; None for no limit.
        clock, sleep: `time.monotonic`, `time.sleep`.
    """

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._clock, self._sleep = clock, sleep
        self._due = clock()

    def wait(self) -> None:
        """Return when the next event is due."""
        if not self._interval:
            return
        now = self._clock()
        if self._due > now:
            self._sleep(self._due - now)
        self._due = max(self._due, now - 1) + self._interval


class Tally:
    """What became of the events.

    Attributes:
        taken: how many the target has.
        before: how many of them it had before.
        refused: how many it does not want.
        left_out: how many there was nothing to send of.
        whole: whether nothing was passed over.
    """

    def __init__(self) -> None:
        self.taken = self.before = self.refused = self.left_out = 0
        self.whole = True
        self._started = time.monotonic()

    def summary(self, where: str, retried: int) -> str:
        """All of it in a line."""
        seconds = time.monotonic() - self._started
        parts = [f"{self.taken:,} events sent to {where} in {seconds:.1f} s"]
        if self.taken and seconds > 0:
            parts[0] += f" ({self.taken / seconds:,.0f}/s)"
        for count, words in (
            (self.before, "it had before"),
            (self.refused, "refused"),
            (self.left_out, "left out"),
            (retried, "attempts repeated"),
        ):
            if count:
                parts.append(f"{count:,} {words}")
        return ", ".join(parts)


class Replay:
    """A range of the journal on its way to a target.

    Args:
        arguments: of the command line.
        target: takes the events.
        place: is loaded and kept up.
    """

    def __init__(self, arguments: argparse.Namespace, target: Target, place: Place) -> None:
        self._storage = Storage()
        self._target = target
        self._place = place
        self._pacer = Pacer(arguments.rate)
        self._stops = arguments.on_refusal == "stop"
        self._chosen = selection_of(arguments)
        self._gone: list[str] = []
        self._parts = [
            (number, path, *self._extent(number, path)) for number, path in partitions_of(arguments)
        ]
        self.tally = Tally()
        self.tally.whole = not self._gone

    def run(self) -> None:
        """Send all that is there now and was not sent yet.

        Raises:
            UsageProblem: by the checkpoint, this is another journal.
            TargetFailed: the target takes nothing for now.
            Stopped: it refused an event, and that is the end.
            OutputFailed, OSError: what was sent last may not have left, or its place is not kept.
        """
        total = sum(len(found) for *_, found in self._parts)
        with Progress(total, "replaying") as progress:
            for words in self._gone:
                progress.say(f"ingest: {words}")
            for number, path, selection, found in self._parts:
                if found:
                    self._partition(number, path, selection, found, progress)
                    self._place.save()

    def _extent(self, number: int, path: Path) -> tuple[Selection, range]:
        """What of a partition is still to be sent; what comes while it runs is not."""
        kept = self._place.load(number)
        start = max(self._chosen.from_offset, kept or 0)
        found = extent(self._storage, path, self._chosen._replace(from_offset=start))
        if kept is not None and self._chosen.to_offset is None and found.stop < kept:
            raise UsageProblem(
                f"partition {number} ends with offset {found.stop}, and the checkpoint is at "
                f"{kept}: it is of another data directory"
            )
        if 0 < start < found.start:
            self._gone.append(f"partition {number}, offset {start} to {found.start - 1}: gone")
        selection = self._chosen._replace(from_offset=start, to_offset=found.stop)
        return selection, found

    def _partition(
        self, number: int, path: Path, selection: Selection, found: range, progress: Progress
    ) -> None:
        reader = open_partition(self._storage, path, selection)
        seen = found.start
        try:
            for item in picked(reader.poll(), selection):
                if not isinstance(item, Picked):
                    self.tally.whole = False
                    progress.say(f"ingest: {passed_over(item)}")
                    continue
                for offset, line in zip(item.offsets, item.lines, strict=True):
                    self._pacer.wait()
                    self._one(number, offset, line, progress)
                    self._place.reached(number, offset + 1)
                    progress.add(offset + 1 - seen)
                    seen = offset + 1
            if selection.until is None:  # or what is behind it was not looked at
                self._place.reached(number, found.stop)
            progress.add(found.stop - seen)
        finally:
            reader.close()

    def _one(self, number: int, offset: int, line: bytes, progress: Progress) -> None:
        tally = self.tally
        try:
            outcome = self._target.send(line)
        except Unsendable as error:
            tally.left_out += 1
            self._report(tally.left_out, progress, number, offset, f"left out: {error}")
            return
        if isinstance(outcome, Refused):
            tally.refused += 1
            self._report(tally.refused, progress, number, offset, f"refused: {outcome}")
            if self._stops:
                raise Stopped
        else:
            tally.taken += 1
            tally.before += outcome.before

    def _report(self, count: int, progress: Progress, number: int, offset: int, words: str) -> None:
        if count <= REPORTED_MAX:
            progress.say(f"ingest: partition {number}, offset {offset} {words}")
        elif count == REPORTED_MAX + 1:
            progress.say("ingest: and more, which are only counted")
