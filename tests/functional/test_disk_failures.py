"""What producers and operators see of a disk that fails, is full or cannot be used.

A real gateway; the calls that fail are failed beneath the journal (`tests/support/recorder.py`),
the directories that cannot be used are really so. The rules are in docs/durability.md.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.exits import ExitCode
from ingest.journal.frame import mark
from ingest.journal.record import LINE_END, LINE_START, IdSource, middle, time_text
from tests.support.events import METRICS
from tests.support.gateway import Answer, Gateway
from tests.support.recording import recorder, wait_until_ready

EVENT = json.dumps(METRICS).encode()
#: Ends the rights that let root pass over permissions (CAP_DAC_OVERRIDE and the one to read),
#: then becomes the command that follows. Whoever is not root has none of them anyway.
WITHOUT_OVERRIDE = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

Start = Callable[..., Gateway]


@pytest.fixture
def new_gateway(tmp_path: Path) -> Iterator[Start]:
    started: list[Gateway] = []

    def make(*flags: str, **options: object) -> Gateway:
        gateway = Gateway(tmp_path / "data", "--disk-reserve", "0", *flags, **options)  # type: ignore[arg-type]
        started.append(gateway)
        return gateway

    yield make
    for gateway in started:
        gateway.kill()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with one event in it."""
    gateway = Gateway(tmp_path_factory.mktemp("written") / "data").start()
    assert post(gateway).status == 202
    assert gateway.stop() == 0
    return gateway.data


def post(gateway: Gateway) -> Answer:
    return gateway.post("/v1/events/metrics", EVENT)


def post_until_refused(gateway: Gateway) -> tuple[list[str], Answer]:
    """Ids of the events that were taken, and the first answer that was another."""
    ids: list[str] = []
    while (answer := post(gateway)).status == 202:
        ids.append(answer.json()["id"])
        assert len(ids) < 1000, "nothing fails"
    return ids, answer


def segments(gateway: Gateway) -> list[str]:
    return sorted(os.listdir(gateway.data / "journal" / "0"))


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_call_that_fails_is_503_and_the_next_event_goes_to_a_new_segment(
    new_gateway: Start, tmp_path: Path, call: str
) -> None:
    program = recorder(tmp_path / "log", "--fail", f"{call}:30:EIO")
    gateway = new_gateway(program=program).start()
    ids, refused = post_until_refused(gateway)
    assert refused.status == 503
    assert refused.json()["code"] == "journal_failed"
    assert "Retry-After".lower() in refused.headers
    before = segments(gateway)
    answer = post(gateway)
    assert answer.status == 202
    ids.append(answer.json()["id"])
    assert len(before) == 2, "the new segment is there at once"
    wait_until_ready(gateway)
    assert [event["id"] for event in gateway.journal()] == ids
    assert gateway.metric(f'ingest_journal_failures_total{{operation="{call}"}}') == 1
    assert gateway.stop() == 0
    (failure,) = (line for line in gateway.log_lines() if line["event"] == "journal.failure")
    assert failure["operation"] == call and failure["path"].endswith(before[0])


def test_no_space_is_507_and_not_ready_until_there_is_room_again(
    new_gateway: Start, tmp_path: Path
) -> None:
    program = recorder(tmp_path / "log", "--fail", "write:20:ENOSPC")
    gateway = new_gateway(program=program).start()
    ids, refused = post_until_refused(gateway)
    assert refused.status == 507
    assert refused.json()["code"] == "disk_full"
    ready = gateway.request("GET", "/readyz")
    assert (ready.status, post(gateway).status) == (503, 507), "for a second at least"
    wait_until_ready(gateway)
    answer = post(gateway)
    assert answer.status == 202
    assert [event["id"] for event in gateway.journal()] == [*ids, answer.json()["id"]]


def test_below_the_reserve_events_are_507_and_the_probe_says_why(new_gateway: Start) -> None:
    gateway = new_gateway("--disk-reserve", "1000000GiB").start()
    wait_until_ready(gateway, 503)
    assert post(gateway).status == 507
    assert "are kept in reserve" in gateway.request("GET", "/readyz?verbose").body.decode()
    assert gateway.request("GET", "/livez").status == 200, "no restart would help"
    assert gateway.journal() == []
    assert gateway.stop() == 0


def test_a_data_directory_that_is_missing_is_made_with_all_above_it(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "not" / "yet" / "there").start()
    assert post(gateway).status == 202
    assert len(gateway.journal()) == 1
    assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("place", "mode"),
    [
        ("", 0o555),
        ("data", 0o555),
        ("data/journal/0", 0o555),
        ("data/journal/0/00000000000000000000.ndjson", 0o444),
    ],
)
def test_what_permissions_forbid_is_said_at_the_start_with_its_path(
    new_gateway: Start, tmp_path: Path, written: Path, place: str, mode: int
) -> None:
    if place:
        shutil.copytree(written, tmp_path / "data")
    forbidden = tmp_path / place
    had = forbidden.stat().st_mode
    forbidden.chmod(mode)
    try:
        gateway = new_gateway(wrapper=[sys.executable, "-c", WITHOUT_OVERRIDE])
        gateway.spawn()
        assert not gateway.listens()
        assert gateway.wait() == ExitCode.DATA_UNUSABLE
    finally:
        forbidden.chmod(had)
    (said,) = (line for line in gateway.log().splitlines() if line.startswith("ingest: "))
    assert str(forbidden) in said and said.endswith("Permission denied"), said
    assert "Traceback" not in gateway.log()
    if place:
        assert len(gateway.journal()) == 1, "it touched nothing"


def test_a_clock_that_went_back_changes_no_order(new_gateway: Start, tmp_path: Path) -> None:
    """The events before were stored when the clock stood in the year 2100."""
    ids = IdSource(lambda: 4_102_444_800.0, lambda bits: 0)
    directory = tmp_path / "data" / "journal" / "0"
    directory.mkdir(parents=True)
    head = middle("/ingest", "metrics", time_text(ids.ms), "/v1/schemas/metrics")
    first = ids.next()
    body = (LINE_START + first + head + EVENT + LINE_END)[: -len(LINE_END)]
    (directory / "00000000000000000000.ndjson").write_bytes(body + mark(body, 0, 1, 0))
    gateway = new_gateway().start()
    for _ in range(5):
        assert post(gateway).status == 202
    events = gateway.journal()
    assert len(events) == 6 and events[0]["id"] == first.decode()
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    times = [event["time"] for event in events]
    assert times == sorted(times) and times[-1].startswith("2100-01-01T")
    assert gateway.stop() == 0
    assert [x["last_id"] for x in gateway.log_lines() if x["event"] == "journal.clock_behind"] == [
        first.decode()
    ]
