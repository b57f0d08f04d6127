"""Credentials that clients send, and those of the settings, reach no log, file or answer."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.events import METRICS
from tests.support.gateway import ROOT, Answer, Gateway
from tests.support.mounted import raw
from tests.support.waiting import until

SECRET = "s3cr3t-"
#: Each with a value of its own, so that a leak says which it was.
CREDENTIALS = {
    "Authorization": f"Bearer {SECRET}bearer-0123456789",
    "X-API-Key": f"{SECRET}api-key-0123456789",
    "Cookie": f"session={SECRET}cookie-0123456789",
    "Proxy-Authorization": f"Basic {SECRET}proxy0123456789=",
    "X-Hub-Signature-256": f"sha256={SECRET}signature-0123456789",
}
#: A handler as people write them: it logs what it got, and fails with it at hand.
HANDLER = """
import logging
import structlog

def handle(event):
    password = event.headers.get("authorization")
    logging.getLogger("legacy").warning("got %s", dict(event.headers))
    logging.getLogger("legacy").warning("sent Authorization: " + (password or ""))
    structlog.get_logger().info("called", headers=event.headers, event_=event)
    logging.getLogger("legacy").info("to postgres://app:s3cr3t-url@db.example/x")
    if event.data.get("n") == 1:
        raise RuntimeError(f"refused by upstream, Authorization was {password!r}")
    if event.data.get("n") == 2:
        event.headers.nothing_of_the_kind
"""


class Served(NamedTuple):
    gateway: Gateway
    answers: list[bytes]

    def note(self, answer: Answer) -> int:
        self.answers.append(repr(answer).encode())
        return answer.status


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway that has seen every kind of end that a request with credentials may come to."""
    directory = tmp_path_factory.mktemp("secrets")
    (directory / "schemas").mkdir()
    (directory / "handlers").mkdir()
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "x-ingest": {"on_reject": "keep", "max_event_bytes": 1000},
    }
    for name in ("t", "plain"):
        (directory / "schemas" / f"{name}.json").write_text(json.dumps(schema))
    (directory / "handlers" / "t.py").write_text(HANDLER)
    gateway = Gateway(
        directory / "data",
        *("--schemas", str(directory / "schemas"), "--handlers", str(directory / "handlers")),
        *("--access-log", "all", "--mounts", "/legacy=tests.support.wsgi_apps:app"),
    ).start()
    served = Served(gateway, [])
    send_everything(served)
    gateway.stop()
    yield served


def send_everything(served: Served) -> None:
    gateway, note = served.gateway, served.note
    for path in ("/v1/events/t", "/v1/events/plain", "/v1/batch/plain", "/nowhere"):
        for body in (
            b'{"n":0}',
            b'{"n":1}',
            b'{"n":2}',
            b'{"n":"x"}',
            b"{",
            b'{"n":0}' + b" " * 999,
        ):
            note(gateway.post(path, body, **CREDENTIALS))
    note(gateway.post("/v1/batch/plain", b'[{"n":0},{"n":"x"}]', **CREDENTIALS))
    for query in ("?access_token=s3cr3t-query", "?atomic=true&api_key=s3cr3t-query2&ids=false"):
        note(gateway.post(f"/v1/events/plain{query}", b"{}", **CREDENTIALS))
    note(gateway.request("DELETE", "/v1/events/plain", headers=CREDENTIALS))
    for path in ("/fails", "/echo"):
        note(gateway.request("GET", f"/legacy{path}?token=s3cr3t-mount", headers=CREDENTIALS))
    structured = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "plain",
        "data": {"n": 0},
    }
    for event in (
        structured,
        {**structured, "data": {"n": "x"}},
        {**structured, "type": "nowhere"},
    ):
        headers = {**CREDENTIALS, "Content-Type": "application/cloudevents+json"}
        note(gateway.post("/v1/events", event, **headers))
    binary = {"ce-specversion": "1.0", "ce-id": "2", "ce-source": "/s", "ce-type": "plain"}
    note(gateway.post("/v1/events", {"n": "x"}, **CREDENTIALS, **binary))
    lines = "".join(f"{name}: {value}\r\n" for name, value in CREDENTIALS.items())
    for head in (
        f"GET /livez HTTP/1.1\r\nHost: t\r\n{lines}Broken line\r\n\r\n",
        f"GET /livez HTTP/1.1\r\n{lines}\r\n",
        f"GET /livez HTTP/9.9\r\nHost: t\r\n{lines}\r\n",
        f"POST /v1/events/t HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n{lines}\r\n",
        f"POST /v1/events/t HTTP/1.1\r\nHost: t\r\n{lines}X: {'y' * 40000}\r\n\r\n",
        f"POST /v1/events/t HTTP/1.1\r\nHost: t\r\n{lines}Content-Length: 9\r\n\r\n{{",
        f"Broken first line: Bearer {SECRET}first-line\r\n\r\n",
    ):
        served.answers.append(raw(gateway, head.encode()))
    note(gateway.request("GET", "/metrics", headers=CREDENTIALS))
    until(lambda: list((gateway.data / "rejected").glob("*/*.ndjson")))


def test_every_kind_of_end_was_there(served: Served) -> None:
    answers = b"".join(served.answers)
    for status in (202, 207, 400, 404, 405, 413, 422, 431, 500, 505):
        assert f"status={status}".encode() in answers or f"HTTP/1.1 {status}".encode() in answers, (
            status
        )


def test_no_credential_reaches_the_log(served: Served) -> None:
    log = served.gateway.log()
    assert "refused by upstream" in log and "Traceback" in log and "http.access" in log
    assert "sent Authorization" in log and "postgres://app:" in log
    assert [line for line in log.splitlines() if SECRET in line] == []


def test_no_credential_reaches_an_answer_but_by_who_sent_it(served: Served) -> None:
    answers = [answer for answer in served.answers if SECRET.encode() in answer]
    assert answers == []
    assert not any(b"refused by upstream" in answer for answer in served.answers)


def test_no_header_field_reaches_the_journal_or_the_rejected_events(served: Served) -> None:
    stored = [path for path in served.gateway.data.rglob("*") if path.is_file()]
    assert any("rejected" in str(path) and path.stat().st_size for path in stored)
    for path in stored:
        assert SECRET.encode() not in path.read_bytes(), path


def test_check_says_where_settings_come_from_and_none_of_their_values(tmp_path: Path) -> None:
    config = tmp_path / "ingest.yaml"
    config.write_text(f"source: /{SECRET}file\n")
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "check", "--json", "--config", str(config)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "INGEST_DATA": f"{SECRET}env", "PYTHONPATH": str(ROOT)},
    )
    assert json.loads(done.stdout)["settings"]["source"].startswith(str(config))
    assert SECRET not in done.stdout + done.stderr


def test_a_credential_in_data_is_data_and_the_producer_s_own(gateway: Gateway) -> None:
    event = {"url": "https://a.example/?token=kept", "at": "2026-01-01T00:00:00Z"}
    assert gateway.post("/v1/events/page_view", event).status == 202
    assert gateway.post("/metrics", METRICS).status == 202
    assert gateway.journal("--type", "page_view")[0]["data"] == event
    assert "kept" not in gateway.log()
