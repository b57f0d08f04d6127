"""docs/performance.md shows what was measured, and all of it."""

import re

from ops.bench.modes import MODES
from ops.bench.page import BLOCKS, PAGES, RESULTS, render

TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)


def test_the_pages_show_the_results_that_are_there() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        assert render(text, RESULTS) == text, f"{path.name} is not current: make bench-page"


def test_every_kind_of_result_has_its_place() -> None:
    shown = re.findall(r"<!-- measured: (\S+) -->", TEXT)
    assert sorted(shown) == sorted(BLOCKS)


def test_every_mode_says_how_to_run_it() -> None:
    for mode in MODES:
        assert re.search(f"make bench BENCH='?--{mode}", TEXT)
