"""JSON decoders side by side: time to Python objects, and what each lets through.

Documents are in DOCUMENTS. A decoder's strictness is judged by the corpus that the gateway's
own decoder is tested with: what RFC 8259 refuses, and what it accepts.
"""

from __future__ import annotations

import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench import bodies, charts, checks, install
from ops.bench.stage import Document, Stage
from ops.bench.tables import figure, table
from tests.protocol.json.corpus import ACCEPT, REJECT

HELP = "JSON decoders: µs and MB/s on several documents, and what each accepts wrongly"
TAKING = "the least of several timings, which the decoders take in turn"
#: One timing takes about this long; the least of several is taken.
TIMING_SECONDS = 0.05
TIMINGS = 7


class Decoder(NamedTuple):
    """One way to decode.

    Attributes:
        package: whose version is printed; empty for the standard library.
        objects: whether it makes Python objects of everything.
        note: what a reader has to know.
    """

    package: str
    decode: Callable[[bytes], Any]
    objects: bool = True
    note: str = ""


def decoders() -> dict[str, Decoder]:
    """All of them; installs what is missing.

    Raises:
        install.Unavailable: that is not possible.
    """
    install.extras()
    import msgspec
    import orjson
    import simdjson
    import ujson

    parse = simdjson.Parser().parse

    def lazily(raw: bytes) -> None:
        # The parser refuses the next document while something of the last one is alive.
        parse(raw)

    return {
        "orjson": Decoder("orjson", orjson.loads, note="what the gateway uses"),
        "msgspec": Decoder("msgspec", msgspec.json.Decoder().decode),
        "pysimdjson": Decoder("pysimdjson", simdjson.loads),
        "ujson": Decoder("ujson", ujson.loads, note="selectable as `json_decoder: ujson`"),
        "json": Decoder("", json.loads, note="standard library"),
        "pysimdjson, lazy": Decoder(
            "pysimdjson",
            lazily,
            objects=False,
            note="parses only: no Python objects, so nothing that a validator could look at",
        ),
    }


def documents() -> dict[str, tuple[str, bytes]]:
    """name -> (what it is, its bytes)."""
    source = random.Random(7)
    deep: Any = 1
    for level in range(100):
        deep = {"level": level, "next": [deep]} if level % 2 else {"level": level, "next": deep}
    words = ["plain", "words", "of", "some", "length"]
    escaped = 'a "quoted" word,\tand a\nline \\ of "more"'
    foreign = "Ereignisse über große Mengen — события и данные — 事件の記録 🙂"
    return {
        "small": ("three metrics", checks.BODY),
        "wide": (
            "one object of 1000 members",
            bodies.dumps({f"m_{n:04}": source.choice([n, n / 8, "word"]) for n in range(1000)}),
        ),
        "deep": ("100 levels of objects and arrays", bodies.dumps(deep)),
        "long": ("an event of 1000 metrics", bodies.event(source, 1000)),
        "numbers": (
            "1000 floats of 17 digits, 1000 integers of 18",
            bodies.dumps([source.random() for _ in range(1000)]
                         + [source.randrange(10**17, 10**18) for _ in range(1000)]),
        ),
        "text": (
            "500 strings of 200 ASCII characters",
            bodies.dumps([" ".join(source.choices(words, k=36))[:200] for _ in range(500)]),
        ),
        "escapes": ("500 strings with an escape in each six characters",
                    bodies.dumps([escaped * 4] * 500)),
        "\\u escapes": (
            "100 strings of words of many alphabets, all escaped",
            json.dumps([foreign] * 100, separators=(",", ":")).encode(),
        ),
        "unicode": ("100 of the same in UTF-8", bodies.dumps([foreign] * 100)),
    }  # fmt: skip


def steps(stage: Stage) -> int:
    return len(documents())


