"""What has the name or the form of a credential does not stay in a log line."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.logs_render import EventFormatter, json_line
from ingest.logs_secrets import HIDDEN, is_secret, scrub, scrub_target

SECRETS = (
    "authorization Authorization HTTP_AUTHORIZATION Proxy-Authorization cookie Set-Cookie "
    "x-api-key HTTP_X_API_KEY api_key apikey password db_password passphrase token access_token "
    "x-hub-signature-256 Stripe-Signature sasl.password client_secret private_key session-token"
)
HARMLESS = "key keys tokens token_count secretary author path type event signature_ok name id bind"


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_of_credentials_are_known_in_any_spelling(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_names_of_other_things_are_let_be(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Authorization: Bearer abc.def123", f"Authorization: Bearer {HIDDEN}"),
        ("Basic dXNlcjpwYXNz", f"Basic {HIDDEN}"),
        ("postgres://u:p4ss@db.example/x", f"postgres://u:{HIDDEN}@db.example/x"),
        ("GET /x?token=abc&b=1", f"GET /x?token={HIDDEN}&b=1"),
        ("/x?a=1&x_api_key=abc#f", f"/x?a=1&x_api_key={HIDDEN}#f"),
        (f"key ing_{'a' * 16}_{'S' * 43} is", f"key ing_{'a' * 16}_{HIDDEN} is"),
        ("{'x-api-key': 'abc', 'host': 'h'}", f"{{'x-api-key': '{HIDDEN}', 'host': 'h'}}"),
        ("[('Cookie', 'a=1; b=2')]", f"[('Cookie', '{HIDDEN}')]"),
        (r"{\"password\": \"abc\"}", rf"{{\"password\": \"{HIDDEN}\"}}"),
        ("{b'Authorization': b'x'}", f"{{b'Authorization': b'{HIDDEN}'}}"),
        ("X-API-Key: abc\nHost: h", f"X-API-Key: {HIDDEN}\nHost: h"),
        ("cookie: a=1; b=2 end", f"cookie: {HIDDEN} end"),
        ("{'key': 'abc', 'token_count': '3'}", "{'key': 'abc', 'token_count': '3'}"),
        ("basic authentication is used", "basic authentication is used"),
        ("/v1/events?order_code=1&key_count=2", "/v1/events?order_code=1&key_count=2"),
        ("http://h:80/a@b", "http://h:80/a@b"),
    ],
)
def test_texts_lose_what_has_the_form_of_a_credential_and_nothing_else(
    text: str, left: str
) -> None:
    assert scrub(text) == left


def test_a_target_loses_the_values_of_its_query_that_are_credentials() -> None:
    target = "/v1/events/t?atomic=true&access_token=abc%2Fdef&sig=1"
    assert scrub_target(target) == f"/v1/events/t?atomic=true&access_token={HIDDEN}&sig={HIDDEN}"


def test_a_line_hides_them_at_every_depth_and_in_every_logger() -> None:
    headers = {"authorization": "Bearer secret-1", "x-api-key": "secret-2", "host": "h"}
    line = json_line({"event": "e", "request": {"headers": headers}, "password": "secret-3"})
    assert "secret-" not in line
    shown = json.loads(line)
    assert shown["request"]["headers"] == {
        "authorization": HIDDEN,
        "x-api-key": HIDDEN,
        "host": "h",
    }
    record = logging.LogRecord("lib", 20, "f.py", 1, "sent %s", ({"Cookie": "secret"},), None)
    record.token = "secret-4"
    console = EventFormatter("ingest", 0, True, False).format(record)
    assert "secret-4" not in console


pieces = st.sampled_from(
    [
        '"',
        "\\",
        "?",
        "&",
        "token=",
        "://",
        ":",
        "@",
        "Bearer ",
        "a1",
        "'",
        "cookie",
        "password",
        ": ",
        ", ",
        "\n",
        " ",
        "ü",
        "Basic ",
        "=",
    ]
)


@given(st.lists(pieces, max_size=20).map("".join))
def test_whatever_is_hidden_a_line_stays_json(text: str) -> None:
    line = json_line({"event": text, "value": {"text": text}})
    assert set(json.loads(line)) == {"event", "value"}
