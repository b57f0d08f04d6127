"""Draws sampled stacks as a flame graph: each function as wide as the samples it was seen in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, ROW, MARGIN = 1200, 17, 10
LEAST_WIDTH = 0.4
CHARACTER_WIDTH = 6.4
#: What the name of a frame starts with or holds -> its colour; the first that fits counts.
COLOURS = (
    ("(ingest/journal", "#e0a458"),
    ("(ingest/http", "#7fb069"),
    ("(ingest/", "#5fa8d3"),
    ("(gevent", "#c3b1e1"),
    ("", "#c9cdd2"),
)


class Frame(NamedTuple):
    """A function at one place of the picture.

    Attributes:
        name: as it is shown.
        left, samples: where it begins and how wide it is, in samples.
        depth: its row, 0 at the bottom.
    """

    name: str
    left: int
    samples: int
    depth: int


def frames(stacks: Mapping[Sequence[str], int]) -> list[Frame]:
    """Merge stacks (outermost function first) that begin alike; widest first."""
    found: list[Frame] = []
    _merge(list(stacks.items()), 0, 0, found)
    return found


def _merge(
    stacks: Iterable[tuple[Sequence[str], int]], left: int, depth: int, found: list[Frame]
) -> None:
    groups: dict[str, list[tuple[Sequence[str], int]]] = {}
    for stack, count in stacks:
        if stack:
            groups.setdefault(stack[0], []).append((stack[1:], count))
    for name, inner in sorted(groups.items(), key=lambda group: -sum(c for _, c in group[1])):
        samples = sum(count for _, count in inner)
        found.append(Frame(name, left, samples, depth))
        _merge(inner, left, depth + 1, found)
        left += samples


def svg(stacks: Mapping[Sequence[str], int], title: str) -> str:
    """The picture; what is too narrow to be seen is left out."""
    total = max(sum(stacks.values()), 1)
    scale = (WIDTH - 2 * MARGIN) / total
    shown = [frame for frame in frames(stacks) if frame.samples * scale >= LEAST_WIDTH]
    rows = max((frame.depth for frame in shown), default=0) + 1
    height = rows * ROW + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="Verdana, sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{WIDTH / 2}" y="22" text-anchor="middle" font-size="14">{escape(title)}</text>',
    ]
    for frame in shown:
        x, y = MARGIN + frame.left * scale, height - 10 - (frame.depth + 1) * ROW
        width = frame.samples * scale
        colour = next(colour for part, colour in COLOURS if part in frame.name)
        room = int((width - 4) / CHARACTER_WIDTH)
        text = frame.name if len(frame.name) <= room else frame.name[: max(room - 1, 0)] + "…"
        words = f"{frame.name}: {frame.samples / total:.1%}"
        parts.append(
            f'<g><title>{escape(words)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{ROW - 1}" fill="{colour}" rx="1"/>'
            + (f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(text)}</text>' if room > 3 else "")
            + "</g>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
