"""Closed segments of a running gateway: compressed, removed, and read all the while."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.journal.checkpoints import Checkpoints
from ingest.journal.segment import list_segments
from ingest.journal.storage import Storage
from tests.support.gateway import ROOT, Gateway
from tests.support.journals import until

EVENT = {"url": "https://example.com/", "at": "2026-11-23T10:15:00Z"}
#: About three events make a segment, and the janitor looks ten times a second.
SMALL = ("--segment-max", "1KiB", "--segment-compress-after", "0", "--disk-reserve", "0")


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def start(*flags: str, schemas: Path | None = None) -> Gateway:
        directory = ("--schemas", str(schemas)) if schemas is not None else ()
        gateway = Gateway(tmp_path / "data", *SMALL, *flags, *directory)
        started.append(gateway)
        return gateway.start()

    yield start
    for gateway in started:
        gateway.stop()


def post(gateway: Gateway, number: int, kind: str = "page_view") -> list[str]:
    """Post events one by one; the ids they were given."""
    ids = []
    with gateway.connect() as client:
        for _ in range(number):
            answer = client.request(
                "POST",
                f"/v1/events/{kind}",
                json.dumps(EVENT).encode(),
                {"Content-Type": "application/json"},
            )
            assert answer.status == 202
            ids.append(answer.json()["id"])
    return ids


def stored(gateway: Gateway) -> list[str]:
    return [event["id"] for event in gateway.journal()]


def files(gateway: Gateway) -> list[str]:
    return sorted(os.listdir(gateway.data / "journal" / "0"))


def all_compressed(gateway: Gateway) -> bool:
    names = files(gateway)
    return all(name.endswith(".zst") for name in names[:-1]) and not names[-1].endswith(".zst")


def run(gateway: Gateway, *words: str) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "journal", *words, "--data", str(gateway.data)],
        capture_output=True,
        cwd=ROOT,
    )
    assert done.stderr == b""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_closed_segments_are_compressed_and_read_as_before(gateways) -> None:  # type: ignore[no-untyped-def]
    gateway = gateways()
    ids = post(gateway, 30)
    until(lambda: all_compressed(gateway), "all closed segments are compressed")
    assert len(files(gateway)) >= 10
    assert stored(gateway) == ids
    code, results = run(gateway, "verify")
    assert (code, results[-1]["problems"], results[-1]["records"]) == (0, 0, 30)
    code, rows = run(gateway, "ls")
    assert rows[0]["segment"].endswith(".ndjson.zst")
    assert 0 < rows[0]["bytes"] < rows[0]["content_bytes"] <= 1024
    assert [row["first_time"] for row in rows[:-1]] == sorted(
        row["first_time"] for row in rows[:-1]
    )
    compressed = 'ingest_journal_compressed_segments_total{journal="journal"}'
    until(
        lambda: gateway.metric(compressed) == len(files(gateway)) - 1,
        "all compressions are counted",
    )
    size = sum(path.stat().st_size for path in (gateway.data / "journal" / "0").iterdir())
    until(
        lambda: gateway.metric('ingest_journal_stored_bytes{journal="journal"}') == size,
        "the size is what is there",
    )
    assert gateway.metric("ingest_journal_segments") == len(files(gateway))
    assert gateway.metric("ingest_journal_segments_closed_total") == len(files(gateway)) - 1
    assert gateway.metric('ingest_journal_uncompressed_segments{journal="journal"}') == 0
    assert gateway.metric('ingest_journal_oldest_record_age_seconds{journal="journal"}') > 0
    read = gateway.metric('ingest_journal_compress_read_bytes_total{journal="journal"}')
    written = gateway.metric('ingest_journal_compress_written_bytes_total{journal="journal"}')
    assert read > written > 0
    lines = [x for x in gateway.log_lines() if x["event"] == "journal.segment_compressed"]
    assert len(lines) == len(files(gateway)) - 1
    assert lines[0]["plain_bytes"] > lines[0]["stored_bytes"]


def test_a_gateway_goes_on_after_compressed_segments_when_it_starts_again(gateways) -> None:  # type: ignore[no-untyped-def]
    gateway = gateways()
    ids = post(gateway, 10)
    until(lambda: all_compressed(gateway), "all closed segments are compressed")
    assert gateway.stop() == 0
    newest = gateway.data / "journal" / "0" / files(gateway)[-1]
    newest.unlink()  # so that the newest one there is is a compressed one
    ids = [event["id"] for event in gateway.journal()]
    gateway = gateways()
    ids += post(gateway, 5)
    assert stored(gateway) == ids
    assert run(gateway, "verify")[0] == 0


def test_compression_can_be_switched_off(gateways) -> None:  # type: ignore[no-untyped-def]
    gateway = gateways("--segment-compression", "off", "--retention-max", "2KiB")
    post(gateway, 30)
    until(lambda: len(files(gateway)) <= 4, "the janitor has been at work")
    assert not any(name.endswith(".zst") for name in files(gateway))


def test_a_follower_reads_on_while_segments_are_compressed(gateways) -> None:  # type: ignore[no-untyped-def]
    gateway = gateways()
    words = ["journal", "tail", "--from-start", "--data", str(gateway.data)]
    follower = subprocess.Popen(
        [sys.executable, "-m", "ingest", *words], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert follower.stdout is not None
        ids, seen = [], []
        for _ in range(10):
            ids += post(gateway, 5)
            seen += [json.loads(follower.stdout.readline())["id"] for _ in range(5)]
        assert seen == ids
        until(lambda: all_compressed(gateway), "all closed segments are compressed")
    finally:
        follower.kill()
        follower.communicate()


def test_killed_at_any_time_while_it_compresses_it_loses_nothing(gateways) -> None:  # type: ignore[no-untyped-def]
    ids: list[str] = []
    for _ in range(3):
        gateway = gateways()
        ids += post(gateway, 20)
        gateway.kill()
        assert stored(gateway) == ids
    code, results = run(gateway, "verify")
    assert code == 0, results
    gateway = gateways()
    until(lambda: all_compressed(gateway), "what was left is compressed now")
    assert stored(gateway) == ids
    assert not any(name.endswith(".tmp") for name in files(gateway))


# -- retention ---------------------------------------------------------------------------------


def test_the_oldest_events_go_when_there_is_too_much(gateways) -> None:  # type: ignore[no-untyped-def]
    gateway = gateways("--retention-max", "6KiB")
    ids = post(gateway, 60)
    removed = 'ingest_journal_removed_segments_total{journal="journal",reason="size"}'

    def size() -> int:
        return sum(path.stat().st_size for path in (gateway.data / "journal" / "0").iterdir())

    # The newest segment is filled up with line feeds ahead of its end.
    until(lambda: gateway.metric(removed) > 0 and size() <= 6 << 10, "old segments are removed")
    left = stored(gateway)
    assert left == ids[-len(left) :] and 3 < len(left) < 60
    assert run(gateway, "verify")[0] == 0
    until(
        lambda: gateway.metric("ingest_journal_segments") == len(files(gateway)),
        "the number of segments is what is there",
    )
    lines = [x for x in gateway.log_lines() if x["event"] == "journal.segment_removed"]
    assert {line["reason"] for line in lines} == {"size"}
    bytes_removed = 'ingest_journal_removed_bytes_total{journal="journal",reason="size"}'
    assert gateway.metric(bytes_removed) == sum(line["bytes"] for line in lines)
    left += post(gateway, 1)
    assert stored(gateway)[-1] == left[-1]


def test_events_go_with_the_age_their_types_are_given(gateways, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    (schemas / "short.json").write_text(json.dumps({"x-ingest": {"retention": "1s"}}))
    (schemas / "long.json").write_text(json.dumps({"x-ingest": {"retention": "30d"}}))
    gateway = gateways("--handlers", "none", schemas=schemas)
    post(gateway, 12, "short")
    kept = post(gateway, 12, "long")
    post(gateway, 12, "short")

    def types() -> list[str]:
        return [event["type"] for event in gateway.journal()]

    until(lambda: types().count("short") <= 12 + 3, "the first short ones are gone")
    assert types().count("long") == 12
    assert set(kept) <= set(stored(gateway))
    assert types()[-12:] == ["short"] * 12, "what is behind a segment that stays, stays"


def test_what_a_consumer_needs_stays_until_it_has_it_and_that_is_said(gateways, tmp_path) -> None:  # type: ignore[no-untyped-def]
    checkpoints = Checkpoints(tmp_path / "data" / "checkpoints", Storage())
    checkpoints.save("kafka", 0, 7)
    gateway = gateways("--retention-max-age", "500ms")
    ids = post(gateway, 20)
    blocked = 'ingest_journal_retention_blocked_segments{journal="journal"}'
    until(lambda: gateway.metric(blocked) >= 3, "retention is blocked")
    until(lambda: stored(gateway)[0] != ids[0], "what nobody needs is gone")
    first = list_segments(Storage(), gateway.data / "journal" / "0")[0]
    assert 0 < first.base <= 7
    lines = [x for x in gateway.log_lines() if x["event"] == "journal.retention_blocked"]
    assert [(x["level"], x["checkpoint"], x["partition"]) for x in lines] == [
        ("warning", "kafka", 0)
    ]
    checkpoints.save("kafka", 0, 20)
    until(lambda: gateway.metric(blocked) == 0, "retention goes on")
    until(lambda: stored(gateway)[:1] != ids[7:8], "what it has is gone")


def test_checkpoints_can_be_ignored(gateways, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Checkpoints(tmp_path / "data" / "checkpoints", Storage()).save("kafka", 0, 0)
    gateway = gateways("--retention-max-age", "500ms", "--retention-ignores-checkpoints", "true")
    ids = post(gateway, 20)
    until(lambda: stored(gateway)[:1] != ids[:1], "the oldest are gone")


def test_a_broken_compressed_segment_is_told_by_verify_and_keeps_no_gateway_from_starting(
    gateways,  # type: ignore[no-untyped-def]
) -> None:
    gateway = gateways()
    ids = post(gateway, 12)
    until(lambda: all_compressed(gateway), "all closed segments are compressed")
    assert gateway.stop() == 0
    path = gateway.data / "journal" / "0" / files(gateway)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 16
    path.write_bytes(data)
    code, results = run(gateway, "verify")
    assert code == 1
    assert any(
        problem["path"] == str(path) and "byte 0 of the compressed file" in problem["reason"]
        for problem in results[:-1]
    )
    gateway = gateways()
    ids += post(gateway, 3)
    left = subprocess.run(
        [sys.executable, "-m", "ingest", "journal", "cat", "--data", str(gateway.data)],
        capture_output=True,
        cwd=ROOT,
    )
    assert [json.loads(line)["id"] for line in left.stdout.splitlines()][-1] == ids[-1]
