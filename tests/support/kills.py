"""Kills gateways under load, again and again, and looks at what is left.

    python -m tests.support.kills --directory DIR --kills 100 --seed 1

Each round starts a gateway on the data directory that the last one left, and ends it: most
by SIGKILL under the load of 64 clients, some by SIGKILL in the middle of start-up and
recovery, a few by SIGTERM under load. After `--fresh` kills under load everything that was
acknowledged, whichever ack it asked for, must be readable, once and whole; `journal verify`
must find nothing wrong. Then the next data directory begins.

Exit code 0 and a line of JSON: so it was. Otherwise what was found stands on stderr.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ingest.journal.lock import LOCK_NAME
from tests.support.audit import read_acks, require_stored, stored_events
from tests.support.gateway import ROOT, RUNNING, Gateway

SCHEMAS = ROOT / "tests" / "crash" / "schemas"
#: Seconds; a hang is a failure.
PATIENCE = 60.0
#: How rounds end: each so often in ten, in an order left to chance.
ENDS = ["kill"] * 7 + ["kill while starting"] * 2 + ["terminate"]
#: So long after its first acknowledgement a gateway lives at most.
LIFE_SECONDS = 0.25
#: Recovery begins when the lock is taken, and takes some milliseconds.
START_SECONDS = 0.02


def flags(chance: random.Random) -> list[str]:
    """Small segments, so that rotation and what follows it are hit too."""
    return [
        "--schemas", str(SCHEMAS),
        "--handlers", "none",
        "--disk-reserve", "0",
        "--segment-max", chance.choice(["32KiB", "256KiB", "1MiB"]),
        "--segment-fill", chance.choice(["0", "4KiB", "64KiB"]),
        "--segment-compress-after", chance.choice(["0.1s", "0.1s", "60s"]),
    ]  # fmt: skip


class Series:
    """One data directory after the other, one gateway at a time.

    Args:
        directory: for the data directories and the acknowledgements.
        seed: of all that is left to chance.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._chance = random.Random(seed)
        self._seed = seed
        self._data = directory / "data-0"
        self._acks = directory / "acks-0"
        self._storm: subprocess.Popen[str] | None = None
        self._deck: list[str] = []
        self.ends: Counter[str] = Counter()
        self.acknowledged = 0
        self.stored = 0

    def run(self, kills: int, fresh: int) -> dict[str, Any]:
        """That many kills under load, and the other ends beside; returns what was done."""
        number = 0
        while left := kills - self.kills:
            self._data = self._directory / f"data-{number}"
            self._acks = self._directory / f"acks-{number}"
            self._start_storm(number)
            wanted = self.kills + min(fresh, left)
            while self.kills < wanted:
                self._round()
            self._stop_storm()
            self._audit()
            number += 1
        return {"ends": self.ends, "acknowledged": self.acknowledged, "stored": self.stored}

    @property
    def kills(self) -> int:
        return self.ends["kill"]

    def _round(self) -> None:
        if not self._deck:
            self._deck = self._chance.sample(ENDS, len(ENDS))
        end = self._deck.pop()
        gateway = Gateway(self._data, *flags(self._chance))
        if end == "kill while starting":
            gateway.spawn()
            self._until(lambda: self._holds_lock(gateway), gateway)
            time.sleep(self._chance.uniform(0, START_SECONDS))
            gateway.kill()
        else:
            gateway.start()
            before = self._acked_bytes()
            self._tell_storm(gateway.port)
            self._until(lambda: self._acked_bytes() > before, gateway)
            time.sleep(self._chance.uniform(0, LIFE_SECONDS))
            if end == "kill":
                gateway.kill()
            else:
                code = gateway.stop()
                assert code == 0, f"exit code {code} on SIGTERM:\n{gateway.log()}"
            self._hear_storm()
        self.ends[end] += 1

    def _audit(self) -> None:
        last = Gateway(self._data, *flags(self._chance)).start()
        code = last.stop()
        assert code == 0, f"exit code {code}:\n{last.log()}"
        require_clean(self._data)
        acks = read_acks(self._acks)
        stored = stored_events(self._data)
        require_stored(stored, acks.all, self._data)
        assert acks.fsync and acks.write, "both acks were asked for"
        assert set(acks.statuses) == {202}, acks.statuses
        self.acknowledged += len(acks.all)
        self.stored += len(stored)

    # -- what it talks to ------------------------------------------------------------------

    def _start_storm(self, number: int) -> None:
        self._storm = subprocess.Popen(
            [sys.executable, "-m", "tests.support.storm",
             "--name", f"s{number}", "--acks", str(self._acks), "--seed", str(self._seed + number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def _tell_storm(self, port: int) -> None:
        assert self._storm is not None and self._storm.stdin is not None
        self._storm.stdin.write(f"{port} {PATIENCE}\n")
        self._storm.stdin.flush()

    def _hear_storm(self) -> None:
        assert self._storm is not None and self._storm.stdout is not None
        said = json.loads(self._storm.stdout.readline())
        assert "deadline" not in said["broken"], said

    def _stop_storm(self) -> None:
        assert self._storm is not None
        self._storm.communicate(timeout=PATIENCE)
        assert self._storm.returncode == 0

    def _acked_bytes(self) -> int:
        return self._acks.stat().st_size if self._acks.exists() else 0

    def _holds_lock(self, gateway: Gateway) -> bool:
        lock = self._data / LOCK_NAME
        return lock.exists() and lock.read_bytes() == b"%d\n" % gateway.pid

    def _until(self, true: Any, gateway: Gateway) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, f"nothing happens; log:\n{gateway.log()}"
            time.sleep(0.001)


def require_clean(data: Path) -> None:
    """`journal verify` finds nothing wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "journal", "verify", "--data", str(data)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, f"{data}: {done.stdout}{done.stderr}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--kills", type=int, required=True, help="under load")
    parser.add_argument(
        "--fresh", type=int, default=20, help="kills under load for each data directory"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    try:
        report = Series(options.directory, options.seed).run(options.kills, options.fresh)
    finally:
        for gateway in list(RUNNING):
            gateway.kill()
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
