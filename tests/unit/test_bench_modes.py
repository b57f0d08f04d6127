"""What the harness measures beside the table: its inputs, its sums and its pages."""

import io
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest

from ops.bench import aims, batches, curves, decoders, flame, flamegraph, modes, openloop, page
from ops.bench import durability as durability_mode
from ops.bench import workers as workers_mode
from ops.bench.bench import parse_arguments
from ops.bench.machine import Cores
from ops.bench.progress import Progress
from ops.bench.stage import Stage
from ops.bench.tables import table


def stage(quick: bool = False) -> Stage:
    return Stage(Cores(None, None), Progress(0, io.StringIO()), 2, 1, Path("schemas"), (), quick)


# -- the command line ---------------------------------------------------------------------------


def test_a_mode_is_asked_for_by_its_flag() -> None:
    plan = parse_arguments(["--open-loop"])
    assert (plan.mode, plan.label) == ("open-loop", "open-loop")
    assert (plan.rounds, plan.seconds) == (modes.ROUNDS, modes.SECONDS)


def test_a_quick_look_does_not_replace_the_results_of_a_whole_run() -> None:
    plan = parse_arguments(["--curves", "--quick"])
    assert (plan.mode, plan.label, plan.quick) == ("curves", "quick.curves", True)


def test_two_modes_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--curves", "--batches"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("mode", modes.MODES)
def test_every_mode_says_how_much_there_is_to_do(mode: str) -> None:
    module = modes.module_of(mode)
    assert 0 < module.steps(stage(quick=True)) <= module.steps(stage())
    assert module.TAKING.format(rounds=1, seconds=2)


# -- latency ------------------------------------------------------------------------------------


def latency_row(p99_ms: float, disturbed: str = "", **changes: Any) -> dict[str, Any]:
    row = {"server": "ingest-fsync", "connections": 64, "share": 0.5, "maximum": 50_000.0,
           "rate": 25_000.0, "achieved": 25_000.0, "requests": 100, "failures": 1, "p50_ms": 0.5,
           "p99_ms": p99_ms, "p999_ms": 4.0, "max_ms": 9.0, "late_p99_ms": 0.01,
           "late_max_ms": 0.2, "core_share": 1.0, "disturbed": disturbed}  # fmt: skip
    return row | changes


def test_a_disturbed_round_counts_only_where_there_is_no_other() -> None:
    rows = [latency_row(2.0), latency_row(90.0, "busy"), latency_row(4.0)]
    assert openloop.summary({"rounds": rows})[0]["p99_ms"] == 3.0
    assert openloop.summary({"rounds": rows[1:2]})[0]["p99_ms"] == 90.0


def test_failures_of_disturbed_rounds_count_all_the_same() -> None:
    rows = [latency_row(2.0), latency_row(90.0, "busy")]
    assert openloop.summary({"rounds": rows})[0]["failures"] == 2


@pytest.mark.parametrize(
    ("late_us", "core_share", "words"),
    [(499.0, 1.0, ""), (501.0, 1.0, "late"), (1.0, 0.94, "94% of its core")],
)
def test_the_generator_says_when_it_is_not_to_be_trusted(
    late_us: float, core_share: float, words: str
) -> None:
    quantiles = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p99.9": 4.0, "max": 5.0}
    found = openloop.parse(
        json.dumps({
            "rate": 10.0, "achieved": 10.0, "requests": 10, "answered": 9, "non_2xx": 1,
            "broken": 2, "unanswered": 4, "core_share": core_share, "latency": quantiles,
            "late": quantiles | {"p99": late_us},
        })
    )  # fmt: skip
    assert words in found.disturbed
    assert bool(found.disturbed) == bool(words)
    assert found.failures == 7
    assert found.p999_ms == 0.004


# -- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", batches.FORMS)
def test_no_event_and_no_body_is_sent_twice(form: str) -> None:
    pool = batches.body_pool(batches.Point(form, 3, 10))
    assert len(set(pool)) == len(pool) >= 2
    if form == "ndjson":
        lines = b"".join(pool).splitlines()
        assert len(set(lines)) == len(lines) == 10 * len(pool)
    if form == "array":
        assert {len(json.loads(body)) for body in pool} == {10}


def batch_row(number: int, form: str, events: int, per_second: float) -> dict[str, Any]:
    return {"round": number, "form": form, "metrics": 1, "events": events, "connections": 16,
            "bytes_per_event": 100.0, "events_per_second": per_second, "cpu_us_per_event": 1.0,
            "core_share": 1.0, "client_share": 0.1, "p50_ms": 1.0, "p99_ms": 2.0,
            "failures": 0}  # fmt: skip


