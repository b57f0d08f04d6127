"""What a request leaves behind: its trace in logs and metrics, access lines, slow-request lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.events import METRICS
from tests.support.gateway import Gateway
from tests.support.waiting import until
from tests.support.workers import events

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACE = f"00-{TRACE_ID}-{SPAN_ID}-01"
POST = "/v1/events/metrics"

HANDLER = """\
import logging
import gevent
import structlog

def log_later():
    logging.getLogger("act.later").warning("said by a greenlet of the handler's")

def handle(event):
    do = event.data["do"]
    if do == "log":
        logging.getLogger("act").warning("said by logging")
        structlog.get_logger("act").warning("said by structlog")
        gevent.spawn(log_later).join()
    elif do == "raise":
        raise RuntimeError("no")
    elif do == "wait":
        gevent.sleep(0.3)
"""
#: Apache's own pattern of the combined format, as log readers have it.
COMBINED = re.compile(
    r"(?P<host>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d"
    r' [+-]\d{4})\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}) (?P<size>\d+|-)'
    r' "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)"'
)


@pytest.fixture
def served(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Callable[..., Gateway]:
    """A gateway with a type `act` whose handler does what the event says."""

    def serve(*flags: str) -> Gateway:
        (tmp_path / "schemas").mkdir()
        (tmp_path / "handlers").mkdir()
        schema = {"type": "object", "x-ingest": {"on_reject": "keep"}, "required": ["do"]}
        (tmp_path / "schemas" / "act.json").write_text(json.dumps(schema))
        shipped = Path("schemas/metrics.json").read_text()
        (tmp_path / "schemas" / "metrics.json").write_text(shipped)
        (tmp_path / "handlers" / "act.py").write_text(HANDLER)
        folders = ("--schemas", f"{tmp_path}/schemas", "--handlers", f"{tmp_path}/handlers")
        return new_gateway(*folders, *flags)

    return serve


def act(gateway: Gateway, do: str, **fields: str) -> int:
    return gateway.post("/v1/events/act", {"do": do}, **fields).status


def lines(gateway: Gateway, **wanted: Any) -> list[dict[str, Any]]:
    return [
        line
        for line in gateway.log_lines()
        if all(line.get(key) == value for key, value in wanted.items())
    ]


def test_what_a_handler_logs_carries_the_request_and_its_trace(
    served: Callable[..., Gateway],
) -> None:
    gateway = served()
    assert act(gateway, "log", traceparent=TRACE, **{"X-Request-Id": "asked-1"}) == 202
    assert act(gateway, "log", **{"X-Request-Id": "asked-2"}) == 202
    assert act(gateway, "raise", traceparent=TRACE, **{"X-Request-Id": "asked-3"}) == 500
    gateway.stop()
    first = lines(gateway, request_id="asked-1")
    assert {line["event"].partition(" by ")[2] for line in first} >= {"logging", "structlog"}
    assert all((line["trace_id"], line["span_id"]) == (TRACE_ID, SPAN_ID) for line in first)
    second = lines(gateway, request_id="asked-2")
    assert len(second) >= 2 and not any("trace_id" in line for line in second)
    (failed,) = lines(gateway, event="handler.failed")
    assert (failed["request_id"], failed["trace_id"]) == ("asked-3", TRACE_ID)


def test_nothing_of_a_request_is_in_the_lines_of_the_next_one(
    served: Callable[..., Gateway],
) -> None:
    gateway = served()
    document = [{"do": "log"}, {"do": "log"}]
    for number, fields in enumerate(({"traceparent": TRACE}, {})):
        named = {**fields, "X-Request-Id": f"batch-{number}"}
        assert gateway.post("/v1/batch/act", document, **named).status == 202
    gateway.stop()
    assert not [line for line in lines(gateway, request_id="batch-1") if "trace_id" in line]
    assert not [line for line in lines(gateway, event="service.stopped") if "request_id" in line]


@pytest.mark.parametrize("trace", [TRACE, "00-" + "0" * 32 + f"-{SPAN_ID}-01", "x" * 55])
def test_an_access_line_has_the_ids_of_a_valid_trace_only(
    new_gateway: Callable[..., Gateway], trace: str
) -> None:
    gateway = new_gateway("--access-log", "all")
    assert gateway.post(POST, METRICS, traceparent=trace).status == 202
    assert gateway.post(POST, b"{", traceparent=trace).status == 400
    gateway.stop()
    good, bad = lines(gateway, event="http.access")
    for line in (good, bad):
        ids = (line.get("trace_id"), line.get("span_id"))
        assert ids == ((TRACE_ID, SPAN_ID) if trace == TRACE else (None, None))


@pytest.mark.parametrize("path", ["/v1/events/metrics", "/v1/batch/metrics"])
def test_each_stored_event_of_a_request_has_its_traceparent(gateway: Gateway, path: str) -> None:
    document = [METRICS, METRICS] if "batch" in path else METRICS
    assert gateway.post(path, document, traceparent=TRACE).status == 202
    assert gateway.post(path, document).status == 202
    stored = gateway.journal()
    half = len(stored) // 2
    assert [event.get("traceparent") for event in stored] == [TRACE] * half + [None] * half


def test_an_event_that_is_rejected_keeps_the_trace_it_came_with(
    served: Callable[..., Gateway],
) -> None:
    gateway = served()
    assert gateway.post("/v1/events/act", {"not": "it"}, traceparent=TRACE).status == 422
    assert gateway.post("/v1/events/act", {"not": "it"}).status == 422
    until(lambda: gateway.metric('ingest_rejected_kept_total{code="schema",type="act"}') == 2)
    traced, plain = gateway.journal("--rejected")
    assert (traced["traceparent"], plain.get("traceparent")) == (TRACE, None)


def test_an_exemplar_names_the_trace_of_a_request_in_openmetrics_only(gateway: Gateway) -> None:
    assert gateway.post(POST, METRICS, traceparent=TRACE).status == 202
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = gateway.request("GET", "/metrics", headers=accept).body.decode()
    with_one = [line for line in text.splitlines() if " # {" in line]
    (line,) = with_one
    found = re.fullmatch(
        r'ingest_request_duration_seconds_bucket\{le="(\S+)"\} 1\.0 '
        rf'# \{{trace_id="{TRACE_ID}"\}} (\S+) (\d+\.\d+)',
        line,
    )
    assert found and float(found[2]) <= float(found[1])
    plain = gateway.request("GET", "/metrics").body.decode()
    assert "trace_id" not in plain


def test_exemplars_of_all_workers_are_shown(new_gateway: Callable[..., Gateway]) -> None:
    gateway = new_gateway("--workers", "2")
    for _ in range(8):
        assert gateway.post(POST, METRICS, traceparent=TRACE).status == 202
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    text = gateway.request("GET", "/metrics", headers=accept).body.decode()
    assert f'# {{trace_id="{TRACE_ID}"}}' in text


def test_the_combined_format_is_apaches_and_no_client_can_forge_a_line(
    new_gateway: Callable[..., Gateway],
) -> None:
    gateway = new_gateway("--access-log", "all", "--access-log-format", "combined")
    agent = 'a "quoted\\" agent \xe9'
    gateway.post(POST, METRICS, **{"User-Agent": agent, "Referer": "http://x/?token=secret1"})
    with gateway.connect() as client:
        client.send(b'GET /x"%0d%0a\\ HTTP/1.0\r\n\r\n')
        assert client.answer().status in (400, 404)
    with gateway.connect() as client:
        client.send(b"nonsense\x1b[2J\r\n\r\n")
        assert client.answer().status == 400
    gateway.stop()
    written = [line for line in gateway.log().splitlines() if not line.startswith("{")]
    first, second, third = (COMBINED.fullmatch(line) for line in written)
    assert first and second and third, written
    assert (first["host"], first["user"], first["status"]) == ("127.0.0.1", "-", "202")
    assert first["request"] == f"POST {POST} HTTP/1.1"
    assert first["agent"] == r"a \"quoted\\\" agent \xe9"
    assert "secret1" not in gateway.log()
    assert "\x1b" not in gateway.log()
    assert third["status"] == "400" and third["request"] == "-"


def test_a_slow_request_is_logged_with_where_the_time_went(
    served: Callable[..., Gateway],
) -> None:
    gateway = served("--slow-request", "0.2")
    assert act(gateway, "wait", traceparent=TRACE, **{"X-Request-Id": "slow-1"}) == 202
    assert act(gateway, "log") == 202
    assert gateway.post(POST, METRICS).status == 202
    gateway.stop()
    (line,) = lines(gateway, event="http.slow_request")
    assert (line["request_id"], line["trace_id"], line["type"]) == ("slow-1", TRACE_ID, "act")
    assert (line["status"], line["target"], line["level"]) == (202, "/v1/events/act", "warning")
    phases = [line[f"{name}_seconds"] for name in ("wait", "pool", "work", "commit")]
    assert max(phases) == line["work_seconds"] >= 0.3
    assert sum(phases) == pytest.approx(line["duration_seconds"], abs=1e-4)


def test_with_a_limit_that_all_exceed_every_way_of_a_request_is_logged_once(
    served: Callable[..., Gateway],
) -> None:
    gateway = served("--slow-request", "0.000001")
    with gateway.connect() as client:
        body = json.dumps(METRICS).encode()
        head = f"POST {POST} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        request = head.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        client.send(request * 20)
        answers = [client.answer() for _ in range(20)]
    assert gateway.post(POST, b"{").status == 400
    assert gateway.post("/v1/batch/metrics", [METRICS]).status == 202
    assert gateway.request("GET", "/livez").status == 200
    assert gateway.post(POST, METRICS, **{"X-Request-Id": "named"}).status == 202
    gateway.stop()
    slow = events(gateway, "http.slow_request")
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert sorted(line["request_id"] for line in slow if line["request_id"] in ids) == sorted(ids)
    assert [line["status"] for line in slow][20:] == [400, 202, 200, 202]
    assert slow[23]["request_id"] == "named"
    assert all("commit_seconds" in line for line in slow[:20])
    assert "commit_seconds" not in slow[20] and "work_seconds" in slow[20]
    assert "work_seconds" not in slow[22]
