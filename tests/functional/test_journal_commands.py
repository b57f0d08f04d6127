"""`journal ls|cat|tail|verify`, as processes of their own, beside a writer and without one."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.journal.frame import mark
from ingest.journal.segment import segment_path
from ingest.journal.storage import Storage
from ingest.journal.verify import Problem, verify_partition
from tests.support.journals import Written

RUN = """
import argparse, sys
from ingest.journal.commands import add_commands
parser = argparse.ArgumentParser(prog="ingest")
add_commands(parser.add_subparsers(required=True))
arguments = parser.parse_args()
sys.exit(arguments.run(arguments))
"""


def command(*words: object) -> list[str]:
    return [sys.executable, "-c", RUN, "journal", *map(str, words)]


def run(*words: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*words), capture_output=True, timeout=60)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    made = Written(tmp_path / "data")
    made.commit("metrics")
    made.commit("order", "metrics", "page_view")
    made.new_segment()
    made.commit("order")
    return made


def numbers(done: subprocess.CompletedProcess[bytes]) -> list[int]:
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line)["data"]["n"] for line in done.stdout.splitlines()]


# -- cat -----------------------------------------------------------------------------------


def test_cat_prints_every_event_in_order_without_the_commit_marks(written: Written) -> None:
    done = run("cat", "--data", written.data)
    assert numbers(done) == [0, 1, 2, 3, 4]
    assert b"ingestcommit" not in done.stdout
    assert b"ingestcommit" in written.path.read_bytes()
    record = json.loads(done.stdout.splitlines()[1])
    assert record["type"] == "order" and record["time"] == "2026-01-01T00:00:01.000Z"


def test_cat_takes_a_type_a_time_and_only_the_data(written: Written) -> None:
    data = ("--data", written.data)
    assert numbers(run("cat", *data, "--type", "metrics")) == [0, 2]
    assert numbers(run("cat", *data, "--type", "metric")) == []
    assert numbers(run("cat", *data, "--since", "2026-01-01T00:00:02Z")) == [2, 3, 4]
    assert numbers(run("cat", *data, "--since", "2026-01-01T01:00:03.5+01:00")) == [4]
    assert numbers(run("cat", *data, "--since", "2026-01-01 00:00:01")) == [1, 2, 3, 4]
    assert numbers(run("cat", *data, "--since", "100000d")) == [0, 1, 2, 3, 4]
    assert numbers(run("cat", *data, "--since", "1ms")) == []
    done = run("cat", *data, "--data-only", "--type", "order")
    assert done.stdout == b'{"n": 1}\n{"n": 4}\n'


@pytest.mark.parametrize("when", ["yesterday", "10", "10 minutes", "2026-13-01"])
def test_a_time_that_is_none_is_refused_in_words(written: Written, when: str) -> None:
    done = run("cat", "--data", written.data, "--since", when)
    assert done.returncode == 2
    assert when.encode() in done.stderr and b"Traceback" not in done.stderr


def test_cat_prints_one_partition_after_the_other_or_the_one_that_was_asked_for(
    written: Written,
) -> None:
    written.new_segment(partition=10)
    written.commit("metrics", "metrics")
    written.new_segment(partition=2)
    written.commit("order")
    kinds = [
        json.loads(line)["type"] for line in run("cat", "--data", written.data).stdout.splitlines()
    ]
    assert kinds[5:] == ["order", "metrics", "metrics"]
    assert numbers(run("cat", "--data", written.data, "--partition", 10)) == [0, 1]
    done = run("cat", "--data", written.data, "--partition", 3)
    assert done.returncode == 6 and b"journal/3" in done.stderr


def test_cat_passes_over_an_unfinished_end_in_silence(written: Written) -> None:
    with written.path.open("ab") as file:
        file.write(written.commit("metrics", "metrics", sure=False)[:-20])
    assert numbers(run("cat", "--data", written.data)) == [0, 1, 2, 3, 4]


def test_cat_passes_over_damage_and_says_so(written: Written) -> None:
    written.commit("metrics")
    written.flip(100)
    done = run("cat", "--data", written.data)
    assert done.returncode == 1
    assert [json.loads(line)["data"]["n"] for line in done.stdout.splitlines()] == [0, 1, 2, 3, 5]
    assert str(written.path).encode() in done.stderr and b"offset 4" in done.stderr


def test_cat_passes_over_what_a_failed_segment_holds_past_the_next_ones_base(
    written: Written,
) -> None:
    written.commit("metrics")
    written.numbers[0] -= 1  # that commit failed: its offset is given out again
    written.new_segment()
    written.commit("page_view")
    done = run("cat", "--data", written.data)
    assert numbers(done) == [0, 1, 2, 3, 4, 5]
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "page_view"
    assert run("verify", "--data", written.data).returncode == 0


def test_cat_of_a_directory_without_a_journal_is_empty_and_of_no_directory_an_error(
    tmp_path: Path,
) -> None:
    assert numbers(run("cat", "--data", tmp_path)) == []
    done = run("cat", "--data", tmp_path / "nowhere")
    assert done.returncode == 6
    assert done.stderr == f"ingest: {tmp_path / 'nowhere'}: No such file or directory\n".encode()


def test_cat_ends_quietly_when_its_reader_has_seen_enough(written: Written) -> None:
    for _ in range(400):
        written.commit(*["metrics"] * 20)
    process = subprocess.Popen(
        command("cat", "--data", written.data), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


def test_a_commit_longer_than_one_read_is_found(written: Written) -> None:
    written.commit(*["metrics"] * 12_000)
    assert written.path.stat().st_size > 2 << 20
    assert numbers(run("cat", "--data", written.data)) == list(range(12_005))


# -- tail ----------------------------------------------------------------------------------


@pytest.fixture
def tail(written: Written) -> Iterator[Any]:
    processes = []

    def start(*flags: str) -> subprocess.Popen[bytes]:
        words = command("tail", "--data", written.data, *flags)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def read(process: subprocess.Popen[bytes], events: int) -> list[int]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline())["data"]["n"] for _ in range(events)]


def interrupted(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_tail_follows_commits_segments_and_partitions_until_interrupted(
    written: Written,
    tail,  # type: ignore[no-untyped-def]
) -> None:
    process = tail("--from-start")
    assert read(process, 5) == [0, 1, 2, 3, 4]
    written.commit("metrics", "order")
    assert read(process, 2) == [5, 6]
    written.new_segment()
    written.commit("metrics")
    assert read(process, 1) == [7]
    written.new_segment(partition=1)
    written.commit("metrics")
    assert read(process, 1) == [0]
    assert interrupted(process) == (0, b"", b"")


def test_tail_begins_with_what_comes_next_and_prints_only_whole_commits(
    written: Written,
    tail,  # type: ignore[no-untyped-def]
) -> None:
    process = tail("--type", "metrics")
    # It has passed over the old events when it shows one of a partition that came later.
    while not select.select([process.stdout], [], [], 0.2)[0]:
        written.new_segment(partition=len(written.numbers))
        written.commit("metrics")
    whole = next_commit_of_partition_0(written)
    for piece in (whole[:-10], whole[-10:]):
        with segment_path(written.data / "journal" / "0", 4).open("ab") as file:
            file.write(piece)
    seen = read(process, 1)
    while seen == [0]:  # the events of the partitions that were made while it started
        seen = read(process, 1)
    assert seen == [6]
    assert interrupted(process)[0] == 0


def next_commit_of_partition_0(written: Written) -> bytes:
    written.partition = 0
    written.path = segment_path(written.data / "journal" / "0", 4)
    return written.commit("order", "metrics", sure=False)


# -- ls and verify -----------------------------------------------------------------------------


def test_ls_lists_segments_as_json_lines_when_piped(written: Written) -> None:
    done = run("ls", "--data", written.data)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows[0]["segment"] == "00000000000000000000.ndjson"
    assert [(row["first_offset"], row["records"]) for row in rows] == [(0, 4), (4, 1)]
    assert [row["first_time"] for row in rows] == [
        "2026-01-01T00:00:00.000Z",
        "2026-01-01T00:00:04.000Z",
    ]
    assert rows[1]["bytes"] == written.path.stat().st_size


def on_a_terminal(*words: object) -> tuple[int, str]:
    """Exit code and output, of which there is less than a terminal's buffer takes."""
    ours, theirs = pty.openpty()
    try:
        code = subprocess.run(command(*words), stdout=theirs, stderr=theirs, timeout=60).returncode
        return code, os.read(ours, 1 << 16).decode().replace("\r\n", "\n")
    finally:
        os.close(theirs)
        os.close(ours)


