"""Medians and ratios over the rounds, as JSON and as one Markdown table.

A ratio is taken inside each round, against nginx of the same round, and then the median of
those: what drifts on the machine from round to round drifts for both.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ops.bench.ladder import Rung
from ops.bench.wrk import LOADS, Measurement

YARDSTICK = "nginx"
BUSY_SHARE_LEAST = 0.85
#: server -> load -> one measurement a round (None: it failed in that round)
Results = Mapping[str, Mapping[str, Sequence[Measurement | None]]]


class Row(NamedTuple):
    """One server under one load, over all rounds.

    Attributes:
        failures: of all rounds together; a median would hide them.
        of_nginx: requests/s as a share of nginx's, None without nginx.
    """

    requests_per_second: float
    of_nginx: float | None
    p50_ms: float | None
    p99_ms: float | None
    failures: int
    cpu_us: float
    rss_bytes: float
    core_share: float
    client_share: float


def summarise(
    rounds: Sequence[Measurement | None], yardstick: Sequence[Measurement | None]
) -> Row | None:
    """The row of one server and load; None when no round gave a measurement."""
    good = [m for m in rounds if m is not None]
    if not good:
        return None
    ratios = [
        mine.requests_per_second / other.requests_per_second
        for mine, other in zip(rounds, yardstick, strict=False)
        if mine is not None and other is not None
    ]

    def median(field: str) -> Any:
        values = [value for m in good if (value := getattr(m, field)) is not None]
        return statistics.median(values) if values else None

    return Row(
        requests_per_second=median("requests_per_second"),
        of_nginx=statistics.median(ratios) if ratios else None,
        p50_ms=median("p50_ms"),
        p99_ms=median("p99_ms"),
        failures=sum(m.failures for m in good),
        cpu_us=median("cpu_us"),
        rss_bytes=median("rss_bytes"),
        core_share=median("core_share"),
        client_share=median("client_share"),
    )


def rows(results: Results) -> dict[str, dict[str, Row]]:
    """All rows: load -> server -> row, in the order of LOADS and of `results`."""
    table: dict[str, dict[str, Row]] = {}
    for load in LOADS:
        yardstick = results.get(YARDSTICK, {}).get(load, ())
        for server, by_load in results.items():
            row = summarise(by_load.get(load, ()), yardstick)
            if row:
                table.setdefault(load, {})[server] = row
    return table


def disturbed(results: Results) -> list[str]:
    """The loads under which something else was using the cores.

    The yardstick waits for nothing but the CPU: it or its client has to be busy all the time.
    """
    return [
        LOADS[load].title
        for load, by_server in rows(results).items()
        if (row := by_server.get(YARDSTICK))
        and max(row.core_share, row.client_share) < BUSY_SHARE_LEAST
    ]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _two_places(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def markdown_table(results: Results, titles: Mapping[str, tuple[str, str]]) -> str:
    """One table over all loads.

    Args:
        results: what was measured.
        titles: server -> (title, what it does).
    """
    head = (
        "load", "server", "does", "requests/s", "of nginx", "p50 ms", "p99 ms", "failures",
        "CPU µs/request", "core busy: server / client", "RSS MiB",
    )  # fmt: skip
    lines = [_line(head), _line(["---"] * 3 + ["---:"] * 8)]
    for load, by_server in rows(results).items():
        for server, row in by_server.items():
            lines.append(
                _line([
                    LOADS[load].title,
                    *titles[server],
                    f"{row.requests_per_second:,.0f}",
                    _two_places(row.of_nginx),
                    _two_places(row.p50_ms),
                    _two_places(row.p99_ms),
                    str(row.failures),
                    f"{row.cpu_us:.1f}",
                    f"{row.core_share:.0%} / {row.client_share:.0%}",
                    f"{row.rss_bytes / 2**20:.0f}",
                ])
            )  # fmt: skip
    return "\n".join(lines)


def ladder_table(
    ladders: Mapping[str, Sequence[Rung]], titles: Mapping[str, tuple[str, str]]
) -> str:
    """The ladders of all servers as one table."""
    head = ("server", "clients x requests", "success", "mean ms", "requests/s")
    lines = [_line(head), _line(["---"] * 2 + ["---:"] * 3)]
    for server, rungs in ladders.items():
        for rung in rungs:
            lines.append(
                _line([
                    titles[server][0],
                    f"{rung.clients} x {rung.requests}",
                    f"{rung.success_rate:.3%}",
                    f"{rung.mean_ms:.2f}",
                    f"{rung.requests_per_second:,.0f}",
                ])
            )  # fmt: skip
    return "\n".join(lines)


class Report(NamedTuple):
    """Everything one run of the harness found.

    Attributes:
        conditions: machine and options, as words to be printed.
        titles: server -> (title, what it does).
        versions: server -> versions of what counts.
        results: the measurements.
        ladders: server -> rungs.
        remarks: what was left out or failed, as sentences.
    """

    conditions: Mapping[str, Any]
    titles: Mapping[str, tuple[str, str]]
    versions: Mapping[str, str]
    results: Results
    ladders: Mapping[str, Sequence[Rung]]
    remarks: Sequence[str]

    def markdown(self) -> str:
        """The report as a page."""
        parts = ["# Benchmark", "\n".join(f"- {k}: {v}" for k, v in self.conditions.items())]
        if rows(self.results):
            parts.append(markdown_table(self.results, self.titles))
        if self.ladders:
            parts += ["## Ladder", ladder_table(self.ladders, self.titles)]
        if self.remarks:
            parts += ["## Remarks", "\n".join(f"- {remark}" for remark in self.remarks)]
        parts += [
            "## Versions",
            "\n".join(f"- {self.titles[s][0]}: {v}" for s, v in self.versions.items()),
        ]
        return "\n\n".join(parts) + "\n"

    def document(self) -> dict[str, Any]:
        """The report as JSON: the medians and every round."""
        table = rows(self.results)
        servers = {
            server: {
                "title": self.titles[server][0],
                "does": self.titles[server][1],
                "version": version,
                "loads": {
                    load: {
                        "median": table[load][server]._asdict(),
                        "rounds": [m._asdict() if m else None for m in measured],
                    }
                    for load, measured in self.results.get(server, {}).items()
                    if server in table.get(load, {})
                },
                "ladder": [rung._asdict() for rung in self.ladders.get(server, ())],
            }
            for server, version in self.versions.items()
        }
        return {
            "conditions": dict(self.conditions),
            "servers": servers,
            "remarks": list(self.remarks),
        }

    def save(self, stem: Path) -> list[Path]:
        """Write `<stem>.md` and `<stem>.json`; returns the paths."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        page, document = stem.with_suffix(".md"), stem.with_suffix(".json")
        page.write_text(self.markdown(), encoding="utf-8")
        text = json.dumps(self.document(), indent=1, ensure_ascii=False)
        document.write_text(text + "\n", encoding="utf-8")
        return [page, document]
