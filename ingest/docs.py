"""Writes the pages of docs/ that are made from declarations.

`python -m ingest.docs [DIRECTORY]` writes them; a test fails when they are not current. Each
function returns one page as text. This module must not say anything about a setting, an
error or a metric that its declaration does not say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ingest.cli_parser import EXIT_MEANINGS
from ingest.errors import CATALOGUE as ERRORS
from ingest.exits import ExitCode
from ingest.metrics import CATALOGUE as METRICS
from ingest.metrics_families import Family
from ingest.settings import SECTIONS, SETTINGS
from ingest.settings_values import Setting, format_duration, format_size

GENERATED = "<!-- Written by `make docs` from {source}; change it there. -->"


def settings_page() -> str:
    """docs/settings.md: every setting by section, and the exit codes."""
    parts = [
        "# Settings",
        GENERATED.format(source="ingest/settings.py"),
        "Each setting can be given as a flag, as an environment variable, or as a key in "
        "`ingest.yaml`. A flag goes before the environment, the environment before the file, "
        "the file before the default. Nothing needs to be set to start.",
        "```console\n"
        "$ python -m ingest --header-timeout 5s\n"
        "$ INGEST_HEADER_TIMEOUT_SECONDS=5s python -m ingest\n"
        "$ echo 'header_timeout_seconds: 5s' > ingest.yaml && python -m ingest\n"
        "```",
        "Names say their unit; flags leave it out, because the value can say it:",
        "- durations: `500ms`, `10s`, `5m`, `1h`, `7d`; a plain number means seconds\n"
        "- sizes: `64KiB`, `1MiB`, `1GiB` (powers of 1024), `1kB`, `1MB`, `1GB` (powers of "
        "1000); a plain number means bytes",
        "An unknown flag, key or `INGEST_…` variable is an error, and the nearest name is "
        "suggested; so is a value out of range. All problems are listed at once, and "
        "`python -m ingest check` lists them together with those of schemas and handlers. "
        "The variables that Kubernetes sets for a Service called `ingest` "
        "(`INGEST_SERVICE_HOST`, `INGEST_PORT=tcp://…`) are passed over.",
        "A running process takes a new value of what *reloads* from the settings file at SIGHUP; "
        "the others take a restart or a hand-over. With several workers all but a few do: see "
        "[operations](operations.md#what-may-change-without-a-restart).",
    ]
    for section, introduction in SECTIONS.items():
        rows = [_setting_row(setting) for setting in SETTINGS if setting.section == section]
        parts += [f"## {section}", introduction]
        parts.append(_table(("setting", "flag", "default", "allowed", "reloads", "meaning"), rows))
    rows = [(f"{code:d}", f"`{code.name}`", EXIT_MEANINGS[code]) for code in ExitCode]
    parts += ["## Exit codes", _table(("code", "name", "meaning"), rows)]
    return _page(parts)


def _setting_row(setting: Setting) -> Sequence[str]:
    return (
        f"`{setting.name}`<br>`{setting.env}`",
        f"`{setting.flag}`",
        f"`{setting.show(setting.default)}`",
        _allowed(setting),
        "yes" if setting.reloads else "",
        setting.help,
    )


def _allowed(setting: Setting) -> str:
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    low, high = (
        None if bound is None else f"`{setting.show(bound)}`"
        for bound in (setting.minimum, setting.maximum)
    )
    if low and high:
        words = "".join(f", `{word}`" for word in setting.words)
        return (low if low == high else f"{low} to {high}") + words
    return f"from {low}" if low else f"up to {high}" if high else ""


def errors_page() -> str:
    """docs/errors.md: every failure a client can see."""
    rows = [
        (
            f"`{code}`",
            str(failure.status),
            failure.title,
            "closes" if failure.closes else "stays open",
            failure.remedy,
        )
        for code, failure in sorted(ERRORS.items(), key=lambda entry: (entry[1].status, entry[0]))
    ]
    parts = [
        "# Errors",
        GENERATED.format(source="ingest/errors.py"),
        "Every error is answered as `application/problem+json` (RFC 9457) with the members "
        "`type` (`urn:ingest:error:<code>`), `title`, `status`, `code` and, where there is more "
        "to say, `detail` and others. `code` is stable: programs may depend on it. The same word "
        "stands in the log line and in the label `code` of the metric `ingest_errors_total`.",
        "The connection closes where it is no longer certain at which byte the next request "
        "starts, or where the gateway is going away.",
        _table(("code", "status", "title", "connection", "what to do"), rows),
    ]
    return _page(parts)


def metrics_page() -> str:
    """docs/metrics.md: every metric family of the gateway's own."""
    parts = [
        "# Metrics",
        GENERATED.format(source="ingest/metrics.py"),
        "`GET /metrics` answers in the Prometheus text format, or in OpenMetrics where the "
        "request's `Accept` asks for it. Beside the families below it holds those of the "
        "process (`process_…`), of Python (`python_info`) and of its garbage collector "
        "(`python_gc_…`).",
        "Label values come from closed sets and from the loaded event types, never from what "
        "a client sent.",
        _table(
            ("metric", "kind", "labels", "meaning", "what to do"),
            [
                (
                    f"`{family.full_name}`",
                    family.kind,
                    _labels(family),
                    family.help,
                    family.remedy,
                )
                for family in METRICS
            ],
        ),
        "## Buckets",
        "Upper bounds of the histograms' buckets; each has one more without a bound.",
        _table(
            ("metric", "buckets"),
            [
                (f"`{family.full_name}`", _buckets(family))
                for family in METRICS
                if family.kind == "histogram"
            ],
        ),
    ]
    return _page(parts)


def _labels(family: Family) -> str:
    described = []
    for name, values in zip(family.labels, family.values, strict=True):
        if set(values) == set(ERRORS):
            described.append(f"`{name}`: those of [errors.md](errors.md)")
            continue
        listed = ", ".join(f"`{value}`" for value in values)
        described.append(f"`{name}`: {listed}" if values else f"`{name}`")
    return "<br>".join(described)


def _buckets(family: Family) -> str:
    shown: Callable[[float], str] = {
        "seconds": _short_duration,
        "bytes": lambda bound: format_size(int(bound)),
    }.get(family.unit, lambda bound: f"{bound:g}")
    return ", ".join(shown(bound) for bound in family.buckets)


def _short_duration(seconds: float) -> str:
    return f"{seconds * 1e6:g}µs" if seconds < 0.001 else format_duration(seconds)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text for a table: the two characters that Markdown or HTML would read are escaped."""
    text = text.replace("|", "\\|")
    parts = text.split("`")  # what stands between backquotes is shown as it is
    parts[::2] = [part.replace("<", "&lt;").replace("&lt;br>", "<br>") for part in parts[::2]]
    return "`".join(parts)


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(parts) + "\n"


#: File name → the function that makes its text.
PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
}


def main(argv: Sequence[str]) -> int:
    """Write every page into a directory (`docs` of the working directory by default)."""
    directory = Path(argv[0] if argv else "docs")
    directory.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (directory / name).write_text(page(), encoding="utf-8")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
