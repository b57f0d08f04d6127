"""What a webhook remembers of signatures, and certificates that do for a key."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ingest.access import webhooks
from ingest.access.gate import Gate
from ingest.access.keys import Keys, KeysError
from ingest.access.webhooks import SignedWebhook, Webhooks
from ingest.errors import IngestError
from ingest.metrics import Metrics
from ingest.peer import Peer
from ingest.type_options import Webhook

SUBJECT = "CN=shop,O=Example"


def sent(body: bytes, secret: str = "first") -> Any:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    head = SimpleNamespace(headers={"x-hub-signature-256": f"sha256={digest}"})
    return SimpleNamespace(head=head, body=body, started=1.0)


class Clock:
    now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


def made(directory: Path, clock: Clock) -> SignedWebhook:
    (directory / "secret").write_text("first\n")
    options = Webhook("github", secret_file=str(directory / "secret"))
    return SignedWebhook("push", options, Metrics(), lambda *_: None, clock)


def test_what_was_not_stored_for_our_reasons_may_come_again(tmp_path: Path) -> None:
    webhook = made(tmp_path, Clock())
    first, again = sent(b"a"), sent(b"a")
    webhook.check(first)
    webhook.failed(again)  # a replay that was refused for want of room makes room for none
    with pytest.raises(IngestError, match="sent before"):
        webhook.check(again)
    webhook.failed(first)
    webhook.check(again)


def test_signatures_are_forgotten_when_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "SEEN_MAX", 3)
    clock = Clock()
    webhook = made(tmp_path, clock)
    for number in range(3):
        webhook.check(sent(b"%d" % number))
    with pytest.raises(IngestError) as refused:
        webhook.check(sent(b"more"))
    assert refused.value.code == "overloaded"
    clock.now += 301
    webhook.check(sent(b"more"))


def test_a_reload_reads_the_secrets_anew_and_forgets_no_signature(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    options = Webhook("github", secret_file=str(secret))
    hooks = Webhooks()
    before = hooks.serve("push", options, Metrics(), lambda *_: None)
    before.check(sent(b"a"))
    secret.write_text("first\nsecond\n")
    after = Webhooks().serve("push", options, Metrics(), lambda *_: None, hooks)
    with pytest.raises(IngestError, match="sent before"):
        after.check(sent(b"a"))
    after.check(sent(b"a", "second"))
    late = sent(b"b")
    before.check(late)  # it was in flight when the reload came
    with pytest.raises(IngestError, match="sent before"):
        after.check(sent(b"b"))
    before.failed(late)
    after.check(sent(b"b"))


def gate(directory: Path, clients: list[dict[str, Any]]) -> Gate:
    path = directory / "keys.json"
    path.write_text(json.dumps({"keys": [], "clients": clients}))
    path.chmod(0o600)
    return Gate(path, Metrics(), lambda: None)


def test_a_certificate_of_the_right_subject_does_for_a_key(tmp_path: Path) -> None:
    judge = gate(tmp_path, [{"subject": SUBJECT, "name": "shop", "types": ["order"]}])
    peer = Peer("192.0.2.7", 1)
    peer.subject = SUBJECT
    bare: Any = SimpleNamespace(headers={}, path="/v1/schemas")
    assert judge.sender(bare, "order", peer).name == "shop"
    judge.reader(bare, peer)
    with pytest.raises(IngestError, match="'visit'"):
        judge.sender(bare, "visit", peer)
    wrong: Any = SimpleNamespace(headers={"x-api-key": "ing_x"}, path="/")
    for head, subject, code in (
        (bare, f"{SUBJECT},C=X", "forbidden"),
        (bare, None, "unauthorized"),
        (wrong, SUBJECT, "unauthorized"),
    ):
        peer.subject = subject
        with pytest.raises(IngestError) as refused:
            judge.sender(head, "order", peer)
        assert refused.value.code == code


def test_clients_stay_when_keys_change_and_are_told_apart(tmp_path: Path) -> None:
    client = {"subject": SUBJECT, "name": "shop"}
    keys = Keys.parse(json.dumps({"keys": [], "clients": [client]}))
    again = Keys.parse(keys.text())
    found = again.client(SUBJECT)
    assert found is not None and found.name == "shop"
    assert again.client("CN=other") is None
    with pytest.raises(KeysError, match="same subject"):
        Keys.parse(json.dumps({"keys": [], "clients": [client, client]}))
