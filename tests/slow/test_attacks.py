"""Slow and greedy clients in numbers, while a well-behaved one posts. See docs/limits.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from tests.slow.conftest import Report, peak_bytes, steady_result, steady_start
from tests.support.events import METRICS
from tests.support.gateway import Gateway

MIB = 1 << 20
BODY = json.dumps(METRICS).encode()
HEAD = (
    b"POST /v1/events/metrics HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
#: Memory bounds that docs/limits.md states: a gateway that holds nothing, one connection that
#: has sent nothing, one that has sent something.
BASE_BYTES = 128 * MIB
SILENT_BYTES = 4 << 10
BEGUN_BYTES = 24 << 10
#: One that does not take its answers: those, and one read of requests behind them.
UNREAD_BYTES = 256 << 10

QUIET_SECONDS = 20
ATTACK_SECONDS = 40
CONNECTIONS = 2000
MODES = {
    "header": ["-H", "-i", "2", "-x", "24", "-u", "/v1/events/metrics"],
    "body": ["-B", "-i", "2", "-x", "24", "-s", "8192", "-f", "application/json",
             "-u", "/v1/events/metrics"],
    "read": ["-X", "-w", "64", "-y", "256", "-n", "2", "-z", "16", "-k", "5", "-u", "/metrics"],
}  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_a_well_behaved_client_does_not_notice_two_thousand_slow_ones(
    mode: str, gateway: Gateway, report: Report
) -> None:
    tool = shutil.which("slowhttptest")
    assert tool, "slowhttptest is missing: apt-get install slowhttptest"
    quiet = steady_result(steady_start(gateway, QUIET_SECONDS))
    *options, path = MODES[mode]
    attack = subprocess.Popen(
        [tool, "-c", str(CONNECTIONS), "-r", "500", "-l", str(ATTACK_SECONDS), "-p", "5",
         *options, f"http://127.0.0.1:{gateway.port}{path}"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    busy = steady_start(gateway, ATTACK_SECONDS)
    most = 0.0
    while busy.poll() is None:
        most = max(most, gateway.metric("ingest_connections"))
        gevent.sleep(0.5)
    attacked = steady_result(busy)
    output, _ = attack.communicate()
    ratio = attacked["p99_ms"] / quiet["p99_ms"]
    said = re.findall(rb"service available: *(?:\x1b\[[0-9;]*m)*(\w+)", output)
    report(
        f"{mode}: p99 {quiet['p99_ms']} ms quiet, {attacked['p99_ms']} ms attacked: {ratio:.2f}x; "
        f"p50 {quiet['p50_ms']} / {attacked['p50_ms']} ms, max {attacked['max_ms']} ms, "
        f"{attacked['requests']} requests, {most:.0f} connections at most, "
        f"peak {peak_bytes(gateway) / MIB:.0f} MiB"
    )
    assert most > CONNECTIONS / 2, output[-2000:]
    assert quiet["failures"] == attacked["failures"] == {}
    assert b"NO" not in said
    assert peak_bytes(gateway) < BASE_BYTES + CONNECTIONS * BEGUN_BYTES


@pytest.mark.timeout(300)
def test_ten_thousand_silent_connections_cost_little_and_are_closed_in_time(
    gateway: Gateway, crowd: Callable[..., Any], report: Report
) -> None:
    before = peak_bytes(gateway)
    crowd(gateway, 10_000)
    held = gateway.metric("ingest_connections")
    answered = steady_result(steady_start(gateway, 5))
    while gateway.metric("ingest_connections") > 10:
        gevent.sleep(0.2)
    peak = peak_bytes(gateway)
    report(
        f"silent: {held:.0f} connections, {(peak - before) / held:.0f} bytes each, "
        f"peak {peak / MIB:.0f} MiB; p99 {answered['p99_ms']} ms meanwhile"
    )
    assert held >= 10_000
    assert answered["failures"] == {}
    assert gateway.metric('ingest_timeouts_total{kind="idle"}') >= 10_000
    assert peak < BASE_BYTES + 10_000 * SILENT_BYTES


@pytest.mark.timeout(300)
def test_ten_thousand_half_sent_requests_cost_no_more_than_the_bound(
    gateway: Gateway, crowd: Callable[..., Any], report: Report
) -> None:
    before = peak_bytes(gateway)
    crowd(gateway, 10_000, HEAD % len(BODY) + BODY[:-1])
    held = gateway.metric("ingest_connections")
    peak = peak_bytes(gateway)
    report(
        f"half-sent: {held:.0f} connections, {(peak - before) / held:.0f} bytes each, "
        f"peak {peak / MIB:.0f} MiB"
    )
    assert steady_result(steady_start(gateway, 5))["failures"] == {}
    assert peak < BASE_BYTES + 10_000 * BEGUN_BYTES


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("clients", "requests"), [(1, 100_000), (200, 5_000)])
def test_clients_that_never_read_their_pipelined_answers_cost_what_one_may_hold(
    clients: int,
    requests: int,
    new_gateway: Callable[..., Gateway],
    crowd: Callable[..., Any],
    report: Report,
) -> None:
    gateway = new_gateway(env={"INGEST_WRITE_TIMEOUT_SECONDS": "5"})
    before = peak_bytes(gateway)
    crowd(gateway, clients, (HEAD % len(BODY) + BODY) * requests)
    while gateway.metric('ingest_timeouts_total{kind="write"}') < clients:
        gevent.sleep(0.2)
    peak = peak_bytes(gateway)
    answered = gateway.metric('ingest_requests_total{status="202",type="metrics"}')
    report(
        f"unread: {clients} clients, {answered:.0f} of {clients * requests} answered, "
        f"peak {before / MIB:.0f} -> {peak / MIB:.0f} MiB"
    )
    assert answered < clients * requests
    assert steady_result(steady_start(gateway, 2))["failures"] == {}
    assert peak < BASE_BYTES + clients * UNREAD_BYTES


@pytest.mark.timeout(300)
def test_two_hundred_large_bodies_that_never_end_stay_within_the_bound(
    new_gateway: Callable[..., Gateway], crowd: Callable[..., Any], report: Report
) -> None:
    limit = 128 * MIB
    gateway = new_gateway(
        env={"INGEST_BUFFERED_MAX_BYTES": str(limit), "INGEST_BODY_TIMEOUT_SECONDS": "15"}
    )
    crowd(gateway, 200, HEAD % (16 * MIB) + b"[" * (15 * MIB))
    held = gateway.metric("ingest_buffered_bytes")
    answered = steady_result(steady_start(gateway, 5))
    peak = peak_bytes(gateway)
    paused = gateway.metric('ingest_buffered_full_total{effect="paused"}')
    report(
        f"large: {held / MIB:.0f} MiB held, {paused:.0f} pauses, peak {peak / MIB:.0f} MiB; "
        f"p99 {answered['p99_ms']} ms meanwhile"
    )
    assert answered["failures"] == {}
    assert paused > 0
    assert gateway.post("/v1/events/metrics", b" " * MIB).status == 503
    assert limit / 2 < held <= limit
    assert peak < BASE_BYTES + limit * 5 // 4
    while gateway.metric("ingest_buffered_bytes"):
        gevent.sleep(0.2)


def test_the_bounds_are_those_that_the_page_states() -> None:
    page = Path("docs/limits.md").read_text()
    for bound in (
        f"{BASE_BYTES // MIB} MiB",
        f"{SILENT_BYTES >> 10} KiB",
        f"{BEGUN_BYTES >> 10} KiB",
        f"{UNREAD_BYTES >> 10} KiB",
    ):
        assert bound in page
