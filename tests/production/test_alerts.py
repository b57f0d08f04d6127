"""The shipped rules and the dashboard, read by promtool."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.alerts import RULES, hurried, shipped
from tests.support.dashboard import expressions

PROMETHEUS = Path("ops/prometheus")
UNIT_TESTS = PROMETHEUS / "tests" / "ingest_test.yml"


def promtool(*words: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        ["promtool", *map(str, words)], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_the_rules_and_the_scrape_configuration_are_taken() -> None:
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert code == 0, said
    code, said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert code == 0, said


def test_the_rules_in_a_hurry_are_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "hurried.rules.yml"
    path.write_text(hurried(RULES.read_text()))
    code, said = promtool("check", "rules", path)
    assert code == 0, said
    assert not re.search(r"\[\d+[mhd]\]|for: \d+[mhd]", path.read_text())
    assert [rule["alert"] for rule in shipped(path)] == [rule["alert"] for rule in shipped()]


def test_each_alert_fires_on_series_that_show_what_it_names() -> None:
    code, said = promtool("test", "rules", UNIT_TESTS)
    assert code == 0, said
    tested = {test["name"] for test in yaml.safe_load(UNIT_TESTS.read_text())["tests"]}
    assert tested == {rule["alert"] for rule in shipped()}


def test_a_threshold_that_is_never_reached_is_found_by_its_test(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    rules = RULES.read_text()
    spoilt = rules.replace('up{job="ingest"} == 0', 'up{job="ingest"} == 2')
    assert spoilt != rules
    (tmp_path / RULES.name).write_text(spoilt)
    (tmp_path / "tests" / UNIT_TESTS.name).write_text(UNIT_TESTS.read_text())
    code, said = promtool("test", "rules", tmp_path / "tests" / UNIT_TESTS.name)
    assert code != 0 and "IngestInstanceDown" in said


@pytest.mark.parametrize("title", sorted(expressions()))
def test_what_a_panel_asks_for_is_promql(title: str, tmp_path: Path) -> None:
    rules = [{"record": "panel", "expr": asked} for asked in expressions()[title]]
    path = tmp_path / "panel.rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    code, said = promtool("check", "rules", path)
    assert code == 0 or "duplicate" in said, said
