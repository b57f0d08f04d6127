"""Start, probes, shutdown: as an orchestrator sees them."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.events import METRICS, metric
from tests.support.gateway import ROOT, Gateway

PROBES = ("/livez", "/readyz", "/startupz", "/health")


def run(*arguments: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ingest", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
    )


@pytest.mark.parametrize("path", PROBES)
def test_probes_answer_ok_and_list_their_checks_when_asked(gateway: Gateway, path: str) -> None:
    answer = gateway.request("GET", path)
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.headers["cache-control"] == "no-store"
    assert b"[+]" in gateway.request("GET", f"{path}?verbose").body


def test_the_banner_names_address_types_journal_and_a_curl_line_that_works(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data").start()
    try:
        assert gateway._process is not None and gateway._process.stdout is not None
        lines = [gateway.banner]
        while "curl" not in lines[-1]:
            lines.append(gateway._process.stdout.readline().decode())
        text = "".join(lines)
        assert f"127.0.0.1:{gateway.port}" in text
        for word in ("metrics", "page_view", "order (handler)", str(tmp_path / "data")):
            assert word in text
        done = subprocess.run(shlex.split(lines[-1]), capture_output=True, text=True, timeout=30)
        assert "202 Accepted" in done.stdout
    finally:
        gateway.stop()


def test_sigterm_answers_what_is_in_flight_then_exits_0_with_a_summary(gateway: Gateway) -> None:
    body = json.dumps(METRICS).encode()
    head = (
        b"POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with gateway.connect() as half, gateway.connect() as idle:
        assert idle.request("GET", "/livez").status == 200
        half.send(head + body[:10])
        idle.request("GET", "/livez")  # the half request has been read when this is answered
        gateway.send_signal(signal.SIGTERM)
        assert idle.closed()
        half.send(body[10:])
        answer = half.answer()
        assert (answer.status, answer.headers["connection"]) == (202, "close")
        assert half.closed()
    assert gateway.wait() == 0
    (summary,) = [line for line in gateway.log_lines() if line["event"] == "service.stopped"]
    assert (summary["answered"], summary["refused"], summary["lost"]) == (3, 0, 0)
    assert len(gateway.journal()) == 1


def test_while_the_drain_delay_runs_readyz_is_503_and_events_are_still_taken(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--drain-delay", "2")
    gateway.send_signal(signal.SIGTERM)
    pause = threading.Event()
    while gateway.request("GET", "/readyz").status != 503:
        pause.wait(0.01)
    assert gateway.request("GET", "/livez").status == 200
    assert b"draining" in gateway.request("GET", "/readyz").body
    assert gateway.post("/metrics", METRICS).status == 202
    assert gateway.wait() == 0


def test_time_that_runs_out_at_shutdown_is_said_by_the_exit_code(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--drain-timeout", "0.5")
    with gateway.connect() as client:
        client.send(b"POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n")
        gateway.request("GET", "/livez")
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 5


def test_a_second_sigterm_cuts_short_what_the_first_one_waits_for(new_gateway) -> None:  # type: ignore[no-untyped-def]
    gateway = new_gateway("--drain-timeout", "600")
    with gateway.connect() as client:
        client.send(b"POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n")
        gateway.request("GET", "/livez")
        gateway.send_signal(signal.SIGTERM)
        while '"service.draining"' not in gateway.log():
            threading.Event().wait(0.01)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait() == 5


def test_keep_alive_requests_are_not_dropped_by_a_shutdown_under_load(gateway: Gateway) -> None:
    outcomes: list[str] = []
    started = threading.Barrier(9)

    def client_loop() -> None:
        with gateway.connect() as client:
            client.request("GET", "/livez")
            started.wait()
            while True:
                answer = client.request(
                    "POST", "/metrics", json.dumps(metric()).encode(),
                    {"Content-Type": "application/json"},
                )  # fmt: skip
                outcomes.append(str(answer.status))
                if answer.headers.get("connection") == "close":
                    return

    threads = [threading.Thread(target=client_loop) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    gateway.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert gateway.wait() == 0
    assert set(outcomes) == {"202"}
    assert len(gateway.journal()) == len(outcomes)


def test_a_second_process_on_the_same_data_is_refused_with_the_pid(gateway: Gateway) -> None:
    done = run("--bind", "127.0.0.1:0", "--data", str(gateway.data))
    assert done.returncode == 3
    assert str(gateway.pid) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_said_without_a_traceback(gateway: Gateway, tmp_path: Path) -> None:
    done = run("--bind", f"127.0.0.1:{gateway.port}", "--data", str(tmp_path / "other"))
    assert done.returncode == 4
    assert str(gateway.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_data_that_cannot_be_a_directory_is_said_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    done = run("--bind", "127.0.0.1:0", "--data", str(tmp_path / "data"))
    assert done.returncode == 6
    assert str(tmp_path / "data") in done.stderr
    assert "Traceback" not in done.stderr


def test_the_log_is_json_lines_that_name_service_and_worker(gateway: Gateway) -> None:
    gateway.post("/v1/events/metrics", b"{", **{"X-Request-Id": "look-for-me"})
    gateway.stop()
    lines = gateway.log_lines()
    assert {(line["service"], line["worker"]) for line in lines} == {("ingest", 0)}
    assert any(line.get("request_id") == "look-for-me" for line in lines)
    assert all(re.match(r"\d{4}-\d\d-\d\dT", line["timestamp"]) for line in lines)


def test_serving_with_broken_schemas_says_all_that_is_wrong_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "nope"}')
    (tmp_path / "b.json").write_text("{")
    done = run(
        "--bind", "127.0.0.1:0", "--data", str(tmp_path / "data"), "--schemas", str(tmp_path)
    )
    assert done.returncode == 1
    assert "a.json" in done.stderr and "b.json" in done.stderr
    assert "Traceback" not in done.stderr
