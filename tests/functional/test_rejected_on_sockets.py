"""Refused events of types that want it are kept with the reason, and read back."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import ROOT, Answer, Gateway
from tests.support.waiting import until

NDJSON = {"Content-Type": "application/x-ndjson"}
SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": "integer", "minimum": 0}, "s": {"type": "string"}},
    "x-ingest": {"on_reject": "keep", "max_event_bytes": 3000},
}
HANDLER = """
from ingest import Reject

def handle(event):
    if event.data["n"] == 13:
        raise Reject("unlucky", pointer="/n")
    if event.data["n"] == 14:
        raise RuntimeError("a fault of the handler")
"""


def write_types(directory: Path) -> Path:
    (directory / "schemas").mkdir(parents=True)
    (directory / "handlers").mkdir()
    (directory / "schemas" / "kept.json").write_text(json.dumps(SCHEMA))
    (directory / "schemas" / "handled.json").write_text(json.dumps(SCHEMA))
    dropped = {**SCHEMA, "x-ingest": {"on_reject": "drop"}}
    (directory / "schemas" / "dropped.json").write_text(json.dumps(dropped))
    (directory / "handlers" / "handled.py").write_text(HANDLER)
    return directory


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    directory = write_types(tmp_path / "deployment")
    running = Gateway(
        tmp_path / "data",
        cwd=directory,
        env={"INGEST_REJECTED_EVENT_MAX_BYTES": "2048", "PYTHONPATH": str(ROOT)},
    ).start()
    yield running
    assert running.stop() == 0


def rejected(gateway: Gateway) -> list[dict[str, Any]]:
    """What the rejected journal holds after a clean stop."""
    assert gateway.stop() == 0
    lines = []
    for path in sorted((gateway.data / "rejected" / "0").glob("*.ndjson")):
        for line in filter(None, path.read_bytes().split(b"\n")):  # fill is line feeds
            record = json.loads(line)
            record.pop("ingestcommit", None)
            lines.append(record)
    return lines


def post(gateway: Gateway, name: str, body: bytes) -> Answer:
    return gateway.post(f"/v1/events/{name}", body)


def test_each_reason_is_kept_with_what_was_sent(gateway: Gateway) -> None:
    assert post(gateway, "kept", b'{"n":-1.0,\n"s":7}').status == 422
    assert post(gateway, "kept", b'{"n":1,}\xff').status == 400
    assert post(gateway, "kept", b'"%s"' % (b"x" * 4000)).status == 413
    assert post(gateway, "handled", b'{"n":13}').status == 422
    answer = post(gateway, "handled", b'{"n":14}')
    assert answer.status == 500
    assert post(gateway, "kept", b'{"n":1}').status == 202
    schema, malformed, large, unwanted, failed = rejected(gateway)
    assert schema["data"] == {"n": -1.0, "s": 7}
    assert (schema["rejectedcode"], schema["type"]) == ("schema", "kept")
    assert (schema["rejectedpointer"], schema["rejectedkeyword"]) == ("/n", "minimum")
    assert (schema["rejectedcount"], schema["rejectedby"]) == (2, "127.0.0.1")
    assert schema["dataschema"].startswith("/v1/schemas/kept")
    assert malformed["rejectedcode"] == "malformed" and "data" not in malformed
    assert base64.b64decode(malformed["data_base64"]) == b'{"n":1,}\xff'
    assert (large["rejectedcode"], large["rejectedsize"]) == ("too_large", 4002)
    assert base64.b64decode(large["data_base64"]) == b'"' + b"x" * 2047
    assert (unwanted["rejectedcode"], unwanted["rejectedreason"]) == ("handler", "unlucky")
    assert (unwanted["rejectedpointer"], unwanted["data"]) == ("/n", {"n": 13})
    assert (failed["rejectedcode"], failed["data"]) == ("handler_error", {"n": 14})
    assert failed["rejectedrequest"] == answer.headers["x-request-id"]
    ids = [record["id"] for record in (schema, malformed, large, unwanted, failed)]
    assert ids == sorted(set(ids))


def test_of_a_batch_those_at_fault_are_kept_beyond_what_the_answer_lists(gateway: Gateway) -> None:
    lines = [b'{"n":%d}' % n if n % 2 else b'{"n":-%d}' % (n + 1) for n in range(400)]
    lines[7] = b"{"
    answer = gateway.request("POST", "/v1/events/kept", b"\n".join(lines), NDJSON)
    assert (answer.status, len(answer.json()["errors"])) == (207, 100)
    array = b"[%s]" % b",".join([b'{"n": -5 }', b'{"n":1}'])
    assert gateway.post("/v1/batch/kept?atomic=true", array).status == 422
    kept = rejected(gateway)
    assert len(kept) == 202
    assert [record["rejectedcode"] for record in kept].count("malformed") == 1
    assert kept[-1]["data"] == {"n": -5}
    assert all(record["rejectedreason"] for record in kept)


def test_types_that_drop_leave_nothing(gateway: Gateway) -> None:
    assert post(gateway, "dropped", b'{"n":-1}').status == 422
    assert rejected(gateway) == []


def test_what_is_kept_and_dropped_is_counted(tmp_path: Path) -> None:
    directory = write_types(tmp_path / "deployment")
    env = {"INGEST_REJECTED_PENDING_MAX_BYTES": "1024"}
    gateway = Gateway(tmp_path / "data", cwd=directory, env=env).start()
    body = b"\n".join([b'{"n":-1}'] * 100)
    assert gateway.request("POST", "/v1/events/kept", body, NDJSON).status == 422
    dropped = gateway.metric('ingest_rejected_dropped_total{reason="overloaded"}')
    assert 0 < dropped < 100
    records = rejected(gateway)
    assert len(records) == 100 - dropped


def test_it_survives_a_kill_and_a_damaged_journal_does_not_keep_the_service_down(
    tmp_path: Path,
) -> None:
    directory = write_types(tmp_path / "deployment")
    gateway = Gateway(tmp_path / "data", cwd=directory).start()
    for n in range(1, 6):
        assert post(gateway, "kept", b'{"n":-%d}' % n).status == 422
    kept = 'ingest_rejected_kept_total{code="schema",type="kept"}'
    until(lambda: gateway.metric(kept) == 5)
    gateway.kill()
    path = next((tmp_path / "data" / "rejected" / "0").iterdir())
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    gateway = Gateway(tmp_path / "data", cwd=directory).start()
    assert gateway.request("GET", "/readyz").status == 200
    assert post(gateway, "kept", b'{"n":-9}').status == 422
    records = rejected(gateway)
    assert records[-1]["data"] == {"n": -9}


def test_the_command_line_reads_it(gateway: Gateway) -> None:
    assert post(gateway, "kept", b'{"n":-1}').status == 422
    assert gateway.stop() == 0
    command = [sys.executable, "-m", "ingest", "journal"]
    for name in ("cat", "verify"):
        done = subprocess.run(
            [*command, name, "--rejected", "--data", str(gateway.data)],
            capture_output=True,
            check=True,
            cwd=ROOT,
        )
        assert done.stdout.count(b"\n") == 1
