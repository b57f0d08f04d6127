"""What the compose file hands to Prometheus, as Prometheus reads it."""

import subprocess
from pathlib import Path

from tests.support.deployment import COMPOSE, OPS


def promtool(config: Path) -> subprocess.CompletedProcess[str]:
    command = ["promtool", "check", "config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_prometheus_takes_its_configuration_with_the_shipped_rules(tmp_path: Path) -> None:
    shipped = (COMPOSE.parent / "prometheus.yml").read_text()
    config = tmp_path / "prometheus.yml"
    config.write_text(shipped.replace("/etc/prometheus/rules", str(OPS / "prometheus")))
    done = promtool(config)
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout and "0 rules found" not in done.stdout
    config.write_text(config.read_text().replace("scrape_interval", "scrape_intervall"))
    assert promtool(config).returncode != 0
