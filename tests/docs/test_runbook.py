"""The runbook knows every alert, and the pages about deployment name what there is."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
PAGES = ("runbook.md", "deploy.md", "security.md")


def alerts() -> dict[str, str]:
    """Name → severity of each alert that is shipped."""
    return {
        rule["alert"]: rule["labels"]["severity"]
        for path in (ROOT / "ops" / "prometheus").glob("*.rules.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def sections() -> dict[str, str]:
    """Heading → text of each section of an alert."""
    parts = re.split(r"^### (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    assert sorted(alerts()) == sorted(sections())


def test_a_section_says_how_urgent_it_is_how_to_see_it_and_what_to_do() -> None:
    for name, text in sections().items():
        urgent = alerts()[name] == "page"
        assert text.lstrip().startswith("**page.**" if urgent else "ticket."), name
        assert "- *See:*" in text and "- *Do:*" in text, name


def anchors(page: Path) -> set[str]:
    """Of each heading of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            found = ROOT / "docs" / (path or page)
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_this_tree_that_is_named_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"`((?:ops|tests|docs|ingest)/[\w./-]+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
