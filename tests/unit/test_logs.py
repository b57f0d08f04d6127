"""Logging: what a line looks like, and that writing it never stops the service.

What needs logging set up runs in a process of its own: logging is process-wide.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import gevent
import pytest
import yaml
from gevent.event import Event
from gevent.monkey import get_original
from hypothesis import given
from hypothesis import strategies as st

from ingest.logs import DEFAULT_CONFIG, AccessLog, LogWriter
from ingest.logs_render import LINE_MAX_BYTES, EventFormatter, json_line, json_text, timestamp
from ingest.logs_writer import BLOCK_MAX_BYTES
from ingest.metrics import Metrics

#: Unpatched: gevent's own closes a pipe only when the event loop next runs.
close = get_original("os", "close")

ROOT = Path(__file__).resolve().parent.parent.parent

#: Every program below starts like the product: patched first.
PREAMBLE = """
from gevent import monkey; monkey.patch_all()
import logging, os, sys, time, warnings
import gevent, structlog
from gevent.hub import get_hub
from pathlib import Path
from ingest import logs
from ingest.metrics import Metrics
metrics = Metrics()
"""


def start(program: str, **streams: Any) -> subprocess.Popen[bytes]:
    source = PREAMBLE + textwrap.dedent(program)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, env=env, **streams)


def run(program: str) -> tuple[list[dict[str, Any]], str]:
    """Run a program; its log lines, and what it printed."""
    process = start(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in err.decode().splitlines()], out.decode()


# -- one line -----------------------------------------------------------------------------


def test_a_line_has_its_keys_in_order_then_context_then_data() -> None:
    lines, _ = run("""
        logs.configure(Path("logging.yaml"), worker=3, metrics=metrics)
        structlog.contextvars.bind_contextvars(request_id="r-1")
        logs.get_logger("ingest.journal").warning("journal.torn_tail_cut", bytes=17, é="ü/")
    """)
    stamp = lines[0].pop("timestamp")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert list(lines[0].items()) == [
        ("level", "warning"),
        ("event", "journal.torn_tail_cut"),
        ("logger", "ingest.journal"),
        ("service", "ingest"),
        ("worker", 3),
        ("request_id", "r-1"),
        ("bytes", 17),
        ("é", "ü/"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1795398896.0625, "2026-11-23T01:54:56.062Z"),
        (1795398896.9999, "2026-11-23T01:54:56.999Z"),
    ],
)
def test_timestamps_are_rfc_3339_in_utc_with_milliseconds(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


def test_stdlib_logging_structlog_and_warnings_end_in_the_same_lines() -> None:
    lines, _ = run("""
        logs.configure(None, metrics=metrics)
        logging.getLogger("urllib3").warning("retry %d of %s", 1, "x", extra={"host": "h"})
        structlog.get_logger("legacy").info("mine", a=1)
        logs.get_logger("ours").info("positional %s", "works")
        warnings.warn("careful", DeprecationWarning, stacklevel=1)
        warnings.simplefilter("always")
        warnings.warn("careful")
    """)
    assert [(line["logger"], line["event"]) for line in lines[:3]] == [
        ("urllib3", "retry 1 of x"),
        ("legacy", "mine"),
        ("ours", "positional works"),
    ]
    assert lines[0]["host"] == "h"
    assert lines[-1]["logger"] == "py.warnings"
    assert "UserWarning: careful" in lines[-1]["event"]


def test_an_error_carries_its_traceback_however_it_was_given() -> None:
    lines, _ = run("""
        logs.configure(None)
        log = logs.get_logger("x")
        try:
            {}["key"]
        except KeyError as error:
            log.error("instance", exc_info=error)
            log.error("true", exc_info=True)
            log.exception("exception")
            logging.exception("stdlib")
            kept = error
        log.error("afterwards", exc_info=kept)
        log.error("none", exc_info=True)
    """)
    for line in lines[:5]:
        assert line["exception"].endswith("KeyError: 'key'"), line
        assert line["exception"].startswith("Traceback")
    assert "exception" not in lines[5]


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class HostileText(str):
    __slots__ = ()
    __str__ = __repr__ = Hostile.__repr__


class HostileMapping(dict):
    def items(self) -> Any:
        raise RuntimeError("no")


class FalseError(Exception):
    def __bool__(self) -> bool:
        raise RuntimeError("no")

    def __str__(self) -> str:
        raise RuntimeError("no")


def deep(levels: int) -> Any:
    nested: Any = 1
    for _ in range(levels):
        nested = [nested]
    return nested


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

VALUES = {
    "surrogate": ("\ud800", "\\ud800"),
    "bytes": (b"\xff\x00", "\\xff\x00"),
    "not a number": (float("nan"), "nan"),
    "infinity": (float("-inf"), "-inf"),
    "float": (0.5, 0.5),
    "int of 64 bits": (2**63 - 1, 2**63 - 1),
    "int of 100 bits": (2**100, str(2**100)),
    "int too long to print": (10**9000, "<int of 29898 bits>"),
    "exception": (ValueError("why"), "ValueError: why"),
    "hostile": (Hostile(), "<Hostile that cannot be shown: RuntimeError>"),
    "hostile text": (HostileText("text"), "text"),
    "hostile mapping": (
        HostileMapping(a=1),
        "<HostileMapping that cannot be shown: RuntimeError>",
    ),
    "odd keys": ({1: 2, b"\xff": 3, None: 4}, {"1": 2, "\\xff": 3, "None": 4}),
    "set": ({1}, [1]),
    "none": (None, None),
    "bool": (True, True),
}


@pytest.mark.parametrize("name", VALUES)
def test_any_value_makes_a_line(name: str) -> None:
    given_value, shown = VALUES[name]
    assert json.loads(render(value=given_value))["value"] == shown


HUGE = {
    "text": "x" * 10_000_000,
    "controls": "\x00" * 100_000,
    "two-byte text": "é" * 100_000,
    "surrogates": "\ud800" * 100_000,
    "bytes": b"\xff" * 1_000_000,
    "list": list(range(100_000)),
    "mapping": {f"key {n}": "x" * 1000 for n in range(1000)},
    "wide nesting": [["x" * 100] * 100] * 100,
    "deep nesting": deep(10_000),
    "cycle": CYCLE,
    "key": {"k" * 100_000: 1},
    "other object": memoryview(b"x" * 100_000),
}


@pytest.mark.parametrize("name", HUGE)
def test_no_value_makes_a_line_too_long(name: str) -> None:
    line = render(value=HUGE[name], after=1)
    assert len(line.encode()) <= LINE_MAX_BYTES
    assert json.loads(line)["event"] == "some.event"


def test_many_keys_are_cut_and_the_line_says_so() -> None:
    line = json.loads(render(**{f"k{n}": "v" * 500 for n in range(5000)}))
    assert line["cut"] is True
    assert line["k0"].startswith("vvv")


def test_a_long_traceback_keeps_its_beginning_and_its_end() -> None:
    event = {"event": "x", "exception": "begin" + "\n  frame" * 5000 + "\nError: the end"}
    shown = json.loads(json_line(event))["exception"]
    assert shown.startswith("begin")
    assert shown.endswith("Error: the end")
    assert len(shown) < LINE_MAX_BYTES


def test_data_cannot_take_the_place_of_a_lines_own_keys() -> None:
    line = json.loads(render(level="mine", timestamp=1, exception="text", worker=99))
    assert line["level"] == "info"
    assert line["worker"] == 7
    assert (line["level_"], line["timestamp_"], line["exception_"]) == ("mine", 1, "text")


def test_an_exception_that_cannot_be_shown_still_makes_a_line() -> None:
    line = json.loads(render(exc_info=FalseError()))
    assert "FalseError" in line["exception"]


def test_a_message_with_wrong_arguments_is_reported_in_its_place() -> None:
    record = logging.LogRecord("lib", logging.INFO, "lib.py", 12, "%d apples", ("no",), None)
    line = json.loads(EventFormatter("ingest", 0, False, False).format(record))
    assert line["event"] == "logs.unrenderable"
    assert line["message"] == "%d apples"
    assert line["file"] == "lib.py:12"
    assert line["error"].startswith("TypeError")


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.binary()
        | st.text(st.characters(exclude_categories=()), max_size=50),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_is_logged_is_one_line_of_utf_8_json(value: Any) -> None:
    encoded = render(value=value).encode()
    assert b"\n" not in encoded
    assert "value" in json.loads(encoded)


@given(st.text(st.characters(exclude_categories=())))
def test_the_quick_way_to_json_text_is_right(text: str) -> None:
    expected = text.encode("utf-8", "backslashreplace").decode()
    assert json.loads(json_text(text)) == expected


def record_of(**data: Any) -> logging.LogRecord:
    record = logging.LogRecord("a.logger", logging.INFO, "f.py", 1, "", None, None)
    record.msg = {"event": "some.event", **data}  # type: ignore[assignment]
    record._logger = None
    return record


def render(**data: Any) -> str:
    return EventFormatter("ingest", 7, False, False).format(record_of(**data))


# -- the console ------------------------------------------------------------------------


def console(**data: Any) -> str:
    return EventFormatter("ingest", 0, True, False).format(record_of(**data))


def test_the_console_shows_a_line_for_a_person() -> None:
    line = console(bytes=17)
    assert "[info" in line
    assert "some.event" in line
    assert "bytes=17" in line
    assert "service" not in line


def test_the_terminal_gets_no_control_characters_from_data() -> None:
    line = console(text="\x1b[2J\r\n\x9b", bad="\ud800", nested=["\x1b[2J"], **{"\x1b[1m": 1})
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line)
    line.encode()


def test_the_console_puts_the_traceback_below() -> None:
    try:
        raise ValueError("bad \x1b[2J thing")
    except ValueError as error:
        first, *below = console(exc_info=error).splitlines()
    assert "some.event" in first
    assert below[0].startswith("Traceback")
    assert below[-1] == "ValueError: bad \\x1b[2J thing"


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_a_terminal_gets_text_and_colours_unless_unwanted(no_color: str, colored: bool) -> None:
    outer, inner = pty.openpty()
    process = start(
        f"""
        os.environ["NO_COLOR"] = {no_color!r}
        logs.configure(None)
        logs.get_logger("x").info("some.event", bytes=17)
        """,
        stderr=inner,
    )
    assert process.wait(60) == 0
    shown = os.read(outer, 65536)
    close(inner)
    close(outer)
    assert b"some.event" in shown
    assert (b"\x1b[" in shown) is colored
    assert not shown.startswith(b"{")


# -- configuration ------------------------------------------------------------------------


def test_the_shipped_file_says_what_applies_without_it() -> None:
    assert yaml.safe_load((ROOT / "logging.yaml").read_text()) == DEFAULT_CONFIG


def test_levels_and_style_come_from_the_file(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "logging.yaml").read_text())
    config["formatters"]["event"]["style"] = "console"
    config["loggers"] = {"loud": {"level": "DEBUG"}, "quiet": {"level": "ERROR"}}
    (tmp_path / "logging.yaml").write_text(yaml.safe_dump(config))
    process = start(
        f"""
        logs.configure(Path({str(tmp_path / "logging.yaml")!r}))
        for name in ("loud", "quiet", "other"):
            logs.get_logger(name).debug("debug." + name)
            logs.get_logger(name).warning("warning." + name)
        """,
        stderr=subprocess.PIPE,
    )
    shown = process.communicate(timeout=60)[1].decode()
    assert re.findall(r"(?:debug|warning)\.\w+", shown) == [
        "debug.loud",
        "warning.loud",
        "warning.other",
    ]
    assert not shown.startswith("{")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("version: 1\nroot: {handlers: [nobody]}\n", "nobody"),
        ("version: 2\n", "version"),
        ("- a\n", "mapping"),
        ("a: [\n", "line 2"),
        ("version: 1\nhandlers: {h: {class: no.such.Thing}}\n", "h"),
        ("version: 1\nformatters: {f: {(): ingest.logs.formatter, style: loud}}\n", "loud"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, text: str | None, reason: str
) -> None:
    path = tmp_path / "logging.yaml"
    if text is not None:
        path.write_text(text)
    _, out = run(f"""
        try:
            logs.configure(Path({str(path)!r}))
        except logs.LogConfigError as error:
            print(error)
    """)
    assert out.startswith(f"{path}: ")
    assert reason in out


def test_loggers_that_exist_already_stay_on_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "logging.yaml").read_text())
    del config["disable_existing_loggers"]
    (tmp_path / "logging.yaml").write_text(yaml.safe_dump(config))
    lines, _ = run(f"""
        log = logging.getLogger("made.before")
        logs.configure(Path({str(tmp_path / "logging.yaml")!r}))
        log.info("some.event")
    """)
    assert [line["event"] for line in lines] == ["some.event"]


def test_configuring_again_replaces_the_writer_and_loses_nothing() -> None:
    lines, _ = run("""
        log = logs.get_logger("x")
        log.info("before")
        logs.configure(None, worker=1)
        log.info("first")
        logs.configure(None, worker=2)
        log.info("second")
    """)
    assert [(line["event"], line["worker"]) for line in lines] == [("first", 1), ("second", 2)]


# -- the writer ---------------------------------------------------------------------------


def report(lines: int) -> bytes:
    return b"lost %d\n" % lines


def elsewhere(function: Any, *arguments: Any) -> Any:
    """Call what blocks its thread in another one, so that the readers here can read."""
    return gevent.get_hub().threadpool.apply(function, arguments)


def drain(fd: int) -> bytes:
    """Everything up to the end of a pipe, without holding up the other greenlets."""
    parts = []
    while part := elsewhere(os.read, fd, 65536):
        parts.append(part)
    return b"".join(parts)


def filled_pipe() -> tuple[int, int, int]:
    """A pipe nobody reads and that holds no byte more: both ends and what it holds."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    held = 0
    for size in (65536, 1):
        while True:
            try:
                held += os.write(writing, b"." * size)
            except BlockingIOError:
                break
    os.set_blocking(writing, True)
    return reading, writing, held


