"""What one setting is, and how its text becomes a value and back.

Durations, sizes and addresses are read here and nowhere else. PURE: this module must not
know where a text came from (flag, environment, file) nor which settings exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import IPv6Address, ip_network
from typing import Literal

Value = str | int | float
Kind = Literal["text", "choice", "integer", "number", "size", "duration"]

#: Suffix of a name → what is dropped for its flag: `--header-timeout 10s` reads better than
#: `--header-timeout-seconds 10s`, and the value says its unit itself.
UNIT_SUFFIXES: dict[str, Kind] = {"_bytes": "size", "_seconds": "duration"}

#: Decimal and binary units are told apart, as IEC 80000-13 does.
SIZE_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
DURATION_UNITS = {
    "": Decimal(1),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
#: Bounds for every value of a kind, so that no timer or allocation overflows.
SIZE_LIMIT = 2**50
DURATION_LIMIT = 366 * 86400
#: Events may be kept for longer than any timer runs.
RETENTION_MAX_SECONDS = 99_999 * 86400
TEXT_LIMIT = 4096
#: How much of a wrong value an error repeats.
ECHO_LIMIT = 80

_QUANTITY = re.compile(r"(-?[0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]{0,3})")
_BIND = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_URI_CHARACTERS = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+")
_URI_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


@dataclass(frozen=True)
class Setting:
    """One declared setting.

    Attributes:
        name: key in the settings file and attribute of `Settings`.
        section: heading it stands under in --help and docs/settings.md.
        kind: how its text is read.
        default: its value when nothing names it.
        help: one or two sentences for an operator.
        minimum: smallest value, in bytes or seconds where the kind has a unit.
        maximum: largest value, likewise.
        choices: all values of a `choice`.
        placeholder: what stands for a text in --help.
        check: a further constraint on the value; raises ValueError with it in words.
        words: words that stand for a number, below `minimum` so that they are told apart.
        pairs: a text of the form `a=b,c=d`, which is a map in the settings file.
        reloads: a running process takes a new value at a reload (SIGHUP).
        secret: it may hold secrets, so no message repeats it.
    """

    name: str
    section: str
    kind: Kind
    default: Value
    help: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    placeholder: str = "TEXT"
    check: Callable[[str], None] | None = None
    words: Mapping[str, int] = field(default_factory=dict)
    pairs: bool = False
    reloads: bool = False
    secret: bool = False

    @property
    def flag(self) -> str:
        """Its command-line flag, such as `--header-timeout`."""
        short = self.name
        for suffix in UNIT_SUFFIXES:
            short = short.removesuffix(suffix)
        return "--" + short.replace("_", "-")

    @property
    def env(self) -> str:
        """Its environment variable, such as `INGEST_HEADER_TIMEOUT_SECONDS`."""
        return "INGEST_" + self.name.upper()

    @property
    def metavar(self) -> str:
        """What stands for its value in --help."""
        if self.choices:
            return "|".join(self.choices)
        shown = {"text": self.placeholder, "integer": "N", "number": "X"}.get(
            self.kind, self.kind.upper()
        )
        return "|".join([shown, *self.words])

    def parse(self, text: str) -> Value:
        """Read a value.

        Args:
            text: as written by the operator.

        Raises:
            ValueError: the constraint it does not meet, as words that follow the
                setting's name: "must be at least 1".
        """
        text = text.strip()
        if not text:
            raise ValueError("must not be empty; leave it out to get the default")
        if self.kind in ("text", "choice"):
            self._check_text(text)
            return text
        if text in self.words:
            return self.words[text]
        value = self._parse_quantity(text)
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"must be at least {self.show(self.minimum)}")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"must be at most {self.show(self.maximum)}")
        return value

    def _check_text(self, text: str) -> None:
        if self.choices and text not in self.choices:
            raise ValueError(f"must be {' or '.join(self.choices)}")
        if len(text) > TEXT_LIMIT:
            raise ValueError(f"must be at most {TEXT_LIMIT} characters")
        if not text.isprintable():
            raise ValueError("must not contain control characters")
        if self.check is not None:
            self.check(text)

    def _parse_quantity(self, text: str) -> int | float:
        if self.kind == "size":
            return parse_size(text)
        if self.kind == "duration":
            return parse_duration(text, max(DURATION_LIMIT, int(self.maximum or 0)))
        match = _QUANTITY.fullmatch(text)
        whole = self.kind == "integer"
        if match is None or match[2] or (whole and "." in match[1]):
            words = "".join(f" or {word}" for word in self.words)
            raise ValueError(f"must be a {'whole ' if whole else ''}number{words}")
        return int(match[1]) if whole else float(match[1])

    def show(self, value: Value) -> str:
        """A value as one would write it: `128MiB`, `500ms`, `fsync`."""
        if self.kind == "size":
            return format_size(int(value))
        if self.kind == "duration":
            return format_duration(float(value))
        return f"{value:g}" if isinstance(value, float) else str(value)


def parse_size(text: str) -> int:
    """Read a number of bytes: `4096`, `64KiB`, `1.5GiB`, `1MB`.

    Raises:
        ValueError: it is none, or not a whole number of bytes, or above 1 PiB.
    """
    match = _QUANTITY.fullmatch(text)
    factor = SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError("must be a size such as 4096, 64KiB, 1MiB, 1GiB or 1MB")
    size = Decimal(match[1]) * factor
    if size != size.to_integral_value():
        raise ValueError("must be a whole number of bytes")
    if size > SIZE_LIMIT:
        raise ValueError("must be at most 1024TiB")
    return int(size)


def parse_duration(text: str, limit: int = DURATION_LIMIT) -> float:
    """Read a duration: `10`, `0.5`, `500ms`, `10s`, `5m`, `1h`, `7d`.

    Args:
        limit: the longest there may be, in seconds.

    Returns:
        seconds.

    Raises:
        ValueError: it is none, or longer than that.
    """
    match = _QUANTITY.fullmatch(text)
    factor = DURATION_UNITS.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError("must be a duration such as 500ms, 10s, 5m or 1h")
    seconds = Decimal(match[1]) * factor
    if seconds > limit:
        raise ValueError(f"must be at most {format_duration(limit)}")
    return float(seconds)


def format_size(size: int) -> str:
    """Bytes in the largest binary unit that divides them: 65536 → `64KiB`."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """Seconds in the largest unit that divides them: 3600 → `1h`, 0.5 → `500ms`."""
    exact = Decimal(str(seconds))
    for unit in ("d", "h", "m", "s", "ms"):
        if exact and exact % DURATION_UNITS[unit] == 0:
            return f"{int(exact / DURATION_UNITS[unit])}{unit}"
    return f"{seconds:g}s"


def echo(text: str) -> str:
    """A wrong value as an error repeats it: quoted, printable, bounded."""
    quoted = repr(text)
    return quoted if len(quoted) <= ECHO_LIMIT else quoted[: ECHO_LIMIT - 1] + "…"


def check_bind_or_off(text: str) -> None:
    """A listening address, or `off`.

    Raises:
        ValueError: it is neither.
    """
    if text != "off":
        check_bind(text)


def check_bind(text: str) -> None:
    """A listening address: `host:port` or `[v6]:port`; port 0 takes a free one.

    Raises:
        ValueError: it is none.
    """
    match = _BIND.fullmatch(text)
    if match is None:
        raise ValueError("must be host:port or [v6]:port, such as 0.0.0.0:8080 or [::]:8080")
    if int(match["port"]) > 65535:
        raise ValueError("must have a port from 0 to 65535")
    if match["v6"] is not None:
        try:
            IPv6Address(match["v6"])
        except ValueError:
            raise ValueError("must have an IPv6 address between its brackets") from None


def check_uri_reference(text: str) -> None:
    """A URI-reference (RFC 3986 section 4.1), as the CloudEvents attribute `source` must be.

    Raises:
        ValueError: it is none.
    """
    if _URI_CHARACTERS.fullmatch(text) is None or text.count("#") > 1:
        raise ValueError("must be a URI-reference (RFC 3986), such as /ingest or https://a.example")
    # Section 4.2: before the first slash, a colon ends a scheme or does not stand at all.
    scheme, colon, _ = re.split(r"[/?#]", text, maxsplit=1)[0].partition(":")
    if colon and _URI_SCHEME.fullmatch(scheme) is None:
        raise ValueError(f"must be a URI-reference (RFC 3986): {echo(scheme)} is no scheme")


_BASE_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(?:/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?")


def check_base_url(text: str) -> None:
    """An absolute URL to which a path can be added, or `none`.

    Raises:
        ValueError: it is neither.
    """
    if text != "none" and _BASE_URL.fullmatch(text) is None:
        raise ValueError("must be none or a URL without query and final slash: https://a.example")


#: Numbers of cores beyond it are a mistake, and would make a list of `0-4000000000` a long one.
CORE_LIMIT = 4096
_CORES = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def parse_cores(text: str) -> list[int]:
    """Read a list of cores: `0,2-5`, as `taskset --cpu-list` does.

    Raises:
        ValueError: it is none.
    """
    cores: list[int] = []
    for part in text.split(","):
        match = _CORES.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < CORE_LIMIT:
            raise ValueError("must be off, on or a list of cores such as 0,2-5")
        cores.extend(range(first, last + 1))
    return cores


def check_affinity(text: str) -> None:
    """Cores that workers are kept on: `off`, `on`, or a list as `parse_cores` reads it.

    Raises:
        ValueError: it is none of these.
    """
    if text not in ("off", "on"):
        parse_cores(text)


def check_allowed(text: str) -> None:
    """Networks that may connect: `any`, or a list of them.

    Raises:
        ValueError: it is neither.
    """
    if text != "any":
        _check_networks(text, "any")


def check_trusted(text: str) -> None:
    """Networks of proxies: `none`, or a list of them.

    Raises:
        ValueError: it is neither.
    """
    if text != "none":
        _check_networks(text, "none")


def _check_networks(text: str, otherwise: str) -> None:
    for entry in text.split(","):
        try:
            ip_network(entry.strip())
        except ValueError as error:
            raise ValueError(f"takes {otherwise}, or addresses and networks: {error}") from None


_MOUNT = re.compile(
    r"(?P<prefix>(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)="
    r"(?P<app>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?)",
    re.ASCII,
)


def parse_mounts(text: str) -> dict[str, str]:
    """Read a list of mounts: `/legacy=myapp:app,/shop=shop.site:create_app()`, or `none`.

    Returns:
        prefix → where the application is.

    Raises:
        ValueError: it is none.
    """
    mounts: dict[str, str] = {}
    for part in () if text == "none" else text.split(","):
        match = _MOUNT.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                "must be none or a list such as /legacy=myapp:app,/shop=shop.site:create_app()"
            )
        if match["prefix"] in mounts:
            raise ValueError(f"must name each prefix once, and names {match['prefix']} twice")
        mounts[match["prefix"]] = match["app"]
    return mounts


def check_mounts(text: str) -> None:
    """Mounts as `parse_mounts` reads them.

    Raises:
        ValueError: it is none of these.
    """
    parse_mounts(text)
