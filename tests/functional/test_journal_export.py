"""`journal export`, as a process of its own: what is in the file, and what is there if it fails."""

import csv
import errno
import io
import json
import os
import pty
import re
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from tests.support.gateway import ROOT
from tests.support.journals import Written

DATAS = [
    b'{"n":1,"price":1.5,"ok":true,"at":"2026-11-23T10:15:00.250Z","name":"a,\\"b\\"\\nc"}',
    b'{"n":2,"price":3,"ok":false,"at":"2026-11-23T10:15:01.000Z","tags":["x",{"y":1}]}',
    b'{"n":3,"big":12345678901234567890123,"none":null}',
]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "ingest", "journal", *map(str, words)]


def run(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command(*words),
        capture_output=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Three orders and a visit in a compressed segment, one order in a plain one."""
    made = Written(tmp_path / "data")
    made.commit("order", "order", "order", datas=DATAS)
    made.commit("page_view")
    made.compress()
    made.commit("order", datas=[b'"just text"'])
    return made


def export(written: Written, output: Path, *flags: object) -> str:
    """Export; returns what it said."""
    done = run("export", "--data", written.data, "--output", output, *flags)
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(), newline="")))


def left_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- formats ---------------------------------------------------------------------------------


def test_ndjson_is_what_cat_prints_compressed_segments_included(
    written: Written, tmp_path: Path
) -> None:
    output = tmp_path / "out.ndjson"
    assert export(written, output) == f"5 events in {output}\n"
    assert list(written.path.parent.glob("*.zst"))
    assert output.read_bytes() == run("cat", "--data", written.data).stdout
    assert len(output.read_bytes().splitlines()) == 5
    piped = run("export", "--data", written.data, "--output", "-")
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, output.read_bytes(), b"")


def test_csv_reads_back_as_it_was_sent_nested_values_and_long_numbers_included(
    written: Written, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    export(written, output, "--format", "csv")
    rows = rows_of(output)
    assert [(row["partition"], row["offset"], row["type"]) for row in rows] == [
        ("0", "0", "order"), ("0", "1", "order"), ("0", "2", "order"), ("0", "3", "page_view"),
        ("0", "4", "order"),
    ]  # fmt: skip
    assert [row["data.n"] for row in rows] == ["1", "2", "3", "3", ""]
    assert rows[0]["data.name"] == 'a,"b"\nc'
    assert (rows[0]["data.price"], rows[0]["data.ok"]) == ("1.5", "true")
    assert json.loads(rows[1]["data.tags"]) == ["x", {"y": 1}]
    assert rows[2]["data.big"] == "12345678901234567890123"
    assert rows[4]["data"] == "just text"
    assert list(rows[0])[:6] == ["partition", "offset", "id", "source", "type", "time"]


def test_parquet_has_the_types_of_the_data(written: Written, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    export(written, output, "--format", "parquet", "--type", "order", "--to-offset", "3")
    table = pyarrow.parquet.read_table(output)
    time = pyarrow.timestamp("ms", tz="UTC")
    assert {name: table.schema.field(name).type for name in table.column_names} == {
        "partition": pyarrow.int64(),
        "offset": pyarrow.int64(),
        "id": pyarrow.string(),
        "source": pyarrow.string(),
        "type": pyarrow.string(),
        "time": time,
        "datacontenttype": pyarrow.string(),
        "dataschema": pyarrow.string(),
        "data.n": pyarrow.int64(),
        "data.price": pyarrow.float64(),
        "data.ok": pyarrow.bool_(),
        "data.at": time,
        "data.name": pyarrow.string(),
        "data.tags": pyarrow.string(),
        "data.big": pyarrow.string(),
        "data.none": pyarrow.string(),
    }
    rows = table.to_pylist()
    assert [row["data.price"] for row in rows] == [1.5, 3.0, None]
    assert rows[0]["data.at"] == datetime(2026, 11, 23, 10, 15, 0, 250_000, timezone.utc)
    assert rows[1]["time"] == datetime(2026, 1, 1, 0, 0, 1, tzinfo=timezone.utc)
    assert rows[2]["data.big"] == "12345678901234567890123"


def test_parquet_keeps_what_is_hard_to_type(tmp_path: Path) -> None:
    written = Written(tmp_path / "data")
    datas = [
        b'{"v":1,"t":"2026-13-01T00:00:00.000Z","s":"\\ud800"}',
        b'{"v":"x","t":"2026-01-01T00:00:00.000Z","s":"\\u00e9"}',
        b'{"v":9223372036854775807}',
    ]
    written.commit("order", "order", "order", datas=datas, more=b',"partition":"mine"')
    output = tmp_path / "out.parquet"
    export(written, output, "--format", "parquet")
    rows = pyarrow.parquet.read_table(output).to_pylist()
    assert [row["data.v"] for row in rows] == ["1", "x", "9223372036854775807"]
    assert rows[0]["data.t"] == "2026-13-01T00:00:00.000Z"
    assert [row["data.s"] for row in rows] == ["\\ud800", "é", None]
    assert [(row["partition"], row["event.partition"]) for row in rows] == [(0, "mine")] * 3


def test_parquet_of_nothing_is_a_table_without_rows(written: Written, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    export(written, output, "--format", "parquet", "--type", "nobody")
    table = pyarrow.parquet.read_table(output)
    assert table.num_rows == 0 and "id" in table.column_names


# -- what is chosen --------------------------------------------------------------------------


def test_only_the_chosen_events_and_columns_are_written(written: Written, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    by = {
        ("--type", "page_view"): ["3"],
        ("--from-offset", 1, "--to-offset", 3): ["1", "2"],
        ("--since", "2026-01-01T00:00:03Z"): ["3", "4"],
        ("--until", "2026-01-01T00:00:02Z"): ["0", "1"],
        ("--type", "order", "--since", "2026-01-01T00:00:02Z", "--to-offset", 4): ["2"],
    }
    for flags, offsets in by.items():
        export(written, output, "--format", "csv", *flags)
        assert [row["offset"] for row in rows_of(output)] == offsets, flags
    export(written, output, "--format", "csv", "--columns", "offset,data.n,data.nobody")
    assert output.read_text().splitlines()[:2] == ["offset,data.n,data.nobody", "0,1,"]


def test_rejected_events_are_exported_when_they_are_asked_for(tmp_path: Path) -> None:
    written = Written(tmp_path / "data", "rejected")
    written.commit("order", more=b',"rejectedcode":"schema","rejectedpointer":"/n"')
    output = tmp_path / "out.csv"
    export(written, output, "--format", "csv", "--rejected")
    assert [(row["rejectedcode"], row["data.n"]) for row in rows_of(output)] == [("schema", "0")]
    assert export(written, output, "--format", "csv").startswith("0 events")


def test_damage_is_passed_over_in_words_and_in_the_exit_code(
    written: Written, tmp_path: Path
) -> None:
    written.commit("order")
    written.flip(100)
    output = tmp_path / "out.ndjson"
    done = run("export", "--data", written.data, "--output", output)
    assert done.returncode == 1
    assert [json.loads(line)["type"] for line in output.read_bytes().splitlines()][3:] == [
        "page_view", "order",
    ]  # fmt: skip
    assert b"offset 4: passed over" in done.stderr and b"Traceback" not in done.stderr


# -- what cannot be done ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ndjson", "csv", "parquet"])
def test_an_output_that_cannot_be_opened_is_exit_7_in_words(
    written: Written, tmp_path: Path, kind: str
) -> None:
    output = tmp_path / "nowhere" / "out"
    done = run("export", "--data", written.data, "--output", output, "--format", kind)
    assert done.returncode == 7
    assert done.stderr.decode() == f"ingest: {output}: {os.strerror(errno.ENOENT)}\n"


@pytest.mark.parametrize("kind", ["ndjson", "csv", "parquet"])
def test_an_output_that_fails_half_way_is_exit_7_and_leaves_the_old_file(
    tmp_path: Path, kind: str
) -> None:
    written = Written(tmp_path / "data")
    for _ in range(40):
        written.commit(*["order"] * 500)
    output = tmp_path / "out" / "file"
    output.parent.mkdir()
    output.write_bytes(b"old")
    words = command("export", "--data", written.data, "--output", output, "--format", kind)
    limited = 'ulimit -f 16; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", limited, "bash", *words], capture_output=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 7, done.stderr.decode()
    assert done.stderr.decode() == f"ingest: {output}: {os.strerror(errno.EFBIG)}\n"
    assert left_in(output.parent) == ["file"]
    assert output.read_bytes() == b"old"


def test_a_pipe_is_written_to_and_not_replaced(written: Written, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        export(written, pipe)
        read = os.read(reader, 1 << 16)
    finally:
        os.close(reader)
    assert read == run("cat", "--data", written.data).stdout
    assert pipe.is_fifo()


def test_a_link_stays_a_link(written: Written, tmp_path: Path) -> None:
    target = tmp_path / "there" / "out"
    target.parent.mkdir()
    target.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(target)
    export(written, link)
    assert link.is_symlink() and target.read_bytes().startswith(b'{"specversion"')
    assert left_in(target.parent) == ["out"]


def test_without_pyarrow_parquet_says_what_to_install_and_csv_works(
    written: Written, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "pyarrow.py").write_text("raise ModuleNotFoundError('No module named pyarrow')\n")
    env = {"PYTHONPATH": str(missing)}
    words = ("export", "--data", written.data, "--output", tmp_path / "out", "--format")
    done = run(*words, "parquet", env=env)
    assert done.returncode == 2
    assert "pip install 'ingest[parquet]'" in done.stderr.decode()
    assert not (tmp_path / "out").exists()
    assert run(*words, "csv", env=env).returncode == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--output", "-", "--format", "parquet"), "parquet needs a file"),
        (("--output", "out", "--columns", "id"), "--columns is for csv and parquet"),
        (("--output", "out", "--from-offset", "many"), "'many' is no offset"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_in_words(
    written: Written, flags: tuple[str, ...], said: str
) -> None:
    done = run("export", "--data", written.data, *flags)
    assert done.returncode == 2
    assert said in done.stderr.decode() and b"Traceback" not in done.stderr


def test_columns_beyond_a_table_are_refused_unless_they_are_named(tmp_path: Path) -> None:
    written = Written(tmp_path / "data")
    many = json.dumps({f"m{n}": n for n in range(1001)}).encode()
    written.commit("order", datas=[many])
    output = tmp_path / "out.csv"
    done = run("export", "--data", written.data, "--output", output, "--format", "csv")
    assert done.returncode == 2 and b"--columns" in done.stderr
    assert not output.exists()
    export(written, output, "--format", "csv", "--columns", "data.m1000")
    assert output.read_text() == "data.m1000\n1000\n"


# -- the progress bar ------------------------------------------------------------------------


def test_a_progress_bar_is_drawn_on_a_terminal_and_nowhere_else(
    written: Written, tmp_path: Path
) -> None:
    words = command("export", "--data", written.data, "--output", tmp_path / "out")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=theirs, timeout=60, cwd=ROOT)
        drawn = os.read(ours, 1 << 16).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    assert re.search(r"\rexporting: +0%\|.*0\.00/5\.00 \[", drawn), drawn
    assert drawn.rstrip("\r\n").endswith(f"5 events in {tmp_path / 'out'}")
    assert "exporting" not in export(written, tmp_path / "out")