def test_lines_are_written_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing, queue_max=10_000, report=report)
    lines = [b"%d %s\n" % (n, b"x" * (n * 37 % 6000)) for n in range(2000)]
    read = gevent.spawn(drain, reading)
    for line in lines:
        writer.write(line)
    assert elsewhere(writer.stop, 30)
    close(writing)
    assert read.get(timeout=30) == b"".join(lines)
    close(reading)
    assert writer.dropped == 0


def test_a_write_to_a_pipe_holds_whole_lines_and_is_small_enough_to_be_atomic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing, held = filled_pipe()
    writer = LogWriter(writing, queue_max=10_000, report=report)
    real_write = os.write
    written: list[bytes] = []

    def write(fd: int, data: Any) -> int:
        if fd == writing:
            written.append(bytes(data))
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    for number in range(1000):
        writer.write(b"line %d\n" % number)
    read = gevent.spawn(drain, reading)
    assert elsewhere(writer.stop, 30)
    close(writing)
    assert read.get(timeout=30)[held:] == b"".join(written)
    close(reading)
    assert all(len(block) <= BLOCK_MAX_BYTES and block.endswith(b"\n") for block in written)
    assert len(written) < 100, "lines should share their writes"


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stuck_reader_stops_nobody_and_the_loss_is_told_in_one_line(blocking: bool) -> None:
    reading, writing, held = filled_pipe()
    os.set_blocking(writing, blocking)
    metrics = Metrics()
    writer = LogWriter(writing, queue_max=100, report=report, metrics=metrics)
    turns = 0

    def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    ticker = gevent.spawn(count_turns)
    for number in range(1000):
        writer.write(b"line %d\n" % number)
        gevent.sleep(0)
    ticker.kill()
    assert turns >= 1000, "the event loop stood still"
    lost = writer.dropped
    # The thread holds one more block than the queue; how many lines that is, is its affair.
    assert 1000 - 100 - BLOCK_MAX_BYTES // 7 <= lost <= 900
    assert not writer.flush(0.01)

    read = gevent.spawn(drain, reading)
    assert elsewhere(writer.flush, 30)
    writer.write(b"afterwards\n")
    assert writer.stop(30)
    close(writing)
    shown = read.get(timeout=30)[held:].splitlines()
    close(reading)
    assert [line for line in shown if line.startswith(b"lost")] == [b"lost %d" % lost]
    written = [line for line in shown if line.startswith(b"line")]
    assert len(written) + lost == 1000
    assert written == sorted(written, key=lambda line: int(line.split()[1]))
    assert shown[-1] == b"afterwards"
    assert metrics.log_lines_dropped.read() == lost


