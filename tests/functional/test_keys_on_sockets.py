"""With a keys file, only who has a key sends and reads, and only what the key is for."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest import cli
from tests.support.gateway import Answer, Gateway
from tests.support.waiting import until

DEDUPED = {"type": "object", "x-ingest": {"dedupe": "idempotency-key"}}
ANY = {"type": "object", "x-ingest": {"on_reject": "keep"}, "required": ["n"]}
SAYS = "def handle(event):\n    return {'n': event.data['n'], 'key': event.key}\n"
EVENT = b'{"n": 1}'


class Served:
    """A gateway with a keys file; makes and revokes keys as an operator does."""

    def __init__(self, directory: Path, start: Callable[..., Gateway]) -> None:
        self.file = directory / "keys.json"
        (directory / "schemas").mkdir()
        (directory / "handlers").mkdir()
        (directory / "handlers" / "said.py").write_text(SAYS)
        for name in ("order", "visit", "said"):
            (directory / "schemas" / f"{name}.json").write_text(json.dumps(ANY))
        (directory / "schemas" / "once.json").write_text(json.dumps(DEDUPED))
        self.token = self.keys("add", "shop")["token"]
        folders = ("--schemas", f"{directory}/schemas", "--handlers", f"{directory}/handlers")
        self.gateway = start(
            *folders, "--keys-file", str(self.file), env={"INGEST_ACCESS_LOG": "all"}
        )

    def keys(self, *words: str) -> Any:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert cli.main(["keys", *words, "--json", "--keys-file", str(self.file)]) == 0
        return json.loads(said.getvalue())

    def ask(
        self, path: str, token: str | None, body: bytes | None = EVENT, **fields: str
    ) -> Answer:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        with self.gateway.connect() as client:
            method = "GET" if body is None else "POST"
            return client.request(method, path, body or b"", named)

    def refused(self, reason: str) -> float:
        return self.gateway.metric(f'ingest_access_refused_total{{reason="{reason}"}}')


@pytest.fixture
def served(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Served:
    return Served(tmp_path, new_gateway)


def test_a_key_is_taken_as_bearer_as_field_of_its_own_and_as_password(served: Served) -> None:
    token = served.token
    basic = base64.b64encode(f"anyone:{token}".encode()).decode()
    for fields in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token}"},
        {"X_API_Key": token},
        {"Authorization": f"Basic {basic}"},
    ):
        assert served.ask("/v1/events/order", None, **fields).status == 202
    records = served.gateway.journal()
    assert [record["ingestproducer"] for record in records] == ["shop"] * 4
    assert served.gateway.metric('ingest_key_events_total{key="shop"}') == 4
    assert served.gateway.metric('ingest_events_accepted_total{type="order"}') == 4


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "missing"),
        ({"Authorization": "Bearer ing_aaaaaaaaaaaaaaaa_" + "A" * 43}, "unknown"),
        ({"Authorization": "Bearer"}, "unknown"),
        ({"Authorization": "Digest x"}, "malformed"),
        ({"Authorization": "Basic !!!"}, "malformed"),
        ({"Authorization": "Basic " + base64.b64encode(b"nocolon").decode()}, "malformed"),
        ({"X_API_Key": ""}, "unknown"),
        ({"X_API_Key": "a", "Authorization": "Bearer b"}, "malformed"),
    ],
)
def test_without_a_valid_key_it_is_401_counted_and_nothing_is_stored(
    served: Served, fields: dict[str, str], reason: str
) -> None:
    answer = served.ask("/v1/events/order", None, **fields)
    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith('Bearer realm="ingest"')
    assert served.refused(reason) == 1
    assert served.gateway.journal() == []
    assert served.gateway.journal("--rejected") == []


@pytest.mark.parametrize("path", ["/v1/events/order", "/v1/batch/order", "/v1/events/nothing"])
def test_who_has_no_key_does_not_learn_which_types_there_are(served: Served, path: str) -> None:
    assert served.ask(path, None, b"not json").status == 401


def test_a_key_is_judged_before_the_body_is_sent(served: Served) -> None:
    with served.gateway.connect() as client:
        client.send(
            b"POST /v1/events/order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.answer().status == 401


def event(kind: str) -> dict[str, Any]:
    return {"specversion": "1.0", "id": kind, "source": "/t", "type": kind, "data": {"n": 1}}


def test_a_key_sends_its_own_types_in_every_form_and_no_others(served: Served) -> None:
    token = served.keys("add", "visits", "--types", "vis*")["token"]
    lines, array = b'{"n": 1}\n{"n": 2}\n', b'[{"n": 1}, {"n": 2}]'
    one, many = "application/cloudevents+json", "application/cloudevents-batch+json"

    def forms(kind: str) -> list[Answer]:
        binary = {"ce_id": "b", "ce_source": "/t", "ce_type": kind, "ce_specversion": "1.0"}
        return [
            served.ask(f"/v1/events/{kind}", token),
            served.ask(f"/v1/events/{kind}", token, lines, Content_Type="application/x-ndjson"),
            served.ask(f"/v1/batch/{kind}", token, array),
            served.ask("/v1/events", token, json.dumps(event(kind)).encode(), Content_Type=one),
            served.ask("/v1/events", token, json.dumps([event(kind)]).encode(), Content_Type=many),
            served.ask("/v1/events", token, **binary),
        ]

    until(lambda: served.ask("/v1/events/visit", token).status == 202)
    before = len(served.gateway.journal())
    refused = forms("order")
    assert [answer.status for answer in refused] == [403] * 6
    assert {answer.json()["code"] for answer in refused} == {"forbidden"}
    assert served.refused("type") == 6
    assert len(served.gateway.journal()) == before
    mixed = json.dumps([event("visit"), event("order")]).encode()
    assert served.ask("/v1/events", token, mixed, Content_Type=many).status == 403
    assert len(served.gateway.journal()) == before
    assert [answer.status for answer in forms("visit")] == [202] * 6
    stored = served.gateway.journal()
    assert {record["ingestproducer"] for record in stored} == {"visits"}
    assert served.gateway.metric('ingest_key_events_total{key="visits"}') == len(stored)


def test_rights_part_who_sends_from_who_reads(served: Served) -> None:
    sends = served.keys("add", "sends", "--rights", "send")["token"]
    reads = served.keys("add", "reads", "--rights", "read")["token"]
    until(lambda: served.ask("/v1/events/order", sends).status == 202)
    until(lambda: served.ask("/v1/schemas", reads, None).status == 200)
    for path in ("/v1/schemas", "/v1/schemas/order", "/v1/journal", "/v1/journal/0"):
        assert served.ask(path, reads, None).status == 200
        assert served.ask(path, sends, None).status == 403
        assert served.ask(path, None, None).status == 401
    assert served.ask("/v1/events/order", reads).status == 403
    for path in ("/livez", "/readyz", "/startupz", "/health", "/metrics", "/openapi.json"):
        assert served.ask(path, None, None).status == 200


def test_a_revoked_key_stays_out_also_on_the_connection_that_used_it(served: Served) -> None:
    token = served.keys("add", "leaver")["token"]
    fields = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with served.gateway.connect() as client:

        def ask() -> int:
            return client.request("POST", "/v1/events/order", EVENT, fields).status

        until(lambda: ask() == 202)
        (entry,) = [key for key in served.keys("list") if key["name"] == "leaver"]
        served.keys("revoke", entry["id"])
        until(lambda: ask() == 401)
    assert served.refused("revoked") >= 1


def test_a_key_that_expires_is_noticed_without_anybody_touching_the_file(served: Served) -> None:
    token = served.keys("add", "short", "--expires", "4s")["token"]
    until(lambda: served.ask("/v1/events/order", token).status == 202)
    until(lambda: served.ask("/v1/events/order", token).status == 401)
    assert served.refused("expired") >= 1


def test_a_bad_file_changes_nothing_and_is_told(served: Served) -> None:
    served.file.write_text("{")
    until(lambda: served.gateway.metric('ingest_keys_reloads_total{result="failed"}') == 1)
    assert served.ask("/v1/events/order", served.token).status == 202
    (said,) = [x for x in served.gateway.log_lines() if x["event"] == "keys.reload_failed"]
    assert "no JSON" in said["problems"][0]


def test_handlers_learn_the_name_and_rejected_events_keep_it(served: Served) -> None:
    assert served.ask("/v1/events/said", served.token).status == 202
    assert served.ask("/v1/events/said", served.token, b"{}").status == 422
    (stored,) = served.gateway.journal()
    assert stored["data"] == {"n": 1, "key": "shop"}
    until(lambda: len(served.gateway.journal("--rejected")) == 1)
    assert served.gateway.journal("--rejected")[0]["ingestproducer"] == "shop"


def test_two_producers_may_use_the_same_idempotency_key(served: Served) -> None:
    other = served.keys("add", "other")["token"]
    fields = {"Idempotency_Key": '"one"'}
    until(lambda: served.ask("/v1/schemas", other, None).status == 200)
    first = served.ask("/v1/events/once", served.token, **fields)
    second = served.ask("/v1/events/once", other, **fields)
    again = served.ask("/v1/events/once", served.token, **fields)
    assert [first.status, second.status, again.status] == [202, 202, 202]
    assert first.json()["id"] != second.json()["id"]
    assert again.json()["id"] == first.json()["id"]


def test_a_token_is_nowhere_but_with_its_owner(served: Served) -> None:
    secret = served.token.rpartition("_")[2]
    assert served.ask("/v1/events/order", served.token).status == 202
    assert served.ask("/v1/events/order", served.token, b"{}").status == 422
    assert served.ask("/v1/events/order", served.token + "x").status == 401
    refused = served.ask("/v1/events/nothing", served.token)
    assert secret not in refused.body.decode()
    metrics = served.ask("/metrics", None, None).body.decode()
    assert served.gateway.stop() == 0
    files = [path for path in served.file.parent.rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files).decode("utf-8", "replace")
    for text in (metrics, written, served.gateway.log()):
        assert secret not in text
    assert '"key":"shop"' in served.gateway.log()


def test_no_keys_file_is_a_clear_reason_not_to_start(
    tmp_path: Path, new_gateway: Callable[..., Gateway]
) -> None:
    command = [
        sys.executable,
        "-m",
        "ingest",
        "--data",
        str(tmp_path / "data"),
        "--bind",
        "127.0.0.1:0",
    ]
    for words in (["serve"], ["check"], ["--workers", "2"]):
        done = subprocess.run(
            [*command, *words, "--keys-file", str(tmp_path / "none.json")],
            capture_output=True, timeout=60, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert "none.json" in done.stderr + done.stdout
        assert "No such file" in done.stderr + done.stdout
        assert "Traceback" not in done.stderr
