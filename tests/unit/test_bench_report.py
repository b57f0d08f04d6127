"""Medians, ratios and the page that states them."""

import io
import json
from pathlib import Path

import pytest

from ops.bench.bench import parse_arguments
from ops.bench.ladder import Rung
from ops.bench.plot import ranking
from ops.bench.progress import Progress
from ops.bench.report import Report, disturbed, rows, summarise
from ops.bench.servers import CATALOGUE
from ops.bench.wrk import Measurement

TITLES = {"nginx": ("nginx", "nothing"), "ingest-fsync": ("ingest", "all")}


def measurement(per_second: float, failures: int = 0) -> Measurement:
    return Measurement(
        requests=int(per_second),
        requests_per_second=per_second,
        p50_ms=1.0,
        p99_ms=2.0,
        failures=failures,
        cpu_us=10.0,
        core_share=1.0,
        client_share=0.5,
        rss_bytes=2**20,
    )


def report() -> Report:
    return Report(
        conditions={"taken": "today"},
        titles=TITLES,
        versions={"nginx": "nginx 1", "ingest-fsync": "ingest 0"},
        results={
            "nginx": {"c64": [measurement(100_000), measurement(50_000)]},
            "ingest-fsync": {"c64": [measurement(40_000, 1), measurement(30_000, 2)]},
        },
        ladders={"ingest-fsync": [Rung(20, 50, 1.0, 0.5, 40_000.0)]},
        remarks=["somebody is left out"],
    )


def test_ratios_are_taken_round_by_round() -> None:
    # By medians alone it would be 35,000 / 75,000 = 0.47.
    assert rows(report().results)["c64"]["ingest-fsync"].of_nginx == pytest.approx(0.5)


def test_failures_of_all_rounds_are_added_not_averaged() -> None:
    assert rows(report().results)["c64"]["ingest-fsync"].failures == 3


def test_a_failed_round_is_passed_over_on_both_sides() -> None:
    mine = [None, measurement(40), measurement(60)]
    row = summarise(mine, [measurement(100), None, measurement(100)])
    assert row is not None
    assert row.requests_per_second == 50
    assert row.of_nginx == pytest.approx(0.6)


def test_other_work_on_the_machine_shows_in_the_yardstick() -> None:
    quiet = measurement(100)._replace(core_share=0.7, client_share=0.99)
    busy = measurement(100)._replace(core_share=0.5, client_share=0.5)
    results = {"nginx": {"c64": [quiet], "c1000": [busy]}, "fastify": {"c64": [busy]}}
    assert disturbed(results) == ["1000 connections"]


def test_a_server_that_never_ran_has_no_row() -> None:
    assert summarise([None, None], []) is None


def test_without_nginx_there_is_no_ratio() -> None:
    row = summarise([measurement(40)], [])
    assert row is not None
    assert row.of_nginx is None


def test_unknown_latency_stays_unknown() -> None:
    row = summarise([measurement(40)._replace(p50_ms=None, p99_ms=None)], [])
    assert row is not None
    assert (row.p50_ms, row.p99_ms) == (None, None)


def test_the_page_has_one_row_a_server_and_load() -> None:
    page = report().markdown()
    cells = ("64 connections", "ingest", "all", "35,000", "0.50", "1.00", "2.00", "3", "10.0",
             "100% / 50%", "1")  # fmt: skip
    assert f"| {' | '.join(cells)} |" in page.splitlines()
    assert "| ingest | 20 x 50 | 100.000% | 0.50 | 40,000 |" in page.splitlines()
    assert "- somebody is left out" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("| ")}
    assert widths == {12, 6}, "heads and rows have as many cells"


def test_both_files_are_saved_and_the_document_holds_every_round(tmp_path: Path) -> None:
    page, document = report().save(tmp_path / "new" / "full")
    assert page.read_text() == report().markdown()
    servers = json.loads(document.read_text())["servers"]
    rounds = servers["ingest-fsync"]["loads"]["c64"]["rounds"]
    assert [m["requests_per_second"] for m in rounds] == [40_000, 30_000]
    assert servers["ingest-fsync"]["ladder"][0]["clients"] == 20


def test_the_picture_ranks_the_slowest_first() -> None:
    names = [name for name, _, _ in ranking(report().document(), "c64")]
    assert names == ["ingest-fsync", "nginx"]
    assert ranking(report().document(), "c1000") == []


@pytest.fixture
def schemas(tmp_path: Path) -> str:
    (tmp_path / "metrics.json").write_text("{}")
    return str(tmp_path)


def test_quick_leaves_the_peers_and_the_ladder_out(schemas: str) -> None:
    plan = parse_arguments(["--quick", "--schemas", schemas])
    assert plan.servers == ("nginx", "ingest-fsync", "ingest-write")
    assert plan.loads == ("c64", "c1000")
    assert (plan.ladder, plan.label) == ((), "quick")
    assert plan.steps() == 3 * 2 * plan.rounds


def test_a_peer_can_be_asked_for_with_quick(schemas: str) -> None:
    plan = parse_arguments(["--quick", "--only", "fastify,nginx", "--schemas", schemas])
    assert plan.servers == ("fastify", "nginx")


def test_only_a_complete_run_is_called_full(schemas: str) -> None:
    assert parse_arguments(["--schemas", schemas]).label == "full"
    assert parse_arguments(["--only", "nginx", "--schemas", schemas]).label == "partial"
    assert parse_arguments(["--loads", "c64", "--schemas", schemas]).label == "partial"
    assert parse_arguments(["--schemas", schemas]).servers == tuple(CATALOGUE)


def test_peers_are_not_measured_with_pipelining(schemas: str) -> None:
    plan = parse_arguments(["--schemas", schemas])
    assert [load.name for load in plan.loads_of(CATALOGUE["fastify"])] == ["c64", "c1000"]
    assert [load.name for load in plan.loads_of(CATALOGUE["nginx"])] == ["c64", "c1000", "p16"]


@pytest.mark.parametrize(
    "arguments", [["--only", "nignx"], ["--only", ""], ["--rounds", "0"], ["--seconds", "x"]]
)
def test_mistakes_end_with_usage(
    arguments: list[str], schemas: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_arguments([*arguments, "--schemas", schemas])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_progress_counts_steps_and_forgets_those_that_will_not_come() -> None:
    stream = io.StringIO()
    progress = Progress(4, stream)
    progress.step("first")
    progress.note("found")
    progress.skip(2)
    progress.step("second")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/4] first"
    assert lines[1].strip() == "found"
    assert lines[2].startswith("[2/2, about ")
    assert lines[2].endswith("second")