def test_the_service_serves_on_while_nobody_reads_its_stderr() -> None:
    reading, writing, held = filled_pipe()
    process = start(
        """
        logs.configure(None, queue_max=50, metrics=metrics)
        log = logs.get_logger("x")
        for number in range(500):
            log.info("number", n=number)
            gevent.sleep(0)
        print("served", int(metrics.log_lines_dropped.read() > 0), flush=True)
        sys.stdin.readline()
        assert logs._Current.writer.stop(30)
        print(int(metrics.log_lines_dropped.read()), metrics.log_lines.cell("info").value)
        """,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writing,
    )
    close(writing)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"served 1\n"
    read = gevent.spawn(drain, reading)
    out, _ = process.communicate(b"go on\n", timeout=60)
    dropped, made = map(int, out.split())
    lines = [json.loads(line) for line in read.get(timeout=30)[held:].splitlines()]
    close(reading)
    told = [line for line in lines if line["event"] == "logs.lines_dropped"]
    assert [line["lines"] for line in told] == [dropped]
    assert told[0]["level"] == "warning"
    assert made == 500 == len(lines) - 1 + dropped


def test_a_reader_that_went_away_costs_only_the_lines() -> None:
    reading, writing = os.pipe()
    close(reading)
    writer = LogWriter(writing, queue_max=10, report=report)
    writer.write(b"a\n")
    writer.write(b"b\nc\n", 2)
    assert writer.stop(10)
    close(writing)
    assert writer.dropped == 3


