"""The pages of docs/ that are made from declarations are current, and leave nothing out."""

from pathlib import Path

import pytest

from ingest import docs
from ingest.errors import CATALOGUE as ERRORS
from ingest.exits import ExitCode
from ingest.metrics import CATALOGUE as METRICS
from ingest.settings import SETTINGS
from tests.support.gateway import ROOT


@pytest.mark.parametrize("name", docs.PAGES)
def test_the_page_in_the_checkout_is_current(name: str) -> None:
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == docs.PAGES[name](), "run `make docs`"


def test_every_setting_is_documented_with_flag_variable_and_default() -> None:
    page = docs.settings_page()
    for setting in SETTINGS:
        names = f"| `{setting.name}`<br>`{setting.env}` | `{setting.flag}` |"
        assert f"{names} `{setting.show(setting.default)}` |" in page
    for code in ExitCode:
        assert f"| {code:d} | `{code.name}` |" in page


def test_every_error_is_documented_with_its_status() -> None:
    page = docs.errors_page()
    for code, failure in ERRORS.items():
        assert f"| `{code}` | {failure.status} | {failure.title} |" in page


def test_every_metric_is_documented_with_kind_and_labels() -> None:
    page = docs.metrics_page()
    for family in METRICS:
        assert f"| `{family.full_name}` | {family.kind} |" in page
        for label in family.labels:
            assert f"`{label}`" in page


@pytest.mark.parametrize("name", docs.PAGES)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(name: str) -> None:
    width = 0
    for line in docs.PAGES[name]().splitlines():
        cells = line.replace("\\|", "").count("|")
        width = cells if width == 0 else width
        assert cells in (0, width), line
        width = width if cells else 0


def test_text_that_markdown_or_html_would_read_is_escaped_in_tables() -> None:
    table = docs._table(("a", "b"), [("x|y", "<type> and `<code>`<br>")])
    assert table.splitlines()[2] == "| x\\|y | &lt;type> and `<code>`<br> |"


def test_pages_are_written_where_one_wants_them(tmp_path: Path) -> None:
    assert docs.main([str(tmp_path / "new")]) == 0
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {"settings.md", "errors.md", "metrics.md"}
