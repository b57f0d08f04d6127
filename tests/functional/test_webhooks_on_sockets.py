"""Types with `x-ingest.webhook`: what is signed, of now and new is taken, and nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Answer, Gateway
from tests.support.waiting import until

SECRET = "correct horse battery staple"
KEY = b"0123456789abcdef0123456789abcdef"
WHSEC = "whsec_" + base64.b64encode(KEY).decode()
BODY = b'{"n": 1}'
TYPES: dict[str, Any] = {
    "push": {"scheme": "github", "secret_env": "PUSH_SECRET"},
    "charge": {"scheme": "stripe", "secret_file": "charge.secret"},
    "message": {"scheme": "standard", "secret_env": "MESSAGE_SECRET", "tolerance": "1m"},
}
ENV = {"PUSH_SECRET": SECRET, "MESSAGE_SECRET": WHSEC, "INGEST_ACCESS_LOG": "all"}


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def github(body: bytes = BODY, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={mac(secret.encode(), body).hex()}"}


def stripe(body: bytes = BODY, secret: str = SECRET, age: float = 0) -> dict[str, str]:
    at = int(time.time() - age)
    signature = mac(secret.encode(), f"{at}.".encode() + body).hex()
    return {"Stripe-Signature": f"t={at},v1={signature}"}


def standard(body: bytes = BODY, key: bytes = KEY, age: float = 0) -> dict[str, str]:
    at = int(time.time() - age)
    signature = base64.b64encode(mac(key, f"msg_1.{at}.".encode() + body)).decode()
    return {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(at),
        "Webhook-Signature": f"v1,{signature}",
    }


class Hooks:
    """A gateway with a type for each scheme, and keys for all others."""

    def __init__(self, directory: Path, start: Callable[..., Gateway]) -> None:
        self.directory = directory
        self.flags = ("--schemas", f"{directory}/schemas", "--handlers", f"{directory}/none")
        (directory / "schemas").mkdir()
        (directory / "charge.secret").write_text(f"{SECRET}\nan older one\n")
        for name, webhook in TYPES.items():
            if "secret_file" in webhook:
                webhook = {**webhook, "secret_file": str(directory / "charge.secret")}
            options = {"webhook": webhook, "on_reject": "keep", "routes": [f"POST /hooks/{name}"]}
            schema = {"type": "object", "required": ["n"], "x-ingest": options}
            (directory / "schemas" / f"{name}.json").write_text(json.dumps(schema))
        (directory / "schemas" / "plain.json").write_text("{}")
        (directory / "keys.json").write_text('{"keys": []}')
        (directory / "keys.json").chmod(0o600)
        keys = ("--keys-file", str(directory / "keys.json"))
        self.gateway = start(*self.flags, *keys, env=ENV)

    def send(self, path: str, body: bytes = BODY, **more: Any) -> Answer:
        return self.gateway.post(path, body, **more)

    def refused(self, reason: str) -> float:
        return self.gateway.metric(f'ingest_access_refused_total{{reason="{reason}"}}')

    def nothing_stored(self) -> bool:
        return self.gateway.journal() == [] == self.gateway.journal("--rejected")


@pytest.fixture
def hooks(tmp_path: Path, new_gateway: Callable[..., Gateway]) -> Hooks:
    return Hooks(tmp_path, new_gateway)


def test_signed_events_are_taken_without_a_key_and_named(hooks: Hooks) -> None:
    assert hooks.send("/hooks/push", **github()).status == 202
    assert hooks.send("/v1/events/charge", **stripe()).status == 202
    assert hooks.send("/v1/events/charge", **stripe(secret="an older one")).status == 202
    assert hooks.send("/hooks/message", **standard()).status == 202
    assert hooks.send("/v1/events/plain").status == 401
    producers = [event["ingestproducer"] for event in hooks.gateway.journal()]
    assert producers == ["webhook:push", "webhook:charge", "webhook:charge", "webhook:message"]
    assert hooks.gateway.metric('ingest_key_events_total{key="webhook:charge"}') == 2


def test_a_signature_is_over_the_bytes_as_they_are_sent(hooks: Hooks) -> None:
    packed = gzip.compress(BODY)
    coded = {"Content-Encoding": "gzip"}
    assert hooks.send("/v1/events/push", packed, **coded, **github(BODY)).status == 401
    assert hooks.send("/v1/events/push", packed, **coded, **github(packed)).status == 202
    spaced = b'{ "n" : 1 }'
    assert hooks.send("/v1/events/push", spaced, **github(BODY)).status == 401
    assert hooks.send("/v1/events/push", spaced, **github(spaced)).status == 202
    lines = {**github(b'{"n": 1}\n{"n": 2}\n'), "Content-Type": "application/x-ndjson"}
    assert hooks.send("/v1/events/push", b'{"n": 1}\n{"n": 2}\n', **lines).status == 202


@pytest.mark.parametrize(
    ("path", "fields", "reason"),
    [
        ("/v1/events/push", {}, "unsigned"),
        ("/hooks/charge", {}, "unsigned"),
        ("/v1/events/push", {"X-Hub-Signature": "sha1=" + "a" * 40}, "unsigned"),
        ("/v1/events/push", github(secret="another"), "signature"),
        ("/v1/events/push", github(b"another"), "signature"),
        ("/v1/batch/push", github(b"another"), "signature"),
        ("/v1/events/charge", stripe(secret="another"), "signature"),
        ("/v1/events/charge", github(), "unsigned"),
        ("/v1/events/message", standard(key=b"another"), "signature"),
    ],
)
def test_what_is_not_signed_right_is_401_counted_and_nothing_is_stored(
    hooks: Hooks, path: str, fields: dict[str, str], reason: str
) -> None:
    for body in (BODY, b"{}", b"not json"):
        answer = hooks.send(path, body, **fields)
        assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
        assert "www-authenticate" in answer.headers
    assert hooks.refused(reason) == 3
    assert hooks.nothing_stored()


def test_a_signature_of_another_time_is_refused(hooks: Hooks) -> None:
    for fields, path in (
        (stripe(age=400), "/v1/events/charge"),
        (stripe(age=-400), "/v1/events/charge"),
        (standard(age=100), "/v1/events/message"),
    ):
        assert hooks.send(path, **fields).status == 401
    assert hooks.refused("stale") == 3
    assert hooks.nothing_stored()


@pytest.mark.parametrize(
    ("name", "fields"), [("push", github), ("charge", stripe), ("message", standard)]
)
def test_a_replayed_signature_is_refused_and_stored_once(
    hooks: Hooks, name: str, fields: Callable[[], dict[str, str]]
) -> None:
    signed = fields()
    answers = [hooks.send(f"/v1/events/{name}", **signed).status for _ in range(4)]
    assert answers == [202, 401, 401, 401]
    assert hooks.send(f"/hooks/{name}", **signed).status == 401
    assert hooks.refused("replayed") == 4
    assert len(hooks.gateway.journal()) == 1


def test_a_signed_type_cannot_be_sent_by_another_way(hooks: Hooks) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/t", "type": "push", "data": {"n": 1}}
    bad = {**event, "data": {}}
    one = {"Content-Type": "application/cloudevents+json"}
    many = {"Content-Type": "application/cloudevents-batch+json"}
    added = subprocess.run(
        [sys.executable, "-m", "ingest", "keys", "add", "all", "--keys-file",
         str(hooks.directory / "keys.json")],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    token = {"Authorization": f"Bearer {added.stdout.split()[0]}"}
    until(lambda: hooks.send("/v1/events/plain", **token).status == 202)
    for body in (event, bad):
        assert hooks.send("/v1/events", json.dumps(body).encode(), **one, **token).status == 403
        batch = json.dumps([body]).encode()
        assert hooks.send("/v1/events", batch, **many, **token).status == 403
    assert hooks.send("/v1/events/push", **token).status == 401
    assert {event["type"] for event in hooks.gateway.journal()} == {"plain"}
    assert hooks.gateway.journal("--rejected") == []


def test_an_unsigned_body_is_not_asked_for(hooks: Hooks) -> None:
    with hooks.gateway.connect() as client:
        client.send(
            b"POST /v1/events/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.answer().status == 401


def test_a_secret_is_nowhere(hooks: Hooks) -> None:
    assert hooks.send("/v1/events/push", **github()).status == 202
    assert hooks.send("/v1/events/push", b"{}", **github(b"{}")).status == 422
    assert hooks.send("/v1/events/push", **github(secret="another")).status == 401
    digests = [value.partition("=")[2] for value in (*github().values(), *stripe().values())]
    metrics = hooks.gateway.request("GET", "/metrics").body.decode()
    until(lambda: len(hooks.gateway.journal("--rejected")) == 1)
    assert hooks.gateway.stop() == 0
    stored = b"".join(p.read_bytes() for p in hooks.gateway.data.rglob("*") if p.is_file())
    for text in (metrics, hooks.gateway.log(), stored.decode("utf-8", "replace")):
        for secret in (SECRET, WHSEC, "an older one", digests[0]):
            assert secret not in text


def test_a_missing_secret_is_a_reason_not_to_start(hooks: Hooks) -> None:
    for command in (["serve"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ingest", *command, *hooks.flags,
             "--data", str(hooks.directory / "other"), "--bind", "127.0.0.1:0"],
            capture_output=True, timeout=60, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert "MESSAGE_SECRET is not set" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
