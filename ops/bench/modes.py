"""What the harness measures beside the table: one module a mode, one flag a module.

    make bench BENCH=--open-loop       results/open-loop.json, .md, .png
    make bench BENCH='--open-loop --quick'          the same in short, results/quick.open-loop.*

A mode is a module with `HELP`, `TAKING`, `steps(stage)`, `measure(stage)`, `markdown(found)` and
`pictures(found, stem)`. What `measure` returns is saved as JSON as it is; its key `remarks`
holds sentences to be printed, `failed` what makes the exit code 1. The page
docs/performance.md is made from these files by `python -m ops.bench.page`.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ops.bench import install
from ops.bench.process import ServerFailed
from ops.bench.servers import ROOT
from ops.bench.stage import Stage

#: flag without its dashes -> module
MODES = {
    "open-loop": "openloop",
    "batches": "batches",
    "curves": "curves",
    "decoders": "decoders",
    "durability": "durability",
    "workers": "workers",
    "crowd": "crowd",
    "kafka": "kafka",
    "flame": "flame",
    "overload": "overload",
    "tls": "tls",
    "fairness": "fairness",
}
#: Where server and client share the cores.
ON_BOTH_CORES = ("workers", "crowd")
ROUNDS, SECONDS = 3, 4
QUICK_ROUNDS, QUICK_SECONDS = 1, 1


def module_of(mode: str) -> ModuleType:
    return import_module(f"ops.bench.{MODES[mode]}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag a mode; at most one of them can be given."""
    group = parser.add_argument_group("modes, each instead of the table")
    group = group.add_mutually_exclusive_group()
    for mode in MODES:
        group.add_argument(
            f"--{mode}", dest="mode", action="store_const", const=mode, help=module_of(mode).HELP
        )


def run(mode: str, stage: Stage, conditions: dict[str, Any], stem: Path) -> bool:
    """Measure, print and save; returns whether all went as it should.

    Args:
        mode: a key of MODES.
        stage: what to measure with.
        conditions: machine and options, as words.
        stem: where results go, without an ending.
    """
    module = module_of(mode)
    try:
        found = module.measure(stage)
    except (ServerFailed, install.Unavailable, OSError) as error:
        stage.progress.close()
        print(f"{mode}: {error}", file=sys.stderr)
        return False
    stage.progress.close()
    document = {"conditions": conditions, **found}
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.parent / f"{stem.name}.json", stem.parent / f"{stem.name}.md"]
    text = json.dumps(document, indent=1, ensure_ascii=False)
    paths[0].write_text(text + "\n", encoding="utf-8")
    page = _page(mode, module, document)
    paths[1].write_text(page, encoding="utf-8")
    print(page)
    paths += module.pictures(document, stem)
    print("saved:", ", ".join(str(path.relative_to(ROOT)) for path in paths))
    for line in document.get("failed", ()):
        print(f"{mode}: {line}", file=sys.stderr)
    return not document.get("failed")


def _page(mode: str, module: ModuleType, document: dict[str, Any]) -> str:
    parts = [
        f"# {mode}",
        "\n".join(f"- {name}: {words}" for name, words in document["conditions"].items()),
        module.markdown(document),
    ]
    if document.get("remarks"):
        parts.append("\n".join(f"- {remark}" for remark in document["remarks"]))
    return "\n\n".join(parts) + "\n"
