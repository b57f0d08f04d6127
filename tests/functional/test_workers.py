"""Several workers: real processes, real signals, real sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.events import METRICS, metric
from tests.support.gateway import ROOT, Gateway
from tests.support.waiting import until
from tests.support.workers import (
    POST,
    Producers,
    alive,
    all_ready,
    events,
    kill,
    pids,
    post_each_on_its_own,
    stored,
)

WORKERS = 2


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Any]:
    """Make gateways with two workers, all of which are stopped at the end."""
    with ExitStack() as ends:

        def make(*flags: str, data: Path | None = None, **keywords: Any) -> Gateway:
            running = Gateway(
                data or tmp_path / "data", "--workers", str(WORKERS), *flags, **keywords
            )
            ends.callback(running.stop)
            running.start()
            until(lambda: len(pids(running)) == WORKERS and all_ready(running, WORKERS))
            return running

        yield make


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A start that is to fail."""
    return subprocess.run(
        [sys.executable, "-m", "ingest", "--bind", "127.0.0.1:0", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def test_all_workers_serve_and_each_writes_a_partition_of_its_own(workers: Any) -> None:
    gateway = workers()
    assert "workers  2" in "".join(gateway._process.stdout.readline().decode() for _ in range(2))
    post_each_on_its_own(gateway, range(60))
    assert gateway.stop() == 0
    first, second = stored(gateway, "--partition", "0"), stored(gateway, "--partition", "1")
    assert first and second
    assert sorted(first + second) == list(range(60))


def test_auto_is_a_worker_for_each_core(new_gateway: Any) -> None:
    gateway = new_gateway("--workers", "auto")
    cores = len(os.sched_getaffinity(0))
    # With one there is no supervisor, and nothing of this is logged.
    until(lambda: len(pids(gateway)) == (cores if cores > 1 else 0))
    assert len(set(pids(gateway))) == len(pids(gateway))


def test_a_killed_worker_is_started_again_and_no_acknowledged_event_is_lost(workers: Any) -> None:
    gateway = workers()
    with Producers(gateway) as producers:
        producers.more()
        killed = kill(gateway, 1, signal.SIGKILL)
        producers.more(200)
        until(lambda: pids(gateway)[1] != killed and all_ready(gateway, WORKERS))
        producers.more()
    (died,) = events(gateway, "supervisor.worker_died")
    assert (died["number"], died["reason"]) == (1, "it was killed by SIGKILL")
    assert gateway.metric('ingest_worker_restarts_total{cause="died",worker="1"}') == 1
    assert gateway.stop() == 0
    found = stored(gateway)
    assert set(producers.acknowledged) <= set(found)
    assert len(found) == len(set(found))
    # Only connections that the dead worker held have broken, never a new one.
    assert len(producers.failures) <= 6


def test_what_comes_to_a_dead_worker_is_served_by_another(workers: Any) -> None:
    gateway = workers("--worker-restart-min", "60s", "--worker-restart-max", "60s")
    kill(gateway, 0, signal.SIGKILL)
    until(lambda: events(gateway, "supervisor.worker_pauses"))
    post_each_on_its_own(gateway, range(40))
    assert gateway.metric("ingest_worker_adopted_total") > 0
    assert gateway.metric('ingest_worker_up{worker="0"}') == 0
    assert gateway.metric('ingest_worker_up{worker="1"}') == 1
    verbose = gateway.request("GET", "/readyz?verbose")
    assert verbose.status == 200
    assert b"[-]worker-0 failed: it is to be started again" in verbose.body
    assert b"[+]worker-1 ok" in verbose.body


def test_sighup_replaces_one_worker_after_the_other_and_no_request_fails(workers: Any) -> None:
    gateway = workers()
    before = pids(gateway)
    with Producers(gateway) as producers:
        producers.more()
        gateway.send_signal(signal.SIGHUP)
        until(lambda: events(gateway, "supervisor.restart_done"))
        producers.more()
    after = pids(gateway)
    assert not set(before) & set(after)
    assert not any(alive(pid) for pid in before)
    assert producers.failures == []
    assert gateway.stop() == 0
    assert sorted(stored(gateway)) == sorted(producers.acknowledged)
    # One was gone before the next was asked to go.
    order = [
        (line["event"], line["worker"])
        for line in gateway.log_lines()
        if line["event"] in ("worker.started", "worker.stopped")
    ]
    assert order[WORKERS:-WORKERS] == [
        ("worker.stopped", 0), ("worker.started", 0), ("worker.stopped", 1), ("worker.started", 1)
    ]  # fmt: skip


def test_sigterm_to_one_worker_replaces_that_one(workers: Any) -> None:
    gateway = workers()
    zero, _ = pids(gateway)
    one = kill(gateway, 1, signal.SIGTERM)
    until(lambda: pids(gateway)[1] != one)
    assert pids(gateway)[0] == zero
    assert gateway.metric('ingest_worker_restarts_total{cause="asked",worker="1"}') == 1
    assert not events(gateway, "supervisor.worker_died")


def test_sighup_with_a_broken_schema_keeps_the_old_workers_and_says_so(
    workers: Any, tmp_path: Path
) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", schemas)
    gateway = workers("--schemas", str(schemas))
    before = pids(gateway)
    (schemas / "fresh.json").write_text('{"type": "nope"}')
    gateway.send_signal(signal.SIGHUP)
    until(lambda: events(gateway, "reload.refused"))
    (line,) = events(gateway, "reload.refused")
    assert "fresh.json" in line["file"]
    assert pids(gateway) == before
    assert all(alive(pid) for pid in before)
    assert not events(gateway, "service.draining")
    assert gateway.post("/v1/events/fresh", {}).status == 404
    assert gateway.post(POST, METRICS).status == 202
    (schemas / "fresh.json").write_text('{"type": "object"}')
    gateway.send_signal(signal.SIGHUP)
    until(lambda: events(gateway, "supervisor.restart_done"))
    until(lambda: not set(before) & set(pids(gateway)))  # each writes its log by itself
    assert all(gateway.post("/v1/events/fresh", {}).status == 202 for _ in range(10))


def test_sigterm_answers_what_is_in_flight_with_every_worker_and_exits_0(workers: Any) -> None:
    gateway = workers()
    body = json.dumps(METRICS).encode()
    head = (
        b"POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % (POST.encode(), len(body))
    )
    with ExitStack() as open_until_the_end:
        clients = [open_until_the_end.enter_context(gateway.connect()) for _ in range(20)]
        for client in clients:
            assert client.request("GET", "/livez").status == 200
            client.send(head + body[:10])
        gateway.send_signal(signal.SIGTERM)
        until(lambda: len(events(gateway, "service.draining")) == WORKERS)
        for client in clients:
            client.send(body[10:])
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert gateway.wait() == 0
    assert len(events(gateway, "worker.stopped")) == WORKERS
    assert len(gateway.journal()) == 20


def test_keep_alive_requests_are_not_dropped_by_a_shutdown_under_load(workers: Any) -> None:
    gateway = workers()
    with Producers(gateway) as producers:
        producers.more()
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 0
    # After the last answer nobody listens; a refused connect carries no request.
    assert not [failure for failure in producers.failures if "ConnectionRefused" not in failure]
    assert sorted(stored(gateway)) == sorted(producers.acknowledged)


def test_the_exit_code_is_the_worst_of_all_workers(workers: Any) -> None:
    gateway = workers("--drain-timeout", "0.5")
    with gateway.connect() as client:
        assert client.request("GET", "/livez").status == 200
        client.send(b"POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n")
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 5


def test_a_second_sigterm_cuts_what_is_waited_for(workers: Any) -> None:
    gateway = workers("--drain-timeout", "1h")
    with gateway.connect() as client:
        assert client.request("GET", "/livez").status == 200
        client.send(b"POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n")
        gateway.send_signal(signal.SIGTERM)
        until(lambda: len(events(gateway, "service.draining")) == WORKERS)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 5


def test_readyz_of_every_worker_is_503_while_all_drain(workers: Any) -> None:
    gateway = workers("--drain-delay", "2")
    gateway.send_signal(signal.SIGTERM)
    until(lambda: gateway.request("GET", "/readyz").status == 503)
    answer = gateway.request("GET", "/readyz?verbose")
    assert b"[-]draining failed: all workers stop" in answer.body
    assert gateway.post(POST, METRICS).status == 202
    assert gateway.wait() == 0


def test_a_worker_that_keeps_dying_is_started_after_longer_and_longer_pauses(
    workers: Any,
) -> None:
    gateway = workers("--worker-restart-min", "10ms", "--worker-restart-max", "25ms")
    for deaths in range(1, 5):
        killed = kill(gateway, 1, signal.SIGKILL)
        until(lambda deaths=deaths: len(events(gateway, "supervisor.worker_pauses")) == deaths)
        until(lambda killed=killed: pids(gateway)[1] != killed)
    expected = 0.0
    died = events(gateway, "supervisor.worker_died")
    for death, pause in zip(died, events(gateway, "supervisor.worker_pauses"), strict=True):
        # Who has served for longer than the longest pause is well again.
        well = death["served_seconds"] >= 0.025
        expected = 0.01 if well or not expected else min(0.025, expected * 2)
        assert expected / 2 - 0.001 <= pause["seconds"] <= expected + 0.001


def test_a_worker_that_never_gets_up_ends_the_start_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "order.py").write_text("import os\nos._exit(7)\n")
    done = refused("--workers", "2", "--data", str(tmp_path / "d"), "--handlers", str(tmp_path))
    assert done.returncode == 9
    assert "cannot serve: it ended with exit code 7" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_a_worker_cannot_use_is_said_once_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "nope"}')
    done = refused("--workers", "3", "--data", str(tmp_path / "d"), "--schemas", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("a.json") == 1
    assert "Traceback" not in done.stderr


def test_a_port_that_another_gateway_shares_among_its_workers_is_taken(
    workers: Any, tmp_path: Path
) -> None:
    gateway = workers()
    flags = ("--workers", "2", "--data", str(tmp_path / "other"))
    done = refused(*flags, "--bind", f"127.0.0.1:{gateway.port}")
    assert done.returncode == 4
    assert str(gateway.port) in done.stderr


def test_metrics_add_up_to_what_was_sent_whoever_is_asked_and_after_a_restart(
    workers: Any,
) -> None:
    gateway = workers()
    post_each_on_its_own(gateway, range(40))
    for _ in range(5):
        assert gateway.post(POST, b"{").status == 400
    gateway.post(POST, [1, 2])

    def counted() -> tuple[float, ...]:
        return (
            gateway.metric('ingest_events_accepted_total{type="metrics"}'),
            gateway.metric('ingest_events_rejected_total{reason="malformed",type="metrics"}'),
            gateway.metric("ingest_journal_records_total"),
            gateway.metric("ingest_journal_next_offset"),
        )

    assert {counted() for _ in range(8)} == {(40, 5, 40, 40)}
    gateway.send_signal(signal.SIGHUP)
    until(lambda: events(gateway, "supervisor.restart_done"))
    post_each_on_its_own(gateway, range(40, 50))
    assert counted() == (50, 5, 50, 50)
    text = gateway.request("GET", "/metrics").body.decode()
    assert 'ingest_info{version="0.1.0"} 1.0' in text
    assert text.count("\nprocess_cpu_seconds_total ") == 1


def test_workers_are_kept_on_cores(workers: Any) -> None:
    cores = sorted(os.sched_getaffinity(0))
    gateway = workers("--cpu-affinity", "on")
    for number, pid in enumerate(pids(gateway)):
        assert os.sched_getaffinity(pid) == {cores[number % len(cores)]}
    assert os.sched_getaffinity(gateway.pid) == set(cores)


def test_cores_that_are_not_there_are_refused(tmp_path: Path) -> None:
    flags = ("--workers", "2", "--cpu-affinity", "0,4001")
    done = refused(*flags, "--data", str(tmp_path / "d"))
    assert done.returncode == 2
    assert "4001" in done.stderr


def test_when_the_supervisor_is_killed_the_workers_end_and_the_data_can_be_opened(
    workers: Any,
) -> None:
    gateway = workers()
    post_each_on_its_own(gateway, range(20))
    running = pids(gateway)
    with gateway.connect() as client:
        assert client.request("GET", "/livez").status == 200
        body = json.dumps(metric(20)).encode()
        head = f"POST {POST} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
        gateway.kill()
        until(lambda: events(gateway, "worker.supervisor_gone"))
        # As long as a worker has something to write, nobody else gets the data directory.
        assert refused("--workers", "2", "--data", str(gateway.data)).returncode == 3
        client.send(body[5:])
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
    until(lambda: not any(alive(pid) for pid in running))
    again = Gateway(gateway.data, "--workers", "2").start()
    try:
        assert again.post(POST, metric(21)).status == 202
    finally:
        again.stop()
    assert sorted(stored(again)) == list(range(22))


def test_a_worker_that_hangs_is_stood_in_for_until_it_goes_on(workers: Any) -> None:
    gateway = workers()
    stopped = kill(gateway, 0, signal.SIGSTOP)
    try:
        until(lambda: events(gateway, "supervisor.worker_silent"))
        post_each_on_its_own(gateway, range(30))
        assert b"[-]worker-0 failed" in gateway.request("GET", "/readyz?verbose").body
        assert gateway.metric('ingest_worker_up{worker="0"}') == 0
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: events(gateway, "supervisor.worker_heard_again"))
    until(lambda: all_ready(gateway, WORKERS))
    assert pids(gateway)[0] == stopped
    assert gateway.metric('ingest_worker_up{worker="0"}') == 1


def test_log_lines_tell_workers_and_supervisor_apart(workers: Any) -> None:
    gateway = workers()
    assert gateway.stop() == 0
    assert {line["worker"] for line in gateway.log_lines()} == {None, 0, 1}
