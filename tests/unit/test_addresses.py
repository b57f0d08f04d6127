"""Whom a proxy speaks for: what it wrote is believed, what stands before that is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.access.addresses import HOPS_MAX, Forwards, Networks
from ingest.access.exposure import exposed
from ingest.settings import Settings

TRUSTED = Networks.parse("10.0.0.0/8, 2001:db8:1::/48")
PROXY = "10.0.0.1"
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)


def client(value: str | None, field: str = "x-forwarded-for") -> str:
    return Forwards(TRUSTED, field).client(PROXY, {} if value is None else {field: value})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, PROXY),
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("10.9.9.9, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("10.0.0.3,10.0.0.2", "10.0.0.3"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::7]:4711", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7, unknown", PROXY),
        ("192.0.2.7, nonsense, 10.0.0.2", "10.0.0.2"),
        ("192.0.2.7,", PROXY),
        ("", PROXY),
        ("127.0.0.01", PROXY),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_client(
    value: str | None, found: str
) -> None:
    assert client(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("for=192.0.2.7;proto=https;by=10.0.0.1", "192.0.2.7"),
        ('For="[2001:db8::7]:4711"', "2001:db8::7"),
        ('for=203.0.113.9, for="192.0.2.7:80", for=10.0.0.2', "192.0.2.7"),
        ('for=192.0.2.7, for="_hidden"', PROXY),
        ('by=10.0.0.1;proto="a,for=203.0.113.9", for=192.0.2.7', "192.0.2.7"),
        ("for=192.0.2.7;for=203.0.113.9", PROXY),
        ("proto=https", PROXY),
    ],
)
def test_forwarded_is_read_as_its_rfc_has_it(value: str, found: str) -> None:
    assert client(value, "forwarded") == found


def test_only_the_field_of_the_proxy_is_looked_at() -> None:
    forged = {"forwarded": "for=203.0.113.9", "x-forwarded-for": "192.0.2.7"}
    assert Forwards(TRUSTED, "x-forwarded-for").client(PROXY, forged) == "192.0.2.7"


def test_a_chain_of_proxies_has_an_end() -> None:
    assert client(", ".join(["192.0.2.7", *["10.0.0.2"] * HOPS_MAX])) == "10.0.0.2"
    assert client(", ".join(["192.0.2.7", *["10.0.0.2"] * (HOPS_MAX - 1)])) == "192.0.2.7"


@given(forged=st.lists(st.text("0123456789abcdef.:, []_-", max_size=30)), seen=addresses)
def test_nothing_that_a_client_writes_hides_where_it_is(forged: list[str], seen: str) -> None:
    if seen in TRUSTED:
        return
    written = client(", ".join([*forged, seen]))
    assert written == client(seen)


@given(st.text(max_size=200), st.sampled_from(("x-forwarded-for", "forwarded")))
def test_whatever_it_says_the_result_is_an_address(value: str, field: str) -> None:
    assert Networks.parse("0.0.0.0/0,::/0").__contains__(client(value, field))


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.1/8", "host", "10.0.0.1,,::1"])
def test_what_is_no_list_of_networks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="takes addresses and networks"):
        Networks.parse(text)


def test_an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() -> None:
    assert "::ffff:10.1.2.3" in TRUSTED
    assert "not an address" not in TRUSTED


@pytest.mark.parametrize(
    ("host", "changed", "warned"),
    [
        ("127.0.0.1", {}, False),
        ("::1", {}, False),
        ("0.0.0.0", {}, True),
        ("192.0.2.1", {"trusted_proxies": "10.0.0.1"}, True),
        ("0.0.0.0", {"allow_addresses": "10.0.0.0/8"}, False),
        ("0.0.0.0", {"keys_file": "keys.json"}, False),
    ],
)
def test_a_start_for_everybody_is_warned_of(
    host: str, changed: dict[str, str], warned: bool
) -> None:
    assert (exposed(host, replace(Settings(), **changed)) is not None) is warned
