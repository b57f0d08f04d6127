"""Reads the shipped dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DASHBOARD = Path("ops/grafana/ingest.json")
#: Names in PromQL that are metrics: everything of ours, of the client library, and its own.
METRIC = re.compile(r"\b(?:ingest|process|python)_[a-z0-9_]+\b|\bup\b|\bALERTS\b")


def dashboard() -> dict[str, Any]:
    """It, as a value."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def expressions() -> dict[str, list[str]]:
    """What each panel asks for, by its title, with variables as Grafana might fill them in."""
    filled = {}
    for panel in dashboard()["panels"]:
        key = f"{panel['title']} ({panel['id']})"
        filled[key] = [fill(target["expr"]) for target in panel["targets"]]
    return filled


def fill(expression: str) -> str:
    """An expression with its variables filled in."""
    for name, value in (("$__rate_interval", "1m"), ("$job", "ingest"), ("$instance", ".*")):
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that is not known: {expression}"
    return expression


def metrics_in(expression: str) -> set[str]:
    """Names of the metrics that an expression looks at; labels and their values are left out."""
    return set(METRIC.findall(re.sub(r"\{[^}]*\}|\b(?:by|on|without) ?\([^)]*\)", "", expression)))
