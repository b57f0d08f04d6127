"""Raw requests and what the server must answer, one file a case, in `cases/`.

A case is a file `<subject>_<what>.http`: metadata, an empty line, the bytes.

    why: what the case shows, in one sentence
    rfc: the section that decides
    verdict: parser | application -- who decides the last answer
    expect: statuses of all answers, in order, 1xx left out
    closes: yes | no -- whether the server closes after the last of them

    GET /livez HTTP/1.1\\r\\n
    Host: a\\r\\n
    \\r\\n

The bytes are written in printable ASCII. Line breaks of the file mean nothing; what
is sent stands in escapes:

    \\r \\n \\t \\\\      the usual
    \\xHH            one octet
    \\{N*text}       `text` (escapes allowed, no closing brace) N times

A space at the end of a line would not be seen, so it must be written `\\x20`.

With verdict `parser` the pure parser alone shows the last status: it refuses with it, or
accepts when it is below 400. With verdict `application` the parser accepts everything
and the status comes from routes, media types or payloads. All answers before the last
follow accepted requests. A whole server must show every status either way, when it
serves the shipped schemas with the default limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CASES = Path(__file__).parent / "cases"

_KEYS = ["why", "rfc", "verdict", "expect", "closes"]
_PIECE = re.compile(r"\\(?:([rnt\\])|x([0-9a-f]{2})|\{([0-9]+)\*([^}]*)\})|([^\\])")
_SIMPLE = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


class Case(NamedTuple):
    """One case; see the module."""

    name: str
    raw: bytes
    statuses: list[int]
    closes: bool
    why: str
    rfc: str
    verdict: str

    @property
    def accepted(self) -> int:
        """How many requests the parser accepts."""
        return len(self.statuses) - (self.refusal is not None)

    @property
    def refusal(self) -> int | None:
        """The status with which the parser refuses the last request, if it does."""
        last = self.statuses[-1]
        return last if self.verdict == "parser" and last >= 400 else None


def load_cases(directory: Path = CASES) -> Iterator[Case]:
    """All cases in the order of their names.

    Raises:
        ValueError: a file is not written as the module says.
    """
    for path in sorted(directory.glob("*.http")):
        try:
            yield _parse(path.stem, path.read_text("ascii"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _parse(name: str, text: str) -> Case:
    heading, _, body = text.partition("\n\n")
    pairs = [line.partition(": ") for line in heading.split("\n")]
    if [key for key, _, _ in pairs] != _KEYS:
        raise ValueError(f"the metadata must be {_KEYS}, in this order")
    meta = {key: value for key, _, value in pairs}
    if meta["verdict"] not in ("parser", "application") or meta["closes"] not in ("yes", "no"):
        raise ValueError("verdict is parser or application, closes is yes or no")
    lines = body.split("\n")
    if any(line != line.rstrip() for line in lines):
        raise ValueError("invisible white space at the end of a line")
    statuses = [int(status) for status in meta["expect"].split()]
    closes = meta["closes"] == "yes"
    raw = _unescape("".join(lines))
    return Case(name, raw, statuses, closes, meta["why"], meta["rfc"], meta["verdict"])


def _unescape(text: str) -> bytes:
    pieces = []
    position = 0
    while position < len(text):
        match = _PIECE.match(text, position)
        if match is None or not text[position].isprintable():
            raise ValueError(f"cannot read {text[position : position + 20]!r}")
        simple, octet, count, repeated, plain = match.groups()
        if simple:
            pieces.append(_SIMPLE[simple])
        elif octet:
            pieces.append(bytes.fromhex(octet))
        elif count:
            pieces.append(_unescape(repeated) * int(count))
        else:
            pieces.append(plain.encode("ascii"))
        position = match.end()
    return b"".join(pieces)