def test_ls_prints_a_table_on_a_terminal_unless_json_is_asked_for(written: Written) -> None:
    written.new_segment()
    code, text = on_a_terminal("ls", "--data", written.data)
    assert code == 0
    lines = text.splitlines()
    heading = "partition segment records bytes content first record"
    assert " ".join(lines[0].split()) == heading
    assert lines[1].split()[:3] == ["0", "00000000000000000000.ndjson", "4"]
    assert lines[3].split()[-1] == "-"
    assert lines[-1].startswith("3 segments, 5 records")
    code, text = on_a_terminal("ls", "--data", written.data, "--json")
    assert json.loads(text.splitlines()[0])["records"] == 4


def verified(written: Written) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    done = run("verify", "--data", written.data)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    *problems, summary = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, problems, summary


def test_verify_of_a_sound_journal_says_what_it_has_seen(written: Written) -> None:
    code, problems, summary = verified(written)
    assert (code, problems) == (0, [])
    assert summary == {"segments": 2, "commits": 3, "records": 5, "problems": 0}


def test_verify_names_file_byte_and_offset_of_damage(written: Written) -> None:
    end = written.path.stat().st_size
    written.commit("metrics")
    written.commit("metrics")
    written.flip(end + 50)
    code, problems, _ = verified(written)
    assert code == 1
    (problem,) = problems
    assert problem["path"] == str(written.path)
    assert (problem["byte"], problem["offset"]) == (end, 5)
    assert "checksum" in problem["reason"]
    _, text = on_a_terminal("verify", "--data", written.data)
    assert f"{written.path}: byte {end}, offset 5: " in text
    assert text.splitlines()[-1].endswith("1 problem")


