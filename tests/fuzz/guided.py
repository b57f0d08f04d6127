"""Runs one target under atheris, coverage-guided.

    python -m tests.fuzz.guided http|json|coding [options of libFuzzer]

Inputs that break a promise are written where `-artifact_prefix` says; replay one with

    python -m tests.fuzz.guided http FILE
"""

from __future__ import annotations

import importlib
import sys
from random import Random

import atheris

from tests.fuzz.mutator import mutate

TARGETS = ("http", "json", "coding")


def mutate_json(data: bytes, size_max: int, seed: int) -> bytes:
    """As a document, or as bytes; every other time each."""
    random = Random(seed)
    if random.random() < 0.5:
        document = mutate(data, random)
        if document is not None and len(document) <= size_max:
            return document
    return bytes(atheris.Mutate(data, size_max))


MUTATORS = {"json": mutate_json}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(str(__doc__).strip())
    name = sys.argv.pop(1)
    # What is imported in here reports its branches: the code under test, and what explains.
    with atheris.instrument_imports(include=["ingest", "jsonschema"]):
        target = importlib.import_module(f"tests.fuzz.{name}_target")
    options = {"custom_mutator": MUTATORS[name]} if name in MUTATORS else {}
    atheris.Setup(sys.argv, target.check, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