def test_a_full_disk_is_told_when_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing, queue_max=10, report=report)
    real_write = os.write
    full = True

    def write(fd: int, data: Any) -> int:
        if full and fd == writing:
            raise OSError(errno.ENOSPC, "disk full")
        return real_write(fd, data)

    monkeypatch.setattr(os, "write", write)
    writer.write(b"a\n")
    assert writer.flush(10)
    full = False
    writer.write(b"b\n")
    assert writer.stop(10)
    close(writing)
    assert drain(reading) == b"b\nlost 1\n"
    close(reading)


def test_what_is_written_after_the_stop_is_counted_as_lost() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing, queue_max=10, report=report)
    writer.write(b"a\n")
    assert writer.stop(10)
    assert writer.stop(10)
    writer.write(b"b\n")
    close(writing)
    assert drain(reading) == b"a\n"
    close(reading)
    assert writer.dropped == 1


def test_stopping_a_writer_that_never_wrote_waits_for_nothing() -> None:
    assert LogWriter(2, queue_max=10, report=report).stop(0)


def test_a_native_thread_writes_so_the_hub_has_no_part_in_it() -> None:
    lines, out = run("""
        logs.configure(None)
        import _thread
        threads = _thread._count()
        logs.get_logger("x").info("some.event")
        assert logs._Current.writer.flush(30)
        print(_thread._count() - threads)
    """)
    assert lines[0]["event"] == "some.event"
    assert out == "1\n"


