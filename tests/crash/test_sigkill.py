"""SIGKILL under load: every acknowledged event is there after the restart.

`make crash` does the same at least two hundred times.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.gateway import ROOT

KILLS = 5


def test_kills_under_load_lose_nothing_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.kills",
         "--directory", str(tmp_path), "--kills", str(KILLS)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ends"]["kill"] == KILLS
    assert report["stored"] >= report["acknowledged"] > 500
