"""Alerts, dashboard, runbook and metrics are about the same things."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest.metrics import CATALOGUE, PLACES, Metrics
from tests.support.alerts import hurried, shipped
from tests.support.dashboard import dashboard, expressions, metrics_in

ALERTS = {rule["alert"]: rule for rule in shipped()}
#: One screen: what Grafana shows at 1080 lines without scrolling, in units of its grid.
SCREEN_HEIGHT, SCREEN_WIDTH = 25, 24


def names() -> set[str]:
    """Every metric that there is."""
    found = {"up", "ALERTS"}
    for family in CATALOGUE:
        found.add(family.full_name)
        if family.kind == "histogram":
            found |= {f"{family.name}_{end}" for end in ("bucket", "sum", "count")}
    exposed = Metrics().render()[0].decode()
    return found | set(re.findall(r"^((?:process|python)_\w+)", exposed, re.MULTILINE))


@pytest.mark.parametrize("alert", sorted(ALERTS))
def test_an_alert_looks_at_metrics_that_exist_and_says_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert metrics_in(rule["expr"]), rule
    assert metrics_in(rule["expr"]) <= names()
    assert 'job="ingest"' in rule["expr"]
    assert rule["labels"]["severity"] in ("page", "ticket")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "{{ $labels.instance }}" in notes["summary"] + notes["description"] or (
        "type" in notes["summary"] and "instance" in rule["expr"]
    )
    assert notes["runbook_url"] == f"docs/runbook.md#{alert.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other() -> None:
    headings = re.findall(r"^###? (Ingest\w+)$", Path("docs/runbook.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


@pytest.mark.parametrize("panel", sorted(expressions()))
def test_a_panel_looks_at_metrics_that_exist(panel: str) -> None:
    for expression in expressions()[panel]:
        assert metrics_in(expression)
        assert metrics_in(expression) <= names()


def test_the_dashboard_is_one_screen_without_overlaps() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["description"]
    assert taken == {(x, y) for x in range(SCREEN_WIDTH) for y in range(SCREEN_HEIGHT)}


def test_the_dashboard_asks_the_data_source_that_is_chosen() -> None:
    board = dashboard()
    assert board["id"] is None and board["uid"] == "ingest"
    variables = [variable["name"] for variable in board["templating"]["list"]]
    assert variables == ["datasource", "job", "instance"]
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities)
    for panel in board["panels"]:
        assert panel["datasource"]["uid"] == "$datasource"
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "$datasource"
            counted = target["expr"].count("ingest_") + target["expr"].count("process_")
            assert target["expr"].count("$instance") >= min(1, counted)


def test_an_error_nobody_expected_is_counted_at_a_place_that_is_there_from_the_start() -> None:
    used = set()
    for path in Path("ingest").rglob("*.py"):
        used |= set(re.findall(r'unhandled(?:_errors\.cell)?\("(\w+)"', path.read_text()))
    assert used == set(PLACES)


def test_only_times_differ_in_the_rules_that_are_in_a_hurry() -> None:
    text = "expr: rate(a[5m]) > 5 * 60\nfor: 2m\nexpr: b[1h] < 4 * 3600\nfor: 10m\n"
    expected = "expr: rate(a[6s]) > 5 * 1\nfor: 3s\nexpr: b[10s] < 4 * 60\nfor: 3s\n"
    assert hurried(text) == expected
