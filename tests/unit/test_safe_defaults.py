"""What nobody has set is what may be left so: nothing open, nothing for development only."""

import re
from ipaddress import ip_address
from pathlib import Path

from ingest.settings import SETTINGS, Settings

DEFAULTS = Settings()
SECURITY = Path(__file__).resolve().parents[2] / "docs" / "security.md"


def test_it_listens_for_this_machine_only() -> None:
    assert ip_address(DEFAULTS.bind.rpartition(":")[0]).is_loopback


def test_what_is_for_development_or_shows_events_is_off() -> None:
    assert DEFAULTS.reload == "off"
    assert DEFAULTS.mounts == "none"
    assert DEFAULTS.journal_http == "auto"  # on a loopback address only
    assert DEFAULTS.access_log in ("off", "errors")


def test_every_limit_that_keeps_one_client_from_all_is_on() -> None:
    for name in (
        "connections_max", "buffered_max_bytes", "request_body_max_bytes", "headers_max_bytes",
        "header_count_max", "event_max_bytes", "json_depth_max", "inflate_ratio_max",
        "header_timeout_seconds", "body_timeout_seconds", "idle_timeout_seconds",
        "write_timeout_seconds", "body_min_bytes_per_second", "handler_timeout_seconds",
        "pool_queue_max", "journal_pending_max_bytes", "disk_reserve_bytes", "log_queue_max",
    ):  # fmt: skip
        assert getattr(DEFAULTS, name) > 0, name


def test_the_page_about_security_names_settings_that_there_are() -> None:
    text = SECURITY.read_text()
    table = text[text.index("## Defaults") : text.index("## Files")]
    first_cells = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    named = {name for cell in first_cells for name in re.findall(r"`([a-z_]+)`", cell)}
    assert len(named) > 4
    assert named <= {setting.name for setting in SETTINGS}
