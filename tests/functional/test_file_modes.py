"""What is written is for the service and its group, never for every user of the machine."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import ROOT, Gateway
from tests.support.waiting import until

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "x-ingest": {"on_reject": "keep", "dedupe": {"by": "pointer", "pointer": "/n"}},
}
HANDLER = """
def consume(events):
    if any(event.data["n"] == 0 for event in events):
        raise ValueError("zero")
"""
#: Segments of a few lines, compressed at once; a consumer that gives up at once.
ENV = {
    "INGEST_SEGMENT_MAX_BYTES": "1KiB",
    "INGEST_SEGMENT_COMPRESS_AFTER_SECONDS": "0",
    "INGEST_CONSUME_MAX_ATTEMPTS": "1",
    "INGEST_CONSUME_BACKOFF_MIN_SECONDS": "0.001",
    "INGEST_CONSUME_CHECKPOINT_SECONDS": "0",
}
#: Whatever a careless shell leaves: the modes must not depend on it.
CARELESS = ("sh", "-c", 'umask 0; exec "$@"', "sh")


def modes(directory: Path) -> dict[str, str]:
    """Each entry below a directory, and the directory itself, with its permissions."""
    entries = [directory, *directory.rglob("*")]
    return {
        str(entry.relative_to(directory)): oct(stat.S_IMODE(entry.lstat().st_mode))
        for entry in entries
    }


def lived(tmp_path: Path) -> Path:
    """A data directory in which there is everything that a gateway ever writes."""
    for name, text in (("schemas/t.json", json.dumps(SCHEMA)), ("handlers/t.py", HANDLER)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    data = tmp_path / "made" / "data"
    gateway = Gateway(
        data,
        *("--schemas", str(tmp_path / "schemas"), "--handlers", str(tmp_path / "handlers")),
        env=ENV,
        wrapper=CARELESS,
    ).start()
    try:
        for number in range(20):
            assert gateway.post("/v1/events/t", {"n": number}).status == 202
        assert gateway.post("/v1/events/t", {"n": "text"}).status == 422
        for pattern in ("dead/*/*.ndjson", "rejected/*/*.ndjson", "journal/*/*.zst"):
            until(lambda wanted=pattern: any(data.glob(wanted)))  # type: ignore[misc]
    finally:
        gateway.stop()
    replay = ("replay", "--data", str(data), "--to", "-", "--checkpoint", "again")
    subprocess.run(
        [*CARELESS, sys.executable, "-m", "ingest", *replay],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    return data


def test_directories_are_0750_and_files_0640_whatever_the_umask(tmp_path: Path) -> None:
    data = lived(tmp_path)
    found = modes(tmp_path / "made")
    for part in ("journal", "rejected", "dead", "checkpoints", "ingest.lock"):
        assert any(part in name for name in found), (part, found)
    wrong = {
        name: mode
        for name, mode in found.items()
        if mode != ("0o750" if (tmp_path / "made" / name).is_dir() else "0o640")
    }
    assert wrong == {}
    assert data.is_dir()


def test_an_export_is_no_more_open_than_the_journal(gateway: Gateway, tmp_path: Path) -> None:
    gateway.post(
        "/v1/events/page_view", {"url": "https://a.example/", "at": "2026-01-01T00:00:00Z"}
    )
    output = tmp_path / "events.csv"
    export = ("journal", "export", "--data", str(gateway.data), "--output", str(output))
    subprocess.run(
        [*CARELESS, sys.executable, "-m", "ingest", *export], check=True, capture_output=True
    )
    assert oct(stat.S_IMODE(output.stat().st_mode)) == "0o640"


def test_a_data_directory_that_all_can_look_into_is_served_and_warned_about(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    os.chmod(tmp_path / "data", 0o755)
    gateway = Gateway(tmp_path / "data").start()
    gateway.stop()
    (line,) = [
        line for line in gateway.log_lines() if line["event"] == "service.data_readable_by_all"
    ]
    assert (line["level"], line["remedy"]) == ("warning", "chmod o-rwx")