def test_lines_logged_before_a_fork_appear_once_and_the_child_can_log() -> None:
    lines, _ = run("""
        logs.configure(None)
        log = logs.get_logger("x")
        log.info("parent.before")
        from gevent.monkey import get_original
        # Not gevent's: its waitpid now and then misses a child that ends at once.
        child = get_original("os", "fork")()
        if child == 0:
            log.info("child")
            logs._Current.writer.stop(30)
            os._exit(0)
        get_original("os", "waitpid")(child, 0)
        log.info("parent.after")
    """)
    events = [line["event"] for line in lines]
    assert sorted(events) == ["child", "parent.after", "parent.before"]


def test_lines_are_written_even_if_nobody_stops_the_writer() -> None:
    lines, _ = run("""
        logs.configure(None)
        for number in range(1000):
            logs.get_logger("x").info("number", n=number)
    """)
    assert [line["n"] for line in lines] == list(range(1000))


def test_lines_are_counted_by_level() -> None:
    _, out = run("""
        logs.configure(None, metrics=metrics)
        log = logs.get_logger("x")
        log.info("a"); log.info("b"); log.error("c"); log.debug("not shown")
        print({level: cell.value for (level,), cell in metrics.log_lines.items() if cell.value})
    """)
    assert out == "{'info': 2, 'error': 1}\n"


