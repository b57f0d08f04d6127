"""Writes measured figures into pages, between markers; nobody types a number.

    python -m ops.bench.page            # PAGES, from results/*.json

A page says where: `<!-- measured: NAME -->` … `<!-- end -->`, with a NAME out of BLOCKS. What
stands between is replaced. What has no result yet says how to get it. The harness does this
by itself after a complete run; a test compares.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops.bench import (
    aims,
    batches,
    crowd,
    curves,
    decoders,
    durability,
    fairness,
    flame,
    kafka,
    openloop,
    overload,
    tls,
    workers,
)
from ops.bench.aims import results_of
from ops.bench.ladder import Rung
from ops.bench.report import ladder_table, markdown_table, rows
from ops.bench.servers import CATALOGUE, ROOT
from ops.bench.tables import figure, table
from ops.bench.wrk import LOADS

RESULTS = Path(__file__).resolve().parent / "results"
BASELINE = ROOT / "ops" / "guard" / "baseline.json"
PAGES = (
    *(ROOT / "docs" / f"{name}.md" for name in ("performance", "overload", "tls", "kafka")),
    ROOT / "README.md",
)
_BLOCK = re.compile(r"(<!-- measured: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Document = Mapping[str, Any]


class Found:
    """The results that there are.

    Args:
        directory: where the harness left them.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __getitem__(self, name: str) -> Document | None:
        path = self._directory / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def picture(self, name: str, words: str) -> str:
        """A line that shows a picture, empty when there is none."""
        path = self._directory / name
        return f"\n\n![{words}](../ops/bench/results/{name})" if path.exists() else ""


def missing(flag: str) -> str:
    command = f"make bench BENCH={flag}" if flag else "make bench"
    return f"*Not measured yet: `{command}`.*"


def taken(document: Document) -> str:
    """Under the table: when, where and how."""
    conditions = document["conditions"]
    names = ("taken", "processor", "kernel", "cores", "journal", "taking")
    line = "; ".join(f"{n}: {conditions[n]}" for n in names if n in conditions)
    remarks = "".join(f"\n- {remark}" for remark in document.get("remarks", ()))
    return f"\n\n<sub>{line}</sub>" + (f"\n{remarks}" if remarks else "")


# -- the table of servers ---------------------------------------------------------------------


def _titles() -> dict[str, tuple[str, str]]:
    return {name: (spec.title, spec.does) for name, spec in CATALOGUE.items()}


def servers(found: Found) -> str:
    document = found["full"]
    if document is None:
        return missing("")
    versions = "\n".join(
        f"- {server['title']}: {server['version']}" for server in document["servers"].values()
    )
    return (
        markdown_table(results_of(document), _titles())
        + found.picture("full.png", "requests a second of every server")
        + taken(document)
        + "\n\n"
        + versions
    )


def ladder(found: Found) -> str:
    document = found["full"]
    ladders = {
        name: [Rung(**rung) for rung in server["ladder"]]
        for name, server in (document or {"servers": {}})["servers"].items()
        if server["ladder"]
    }
    return ladder_table(ladders, _titles()) if ladders else missing("")


def summary(found: Found) -> str:
    """The few lines that the README shows."""
    document = found["full"]
    if document is None:
        return missing("")
    by_load = rows(results_of(document))
    body = []
    for name in ("nginx", "ingest-fsync", "ingest-write", "granian", "fastify", "gunicorn"):
        found_rows = [by_load.get(load, {}).get(name) for load in LOADS]
        first = found_rows[0]
        if first is not None:
            cells = (figure(r.requests_per_second if r else None, 0) for r in found_rows)
            body.append((CATALOGUE[name].title, *cells, figure(first.p99_ms, 1),
                         figure(first.cpu_us, 1)))  # fmt: skip
    head = ("requests/s", *(load.title for load in LOADS.values()), "p99 ms, 64", "CPU µs, 64")
    return table(head, body) + taken(document)


# -- the others ---------------------------------------------------------------------------------


def _mode(name: str, module: Any, picture: str = "", words: str = "") -> Callable[[Found], str]:
    def block(found: Found) -> str:
        document = found[name]
        if document is None:
            return missing(f"--{name}")
        shown = found.picture(picture, words) if picture else ""
        return module.markdown(document) + shown + taken(document)

    return block


def guard(found: Found) -> str:
    """The baseline of the regression guard."""
    entries = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if not entries:
        return "*Not measured yet: `make guard-update`.*"
    names = sorted({name for entry in entries.values() for name in entry["exchanges"]})
    return table(
        ("interpreter", *(f"{name}: instructions an event" for name in names)),
        (
            (key, *(figure(entry["exchanges"].get(name), 0) for name in names))
            for key, entry in sorted(entries.items())
        ),
    )


BLOCKS: Mapping[str, Callable[[Found], str]] = {
    "aims": lambda found: aims.markdown(found.__getitem__),
    "summary": summary,
    "servers": servers,
    "ladder": ladder,
    "open-loop": _mode("open-loop", openloop, "open-loop.png", "latency by share of the maximum"),
    "batches": _mode("batches", batches, "batches.png", "events a second by batch size"),
    "curves": _mode("curves", curves, "curves.png", "how cost grows"),
    "decoders": _mode("decoders", decoders, "decoders.png", "decoders by document"),
    "durability": _mode("durability", durability),
    "workers": _mode("workers", workers),
    "crowd": _mode("crowd", crowd),
    "flame": _mode("flame", flame, "flame.svg", "flame graph of the event loop"),
    "kafka": _mode("kafka", kafka),
    "guard": guard,
    "overload": _mode("overload", overload),
    "fairness": _mode("fairness", fairness),
    "tls": _mode("tls", tls),
}


def render(text: str, results: Path) -> str:
    """A page with all its blocks made anew.

    Raises:
        KeyError: it names a block that does not exist.
    """
    found = Found(results)
    return _BLOCK.sub(lambda m: f"{m[1]}\n{BLOCKS[m[2]](found).strip()}\n\n{m[3]}", text)


def write() -> list[Path]:
    """Bring all pages up to date; returns those that changed."""
    changed = []
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = render(before, RESULTS)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    for page in write():
        print(f"wrote {page.relative_to(ROOT)}")
    sys.exit(0)
