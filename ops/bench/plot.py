"""The picture for the README: requests/s of every server, one panel a load.

python -m ops.bench.plot ops/bench/results/full.json    # draws it anew
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.bench.wrk import LOADS

OURS = "#1f6f8b"
OTHERS = "#b8bfc6"
LOADS_SHOWN = ("c64", "c1000")


def ranking(document: Mapping[str, Any], load: str) -> list[tuple[str, str, float]]:
    """(server, title, requests/s) of all who were measured under a load, slowest first."""
    found = [
        (name, server["title"], server["loads"][load]["median"]["requests_per_second"])
        for name, server in document["servers"].items()
        if load in server["loads"]
    ]
    return sorted(found, key=lambda row: row[2])


def save(document: Mapping[str, Any], path: Path) -> bool:
    """Write a PNG of a report's JSON; False without matplotlib (extra `bench`) or figures."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    panels = {load: rows for load in LOADS_SHOWN if (rows := ranking(document, load))}
    if not panels:
        return False
    tallest = max(map(len, panels.values()))
    figure = Figure(figsize=(6.5 * len(panels), 1.2 + 0.42 * tallest), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (load, rows) in zip(all_axes, panels.items(), strict=True):
        bars = axes.barh(
            [title.replace("`", "") for _, title, _ in rows],
            [per_second / 1000 for _, _, per_second in rows],
            color=[OURS if name.startswith("ingest") else OTHERS for name, _, _ in rows],
        )
        axes.bar_label(bars, fmt="%.1fk", padding=3)
        axes.margins(x=0.14)
        axes.set_title(f"{LOADS[load].title}, one core")
        axes.set_xlabel("thousand requests a second")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return True


if __name__ == "__main__":
    source = Path(sys.argv[1])
    if not save(json.loads(source.read_text()), source.with_suffix(".png")):
        sys.exit("nothing drawn: matplotlib is missing, or there are no figures")
