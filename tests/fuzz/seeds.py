"""Where the saved corpora come from, and how they are kept small.

    python -m tests.fuzz.seeds http|json|coding DIRECTORY

writes the first inputs of a target: the cases of tests/protocol and the examples of the
shipped schemas. `python -m tests.fuzz --save` grows and minimises what is in tests/fuzz/corpus.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz import coding_target
from tests.fuzz.json_target import types
from tests.protocol.http.corpus import load_cases
from tests.protocol.json.corpus import ACCEPT, LIMITS, REJECT

#: Longest input; the limits of the targets are small enough to be exceeded within.
INPUT_MAX_BYTES = 4096

#: Inputs of each target that together do all that is known to be doable; made anew by --save.
CORPUS = Path(__file__).resolve().parent / "corpus"
#: Inputs that broke a promise once, named by what they are; kept for ever.
FOUND = CORPUS.with_name("found")


def http_seeds() -> Iterator[bytes]:
    for case in load_cases():
        yield b"\x00" + case.raw
        yield b"\x03\x07\x01\x20" + case.raw
    yield b"\x80" + b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


def json_seeds() -> Iterator[bytes]:
    for index, event_type in enumerate(types):
        for example in event_type.schema.get("examples", ()):
            for variant in variants(example):
                yield bytes([index]) + json.dumps(variant).encode()
            yield bytes([0x80 | index]) + json.dumps(example, indent=1).encode()
    for index, case in enumerate([*ACCEPT, *REJECT, *LIMITS]):
        yield bytes([index % 3]) + case.raw


def variants(example: Any) -> Iterator[Any]:
    """An event as it is, and with one member taken out, or of another kind."""
    yield example
    for name in example if isinstance(example, dict) else ():
        without = copy.copy(example)
        del without[name]
        yield without
        for other in (None, "", 0, [], {}, -1.5):
            yield {**example, name: other}


def coding_seeds() -> Iterator[bytes]:
    document = json.dumps([event_type.schema.get("examples") for event_type in types]).encode()
    for index, field in enumerate(coding_target.FIELDS):
        codings = coding_target.codings_of(field)
        for body in (b"", b"{}", document, b"\0" * (1 << 17)):
            coded = coding_target.coded(body, codings)
            for bounds in range(len(coding_target.BOUNDS)):
                yield bytes([index, bounds]) + coded
            yield bytes([index, 2]) + coded[:-1]
            yield bytes([index, 2]) + coded + b"\0"
            yield bytes([index, 2]) + coded + coded
            yield bytes([index, 2]) + coded[:-6] + b"\xff" * 6
        yield bytes([0x80 | index, 0x91]) + document
    for field in ("gzip;q=0, *", "zstd;q=0.5, gzip;q=1.0", "identity;q=0", "br, deflate"):
        yield b"\0\0" + field.encode()


SEEDS = {"http": http_seeds, "json": json_seeds, "coding": coding_seeds}


def write(inputs: Iterator[bytes], directory: Path) -> int:
    """Save inputs under their digests; returns how many."""
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for data in inputs:
        if len(data) <= INPUT_MAX_BYTES:
            (directory / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
            count += 1
    return count


def say(line: str) -> None:
    """Tell the person who runs it; at once, as other processes write, too."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    target, directory = sys.argv[1:]
    say(f"{write(SEEDS[target](), Path(directory))} inputs")
