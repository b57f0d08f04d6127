"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table.

    Args:
        head: the columns' names.
        rows: cells, as many as there are names.
        left: how many of the first columns are words; the others are numbers.
    """
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def figure(value: float | None, places: int = 2) -> str:
    """A number for a cell, `-` for none."""
    return "-" if value is None else f"{value:,.{places}f}"
