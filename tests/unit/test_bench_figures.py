"""The harness's own arithmetic: what it reads, and what it makes of it."""

import sys
from collections import Counter
from pathlib import Path

import gevent
import pytest

from ops.bench import checks
from ops.bench.client import Outcome
from ops.bench.ladder import judge
from ops.bench.machine import parse_cpu_list
from ops.bench.process import (
    TICKS_PER_SECOND,
    ServerFailed,
    ServerProcess,
    Usage,
    parse_stat,
    session_stats,
)
from ops.bench.wrk import LOADS, Figures, Run, measure, parse_figures

FIGURES = (
    "Running 2s test\n\nFIGURES "
    '{"requests":1000,"seconds":2.0,"p50_us":250.0,"p99_us":1500.0,'
    '"non_2xx":1,"connect":2,"read":4,"write":8,"timeout":16}\n'
)


def stat_line(command: str = "python") -> str:
    """A line in the form of proc_pid_stat(5): field n holds n, but for the first three."""
    return f"4711 ({command}) S " + " ".join(str(n) for n in range(4, 53)) + "\n"


def test_a_stat_line_gives_session_time_with_reaped_children_and_memory() -> None:
    stat = parse_stat(stat_line())
    assert (stat.pid, stat.state, stat.session) == (4711, "S", 6)
    assert stat.cpu_ticks == 14 + 15 + 16 + 17
    assert stat.rss_pages == 24


def test_a_command_with_blanks_and_parentheses_shifts_no_field() -> None:
    assert parse_stat(stat_line("a) b (c")) == parse_stat(stat_line())


def test_a_line_of_this_kernel_is_read() -> None:
    stat = parse_stat(Path("/proc/self/stat").read_text())
    assert stat.rss_pages > 0
    assert stat.cpu_ticks / TICKS_PER_SECOND < 1e6


def test_wrk_figures_are_found_and_every_kind_of_error_is_a_failure() -> None:
    figures = parse_figures(FIGURES)
    assert figures == Figures(1000, 2.0, 250e-6, 1500e-6, failures=31)


def test_output_without_figures_is_quoted() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        parse_figures("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_cpu_is_the_difference_over_the_run_for_each_request() -> None:
    around = Run(Usage(1.0, 0), Usage(2.5, 0), rss_bytes=77, client_cpu_seconds=1.0)
    found = measure(parse_figures(FIGURES), LOADS["c64"], around)
    assert found.cpu_us == pytest.approx(1500.0)
    assert found.core_share == pytest.approx(0.75)
    assert found.client_share == pytest.approx(0.5)
    assert found.requests_per_second == pytest.approx(500.0)
    assert (found.p50_ms, found.p99_ms) == (pytest.approx(0.25), pytest.approx(1.5))
    assert found.rss_bytes == 77


def test_a_run_without_an_answer_divides_by_nothing() -> None:
    around = Run(Usage(1.0, 0), Usage(1.5, 0), rss_bytes=0, client_cpu_seconds=0.0)
    found = measure(Figures(0, 2.0, 0.0, 0.0, failures=64), LOADS["c64"], around)
    assert (found.requests_per_second, found.failures) == (0.0, 64)


def test_pipelined_runs_state_no_latency() -> None:
    around = Run(Usage(0.0, 0), Usage(1.0, 0), rss_bytes=0, client_cpu_seconds=0.0)
    found = measure(parse_figures(FIGURES), LOADS["p16"], around)
    assert (found.p50_ms, found.p99_ms) == (None, None)


def test_the_ladder_counts_refusals_and_silence_as_failures() -> None:
    outcome = Outcome(Counter({202: 70, 503: 20}), Counter(), 10, 2.0, latency_seconds=0.9)
    rung = judge(10, 10, outcome)
    assert rung.success_rate == pytest.approx(0.7)
    assert rung.mean_ms == pytest.approx(10.0)
    assert rung.requests_per_second == pytest.approx(45.0)


def test_the_body_is_the_one_that_the_figures_are_about() -> None:
    assert len(checks.BODY) == 276
    assert len(checks.EVENT["metrics"]) == 3


@pytest.mark.parametrize(
    ("text", "cores"), [("0-2,8\n", {0, 1, 2, 8}), ("3", {3}), ("", set()), ("0,4", {0, 4})]
)
def test_kernel_cpu_lists_are_read(text: str, cores: set[int]) -> None:
    assert parse_cpu_list(text) == cores


def test_stored_events_are_the_lines_of_all_segments(tmp_path: Path) -> None:
    for partition, lines in (("0", 3), ("1", 4)):
        directory = tmp_path / "journal" / partition
        directory.mkdir(parents=True)
        (directory / f"{0:020}.ndjson").write_bytes(b"{}\n" * lines)
        (directory / f"{0:020}.torn-1").write_bytes(b"{}\n{}\n")
    assert checks.stored_events(tmp_path) == 7


#: Uses CPU time in a child, lets that end, and then has a second one that does not heed SIGTERM.
FAMILY = """
import os, signal, sys, time
if os.fork() == 0:
    while sum(os.times()[:2]) < 0.2:
        pass
    os._exit(0)
os.wait()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn", flush=True)
    signal.pause()
signal.pause()
"""


def test_a_server_is_counted_and_stopped_with_all_its_children(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAMILY]
    server = ServerProcess(command, cpu=None, environment={}, directory=tmp_path)
    try:
        while "stubborn" not in server.output_tail():
            server.check_alive()
            gevent.sleep(0.01)
        usage = server.usage()
        family = list(session_stats(server.pid))
    finally:
        server.stop()
    assert len(family) == 2
    assert usage.cpu_seconds >= 0.2, "the time of the child that has ended"
    assert usage.rss_bytes > 2**20
    left = [stat.state for stat in session_stats(server.pid)]
    assert set(left) <= {"Z"}, "whoever adopted the child may not have reaped it yet"


def test_a_server_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such schema')"]
    server = ServerProcess(command, cpu=None, environment={}, directory=tmp_path)
    try:
        with pytest.raises(ServerFailed, match=r"exit code 1:\n +no such schema"):
            checks.wait_until_serving(server, port=1)
    finally:
        server.stop()
