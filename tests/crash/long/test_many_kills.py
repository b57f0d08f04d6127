"""Hundreds of kills under load, in two series side by side.

`CRASH_KILLS` says how many, 200 if left out; each series prints its seed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.conftest import Report
from tests.support.chance import SEED
from tests.support.gateway import ROOT

KILLS = int(os.environ.get("CRASH_KILLS", "200"))
SERIES = 2


@pytest.mark.timeout(3600)
def test_hundreds_of_kills_lose_nothing_acknowledged(tmp_path: Path, report: Report) -> None:
    running = []
    for number in range(SERIES):
        directory = tmp_path / str(number)
        directory.mkdir()
        kills = KILLS // SERIES + (number < KILLS % SERIES)
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.kills", "--directory", str(directory),
                 "--kills", str(kills), "--seed", str(SEED + number)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            )
        )  # fmt: skip
    killed = 0
    for number, process in enumerate(running):
        output, errors = process.communicate()
        assert process.returncode == 0, f"seed {SEED + number}: {errors}"
        done = json.loads(output)
        report(f"seed {SEED + number}: {output.strip()}")
        assert done["stored"] >= done["acknowledged"] > 0
        killed += done["ends"]["kill"]
    assert killed == KILLS
