"""SIGKILL while records are written as fast as the disk takes them."""

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ingest.journal import Journal
from ingest.journal.frame import Commit
from ingest.journal.reader import PartitionReader
from ingest.journal.record import head_of
from ingest.journal.storage import Storage
from ingest.metrics import Metrics

KILLS = 10

#: Appends records of changing sizes without end; prints the id of each acknowledged one.
WRITER = """
from gevent import monkey
monkey.patch_all()
import os, random, sys
from pathlib import Path
from types import SimpleNamespace
import gevent
from ingest.journal import Journal
from ingest.journal.record import LINE_END, LINE_START, middle, time_text
from ingest.metrics import Metrics

data, sync, seed = Path(sys.argv[1]), sys.argv[2] == "fsync", int(sys.argv[3])
chance = random.Random(seed)
settings = SimpleNamespace(
    segment_max_bytes=200_000, segment_max_age_seconds=0, commit_max_bytes=30_000,
    journal_pending_max_bytes=10_000_000, disk_reserve_bytes=0, segment_fill_bytes=65536,
)

def on_commit(waiters, error):
    assert error is None
    os.write(1, b"".join(waiters))
    for _ in waiters:
        append()

def append():
    ids = journal.id_source
    made = ids.next()
    size = chance.choice((1, 50, 300, 5000))
    part = middle("/", "t", time_text(ids.ms), "/s")
    line = LINE_START + made + part + b'"' + b"x" * size + b'"' + LINE_END
    journal.append(line, 1, made + b"\\n", sync)

journal = Journal(data, 0, settings=settings, metrics=Metrics(), on_commit=on_commit)
journal.open()
journal.start()
for _ in range(32):
    append()
while True:
    gevent.sleep(60)
"""


@pytest.mark.parametrize("ack", ["fsync", "write"])
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, ack: str) -> None:
    acknowledged: list[bytes] = []
    for round_number in range(KILLS // 2):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), ack, str(round_number)],
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        # Somewhere in a stream of commits, another place each time.
        for _ in range(300 + 211 * round_number):
            acknowledged.append(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().splitlines(keepends=True)
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        if not acknowledged[-1].endswith(b"\n"):
            acknowledged.pop()
    ids = {line.strip() for line in acknowledged}
    assert len(ids) == len(acknowledged)

    journal = Journal(
        tmp_path,
        0,
        settings=SimpleNamespace(  # type: ignore[arg-type]
            segment_max_bytes=1 << 20, segment_max_age_seconds=0, commit_max_bytes=1 << 20,
            journal_pending_max_bytes=1 << 20, disk_reserve_bytes=0, segment_fill_bytes=65536,
        ),
        metrics=Metrics(),
        on_commit=lambda waiters, error: None,
    )  # fmt: skip
    report = journal.open()
    journal.close(10)
    with closing(PartitionReader(Storage(), tmp_path / "0")) as reader:
        items = [item for _, item in reader.poll()]
    commits = [item for item in items if isinstance(item, Commit)]
    assert len(commits) == len(items), "nothing is damaged"
    lines = [line for commit in commits for line in commit.lines]
    assert all(json.loads(line)["specversion"] == "1.0" for line in lines)
    heads = [head_of(line) for line in lines]
    stored = [head.id for head in heads if head is not None]
    assert stored == sorted(set(stored)), "ids are unique and in order, across restarts"
    assert ids <= set(stored)
    assert report.next_offset == len(stored)
    assert len(list((tmp_path / "0").glob("*.ndjson"))) > 2, "it was killed across rotations"
