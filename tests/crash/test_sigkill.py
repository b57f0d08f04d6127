"""SIGKILL under load: every acknowledged event is there after the restart."""

import subprocess
import sys
from pathlib import Path

from tests.functional.test_load import acknowledged
from tests.support.gateway import ROOT, Gateway

KILLS = 10


def test_ten_kills_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected: set[str] = set()
    for round_number in range(KILLS):
        gateway = Gateway(data).start()
        acks = tmp_path / f"acks{round_number}"
        load = subprocess.Popen(
            [sys.executable, "-m", "tests.support.load", "--port", str(gateway.port),
             "--clients", "64", "--requests", "100000", "--acks", str(acks)],
            cwd=ROOT,
        )  # fmt: skip
        wanted = 40 * (300 + 400 * round_number)  # bytes of acknowledgements before the kill
        while load.poll() is None and (not acks.exists() or acks.stat().st_size < wanted):
            try:
                load.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        gateway.kill()
        load.wait(60)
        ids, _ = acknowledged(acks)
        assert ids, "the load was to be answered before the kill"
        expected.update(ids)
    gateway = Gateway(data).start()
    stored = gateway.journal()
    ids_stored = [record["id"] for record in stored]
    assert len(set(ids_stored)) == len(ids_stored)
    assert expected <= set(ids_stored)
    assert ids_stored == sorted(ids_stored), "ids stay ordered within a partition"
    assert gateway.stop() == 0
    assert any(line["event"].startswith("journal.recover") for line in gateway.log_lines())
