"""Runs the tests in as many pytest processes side by side as there are cores; `make test`.

    python -m tests              all that `pytest` runs by default
    python -m tests --jobs 1     one after the other
    python -m tests -- -k json   with arguments for pytest

Most tests wait for processes that they start, so two at a time take little more than half as
long. A plugin would do the same, but imports what gevent must patch first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: What has a make target of its own.
APART = {"bench", "kafka", "long", "manifests", "production", "services", "slow"}
JOBS_MAX = 4
#: pytest's exit code when it was to run nothing, as with a `-k` that fits no test of a part.
NOTHING_TO_RUN = 5


def test_files() -> list[str]:
    """The files of the default run, those of a directory next to each other."""
    found = (path.relative_to(ROOT) for path in HERE.rglob("test_*.py"))
    return sorted(str(path) for path in found if APART.isdisjoint(path.parts))


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--jobs", type=int, default=min(cores, JOBS_MAX), help="processes")
    parser.add_argument("rest", nargs="*", metavar="-- ARGUMENTS", help="for pytest")
    options = parser.parse_args()
    files = test_files()
    started = time.monotonic()
    running = []
    for number in range(options.jobs):
        # Dealt out in turn, so that slow neighbours do not come to the same process.
        mine = files[number :: options.jobs]
        # The first one's dots are seen as they come, the others' output when they have ended.
        output = tempfile.TemporaryFile() if number else None  # noqa: SIM115
        # Each remembers what failed in a place of its own, for `--last-failed`.
        cache = ["-o", f"cache_dir=.pytest_cache/{number + 1}-of-{options.jobs}"]
        command = [sys.executable, "-m", "pytest", *cache, *options.rest, *mine]
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        running.append((process, output))
    codes = []
    for number, (process, output) in enumerate(running, 1):
        code = process.wait()
        if output is not None:
            output.seek(0)
            sys.stdout.buffer.write(output.read())
        print(f"== part {number} of {options.jobs}, exit code {code}", flush=True)
        codes.append(code)
    print(f"== {len(files)} files in {time.monotonic() - started:.0f} s", flush=True)
    chosen = bool(options.rest) or "--last-failed" in os.environ.get("PYTEST_ADDOPTS", "")
    if chosen and set(codes) != {NOTHING_TO_RUN}:
        codes = [0 if code == NOTHING_TO_RUN else code for code in codes]
    # A process that a signal ended has a code below 0.
    return max(map(abs, codes))


if __name__ == "__main__":
    sys.exit(main())
