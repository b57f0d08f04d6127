"""`ingest.testing`: a handler's test takes three lines, against a real server in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HANDLER = """\
import ingest
import rates

def setup():
    rates.known["EUR"] = 2

def handle(event):
    if event.data["currency"] not in rates.known:
        raise ingest.Reject("no such currency", pointer="/currency")
    return {**event.data, "rate": rates.known[event.data["currency"]], "by": event.headers["x-by"]}
"""
TESTS = """\
def test_an_unknown_currency_is_refused(ingest_gateway):
    answer = ingest_gateway.post("payment", {"currency": "XXX"})
    assert answer.status == 422 and answer.json()["errors"][0]["pointer"] == "/currency"


def test_the_rate_is_stored(ingest_gateway):
    assert ingest_gateway.post("payment", {"currency": "EUR"}, X_By="me").status == 202
    data = ingest_gateway.stored()[0]["data"]
    assert data == {"currency": "EUR", "rate": 2, "by": "me"}


def test_what_the_handler_uses_can_be_replaced(ingest_gateway, monkeypatch):
    import rates
    monkeypatch.setattr(rates, "known", {"EUR": 7})
    ingest_gateway.post("payment", {"currency": "EUR"}, X_By="me")
    assert ingest_gateway.stored()[0]["data"]["rate"] == 7


def test_settings_can_be_the_tests_own(new_ingest_gateway):
    server = new_ingest_gateway(event_max_bytes=10)
    assert server.post("payment", {"currency": "EUR"}).status == 413
    assert server.request("GET", "/readyz").status == 200


def test_it_is_expected_to_fail(ingest_gateway):
    assert ingest_gateway.post("nothing", {}).status == 202
"""


def test_a_project_tests_its_handler_with_the_shipped_fixtures(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "payment.json").write_text('{"required": ["currency"]}')
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "payment.py").write_text(HANDLER)
    (tmp_path / "rates.py").write_text("known = {}\n")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["ingest.testing"]\n')
    (tmp_path / "test_payment.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_payment.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert "4 passed" in done.stdout and "1 failed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_payment.py::test_it_is_expected_to_fail" in done.stdout
