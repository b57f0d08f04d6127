"""What a person sees at start, and the numbers of the summary at the end.

This module must not know what serves, or from how many processes.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ingest.access.exposure import exposed
from ingest.codec import dumps
from ingest.version import __version__

if TYPE_CHECKING:
    from ingest.metrics_exposition import Cells
    from ingest.registry import Registry
    from ingest.settings import Settings


class Facts(NamedTuple):
    """What is known only when schemas are loaded and the journal is recovered.

    Attributes:
        types: names of the event types, sorted.
        handlers: names of those with a handler.
        example: of a type, its name and a document in JSON; None when no schema has one.
        records: offset of the next record.
    """

    types: list[str]
    handlers: list[str]
    example: tuple[str, str] | None
    records: int


def facts_of(registry: Registry, handlers: Collection[str], records: int) -> Facts:
    """The facts about what was loaded."""
    return Facts(sorted(registry.types), sorted(handlers), _example(registry), records)


def banner(settings: Settings, facts: Facts, address: Any, admin: Any = None) -> str:
    """Where it listens, what it knows, a line to paste.

    Args:
        address: of the listening socket.
        admin: of the one for operators, None where there is none.
    """
    url = _url(address, settings.tls_cert != "off")
    operators = _url(admin) if admin is not None else url
    types = ", ".join(
        f"{name} (handler)" if name in facts.handlers else name for name in facts.types
    )
    lines = [f"ingest {__version__} listens on {url}"]
    if settings.workers > 1:
        lines.append(f"  workers  {settings.workers}")
    lines += [
        f"  types    {types or 'none: add schemas/<type>.json'}",
        f"  journal  {Path(settings.data) / 'journal'} "
        f"(ack {settings.ack}, {facts.records} records)",
        f"  health   {operators}/readyz   metrics  {operators}/metrics",
    ]
    if facts.example is not None:
        name, document = facts.example
        key = " -H 'Authorization: Bearer ing_…'" if settings.keys_file != "off" else ""
        lines += [
            "  try",
            f"    curl -i {url}/v1/events/{name} -H 'Content-Type: application/json'{key} "
            f"-d {shlex.quote(document)}",
        ]
    warning = exposed(address[0], settings)
    if warning is not None:
        lines.append(f"  WARNING  {warning}")
    return "\n".join(lines)


def _url(address: Any, tls: bool = False) -> str:
    host, port = address[0], address[1]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _example(registry: Registry) -> tuple[str, str] | None:
    for name in sorted(registry.types, key=lambda name: (name != "page_view", name)):
        schema = registry.types[name].schema
        examples = schema.get("examples") if isinstance(schema, dict) else None
        if examples:
            return name, dumps(examples[0]).decode()
    return None


def summary(requests: Cells) -> dict[str, int]:
    """Answers of a lifetime.

    Args:
        requests: what the metric `requests` holds.
    """
    answered = refused = 0
    for (_, status), count in requests.items():
        assert isinstance(count, int)
        if status.startswith("2"):
            answered += count
        else:
            refused += count
    return {"answered": answered, "refused": refused}
