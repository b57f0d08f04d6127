"""Fuzzes one gateway process over its socket, and watches its memory.

    python -m tests.fuzz.live --seconds 600

Clients that do anything (see `machine`) and requests made from `/openapi.json` by an API
fuzzer warm the process up, and then go on for longer. At the end it must hold no more than
10 % more memory than when it was warm. After that, clients against another gateway that has a
single slot.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuzz.machine import CRAMPED, PATIENT, JournalReader, SocketMachine, Stage, assert_at_rest
from tests.fuzz.seeds import say
from tests.support.gateway import ROOT, Gateway

#: How much more memory may be in use in the end.
GROWTH_MAX = 0.10
#: Below this the process is not warm yet, and its memory says nothing.
LEAK_CHECK_SECONDS = 240
EXAMPLES_PER_ROUND = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    seconds = parser.parse_args().seconds
    with TemporaryDirectory() as directory, Stage(Path(directory), *PATIENT) as stage:
        conforms = both(stage, seconds * 0.25)
        warm = resident_bytes(stage.gateway)
        conforms = both(stage, seconds * 0.55) and conforms
        final = resident_bytes(stage.gateway)
    growth = final / warm - 1
    say(f"memory: {warm >> 10} KiB when warm, {final >> 10} KiB in the end ({growth:+.1%})")
    with TemporaryDirectory() as directory, Stage(Path(directory), *CRAMPED) as stage:
        clients(stage, seconds * 0.2)
    leaks = seconds >= LEAK_CHECK_SECONDS and growth > GROWTH_MAX
    if leaks:
        say(f"LEAK: more than {GROWTH_MAX:.0%} more memory than when it was warm")
    return 1 if leaks or not conforms else 0


def both(stage: Stage, seconds: float) -> bool:
    """Clients that do anything, and the API fuzzer; False when the latter found something."""
    clients(stage, seconds * 0.6)
    conforms = api(stage.gateway, round(seconds * 0.4))
    JournalReader(stage.gateway.data).new_records()  # which no machine has sent
    assert_at_rest(stage.gateway)
    return conforms


def clients(stage: Stage, seconds: float) -> None:
    """State machines, round after round; an error is minimised and raised."""
    deadline = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < deadline or not rounds:
        run_state_machine_as_test(
            lambda: SocketMachine(stage),
            settings=settings(
                max_examples=EXAMPLES_PER_ROUND,
                stateful_step_count=40,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
        rounds += 1
    say(f"clients: {rounds * EXAMPLES_PER_ROUND} scripts, nothing found")


def api(gateway: Gateway, seconds: int) -> bool:
    """Requests made from the API document; False when an answer is not as it says."""
    report = ROOT / "build" / "fuzz" / "api"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run",
        f"http://127.0.0.1:{gateway.port}/openapi.json",
        "--max-time", str(max(1, seconds)),
        "--request-timeout", "30", "--suppress-health-check", "all", "--no-color",
        "--report", "ndjson", "--report-dir", str(report),
    ]  # fmt: skip
    environment = {
        **os.environ,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(report / "examples"),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.api_hooks",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment)
    return done.returncode == 0


def resident_bytes(gateway: Gateway) -> int:
    """What the process has in memory now, from /proc."""
    status = Path(f"/proc/{gateway.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


if __name__ == "__main__":
    sys.exit(main())