BATCHES = {
    "rounds": [
        batch_row(0, "single", 1, 40_000), batch_row(0, "ndjson", 1000, 400_000),
        batch_row(1, "single", 20_000, 0) | {"events": 1, "events_per_second": 20_000},
        batch_row(1, "ndjson", 1000, 600_000),
    ]
}  # fmt: skip


def test_a_batch_is_compared_with_single_requests_of_the_same_round() -> None:
    row = batches.summary(BATCHES)[1]
    assert row["events_per_second"] == 500_000
    assert row["of_single"] == 20.0  # the median of 10 and 30; by medians it would be 16.7


# -- curves -------------------------------------------------------------------------------------


def test_what_the_curves_post_is_valid_under_their_schemas() -> None:
    validators = {
        type_: jsonschema_rs.validator_for(schema) for type_, schema in curves.schemas().items()
    }
    for case in curves.cases(quick=False):
        assert validators[case.type].is_valid(json.loads(case.body)), (case.curve, case.x)


def test_bodies_of_a_size_are_at_most_that_size_and_nearly_as_large() -> None:
    for case in curves.cases(quick=False):
        if case.curve == "size":
            assert isinstance(case.x, int)
            assert case.x - 120 <= len(case.body) <= case.x


# -- decoders -----------------------------------------------------------------------------------


def test_a_strict_decoder_is_found_strict_and_a_lenient_one_is_not() -> None:
    assert decoders.judge(orjson.loads) == {"accepts_wrongly": [], "refuses_wrongly": []}
    lenient = decoders.judge(json.loads)
    assert dict(decoders.kinds(lenient["accepts_wrongly"]))["nan"] == 5
    assert lenient["refuses_wrongly"] == []


def test_every_document_is_one_that_all_must_accept() -> None:
    for words, raw in decoders.documents().values():
        assert orjson.loads(raw) is not None, words


# -- the flame graph ----------------------------------------------------------------------------


def test_stacks_of_other_threads_are_left_out_and_lines_of_a_function_are_one() -> None:
    raw = ["thread (7);run (a.py:1);send (b.py:2) 3", "thread (8);wait (c.py:1) 9",
           "thread (7);run (a.py:5);send (b.py:9) 4"]  # fmt: skip
    assert flame.stacks_of(raw, "thread (7)") == {("run (a.py)", "send (b.py)"): 7}


def test_a_sample_belongs_to_the_component_on_top_of_its_stack() -> None:
    script = """
 ffffffff81 tcp_ack ([kernel.kallsyms])
 ffffffff82 __x64_sys_sendto ([kernel.kallsyms])
 7fcf __send (/usr/lib/x86_64-linux-gnu/libc.so.6)

 ffffffff81 ext4_sync ([ext4])
 ffffffff82 __x64_sys_fdatasync ([kernel.kallsyms])

 ffffffff81 asm_sysvec ([kernel.kallsyms])

 7fcf loads (/x/python3.11/site-packages/orjson/orjson.cpython-311-x86_64-linux-gnu.so)

 7fcf _PyEval_EvalFrameDefault (/root/lib/libpython3.11.so.1.0)
 7fcf [unknown] ([unknown])
""".splitlines()
    assert flame.components_of(script) == {
        "kernel: send": 1,
        "kernel: fdatasync": 1,
        "kernel: interrupts, faults and switches": 1,
        "orjson": 1,
        "Python interpreter": 1,
    }


def test_frames_that_begin_alike_are_drawn_as_one() -> None:
    frames = flamegraph.frames({("a", "b"): 3, ("a", "c"): 5, ("d",): 2})
    assert frames == [("a", 0, 8, 0), ("c", 0, 5, 1), ("b", 5, 3, 1), ("d", 8, 2, 0)]


def test_names_cannot_break_the_picture() -> None:
    picture = flamegraph.svg({('<lambda> & "x"',): 1}, "a < b")
    assert "<lambda>" not in picture
    assert "&lt;lambda&gt; &amp;" in picture


# -- what is written into pages -----------------------------------------------------------------


def test_a_table_has_words_left_and_numbers_right() -> None:
    assert table(("a", "b"), [("x", "1")]).splitlines() == ["| a | b |", "| --- | ---: |",
                                                          "| x | 1 |"]  # fmt: skip


def save(directory: Path, name: str, document: dict[str, Any]) -> None:
    (directory / f"{name}.json").write_text(json.dumps({"conditions": {}} | document))


def measured_servers() -> dict[str, Any]:
    def server(c64: list[float | None]) -> dict[str, Any]:
        rounds = [
            value and {"requests": 1, "requests_per_second": value, "p50_ms": 1.0, "p99_ms": 2.0,
                       "failures": 0, "cpu_us": 9.0, "core_share": 1.0, "client_share": 0.5,
                       "rss_bytes": 1}
            for value in c64
        ]  # fmt: skip
        return {"title": "t", "version": "1", "loads": {"c64": {"rounds": rounds}}, "ladder": []}

    return {"servers": {"nginx": server([100.0, 100.0, 50.0]),
                        "ingest-fsync": server([44.0, None, 20.0])}}  # fmt: skip


