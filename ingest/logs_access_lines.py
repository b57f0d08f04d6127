"""What a line of the access log looks like: JSON, for a person, or as Apache writes it.

Whatever a client sends stays within its place in its line: JSON strings, and in the combined
format the escapes that Apache uses, so no byte of a client ends a line or a quoted string.

PURE: this module must not know when lines are written, or where.

Source: Apache httpd, mod_log_config (`combined`; "%h %l %u %t \\"%r\\" %>s %b …").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NamedTuple

from ingest.logs_render import cut, json_text, timestamp
from ingest.logs_secrets import scrub, scrub_target
from ingest.tracing import trace_of

#: Longest request target shown, in bytes.
TARGET_MAX = 1024
#: Longest Referer and User-Agent shown, in characters.
FIELD_MAX = 512

#: The log's two formats. A terminal is shown a third one instead of the first.
FORMATS = ("json", "combined")

_QUOTED = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))},
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}
_BARE = {**_QUOTED, 0x20: "\\x20"}


class Entry(NamedTuple):
    """One answered request, as `AccessLog.record` was told of it."""

    seconds: float
    level: str
    address: Any
    method: str
    target: bytes
    version: tuple[int, int]
    status: int
    request_bytes: int
    response_bytes: int
    duration_seconds: float
    request_id: str
    type: str
    key: str
    headers: Mapping[str, str]

    @property
    def peer(self) -> str:
        """The peer's address as text."""
        address = self.address
        return str(address[0]) if isinstance(address, tuple) and address else str(address or "-")


def renderer(form: str, console: bool, identity: str) -> Callable[[Entry], str]:
    """What turns an entry into its line.

    Args:
        form: one of `FORMATS`.
        console: a person reads it.
        identity: members that say which process it is, as JSON.
    """
    if form == "combined":
        return combined
    return person if console else lambda entry: json_entry(entry, identity)


def _where(entry: Entry) -> str:
    return cut(scrub_target(entry.target.decode("utf-8", "backslashreplace")), TARGET_MAX)


def person(entry: Entry) -> str:
    """For a terminal."""
    return (
        f"{timestamp(entry.seconds)} [{entry.level:<7}] {entry.peer} "
        f"{json_text(f'{entry.method} {_where(entry)}')} {entry.status} "
        f"{entry.response_bytes} B {entry.duration_seconds * 1000:.1f} ms {entry.request_id}\n"
    )


def json_entry(entry: Entry, identity: str) -> str:
    """As every other line of the log."""
    known = "" if entry.key == "-" else f'"key":{json_text(entry.key)},'
    trace = trace_of(entry.headers)
    if trace is not None:
        known += f'"trace_id":"{trace.trace_id}","span_id":"{trace.span_id}",'
    return (
        f'{{"timestamp":"{timestamp(entry.seconds)}","level":"{entry.level}",'
        f'"event":"http.access","logger":"ingest.access",{identity},'
        f'"request_id":{json_text(entry.request_id)},"address":{json_text(entry.peer)},'
        f'"method":{json_text(entry.method)},"target":{json_text(_where(entry))},'
        f'"status":{entry.status},"type":{json_text(entry.type)},{known}'
        f'"request_bytes":{entry.request_bytes},"response_bytes":{entry.response_bytes},'
        f'"duration_seconds":{entry.duration_seconds:.6f}}}\n'
    )


def combined(entry: Entry) -> str:
    """Apache's: address, -, key, time, "request", status, bytes, "Referer", "User-Agent"."""
    request = "-"
    if entry.method != "-":
        target = cut(scrub_target(entry.target.decode("latin-1")), TARGET_MAX)
        request = f"{entry.method} {target} HTTP/{entry.version[0]}.{entry.version[1]}"
    referer = scrub_target(entry.headers.get("referer", "-"))
    agent = scrub(entry.headers.get("user-agent", "-"))
    return (
        f"{_escaped(entry.peer, _BARE)} - {_escaped(entry.key, _BARE)} "
        f'[{_apache_time(int(entry.seconds))}] "{_escaped(request, _QUOTED)}" {entry.status} '
        f'{entry.response_bytes} "{_escaped(cut(referer, FIELD_MAX), _QUOTED)}" '
        f'"{_escaped(cut(agent, FIELD_MAX), _QUOTED)}"\n'
    )


def _escaped(text: str, table: Mapping[int, str]) -> str:
    """A text in which every byte that is not printable ASCII is spelt out."""
    if not text.isascii():
        # A field's value is Latin-1, each character a byte; our own texts may be anything.
        raw = text.encode("latin-1", "backslashreplace")
        text = raw.decode("latin-1")
    return text.translate(table) or "-"


@lru_cache(maxsize=4)
def _apache_time(second: int) -> str:
    _, day, month, year, time, _ = formatdate(second, usegmt=True).split(" ")
    return f"{day}/{month}/{year}:{time} +0000"
