"""A real Prometheus that watches gateways with the shipped rules, in a hurry.

The rules are the shipped ones, byte for byte but for their times: what is minutes there is seconds
here. `hurried` is the whole difference:

* every range (`[5m]`) is divided by 60, and is at least 6 s (five scrapes are within it) and at
  most 10 s; every `for` is 3 s, which is three scrapes;
* in an expression, `N * 60` seconds become `N * 1`, and `N * 3600` become `N * 60`.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.support.waiting import until

RULES = Path("ops/prometheus/ingest.rules.yml")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

#: Gateways are found by a file, so that one that comes again on another port keeps its name.
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: ingest
    file_sd_configs: [{{files: ["{one}"], refresh_interval: 1s}}]
  - job_name: slower
    scrape_interval: 2s
    scrape_timeout: 2s
    file_sd_configs: [{{files: ["{several}"], refresh_interval: 1s}}]
    relabel_configs: [{{target_label: job, replacement: ingest}}]
"""


class Alert(NamedTuple):
    """An alert as it stands: of which instance, by what name."""

    instance: str
    name: str


def shipped(rules: Path = RULES) -> list[dict[str, Any]]:
    """Every alert of the rules."""
    document = yaml.safe_load(rules.read_text())
    return [rule for group in document["groups"] for rule in group["rules"] if "alert" in rule]


def hurried(text: str) -> str:
    """The rules with short times; see above."""

    def within(low: float, high: float, found: re.Match[str]) -> str:
        seconds = int(found[2]) * SECONDS[found[3]] / 60
        return f"{found[1]}{round(min(high, max(low, seconds)))}s"

    text = re.sub(r"(\[)(\d+)([smhd])(?=\])", lambda found: within(6, 10, found), text)
    text = re.sub(r"(\bfor: )(\d+)([smhd])\b", lambda found: within(3, 3, found), text)
    text = re.sub(r"\b(\d+) \* 60\b", r"\1 * 1", text)
    return re.sub(r"\b(\d+) \* 3600\b", r"\1 * 60", text)


class Prometheus:
    """A Prometheus on a free port.

    Args:
        directory: for its configuration and data.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lists = {"one": directory / "one.json", "several": directory / "several.json"}
        rules = directory / "hurried.rules.yml"
        rules.write_text(hurried(RULES.read_text()))
        names = {name: str(path) for name, path in self._lists.items()}
        (directory / "prometheus.yml").write_text(CONFIG.format(rules=rules, **names))
        self._log = (directory / "log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def start(self) -> Prometheus:
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self._directory}/prometheus.yml",
                f"--storage.tsdb.path={self._directory}/tsdb",
                "--web.listen-address=127.0.0.1:0",
                "--enable-feature=exemplar-storage",
            ],
            stderr=self._log,
            stdout=self._log,
        )
        until(lambda: self._listening() is not None)
        self._url = f"http://127.0.0.1:{self._listening()}/api/v1"
        until(self._ready)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        self._log.close()

    def log(self) -> str:
        """What it has said so far."""
        return (self._directory / "log").read_text()

    def watch(self, ports: Mapping[str, int], several_workers: Mapping[str, int]) -> None:
        """Scrape these, by name, from now on."""
        for name, targets in (("one", ports), ("several", several_workers)):
            groups = [
                {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": instance}}
                for instance, port in targets.items()
            ]
            path = self._lists[name].with_suffix(".new")
            path.write_text(json.dumps(groups))
            path.rename(self._lists[name])

    def alerts(self) -> dict[Alert, str]:
        """Every alert that is pending or firing, and which of both."""
        found = self.ask("alerts")["alerts"]
        states: dict[Alert, str] = {}
        for alert in found:
            key = Alert(alert["labels"].get("instance", ""), alert["labels"]["alertname"])
            if states.get(key) != "firing":
                states[key] = alert["state"]
        return states

    def query(self, expression: str) -> list[Any]:
        """The value of an expression now."""
        quoted = urllib.request.quote(expression)  # type: ignore[attr-defined]
        return list(self.ask(f"query?query={quoted}")["result"])

    def exemplars(self, expression: str) -> list[Any]:
        """The exemplars of the last hour, by series."""
        quoted = urllib.request.quote(expression)  # type: ignore[attr-defined]
        now = time.time()
        path = f"query_exemplars?query={quoted}&start={now - 3600:.0f}&end={now + 60:.0f}"
        return list(self.ask(path))

    def ask(self, path: str) -> Any:
        """The data of an answer of its HTTP interface."""
        with urllib.request.urlopen(f"{self._url}/{path}", timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def _ready(self) -> bool:
        """It listens before it has read its data, and says 503 until then."""
        try:
            self.ask("query?query=1")
        except urllib.error.HTTPError as error:
            assert error.code == 503, error
            return False
        return True

    def _listening(self) -> int | None:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        found = re.search(r"Listening on.*?127\.0\.0\.1:(\d+)", self.log())
        return int(found[1]) if found else None
