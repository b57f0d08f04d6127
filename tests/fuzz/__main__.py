"""Runs every fuzzer for its share of the time; what `make fuzz` starts.

    python -m tests.fuzz --seconds 1800     all of them
    python -m tests.fuzz --only http json   some of them
    python -m tests.fuzz --save             grow, minimise and save the corpora

Everything goes on when one of them finds something; the exit code is 1 then, and inputs
that show it are kept below build/fuzz.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.minimise import minimise
from tests.fuzz.seeds import CORPUS, FOUND, INPUT_MAX_BYTES, SEEDS, say, write

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "build" / "fuzz"

#: Parts of the time. `live` is clients and the API document against one gateway process.
SHARES = {"http": 0.25, "json": 0.2, "coding": 0.1, "live": 0.45}
#: One input that takes longer hangs, seconds.
HANG_SECONDS = 10
#: What is saved of a corpus at most; of what adds coverage, the smallest inputs.
SAVED_MAX = 400


def guided(name: str, seconds: int, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "tests.fuzz.guided", name,
        f"-max_len={INPUT_MAX_BYTES}", f"-timeout={HANG_SECONDS}", f"-max_total_time={seconds}",
        f"-dict={HERE / name}.dict", f"-artifact_prefix={WORK / name}-", *options,
    ]  # fmt: skip


def run(command: list[str], environment: dict[str, str] | None = None) -> bool:
    return (
        subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}).returncode == 0
    )


def fuzz(name: str, seconds: int) -> bool:
    """Run one fuzzer; False when it found something."""
    if name == "live":
        return run([sys.executable, "-m", "tests.fuzz.live", "--seconds", str(seconds)])
    grown = WORK / "corpus" / name
    grown.mkdir(parents=True, exist_ok=True)
    known = [str(place / name) for place in (CORPUS, FOUND) if (place / name).exists()]
    return run(guided(name, seconds, "-print_final_stats=1", str(grown), *known))


def save(name: str, seconds: int) -> bool:
    """Grow a corpus from its seeds and what is saved, and keep what adds coverage."""
    grown, saved = WORK / "corpus" / name, CORPUS / name
    write(SEEDS[name](), grown)
    write((file.read_bytes() for file in saved.glob("*")), grown)
    if not run(guided(name, seconds, str(grown))):
        return False
    inputs = [file.read_bytes() for file in grown.iterdir()]
    kept = minimise(check_of(name), inputs)[:SAVED_MAX]
    shutil.rmtree(saved, ignore_errors=True)
    write(iter(kept), saved)
    say(f"{len(kept)} of {len(inputs)} inputs kept, {sum(map(len, kept))} bytes")
    return True


def check_of(name: str) -> Callable[[bytes], None]:
    check: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{name}_target").check
    return check


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=int, default=1800, help="for all of them together")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--save", action="store_true", help="save the corpora")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.only if not options.save or name in SEEDS]
    whole = sum(SHARES[name] for name in names)
    verdicts = {}
    for name in names:
        seconds = max(1, round(options.seconds * SHARES[name] / whole))
        say(f"== {name}: {seconds} s")
        start = time.monotonic()
        verdicts[name] = (save if options.save else fuzz)(name, seconds)
        say(f"== {name}: {time.monotonic() - start:.0f} s taken")
    for name, fine in verdicts.items():
        say(f"{name}: {'nothing found' if fine else f'FOUND SOMETHING, see above and {WORK}'}")
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