def measure(stage: Stage) -> Document:
    """Time every decoder on every document, in turn, and judge each."""
    known = decoders()
    if stage.cores.client is not None:
        os.sched_setaffinity(0, {stage.cores.client})
    times: dict[str, dict[str, float]] = {name: {} for name in known}
    found = documents()
    for title, (_, raw) in found.items():
        stage.progress.step(f"{title}, {len(raw):,} bytes")
        for name, seconds in _least(known, raw, 2 if stage.quick else TIMINGS).items():
            times[name][title] = seconds * 1e6
        best = min((n for n in known if known[n].objects), key=lambda n: times[n][title])
        stage.progress.note(f"{best} {times[best][title]:.1f} µs")
    return {
        "documents": {t: {"is": words, "bytes": len(raw)} for t, (words, raw) in found.items()},
        "decoders": {
            name: {
                "version": metadata.version(decoder.package)
                if decoder.package
                else platform.python_version(),
                "objects": decoder.objects,
                "note": decoder.note,
                "us": times[name],
                **judge(decoder.decode),
            }
            for name, decoder in known.items()
        },
        "must_reject": len(REJECT),
        "must_accept": len(ACCEPT),
        "remarks": [],
    }


def _least(known: Mapping[str, Decoder], raw: bytes, timings: int) -> dict[str, float]:
    """Seconds a call, the least of several timings, which the decoders take in turn."""
    calls = {}
    for name, decoder in known.items():
        started = time.perf_counter()
        decoder.decode(raw)
        calls[name] = max(1, int(TIMING_SECONDS / (time.perf_counter() - started + 1e-9)))
    taken: dict[str, list[float]] = {name: [] for name in known}
    for _ in range(timings):
        for name, decoder in known.items():
            decode, repeats = decoder.decode, range(calls[name])
            started = time.perf_counter()
            for _ in repeats:
                decode(raw)
            taken[name].append((time.perf_counter() - started) / len(repeats))
    return {name: min(seconds) for name, seconds in taken.items()}


def judge(decode: Callable[[bytes], Any]) -> dict[str, list[str]]:
    """Names of the corpus's documents that a decoder gets wrong."""

    def takes(raw: bytes) -> bool:
        try:
            decode(raw)
        except (ValueError, RuntimeError, OverflowError):  # simdjson raises the second
            return False
        return True

    return {
        "accepts_wrongly": [case.name for case in REJECT if takes(case.raw)],
        "refuses_wrongly": [case.name for case in ACCEPT if not takes(case.raw)],
    }


def kinds(names: list[str]) -> Iterator[tuple[str, int]]:
    """Classes of the corpus among some of its names, with their numbers."""
    counts: dict[str, int] = {}
    for name in names:
        kind = name.rpartition("-")[0]
        counts[kind] = counts.get(kind, 0) + 1
    yield from sorted(counts.items())


def markdown(found: Document) -> str:
    known = found["decoders"]

    def cells(title: str) -> Iterator[str]:
        size = found["documents"][title]["bytes"]
        best = min(d["us"][title] for d in known.values() if d["objects"])
        for decoder in known.values():
            us = decoder["us"][title]
            text = f"{figure(us, 1 if us < 1000 else 0)} µs, {size / us:,.0f} MB/s"
            yield f"**{text}**" if us == best else text

    times = table(
        ("document", "bytes", *known),
        (
            (f"{title}: {document['is']}", f"{document['bytes']:,}", *cells(title))
            for title, document in found["documents"].items()
        ),
    )
    strictness = table(
        ("decoder", "version", "accepts, of what must be refused", "refuses, of what is valid",
         "which", ""),
        ((name, d["version"],
          f"{len(d['accepts_wrongly'])} of {found['must_reject']}",
          f"{len(d['refuses_wrongly'])} of {found['must_accept']}",
          ", ".join(f"{kind} {n}" for kind, n in
                    [*kinds(d["accepts_wrongly"]), *kinds(d["refuses_wrongly"])]),
          d["note"]) for name, d in known.items()),
        left=6,
    )  # fmt: skip
    return times + "\n\n" + strictness


def pictures(found: Document, stem: Path) -> list[Path]:
    """MB/s by document, one line a decoder."""
    lines = {
        name: [
            (title, found["documents"][title]["bytes"] / us) for title, us in decoder["us"].items()
        ]
        for name, decoder in found["decoders"].items()
        if decoder["objects"]
    }
    path = stem.parent / f"{stem.name}.png"
    panel = charts.Panel("Decoding to Python objects", "", "MB/s", lines, log_x=False)
    return [path] if charts.save([panel], path) else []
