"""Signatures of webhooks: the vectors of those who made the schemes, and what is none."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.access import signatures

GITHUB = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def judged(scheme: str, headers: dict[str, str], body: bytes, *secrets: str) -> bool:
    signed = signatures.read(scheme, headers)
    keys = [signatures.key_of(scheme, secret) for secret in secrets]
    return signed is not None and signatures.matching(signed, body, keys) is not None


def test_the_example_of_github_is_right() -> None:
    headers = {"x-hub-signature-256": f"sha256={GITHUB}"}
    assert judged("github", headers, b"Hello, World!", "It's a Secret to Everybody")
    assert not judged("github", headers, b"Hello, World", "It's a Secret to Everybody")
    assert not judged("github", headers, b"Hello, World!", "It's a secret to Everybody")


def test_the_example_of_standard_webhooks_is_right() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    assert judged("standard", STANDARD, body, secret)
    assert judged("standard", STANDARD, body, secret.removeprefix("whsec_"))
    several = {**STANDARD, "webhook-signature": f"v1a,x v1,AAAA {STANDARD['webhook-signature']}"}
    assert judged("standard", several, body, secret)
    for name in STANDARD:
        assert not judged("standard", {**STANDARD, name: STANDARD[name] + "1"}, body, secret)
        assert signatures.read("standard", {k: v for k, v in STANDARD.items() if k != name}) is None


def stripe(secret: str, time: int, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{time}.".encode() + body, hashlib.sha256).hexdigest()


def test_stripe_signs_time_and_body_and_may_change_its_secret() -> None:
    right, old = stripe("new", 1_700_000_000, b"{}"), stripe("old", 1_700_000_000, b"{}")
    headers = {"stripe-signature": f"t=1700000000,v1={old},v1={right},v0=ab"}
    assert judged("stripe", headers, b"{}", "new")
    assert judged("stripe", headers, b"{}", "other", "old")
    assert not judged("stripe", headers, b"{}", "other")
    late = {"stripe-signature": f"t=1700000001,v1={right}"}
    assert not judged("stripe", late, b"{}", "new")


@pytest.mark.parametrize(
    ("scheme", "headers"),
    [
        ("github", {}),
        ("github", {"x-hub-signature-256": "sha1=" + "a" * 40}),
        ("github", {"x-hub-signature-256": f"sha256={GITHUB.upper()}"}),
        ("github", {"x-hub-signature-256": f"sha256={GITHUB}, sha256={GITHUB}"}),
        ("stripe", {"stripe-signature": "t=1700000000"}),
        ("stripe", {"stripe-signature": f"v1={GITHUB}"}),
        ("stripe", {"stripe-signature": f"t=1,t=2,v1={GITHUB}"}),
        ("stripe", {"stripe-signature": f"t=x,v1={GITHUB}"}),
        ("stripe", {"stripe-signature": f"t=1,v0={GITHUB}"}),
    ],
)
def test_what_is_no_signature_is_none(scheme: str, headers: dict[str, str]) -> None:
    assert signatures.read(scheme, headers) is None


@pytest.mark.parametrize("scheme", ["github", "stripe", "standard"])
@given(values=st.lists(st.text(st.characters(max_codepoint=255), max_size=100), min_size=4))
def test_no_field_is_too_odd_to_be_read(scheme: str, values: list[str]) -> None:
    names = (signatures.FIELDS[scheme], "webhook-id", "webhook-timestamp", "other")
    headers: dict[str, Any] = dict(zip(names, values, strict=False))
    signed = signatures.read(scheme, headers)
    assert signed is None or signatures.matching(signed, b"", [b"key"]) is None


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!", "a"])
def test_a_secret_that_is_none_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^the secret is") as refused:
        signatures.key_of("standard", secret)
    assert secret in ("", "a", "whsec_") or secret not in str(refused.value)


def test_signatures_are_bounded() -> None:
    digest = base64.b64encode(bytes(32)).decode()
    headers = {**STANDARD, "webhook-signature": " ".join([f"v1,{digest}"] * 100)}
    signed = signatures.read("standard", headers)
    assert signed is not None and len(signed.digests) == signatures.SIGNATURES_MAX
