"""Line charts of what was measured, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

COLOURS = ("#1f6f8b", "#d1603d", "#6b8f3c", "#7a5c99", "#8a8f94")
MARKERS = "osD^v"


class Panel(NamedTuple):
    """One set of axes.

    Attributes:
        title: above it.
        x, y: what the axes show, with units.
        lines: name -> points (x, y).
        log_x, log_y: whether an axis is logarithmic. Where x is words, it is neither, and
            no line joins the points.
        limit: (height, words) of a line to stay below or above.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[Any, float]]]
    log_x: bool = True
    log_y: bool = False
    limit: tuple[float, str] | None = None


def save(panels: Sequence[Panel], path: Path, columns: int = 2) -> bool:
    """Write a PNG with one panel beside the other; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.6 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(all_axes, panels, strict=False):
        _draw(axes, panel)
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=130)
    return True


def _draw(axes: Any, panel: Panel) -> None:
    words = any(isinstance(x, str) for points in panel.lines.values() for x, _ in points)
    for number, (name, points) in enumerate(panel.lines.items()):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=6 if words else 4,
            linestyle="none" if words else "-",
            label=name,
        )
    if words:
        axes.tick_params(axis="x", rotation=30)
    elif panel.log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if panel.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(bottom=0)
    if panel.limit:
        height, words = panel.limit
        axes.axhline(height, color="#8a8f94", linestyle=":", label=words)
    axes.set_title(panel.title, fontsize=11)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.lines) > 1 or panel.limit:
        axes.legend(fontsize=8, frameon=False)
