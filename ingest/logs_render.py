"""Turns what somebody logged into one bounded line, whatever it was.

`bounded` makes any object into JSON-able data of limited size: no value can be too
large, too deep, unencodable or hostile to log. `EventFormatter` is the formatter that
logging.yaml names; it renders structlog events and plain stdlib records alike, as JSON or
for a terminal.

This module must not know where lines go.

Source: RFC 3339 section 5.6 (timestamps), RFC 8259 section 8.2 (lone surrogates).
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import structlog
import ujson
from structlog.dev import ConsoleRenderer, plain_traceback

from ingest.logs_secrets import HIDDEN, is_secret, scrub

#: Longest line in bytes. What is longer is rendered again within tighter bounds.
LINE_MAX_BYTES = 8192
#: Marks a value that was cut, with how many characters are missing.
CUT = "…[+{}]"


class Bounds(NamedTuple):
    """How much of a value is kept: characters of a string, items of a container, levels."""

    characters: int
    items: int
    depth: int


#: Tried one after the other until the line is short enough.
BOUNDS = (Bounds(4096, 100, 6), Bounds(1024, 24, 3), Bounds(128, 8, 2))

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
#: A terminal obeys control characters; line breaks and tabs are the harmless ones.
_TERMINAL = {code: text for code, text in _CONTROL.items() if chr(code) not in "\n\t"}
_NOT_EXTRA = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", None, None)),
) | {"message", "asctime", "taskName", "_logger", "_name"}
#: Keys that every line has.
IDENTITY = ("timestamp", "level", "event", "logger", "service", "worker")
#: Keys with a meaning; data with the same name gets a `_` behind it.
RESERVED = frozenset((*IDENTITY, "exception", "stack", "cut"))


def clean(text: str) -> str:
    """The text, with lone surrogates spelt out: they have no UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def cut(text: str, characters: int, *, keep_end: bool = False) -> str:
    """At most `characters` of a text, cleaned, and how many are missing.

    Args:
        keep_end: keep half from the end, where a traceback has its point.
    """
    missing = len(text) - characters
    if missing <= 0:
        return clean(text)
    mark = CUT.format(missing)
    if keep_end:
        half = characters // 2
        return clean(text[:half]) + mark + "\n" + clean(text[-half:])
    return clean(text[:characters]) + mark


def bounded(value: Any, bounds: Bounds) -> Any:
    """Data that JSON can carry, of bounded size; never raises."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        # Not str(value): a subclass may have a __str__ that raises.
        return cut(str.__str__(value), bounds.characters)
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        # NaN and infinity are no JSON numbers.
        finite = value - value == 0.0
        return float.__float__(value) if finite else float.__repr__(value)
    if isinstance(value, bytes | bytearray):
        text = bytes(value[: bounds.characters]).decode("utf-8", "backslashreplace")
        missing = len(value) - bounds.characters
        return cut(text, bounds.characters) + (CUT.format(missing) if missing > 0 else "")
    try:
        return _compound(value, bounds)
    except Exception as error:  # noqa: BLE001 - this is the log line, and it says so itself
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _integer(value: int) -> int | str:
    bits = int.bit_length(value)
    if bits < 64:
        return int.__int__(value)
    # Python refuses to print very long ones, and readers of JSON lose their digits.
    return int.__repr__(value) if bits <= 256 else f"<int of {bits} bits>"


def _compound(value: Any, bounds: Bounds) -> Any:
    if isinstance(value, BaseException):
        return cut(f"{type(value).__name__}: {value}", bounds.characters)
    if isinstance(value, Mapping):
        items: Iterable[Any] = value.items()
    elif isinstance(value, list | tuple | set | frozenset):
        items = value
    else:
        return cut(repr(value), bounds.characters)
    if bounds.depth == 0:
        return f"<{type(value).__name__} of {len(value)}>"
    inner = bounds._replace(depth=bounds.depth - 1)
    kept = islice(items, bounds.items)
    missing = len(value) - bounds.items
    if isinstance(value, Mapping):
        shown = {_key(key): _member(key, item, inner) for key, item in kept}
        if missing > 0:
            shown["…"] = missing
        return shown
    listed = [bounded(item, inner) for item in kept]
    if missing > 0:
        listed.append(CUT.format(missing))
    return listed


def _member(key: Any, value: Any, bounds: Bounds) -> Any:
    return HIDDEN if isinstance(key, str) and is_secret(key) else bounded(value, bounds)


def _key(key: Any) -> str:
    return cut(str.__str__(key) if isinstance(key, str) else str(bounded(key, BOUNDS[-1])), 128)


def format_exception(info: Any) -> str:
    """A traceback as text.

    Args:
        info: what `exc_info` may be: an exception, a tuple, or true for the current one.
    """
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    elif not isinstance(info, tuple):
        info = sys.exc_info()
    if info[0] is None:
        return ""
    try:
        lines = traceback.format_exception(*info, limit=-50)
    except Exception as error:  # noqa: BLE001 - this is the log line, and it says so itself
        lines = [f"{info[0].__name__} (its traceback raised {type(error).__name__})"]
    return "".join(lines).rstrip("\n")


class _Clock:
    """Timestamps; the part down to the second is kept while it lasts."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, seconds: float) -> str:
        """RFC 3339, UTC, milliseconds.

        Args:
            seconds: since the epoch.
        """
        second = int(seconds)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{int((seconds - second) * 1000):03d}Z"