# -- errors nobody caught --------------------------------------------------------------------


def test_a_greenlet_that_dies_is_logged_and_counted_and_an_exit_is_not() -> None:
    lines, out = run("""
        logs.configure(None, metrics=metrics)
        logs.install_hub_error_handler(get_hub(), metrics)
        def fail():
            raise ValueError("gone")
        def leave():
            raise gevent.GreenletExit
        def leave_all():
            raise SystemExit(0)
        gevent.spawn(fail).join()
        gevent.spawn(leave).join()
        get_hub().loop.run_callback(fail)
        gevent.sleep(0)
        killed = gevent.spawn(gevent.sleep, 60)
        gevent.sleep(0)
        killed.kill()
        print(metrics.unhandled_errors.cell("hub").value)
        gevent.spawn(leave_all).join()
        print("not reached")
    """)
    assert out == "2\n"
    assert [line["event"] for line in lines] == ["hub.unhandled_error"] * 2
    assert lines[0]["exception"].endswith("ValueError: gone")
    assert "fail" in lines[0]["context"]


def test_an_interrupt_still_reaches_the_main_greenlet_and_is_no_error() -> None:
    lines, out = run("""
        logs.configure(None, metrics=metrics)
        logs.install_hub_error_handler(get_hub(), metrics)
        def interrupt():
            raise KeyboardInterrupt
        try:
            gevent.spawn(interrupt).join()
        except KeyboardInterrupt:
            print("interrupted", metrics.unhandled_errors.cell("hub").value)
    """)
    assert (lines, out) == ([], "interrupted 0\n")


def test_a_thread_or_finaliser_that_fails_is_logged_and_counted() -> None:
    lines, out = run("""
        import threading
        logs.configure(None, metrics=metrics)
        undo = logs.install_thread_error_handlers(metrics)
        def fail():
            raise ValueError("gone")
        def leave():
            raise SystemExit
        class Failing:
            def __del__(self):
                fail()
        for target in (fail, leave):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        Failing()
        print(*(metrics.unhandled_errors.cell(w).value for w in ("thread", "finaliser")))
        undo()
        assert threading.excepthook is not None and sys.unraisablehook is sys.__unraisablehook__
    """)
    assert out == "1 1\n"
    assert [line["event"] for line in lines] == [
        "thread.unhandled_error",
        "finaliser.unhandled_error",
    ]
    assert all(line["exception"].endswith("ValueError: gone") for line in lines)


# -- the access log ------------------------------------------------------------------------


class Lines:
    """Stands where the writer does and keeps what it is given."""

    def __init__(self, console: bool = False) -> None:
        self.service = "ingest"
        self.worker = 2
        self.console = console
        self.blocks: list[tuple[bytes, int]] = []
        self.levels: list[str] = []
        self.written = Event()

    def add_source(self, flush: Any) -> None:
        self.source = flush

    def count(self, level: str) -> None:
        self.levels.append(level)

    def write(self, data: bytes, lines: int = 1) -> None:
        self.blocks.append((data, lines))
        self.written.set()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for data, _ in self.blocks for line in data.splitlines()]


def access(mode: str, sample: float = 1.0, **keywords: Any) -> tuple[AccessLog, Lines]:
    lines = Lines()
    return AccessLog(mode, sample, lines, **keywords), lines  # type: ignore[arg-type]


def record(log: AccessLog, status: int = 202, **changes: Any) -> None:
    request = {
        "address": ("192.0.2.1", 5000),
        "method": "POST",
        "target": b"/v1/events/order",
        "request_bytes": 300,
        "response_bytes": 200,
        "duration_seconds": 0.0012345,
        "request_id": "r-1",
        "type": "order",
    }
    log.record(status=status, **{**request, **changes})


def test_an_access_line_says_who_asked_what_and_how_it_went() -> None:
    log, lines = access("all", clock=lambda: 0.5)
    record(log)
    log.flush()
    assert lines.lines == [
        {
            "timestamp": "1970-01-01T00:00:00.500Z",
            "level": "info",
            "event": "http.access",
            "logger": "ingest.access",
            "service": "ingest",
            "worker": 2,
            "request_id": "r-1",
            "address": "192.0.2.1",
            "method": "POST",
            "target": "/v1/events/order",
            "status": 202,
            "type": "order",
            "request_bytes": 300,
            "response_bytes": 200,
            "duration_seconds": 0.001234,
        }
    ]


