"""The reference's load: 1000 keep-alive clients, 100 requests each, nothing lost."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import ROOT, Gateway


def acknowledged(path: Path) -> tuple[list[str], list[int]]:
    """Ids of what was answered 2xx and all statuses, as the load client wrote them."""
    ids, statuses = [], []
    for line in path.read_text().splitlines():
        status, _, event_id = line.partition(" ")
        statuses.append(int(status))
        if status.startswith("2"):
            ids.append(event_id)
    return ids, statuses


def test_a_hundred_thousand_requests_of_a_thousand_clients_are_all_stored(
    gateway: Gateway, tmp_path: Path
) -> None:
    acks = tmp_path / "acks"
    subprocess.run(
        [sys.executable, "-m", "tests.support.load", "--port", str(gateway.port),
         "--clients", "1000", "--requests", "100", "--acks", str(acks)],
        check=True, cwd=ROOT, timeout=100,
    )  # fmt: skip
    ids, statuses = acknowledged(acks)
    assert statuses == [202] * 100_000
    stored = subprocess.run(
        [sys.executable, "-m", "ingest", "journal", "cat", "--data", str(gateway.data)],
        check=True, capture_output=True, cwd=ROOT,
    ).stdout.splitlines()  # fmt: skip
    stored_ids = [json.loads(line)["id"] for line in stored]
    assert len(set(stored_ids)) == len(stored_ids) == 100_000
    assert set(stored_ids) == set(ids)
    assert gateway.stop() == 0
