"""Every block of docs/read-the-journal.md is run as it stands, on a real data directory."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, Gateway

PAGE = ROOT / "docs" / "read-the-journal.md"
METRICS = {"metrics": [{"name": "cpu.load", "value": 1.5, "type": "gauge"}]}

#: `jq` for machines without it: the library, with the flags that the page uses.
JQ = f"""\
#!{sys.executable}
import json, sys
import jq
flags = [word for word in sys.argv[1:] if word.startswith("-")]
(program,) = [word for word in sys.argv[1:] if not word.startswith("-")]
assert set(flags) <= {{"-r", "-s", "-c"}}, flags
for value in jq.compile(program).input_text(sys.stdin.read(), slurp="-s" in flags):
    plain = "-r" in flags and isinstance(value, str)
    print(value if plain else json.dumps(value, separators=(",", ":") if "-c" in flags else None))
"""

#: What a block is known by, and patterns of what it prints, or (`>`) of the files it writes.
BLOCKS: dict[str, list[str]] = {
    "journal ls": [r'"segment":"0{20}\.ndjson"', r'"problems":0'],
    "cat --since 1h": [r'"ingestid"', r'^\{"url": "https://example.com/a"', r'"type":"metrics"'],
    "journal tail": [],
    "jq -r .type": [
        r"^ +\d+ page_view$", r"Z\thttps://example.com/a$", r'\{"name":"cpu.load","mean":1.5\}',
        r"^page_view\tschema\t/url\t",
    ],
    "journal export": [r">events.ndjson", r">views.csv", r">events.parquet"],
    "'events.parquet' WHERE": [r"https://example.com/a +│ +\d+ │ "],
    "read_json('data": [r"│ metrics +│ +2 │", r"│ page_view +│ +\d+ │"],
    "pandas.read_parquet": [r"^metrics +2$", r"^page_view +\d+$", r"^20..-..-.. ..:..:00\+00:00 "],
    "pandas.read_json": [r"^https://example.com/a +\d+$"],
    "curl -s http": [
        r'"segments":\[', r"(?i)^ingest-next-offset: \d+", r'^\{"specversion":"1.0".{180}$',
    ],
    "next=earliest": [],
    "replay --type": [r'^\{"specversion":"1.0"'],
    "replay --rejected": [],
}  # fmt: skip
ENDLESS = ("journal tail", "next=earliest")


def blocks() -> list[str]:
    """The indented blocks of the page, in order; a heredoc belongs to its block, gaps included."""
    found: list[str] = []
    gap = True
    for line in PAGE.read_text().splitlines():
        inside = bool(found) and found[-1].count("<<'EOF'") > len(
            re.findall(r"^EOF$", found[-1], re.MULTILINE)
        )
        if line.startswith("    ") or (inside and not line):
            if gap and not inside:
                found.append("")
            found[-1] += line[4:] + "\n"
            gap = False
        else:
            gap = True
    return found


class Place:
    """A deployment with a gateway that runs and events of all kinds, and a shell in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        shutil.copytree(ROOT / "schemas", directory / "schemas")
        schema = json.loads((ROOT / "schemas" / "page_view.json").read_text())
        schema["x-ingest"]["on_reject"] = "keep"
        self.gateway = self.start({**schema, "properties": {"url": {"maxLength": 30}}})
        assert self.view("a") == 202
        assert self.view("x" * 30) == 422
        self.gateway.stop()
        self.gateway = self.start(schema)
        for _ in range(2):
            assert self.gateway.post("/metrics", METRICS).status == 202
        event = {"specversion": "1.0", "id": "A1", "source": "/shop", "type": "page_view"}
        body = json.dumps({**event, "data": page_view("a")}).encode()
        media = {"Content-Type": "application/cloudevents+json"}
        assert self.gateway.request("POST", "/v1/events", body, media).status == 202

    def start(self, schema: dict[str, object]) -> Gateway:
        (self.directory / "schemas" / "page_view.json").write_text(json.dumps(schema))
        env = {"PYTHONPATH": str(ROOT)}
        return Gateway(self.directory / "data", cwd=self.directory, env=env).start()

    def view(self, page: str) -> int:
        return self.gateway.post("/v1/events/page_view", page_view(page)).status

    def shell(self, script: str, tools: Path | None) -> subprocess.Popen[bytes]:
        address = f"127.0.0.1:{self.gateway.port}"
        path = [str(Path(sys.executable).parent), os.environ["PATH"]]
        if tools is not None:
            path.insert(0, str(tools))
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script.replace("127.0.0.1:8080", address)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env={
                **os.environ,
                "PATH": os.pathsep.join(path),
                "PYTHONPATH": str(ROOT),
                "INGEST_BIND": address,
                "PYTHONUTF8": "1",
            },
            start_new_session=True,
        )

    def run(self, script: str, tools: Path | None = None) -> str:
        """Run a block to its end; returns what it printed."""
        with self.shell(script, tools) as process:
            out, err = process.communicate(timeout=90)
        assert process.returncode == 0, f"{script}\n{err.decode()}"
        return out.decode()

    def watch(self, script: str) -> None:
        """Run a block that has no end, until it shows an event that comes meanwhile."""
        with self.shell(script, None) as process:
            try:
                seen = b""
                number = 0
                while b'"url": "https://example.com/new/' not in seen:
                    number += 1
                    assert self.view(f"new/{number}") == 202
                    assert number < 600, seen
                    if select.select([process.stdout], [], [], 0.1)[0]:
                        assert process.stdout is not None
                        more = os.read(process.stdout.fileno(), 1 << 16)
                        assert more, process.communicate()
                        seen += more
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def page_view(page: str) -> dict[str, str]:
    return {"url": f"https://example.com/{page}", "at": "2026-11-23T10:15:00Z"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "deployment")
    yield made
    assert made.gateway.stop() == 0


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A directory with a `jq`."""
    directory = tmp_path / "tools"
    directory.mkdir()
    (directory / "jq").write_text(JQ)
    (directory / "jq").chmod(0o755)
    return directory


def test_every_block_of_the_page_runs_and_prints_what_it_is_there_for(
    place: Place, tools: Path
) -> None:
    scripts = blocks()
    assert len(scripts) == len(BLOCKS)
    for script, (known_by, patterns) in zip(scripts, BLOCKS.items(), strict=True):
        assert known_by in script
        if known_by in ENDLESS:
            place.watch(script)
            continue
        printed = place.run(script, tools)
        if " jq " in script and shutil.which("jq"):
            assert place.run(script) == printed  # as the tool itself has it
        for pattern in patterns:
            if pattern.startswith(">"):
                assert (place.directory / pattern[1:]).stat().st_size > 0
            else:
                assert re.search(pattern, printed, re.MULTILINE), (pattern, printed)
    # The last block sent what was refused, now that its schema takes it.
    urls = [record["data"].get("url", "") for record in place.gateway.journal()]
    assert urls.count(page_view("x" * 30)["url"]) == 1


def test_the_page_has_all_commands_and_exit_codes() -> None:
    text = PAGE.read_text()
    for command in ("ls", "cat", "tail", "verify", "export"):
        assert f"python -m ingest journal {command}" in "".join(blocks())
    for code in (0, 1, 2, 3, 6, 7, 8):
        assert re.search(rf"^\| {code} \|", text, re.MULTILINE)