def test_a_hostile_target_stays_one_bounded_line() -> None:
    log, lines = access("all")
    record(log, target=b'/"\\\n\xff\x00' + b"x" * 100_000, address="unix\n", request_id='"\ud800')
    record(log, target=b"\xff" * 8000, address="")
    log.flush()
    first, second = lines.lines
    assert first["target"].startswith('/"\\\n\\xff\x00xxx')
    assert (first["address"], second["address"]) == ("unix\n", "-")
    assert all(len(data) // count < 8192 for data, count in lines.blocks)


@pytest.mark.parametrize(
    ("mode", "statuses", "wants_success", "wants_error"),
    [
        ("off", [], False, False),
        ("errors", [400, 503], False, True),
        ("all", [202, 400, 207, 503], True, True),
    ],
)
def test_the_mode_decides_what_is_written(
    mode: str, statuses: list[int], wants_success: bool, wants_error: bool
) -> None:
    log, lines = access(mode)
    for status in (202, 400, 207, 503):
        record(log, status)
    log.flush()
    assert [line["status"] for line in lines.lines] == statuses
    assert (log.wants(202), log.wants(404)) == (wants_success, wants_error)


def test_a_sample_holds_all_errors_and_its_share_of_the_rest() -> None:
    draws = iter([0.0, 0.5, 0.999])
    log, lines = access("sample", 0.1, draw=lambda: next(draws, 0.9999999))
    assert log.gap == 0
    for number in range(20):
        record(log, request_id=str(number))
        record(log, 500, request_id="error")
    log.flush()
    # ln(1 - 0.5) / ln(1 - 0.1) = 6.58: six are skipped after the first, then 65 more.
    taken = [line["request_id"] for line in lines.lines if line["status"] == 202]
    assert taken == ["0", "7"]
    assert [line["status"] for line in lines.lines].count(500) == 20
    assert log.gap == 65 - 12


def test_each_answer_has_the_same_chance_to_be_sampled() -> None:
    import random

    draws = random.Random(20261123)
    log, lines = access("sample", 0.01, draw=draws.random)
    for _ in range(100_000):
        record(log)
    log.flush()
    assert 900 < len(lines.lines) < 1100


@pytest.mark.parametrize("share", [0.0, 1e-300, 1.0])
def test_a_share_at_the_edge_is_no_error(share: float) -> None:
    log, lines = access("sample", share)
    record(log)
    log.flush()
    assert len(lines.lines) == int(share)
    assert log.wants(202) is (share > 0)


def test_lines_leave_in_blocks_that_fit_a_pipes_atomic_write() -> None:
    log, lines = access("all")
    for number in range(100):
        record(log, request_id=str(number))
    log.flush()
    assert [line["request_id"] for line in lines.lines] == [str(n) for n in range(100)]
    assert 1 < len(lines.blocks) < 20
    for data, count in lines.blocks:
        assert len(data) <= BLOCK_MAX_BYTES
        assert data.count(b"\n") == count
    assert lines.levels == ["info"] * 100


def test_the_last_lines_leave_by_themselves() -> None:
    log, lines = access("all")
    for _ in range(2):
        lines.written.clear()
        record(log)
        assert not lines.written.is_set()
        assert lines.written.wait(10)
    assert [count for _, count in lines.blocks] == [1, 1]


def test_stopping_the_writer_takes_the_kept_lines_along() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing, queue_max=10, report=report)
    record(AccessLog("all", 1.0, writer), 500)
    assert writer.stop(10)
    close(writing)
    assert json.loads(drain(reading))["level"] == "error"
    close(reading)


def test_a_person_at_a_terminal_gets_access_lines_to_read() -> None:
    lines = Lines(console=True)
    log = AccessLog("all", 1.0, lines, clock=lambda: 0.0)  # type: ignore[arg-type]
    record(log, 404, target=b"/\x1b[2J")
    log.flush()
    assert lines.blocks[0][0].decode() == (
        '1970-01-01T00:00:00.000Z [warning] 192.0.2.1 "POST /\\u001b[2J" 404 200 B 1.2 ms r-1\n'
    )