timestamp = _Clock().text


def json_line(event: Mapping[str, Any]) -> str:
    """One line of JSON without its newline, at most `LINE_MAX_BYTES` long; never raises."""
    line = ""
    for bounds in BOUNDS:
        shown = _bounded_event(event, bounds)
        line = ujson.dumps(shown, ensure_ascii=False, escape_forward_slashes=False)
        if len(line) * 4 < LINE_MAX_BYTES or len(line.encode()) < LINE_MAX_BYTES:
            return scrub(line)
    shortest = {key: bounded(event.get(key), BOUNDS[-1]) for key in IDENTITY} | {"cut": True}
    return ujson.dumps(shortest, ensure_ascii=False, escape_forward_slashes=False)


def _bounded_event(event: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for key, value in islice(event.items(), len(IDENTITY) + bounds.items):
        shown[_key(key)] = _member(key, value, bounds)
    for key in ("stack", "exception"):
        if key in event:
            shown[key] = cut(event[key], bounds.characters, keep_end=True)
    if len(event) > len(shown):
        shown["cut"] = True
    return shown


class EventFormatter(logging.Formatter):
    """Renders a record as one line.

    Args:
        service: names the program in every line.
        worker: number of the worker in every line; None for the supervisor of several.
        console: for a person, instead of JSON.
        colors: on a terminal that shows them.
    """

    def __init__(self, service: str, worker: int | None, console: bool, colors: bool) -> None:
        super().__init__()
        self._service = service
        self._worker = worker
        self._console = (
            ConsoleRenderer(colors=colors, exception_formatter=plain_traceback) if console else None
        )

    def format(self, record: logging.LogRecord) -> str:
        """One line without its newline; never raises, whatever was logged."""
        try:
            return self._render(self.event(record))
        except Exception as error:  # noqa: BLE001 - this is the log line, and it says so itself
            return self._render(self._unrenderable(record, error))

    def event(self, record: logging.LogRecord) -> dict[str, Any]:
        """The keys of a record's line, in their order, values as they were given.

        Raises:
            Exception: what the arguments of a stdlib message raise.
        """
        structured = isinstance(record.msg, dict) and hasattr(record, "_logger")
        data: dict[str, Any] = dict(structlog.contextvars.get_contextvars())
        if structured:
            data |= record.msg  # type: ignore[arg-type]
            name = data.pop("event", "")
        else:
            name = record.getMessage().rstrip()
            data |= {k: v for k, v in vars(record).items() if k not in _NOT_EXTRA}
        info, stack = data.pop("exc_info", None), data.pop("stack_info", None)
        info = record.exc_info if info is None else info
        stack = record.stack_info if stack is None else stack
        event = {
            "timestamp": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": name,
            "logger": record.name,
            "service": self._service,
            "worker": self._worker,
        }
        for key, value in data.items():
            event[f"{key}_" if key in RESERVED else key] = value
        # Not `if info`: an exception may have a truth of its own.
        if info is not None and info is not False and (text := format_exception(info)):
            event["exception"] = text
        if stack is not None and stack is not False:
            event["stack"] = str(stack)
        return event

    def _unrenderable(self, record: logging.LogRecord, error: Exception) -> dict[str, Any]:
        return {
            "timestamp": timestamp(record.created),
            "level": record.levelname.lower(),
            "event": "logs.unrenderable",
            "logger": record.name,
            "service": self._service,
            "worker": self._worker,
            "message": record.msg,
            "error": error,
            "file": f"{record.pathname}:{record.lineno}",
        }

    def _render(self, event: dict[str, Any]) -> str:
        if self._console is None:
            return json_line(event)
        shown = _bounded_event(event, BOUNDS[1])
        # A person at the terminal of one program knows which one it is.
        for key in ("service", "worker"):
            shown.pop(key, None)
        return _console_line(self._console, shown)


def _console_line(renderer: ConsoleRenderer, shown: dict[str, Any]) -> str:
    below = [shown.pop(key) for key in ("stack", "exception") if key in shown]
    name = str(shown.pop("event", "")).translate(_CONTROL)
    safe = {key.translate(_CONTROL): _safe(value) for key, value in shown.items()}
    line = str(renderer(None, safe.get("level", ""), {**safe, "event": name}))
    return scrub("\n".join([line, *(text.translate(_TERMINAL) for text in below)]))


def _safe(value: Any) -> Any:
    return value.translate(_CONTROL) if isinstance(value, str) else value


_PLAIN = re.compile(r"[ !#-\[\]-~]*")


def json_text(text: str) -> str:
    """A JSON string literal; the common, plain text is only quoted."""
    if _PLAIN.fullmatch(text):
        return f'"{text}"'
    return str(ujson.dumps(clean(text), ensure_ascii=False, escape_forward_slashes=False))