def test_verify_finds_an_end_that_is_no_commit(written: Written) -> None:
    end = written.path.stat().st_size
    with written.path.open("ab") as file:
        file.write(b"\0" * 10)
    code, problems, _ = verified(written)
    assert code == 1
    assert [(p["byte"], p["offset"]) for p in problems] == [(end, 5)]
    assert "10 bytes" in problems[0]["reason"]


def test_verify_finds_a_segment_that_is_gone_and_one_that_lost_its_end(written: Written) -> None:
    written.new_segment()
    written.commit("metrics")
    gone = segment_path(written.path.parent, 4)
    content = gone.read_bytes()
    gone.unlink()
    code, problems, _ = verified(written)
    assert code == 1
    assert [(p["path"], p["offset"]) for p in problems] == [(str(written.path), 4)]
    assert "records 4 to 4 are missing" in problems[0]["reason"]
    gone.write_bytes(content[:-1])
    assert [p["offset"] for p in verified(written)[1]] == [4]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"specversion":"1.0",', "not JSON"),
        (b"[1", "not JSON"),
        (b'{"specversion":"0.3"', "not a CloudEvents 1.0 object"),
        (b'{"specversion":"1.0","id":"a","source":"/","type":"t"', "no time, data"),
        (b'{"specversion":"1.0","id":7,"source":"/","type":"t","time":"","data":1', "no id"),
        (b'{"specversion":"1.0","id":"a","source":"/","type":"t","time":"","data":NaN', "NaN"),
    ],
)
def test_verify_finds_lines_that_are_not_records_though_their_checksum_holds(
    written: Written, line: bytes, reason: str
) -> None:
    good = written.commit("metrics", sure=False)
    end = written.path.stat().st_size
    body = good[: good.index(b',"ingestcommit"')] + b"}\n" + line
    with written.path.open("ab") as file:
        file.write(body + mark(body, 5, 2, end))
    code, problems, _ = verified(written)
    assert code == 1
    ((offset, byte, said),) = [(p["offset"], p["byte"], p["reason"]) for p in problems]
    assert (offset, byte) == (6, end + len(body) - len(line))
    assert reason in said


def test_verify_takes_a_lone_surrogate_that_is_escaped(written: Written) -> None:
    end = written.path.stat().st_size
    body = b'{"specversion":"1.0","id":"a","source":"/","type":"t","time":"","data":"\\ud800"'
    with written.path.open("ab") as file:
        file.write(body + mark(body, 5, 1, end))
    assert verified(written)[0] == 0


def test_a_change_of_any_byte_of_a_journal_is_found(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.journal.verify.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("ingest.journal.verify._LOOK_SECONDS", 0.0)

    def problems() -> list[Problem]:
        results = verify_partition(Storage(), directory)
        return [result for result in results if isinstance(result, Problem)]

    written.commit("metrics", "order")
    directory = written.path.parent
    for file in sorted(directory.iterdir()):
        written.path = file
        for byte in range(file.stat().st_size):
            written.flip(byte)
            assert problems(), (file, byte)
            written.flip(byte)
    assert not problems()


def test_help_shows_commands_that_can_be_pasted() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert b"python -m ingest journal verify" in done.stdout
