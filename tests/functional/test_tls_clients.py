"""Clients with certificates: who is let in, and as whom."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.certificates import HOST, Authority, Serve
from tests.support.events import METRICS
from tests.support.gateway import Answer, Client
from tests.support.waiting import until

BODY = json.dumps(METRICS).encode()
SHOP = "CN=shop-1,OU=Checkout,O=trustme v" + trustme.__version__
OU = "many"


def keys_file(directory: Path, *clients: dict[str, Any]) -> Path:
    path = directory / "keys.json"
    path.write_text(json.dumps({"keys": [], "clients": clients}))
    path.chmod(0o600)
    return path


class Mutual:
    """A gateway whose clients show certificates of a CA of their own."""

    def __init__(self, directory: Path, serve: Serve, auth: str, *flags: str) -> None:
        self.clients = Authority(directory, "clients")
        self.shop = self.clients.issue(
            "shop", "shop.test", common_name="shop-1", organization_unit_name="Checkout"
        )
        ca = str(self.clients.file)
        self.gateway = serve("--tls-client-ca", ca, "--tls-client-auth", auth, *flags)
        self.gateway.context = self.speaks(self.shop)

    def speaks(self, certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
        return self.gateway.authority.client(certificate)

    def send(self, certificate: tuple[Path, Path] | None, path: str = "metrics") -> Answer:
        with self.gateway.connect(context=self.speaks(certificate)) as client:
            fields = {"Content-Type": "application/json"}
            return client.request("POST", f"/v1/events/{path}", BODY, fields)


def test_where_a_certificate_is_required_nobody_comes_in_without(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    mutual = Mutual(tmp_path, new_encrypted, "required")
    assert mutual.send(mutual.shop).status == 202
    stranger = Authority(tmp_path, "strangers").issue("stranger", "shop.test")
    expired = mutual.clients.expired("expired", "shop.test")
    for certificate in (None, stranger, expired):
        with pytest.raises(OSError):
            mutual.send(certificate)
    older = mutual.speaks(None)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):  # within the handshake
        mutual.gateway.connect(context=older)
    gateway = mutual.gateway
    assert (gateway.handshakes("no_certificate"), gateway.handshakes("bad_certificate")) == (2, 2)
    assert len(gateway.journal()) == 1


def test_where_it_is_optional_it_does_as_well_as_a_key(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    file = keys_file(tmp_path, {"subject": SHOP, "name": "shop", "types": ["metrics"]})
    mutual = Mutual(tmp_path, new_encrypted, "optional", "--keys-file", str(file))
    assert mutual.send(mutual.shop).status == 202
    assert mutual.send(mutual.shop, "page_view").status == 403
    assert mutual.send(None).status == 401
    unknown = mutual.send(mutual.clients.issue("other", "other.test", common_name="other"))
    assert (unknown.status, unknown.json()["code"]) == (403, "forbidden")
    assert "CN=other" in unknown.json()["detail"]
    (stored,) = mutual.gateway.journal()
    assert stored["ingestproducer"] == "shop"
    assert mutual.gateway.metric('ingest_key_events_total{key="shop"}') == 1
    assert mutual.gateway.metric('ingest_access_refused_total{reason="client"}') == 1


def test_many_clients_are_told_apart(tmp_path: Path, new_encrypted: Serve) -> None:
    count = 35  # more than there are caches for kinds of peers
    made = [
        {"subject": f"CN=c{n},OU={OU},O=trustme v{trustme.__version__}", "name": f"client-{n}"}
        for n in range(count)
    ]
    file = keys_file(tmp_path, *made)
    mutual = Mutual(tmp_path, new_encrypted, "required", "--keys-file", str(file))
    for number in range(count):
        certificate = mutual.clients.issue(
            f"c{number}", "c.test", common_name=f"c{number}", organization_unit_name=OU
        )
        assert mutual.send(certificate).status == 202
    names = [record["ingestproducer"] for record in mutual.gateway.journal()]
    assert names == [f"client-{number}" for number in range(count)]
    fields = {"Content-Type": "application/json"}
    with mutual.gateway.connect(context=mutual.speaks(certificate)) as last:
        assert last.request("POST", "/v1/events/metrics", BODY, fields).status == 202
        misses = mutual.gateway.metric("ingest_head_cache_misses_total")
        for _ in range(10):
            assert last.request("POST", "/v1/events/metrics", BODY, fields).status == 202
        again = mutual.gateway.metric("ingest_head_cache_misses_total")
        assert again - misses <= 1  # the question itself
        keys_file(tmp_path, *made[:-1])
        until(lambda: last.request("POST", "/v1/events/metrics", BODY, fields).status == 403)


def test_a_workload_without_a_subject_is_known_by_its_alternative_name(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    file = keys_file(tmp_path, {"subject": "DNS:billing.test", "name": "billing"})
    mutual = Mutual(tmp_path, new_encrypted, "required", "--keys-file", str(file))
    assert mutual.send(mutual.clients.issue("billing", "billing.test")).status == 202
    assert mutual.gateway.journal()[0]["ingestproducer"] == "billing"


def test_without_clients_in_the_keys_file_a_certificate_is_no_key(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    file = keys_file(tmp_path)
    mutual = Mutual(tmp_path, new_encrypted, "required", "--keys-file", str(file))
    assert mutual.send(mutual.shop).status == 401


def test_a_resumed_session_has_the_certificate_of_the_first(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    file = keys_file(tmp_path, {"subject": SHOP, "name": "shop"})
    mutual = Mutual(tmp_path, new_encrypted, "required", "--keys-file", str(file))
    context = mutual.gateway.context
    with mutual.gateway.connect() as client:
        first: Any = client.sock
        assert client.request("GET", "/livez").status == 200
        session = first.session
    sock = socket.create_connection(("127.0.0.1", mutual.gateway.port), 30)
    with context.wrap_socket(sock, server_hostname=HOST, session=session) as again:
        assert again.session_reused
        fields = {"Content-Type": "application/json"}
        answer = Client(again).request("POST", "/v1/events/metrics", BODY, fields)
    assert answer.status == 202
    assert mutual.gateway.journal()[0]["ingestproducer"] == "shop"


def test_who_is_taken_out_of_the_file_is_out_on_an_open_connection(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    file = keys_file(tmp_path, {"subject": SHOP, "name": "shop"})
    mutual = Mutual(tmp_path, new_encrypted, "required", "--keys-file", str(file))
    fields = {"Content-Type": "application/json"}
    with mutual.gateway.connect() as client:
        assert client.request("POST", "/v1/events/metrics", BODY, fields).status == 202
        keys_file(tmp_path, {"subject": "CN=another", "name": "shop"})
        until(lambda: client.request("POST", "/v1/events/metrics", BODY, fields).status == 403)
