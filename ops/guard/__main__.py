"""`python -m ops.guard`: count, compare, and fail when a request has become dearer.

Exit codes: 0 as before or cheaper; 1 dearer by more than the limit; 2 there is no count.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ops.guard import exchanges, judge
from ops.guard.counting import ROOT, Counted, CountingFailed, missing

BASELINE = Path(__file__).resolve().parent / "baseline.json"
PROFILES = ROOT / "build" / "guard"
REPEATS, CALIBRATION_REPEATS = 5, 3
#: Python also rewrites its bytecode for what it meets, in the first hundreds of requests.
WARM_RUNS = 2
#: What a count depends on, beside the gateway and Python.
PACKAGES = ("gevent", "greenlet", "httptools", "orjson", "jsonschema-rs", "google-crc32c")
EXIT_OK, EXIT_DEARER, EXIT_NO_COUNT = 0, 1, 2


def key() -> str:
    """Under which this interpreter's counts stand in baseline.json."""
    major, minor, _ = platform.python_version_tuple()
    return f"{platform.python_implementation()} {major}.{minor} {platform.machine()}"


def versions() -> dict[str, str]:
    """Of everything that the counts depend on."""
    said = subprocess.run(["valgrind", "--version"], capture_output=True, encoding="utf-8").stdout
    return {
        **{name: metadata.version(name) for name in PACKAGES},
        "valgrind": said.strip().removeprefix("valgrind-"),
    }


def count_calibration() -> int:
    """Instructions of calibration.py."""
    with (
        tempfile.TemporaryDirectory() as name,
        Counted(["-m", "ops.guard.calibration"], Path(name)) as program,
    ):

        def run() -> None:
            program.write_line("")
            program.read_line()

        run()
        return min(program.count(run) for _ in range(CALIBRATION_REPEATS))


def count_gateway(repeats: int) -> dict[str, list[float]]:
    """Instructions an event, for each exchange and repeat."""
    with tempfile.TemporaryDirectory() as name:
        counts = Path(name) / "counts"
        counts.mkdir()
        arguments = ["-m", "ops.guard.gateway", "--bind", "127.0.0.1:0",
                     "--data", f"{name}/data", "--ack", "fsync"]  # fmt: skip
        with Counted(arguments, counts) as program:
            banner = program.read_line()
            port = re.search(r":(\d+)$", banner.strip())
            if not port:
                raise CountingFailed(f"no banner but {banner!r}")
            return {
                name: _count(program, int(port[1]), name, exchange, repeats)
                for name, exchange in exchanges.exchanges().items()
            }


def _count(
    program: Counted, port: int, name: str, exchange: exchanges.Exchange, repeats: int
) -> list[float]:
    with exchanges.connections(port, len(exchange.requests)) as socks:

        def run() -> None:
            exchanges.run(exchange, program.pid, socks)

        for _ in range(WARM_RUNS):
            program.count(run)  # counted like the others, for the first count is 1 % too high
        events = exchange.events * exchange.rounds
        keep = PROFILES / f"{name}.callgrind"
        return [program.count(run, keep) / events for _ in range(repeats)]


def entry_of(counts: judge.Counts) -> dict[str, Any]:
    """What baseline.json keeps of a run."""
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "calibration": counts.calibration,
        "exchanges": {name: round(counts.least(name)) for name in counts.repeats},
    }


def changed_versions(entry: Mapping[str, Any]) -> dict[str, str]:
    """Packages that are not as they were for a baseline."""
    now = versions()
    return {
        name: f"{old} -> {now.get(name)}"
        for name, old in entry["versions"].items()
        if now.get(name) != old
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.guard", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the counts into baseline.json")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default {REPEATS}")
    options = parser.parse_args(argv)
    lacks = missing()
    if lacks:
        print(f"guard: {lacks}", file=sys.stderr)
        return EXIT_NO_COUNT
    try:
        counts = judge.Counts(key(), count_calibration(), count_gateway(options.repeats))
    except (CountingFailed, OSError, ValueError) as error:
        print(f"guard: {error}", file=sys.stderr)
        return EXIT_NO_COUNT
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if options.update:
        baseline[counts.key] = entry_of(counts)
        BASELINE.write_text(json.dumps(baseline, indent=1, sort_keys=True) + "\n")
    try:
        judgement = judge.judge(counts, baseline)
    except ValueError as error:
        print(f"guard: {error}", file=sys.stderr)
        return EXIT_NO_COUNT
    titles = {name: exchange.title for name, exchange in exchanges.exchanges().items()}
    changed = changed_versions(baseline[counts.key]) if counts.key in baseline else {}
    print(judge.text(judgement, titles, changed))
    if judgement.failed:
        profile = (PROFILES / "event.callgrind").relative_to(ROOT)
        print(
            f"Where they go: callgrind_annotate {profile} | head -60\n"
            "If it is worth it: make guard-update, and say why in the commit."
        )
        return EXIT_DEARER
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
