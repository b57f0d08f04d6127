"""The worker dies between commit and consume: every event still comes, and in order.

`CRASH_KILLS` says how often it dies, ten times if left out and fifty at most.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from tests.crash.conftest import Report
from tests.support.chance import SEED
from tests.support.gateway import Gateway
from tests.support.waiting import until

KILLS = min(50, int(os.environ.get("CRASH_KILLS", "10")))
#: So long after the last answer a gateway lives at most.
LIFE_SECONDS = 0.2
POSTS_MAX = 6
BATCH_MAX = 40

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

#: Writes a line for each event, so that a kill may come between any two. As long as there is
#: a file `hold` nothing is consumed that is not yet.
CONSUMER = """
import os
import time
from pathlib import Path

SEEN = Path(os.environ["SEEN"])
RUN = os.environ["RUN"]

def consume(events):
    SEEN.with_name("called").write_text(RUN)
    while SEEN.with_name("hold").exists():
        time.sleep(0.005)
    with SEEN.open("ab", buffering=0) as file:
        for event in events:
            file.write(b"%s %d %d\\n" % (RUN.encode(), event.offset, event.data["n"]))
            if event.offset % 16 == 0:
                time.sleep(0.001)
"""


class Seen(NamedTuple):
    """One event that was consumed, and in which life of the worker."""

    run: int
    offset: int
    n: int


class Life:
    """A data directory and the gateways that live and die on it."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self._directory = directory
        self._chance = chance
        self._seen = directory / "seen"
        self._hold = directory / "hold"
        self._called = directory / "called"
        self.acknowledged: list[int] = []
        self.next = 0
        self.run = 0
        for name in ("schemas", "handlers"):
            (directory / name).mkdir()
        (directory / "schemas" / "thing.json").write_text(json.dumps(SCHEMA))
        (directory / "handlers" / "thing.py").write_text(CONSUMER)

    def start(self) -> Gateway:
        self.run += 1
        return Gateway(
            self._directory / "data",
            "--schemas", f"{self._directory}/schemas",
            "--handlers", f"{self._directory}/handlers",
            "--disk-reserve", "0",
            "--segment-max", self._chance.choice(["4KiB", "64KiB"]),
            "--segment-fill", "0",
            "--segment-compress-after", "0.1s",
            "--consume-batch-events-max", str(self._chance.choice([1, 7, 100])),
            "--consume-linger", self._chance.choice(["0", "10ms"]),
            "--consume-checkpoint", self._chance.choice(["0", "0", "30ms", "1s"]),
            env={"SEEN": str(self._seen), "RUN": str(self.run)},
        ).start()  # fmt: skip

    def live_and_die(self) -> None:
        """Accept some batches and be killed: before any of them is consumed, or meanwhile."""
        held = self._chance.random() < 0.5
        if held:
            self._hold.touch()
        else:
            self._hold.unlink(missing_ok=True)
        gateway = self.start()
        with gateway.connect() as client:
            for _ in range(self._chance.randint(1, POSTS_MAX)):
                numbers = range(self.next, self.next + self._chance.randint(1, BATCH_MAX))
                self.next = numbers.stop
                body = json.dumps([{"n": n} for n in numbers]).encode()
                fields = {"Content-Type": "application/json"}
                answer = client.request("POST", "/v1/batch/thing", body, fields)
                assert answer.status == 202, answer
                self.acknowledged += numbers
        if held:
            until(lambda: self._called.exists() and self._called.read_text() == str(self.run))
            assert all(seen.run != self.run for seen in self.seen())
        else:
            time.sleep(self._chance.uniform(0, LIFE_SECONDS))  # chance, nothing is awaited
        gateway.kill()

    def finish(self) -> list[tuple[int, int]]:
        """Let all of it be consumed; returns what is stored: offset and number."""
        self._hold.unlink(missing_ok=True)
        gateway = self.start()
        until(lambda: gateway.metric('ingest_consumer_lag_events{type="thing"}') == 0)
        assert gateway.stop() == 0
        return [(offset, r["data"]["n"]) for offset, r in enumerate(gateway.journal())]

    def seen(self) -> list[Seen]:
        """What was consumed; a line that a kill has cut is left out."""
        if not self._seen.exists():
            return []
        lines = self._seen.read_text().split("\n")[:-1]
        return [Seen(*map(int, line.split())) for line in lines]


def test_every_event_is_consumed_at_least_once_and_in_order(tmp_path: Path, report: Report) -> None:
    life = Life(tmp_path, random.Random(SEED))
    for _ in range(KILLS):
        life.live_and_die()
    stored = life.finish()
    seen = life.seen()

    assert [n for _, n in stored] == life.acknowledged, f"seed {SEED}"
    assert {n for _, _, n in seen} == set(life.acknowledged), f"seed {SEED}"
    assert {(offset, n) for _, offset, n in seen} <= set(stored), f"seed {SEED}"
    highest = -1
    for before, after in zip([Seen(0, -1, -1), *seen], seen, strict=False):
        if before.run == after.run:
            assert after.offset == before.offset + 1, f"seed {SEED}: {before}, {after}"
        else:  # a new life goes back to a checkpoint, and never beyond what was consumed
            assert after.offset <= highest + 1, f"seed {SEED}: {before}, {after}"
        highest = max(highest, after.offset)
    repeated = len(seen) - len(stored)
    report(f"seed {SEED}: {KILLS} kills, {len(stored)} events, {repeated} of them came again")