def cells(page_text: str, words: str) -> list[str]:
    line = next(line for line in page_text.splitlines() if words in line)
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_table_of_aims_tells_what_is_reached_what_is_not_and_what_is_unknown(
    tmp_path: Path,
) -> None:
    save(tmp_path, "batches", BATCHES)
    save(tmp_path, "open-loop", {"rounds": [latency_row(4.9), latency_row(5.1, connections=1000)]})
    save(tmp_path, "crowd", {"connections": 100_000, "answered_again": 99_999, "kib_each": 10.0})
    text = page.render("<!-- measured: aims -->\n<!-- end -->", tmp_path)
    assert cells(text, "(one metric, 100 bytes)")[1:] == ["20.0 x and 500,000/s", "yes"]
    assert cells(text, "three metrics")[1:] == ["-", "-"]
    assert cells(text, "p99 at half")[1:] == ["4.90 / 5.10 ms", "**no**"]
    assert cells(text, "resident in the server")[1:] == ["10.0 KiB; 100.00% of 100,000", "**no**"]
    assert cells(text, "Fastify")[1:] == ["-", "-"]


def test_an_aim_at_two_loads_is_not_reached_by_one() -> None:
    rows = aims.against_servers(measured_servers())
    assert rows[0].measured == "0.42 / -", "the median of the ratios of rounds 1 and 3"
    assert rows[0].reached is None


def test_two_workers_are_compared_with_one_of_the_same_round(tmp_path: Path) -> None:
    def row(number: int, workers: int, per_second: float) -> dict[str, Any]:
        return {"round": number, "ack": "fsync", "workers": workers, "connections": 64, "depth": 1,
                "requests_per_second": per_second, "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us": 9.0,
                "core_share": 1.0, "client_share": 0.5, "rss_bytes": 1, "failures": 0}  # fmt: skip

    rounds = [row(0, 1, 100.0), row(0, 2, 150.0), row(1, 1, 50.0), row(1, 2, 65.0)]
    assert workers_mode.summary({"rounds": rounds})[1]["of_one"] == pytest.approx(1.4)


def test_what_was_committed_between_two_scrapes_gives_the_size_of_a_commit() -> None:
    names = ("commit_records", "commit_seconds", "sync_seconds")
    before = {f"{name}_{kind}": 2.0 for name in names for kind in ("sum", "count")}
    after = {**before, "commit_records_sum": 32.0, "commit_records_count": 5.0}
    after |= {"commit_seconds_sum": 2.006, "commit_seconds_count": 5.0}
    seen = durability_mode.between(before, after)
    assert seen["records"] == pytest.approx(10.0)
    assert seen["commit_ms"] == pytest.approx(2.0)
    assert seen["sync_ms"] is None, "nothing was synced"


def test_durability_is_compared_with_no_journal_in_the_same_round() -> None:
    def row(number: int, ack: str, per_second: float) -> dict[str, Any]:
        return {"round": number, "ack": ack, "connections": 1, "requests_per_second": per_second,
                "p50_ms": 1.0, "p99_ms": 2.0, "cpu_us": 9.0, "core_share": 1.0,
                "client_share": 0.5, "records": 1.0, "commit_ms": None, "sync_ms": None,
                "failures": 0}  # fmt: skip

    rounds = [row(0, "none", 100.0), row(0, "fsync", 50.0), row(0, "write", 60.0)]
    rounds += [row(1, "none", 50.0), row(1, "fsync", 20.0), row(1, "write", 40.0)]
    found = {one["ack"]: one for one in durability_mode.summary({"rounds": rounds})}
    assert found["fsync"]["of_free"] == pytest.approx(0.45)
    assert found["write"]["of_free"] == pytest.approx(0.7)
    assert "| 1 | fdatasync | 35 | 0.45 |" in durability_mode.markdown({"rounds": rounds})


def test_a_page_says_how_to_get_what_is_missing(tmp_path: Path) -> None:
    text = "a\n<!-- measured: curves -->\nold\n<!-- end -->\nb"
    after = page.render(text, tmp_path)
    assert "`make bench BENCH=--curves`" in after
    assert "old" not in after
    assert after.startswith("a\n<!-- measured: curves -->\n")
    assert after.endswith("\n<!-- end -->\nb")
    assert page.render(after, tmp_path) == after


def test_an_unknown_block_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="speed"):
        page.render("<!-- measured: speed -->\n<!-- end -->", tmp_path)
