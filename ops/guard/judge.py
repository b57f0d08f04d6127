"""Compares counts with the baseline. PURE: no files, no processes.

Three cases, told apart by what the baseline holds:

1. the same Python version on the same kind of processor, and the calibration counts as it did:
   the counts are compared as they are;
2. the same, but the calibration counts otherwise: it is another build of that Python, and the
   counts are compared in units of the calibration;
3. none for this version and processor: as 2, with the baseline of the nearest version, and a
   wider limit, because the gateway's C libraries do not change with the interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

LIMIT = 0.10
FOREIGN_LIMIT = 0.30
#: How much the calibration may differ between two runs of one interpreter.
SAME_BUILD = 0.01


class Counts(NamedTuple):
    """What one run has found.

    Attributes:
        key: Python version and processor, as in baseline.json.
        calibration: instructions of the calibration.
        repeats: name of the exchange -> instructions an event, one a repeat.
    """

    key: str
    calibration: int
    repeats: Mapping[str, list[float]]

    def least(self, name: str) -> float:
        """Whatever disturbs only adds, so the least count is the truest."""
        return min(self.repeats[name])

    def spread(self, name: str) -> float:
        return max(self.repeats[name]) / self.least(name) - 1


class Verdict(NamedTuple):
    """One exchange compared.

    Attributes:
        expected: instructions an event, as the baseline says, scaled where it has to be.
        change: by which share it is more.
    """

    name: str
    expected: float
    measured: float
    change: float
    spread: float
    limit: float

    @property
    def failed(self) -> bool:
        return self.change > self.limit


class Judgement(NamedTuple):
    """All of them, and a sentence on what they were compared with."""

    verdicts: list[Verdict]
    basis: str

    @property
    def failed(self) -> bool:
        return any(verdict.failed for verdict in self.verdicts)


def judge(counts: Counts, baseline: Mapping[str, Any]) -> Judgement:
    """Compare a run with the baseline.

    Raises:
        ValueError: the baseline is empty, or lacks an exchange.
    """
    if not baseline:
        raise ValueError("baseline.json is empty: make guard-update")
    key = counts.key if counts.key in baseline else nearest(counts.key, list(baseline))
    entry = baseline[key]
    scale = counts.calibration / entry["calibration"]
    limit = LIMIT
    if key != counts.key:
        limit = FOREIGN_LIMIT
        basis = (
            f"There is no baseline for {counts.key}, and none is recorded. Compared with that of "
            f"{key}, in units of a piece of plain Python counted in the same run (x{scale:.3f}); "
            f"the limit is wider for it. `make guard-update` records a baseline."
        )
    elif abs(scale - 1) > SAME_BUILD:
        basis = (
            f"This is another build of {key} than the baseline's: plain Python counts "
            f"x{scale:.3f}. Compared in units of that."
        )
    else:
        scale = 1.0
        basis = f"Compared with the baseline of {key}, taken with Python {entry['python']}."
    verdicts = []
    for name in counts.repeats:
        if name not in entry["exchanges"]:
            raise ValueError(f"the baseline of {key} has no {name!r}: make guard-update")
        expected = entry["exchanges"][name] * scale
        measured = counts.least(name)
        verdicts.append(
            Verdict(name, expected, measured, measured / expected - 1, counts.spread(name), limit)
        )
    return Judgement(verdicts, basis)


def nearest(key: str, known: list[str]) -> str:
    """The key of the nearest version, on the same processor if there is one."""

    def distance(other: str) -> tuple[bool, int, str]:
        return (
            key.split()[-1] != other.split()[-1],
            abs(_minor(key) - _minor(other)),
            other,
        )

    return min(known, key=distance)


def _minor(key: str) -> int:
    found = re.search(r" \d+\.(\d+) ", key)
    return int(found[1]) if found else 0


def text(judgement: Judgement, titles: Mapping[str, str], changed: Mapping[str, str]) -> str:
    """The table for people.

    Args:
        judgement: what was found.
        titles: name of an exchange -> what it is.
        changed: package -> `old -> new`, of what is not as it was for the baseline.
    """
    width = max(map(len, titles.values()))
    lines = [
        f"{'instructions an event':{width}}  {'baseline':>9}  {'now':>9}  {'change':>7}  "
        f"{'limit':>6}  {'spread':>6}"
    ]
    for verdict in judgement.verdicts:
        lines.append(
            f"{titles[verdict.name]:{width}}  {verdict.expected:9,.0f}  {verdict.measured:9,.0f}  "
            f"{verdict.change:+7.1%}  {verdict.limit:+6.0%}  {verdict.spread:6.1%}"
            + ("  FAILED" if verdict.failed else "")
        )
    lines.append(judgement.basis)
    if changed:
        listed = ", ".join(f"{name} {words}" for name, words in changed.items())
        lines.append(f"Not as it was for the baseline: {listed}.")
    if any(verdict.change < -verdict.limit for verdict in judgement.verdicts):
        lines.append("It got cheaper: `make guard-update` keeps it so.")
    return "\n".join(lines)
