"""What `openssl s_client` finds of the gateway's TLS, as testssl.sh would."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.certificates import DAY, HOST, NOW, Authority, EncryptedGateway
from tests.support.events import METRICS
from tests.support.gateway import Client
from tests.support.proxies import free_ports, running
from tests.support.waiting import until
from tests.support.wrk import Wrk

#: TLS_RENEWALS=500 for a long run.
RENEWALS = int(os.environ.get("TLS_RENEWALS", "15"))
#: Everything OpenSSL has, however weak.
ALL = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"


class Said(NamedTuple):
    """What s_client said: all of its output, and whether it was content."""

    text: str
    code: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EncryptedGateway]:
    gateway = EncryptedGateway(tmp_path_factory.mktemp("served"))
    gateway.start()
    yield gateway
    gateway.stop()


def client(gateway: EncryptedGateway, *flags: str, say: bytes = b"") -> Said:
    done = subprocess.run(
        [
            "openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-servername", HOST,
            "-CAfile", str(gateway.authority.file), *flags,
        ],
        input=say,
        capture_output=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    text = (done.stdout + done.stderr).decode(errors="replace")
    return Said(text, done.returncode)


def agreed(said: Said) -> str | None:
    """The cipher that was agreed upon."""
    found = re.search(r"Cipher is (\S+)", said.text)
    return found[1] if found and found[1] != "(NONE)" else None


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_these_versions_are_spoken_with_a_chain_and_a_name_that_verify(
    served: EncryptedGateway, version: str
) -> None:
    said = client(served, version, "-verify_return_error", "-verify_hostname", HOST)
    assert said.code == 0, said.text
    assert "Verification: OK" in said.text or "Verify return code: 0 (ok)" in said.text
    assert agreed(said) is not None
    assert "Compression: NONE" in said.text or version == "-tls1_3"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_older_versions_are_refused(served: EncryptedGateway, version: str) -> None:
    said = client(served, version, "-cipher", ALL)
    assert agreed(said) is None
    assert "alert protocol version" in said.text, said.text


@pytest.mark.parametrize(
    "ciphers",
    ["aNULL", "eNULL", "RC4", "3DES", "DES", "EXPORT", "LOW", "MD5", "PSK", "SRP", "CAMELLIA",
     "kRSA", "DHE-RSA-AES256-GCM-SHA384", "SHA1", "SHA256", "AESCCM"],
)  # fmt: skip
def test_weak_ciphers_and_those_without_forward_secrecy_are_refused(
    served: EncryptedGateway, ciphers: str
) -> None:
    said = client(served, "-tls1_2", "-cipher", f"{ciphers}:@SECLEVEL=0")
    assert agreed(said) is None, said.text


def test_every_cipher_of_1_2_that_is_agreed_upon_is_ephemeral_and_authenticated(
    served: EncryptedGateway,
) -> None:
    listed = subprocess.run(
        ["openssl", "ciphers", "-s", "-tls1_2", ALL], capture_output=True, text=True, check=True
    ).stdout.strip()
    left, found = listed.split(":"), []
    while left:
        name = agreed(client(served, "-tls1_2", "-cipher", ":".join([*left, "@SECLEVEL=0"])))
        if name is None:
            break
        found.append(name)
        left.remove(name)
    assert found
    assert all(name.startswith("ECDHE-") for name in found)
    assert all("GCM" in name or "CHACHA20" in name for name in found)


def test_the_gateway_chooses_the_cipher(served: EncryptedGateway) -> None:
    first = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    turned = ":".join(reversed(first.split(":")))
    assert agreed(client(served, "-tls1_2", "-cipher", first)) == agreed(
        client(served, "-tls1_2", "-cipher", turned)
    )


def test_renegotiation_is_refused_and_costs_nobody_anything(served: EncryptedGateway) -> None:
    said = client(served, "-tls1_2", say=b"R\n")
    assert "RENEGOTIATING" in said.text
    assert "no renegotiation" in said.text or said.code != 0, said.text
    assert served.request("GET", "/readyz").status == 200


def test_secure_renegotiation_is_told_and_http_1_1_is_chosen(served: EncryptedGateway) -> None:
    said = client(served, "-tls1_2", "-alpn", "h2,http/1.1")
    assert "Secure Renegotiation IS supported" in said.text
    assert "ALPN protocol: http/1.1" in said.text


def test_keys_are_changed_when_the_client_asks_for_it(served: EncryptedGateway) -> None:
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-servername", HOST,
         "-CAfile", str(served.authority.file), "-tls1_3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    said = b""

    def until_said(words: bytes) -> None:
        nonlocal said
        while words not in said:
            more = process.stdout.read(65536)  # type: ignore[union-attr]
            assert more, said
            said += more
        said = said.partition(words)[2]

    try:
        until_said(b"Verify return code")
        for _ in range(3):
            process.stdin.write(b"K\n")
            until_said(b"KEYUPDATE")
            process.stdin.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            until_said(b"HTTP/1.1 200")
    finally:
        process.kill()
        process.communicate()


def test_early_data_is_not_taken(served: EncryptedGateway, tmp_path: Path) -> None:
    session = tmp_path / "session"
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    said = client(served, "-tls1_3", "-sess_out", str(session), "-ign_eof", say=request)
    assert "HTTP/1.1 200" in said.text
    early = tmp_path / "early"
    early.write_bytes(request)
    again = client(served, "-sess_in", str(session), "-early_data", str(early))
    assert "Reused" in again.text
    assert "Early data was not sent" in again.text or "Early data was rejected" in again.text


def test_an_expired_certificate_and_one_of_another_host_are_told_from_a_good_one(
    tmp_path: Path,
) -> None:
    served = EncryptedGateway(tmp_path)
    served.authority.issue("server", HOST, not_after=NOW + 30 * DAY)
    served.start()
    wrong = client(served, "-verify_return_error", "-verify_hostname", "another.test")
    assert wrong.code != 0 and "hostname mismatch" in wrong.text.lower()
    # As a client will see it after the end: by a clock of its own.
    later = str(int((NOW + 31 * DAY).timestamp()))
    late = client(served, "-verify_return_error", "-attime", later)
    assert late.code != 0 and "certificate has expired" in late.text
    assert served.stop() == 0


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_clients_are_let_in_by_their_certificates(tmp_path: Path, version: str) -> None:
    clients = Authority(tmp_path, "clients")
    gateway = EncryptedGateway(
        tmp_path, "--tls-client-ca", str(clients.file), "--tls-client-auth", "required"
    )
    good = clients.issue("good", "good.test")
    cases = {
        "good": (good, True),
        "expired": (clients.expired("expired", "good.test"), False),
        "stranger": (Authority(tmp_path, "others").issue("stranger", "good.test"), False),
        "none": (None, False),
    }
    gateway.context = gateway.authority.client(good)
    gateway.start()
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    try:
        for name, (certificate, welcome) in cases.items():
            shown = (
                ["-cert", str(certificate[0]), "-key", str(certificate[1])] if certificate else []
            )
            said = client(gateway, version, *shown, "-ign_eof", say=request)
            assert ("HTTP/1.1 200" in said.text) is welcome, (name, said.text)
            assert welcome or re.search(r"alert (certificate|unknown|handshake|bad)", said.text)
        assert gateway.handshakes("no_certificate") == 1
        assert gateway.handshakes("bad_certificate") == 2
    finally:
        gateway.stop()


CONFIGURATION = """\
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen through
    bind 127.0.0.1:{port}
    option httpchk GET /readyz
    server gateway1 127.0.0.1:{gateway} ssl verify required ca-file {ca} sni str({host}) \
        verifyhost {host} crt {crt} check port {admin} no-check-ssl inter 200ms {further}
"""


@pytest.mark.parametrize("further", ["", "send-proxy-v2"])
def test_haproxy_speaks_tls_to_it_with_a_certificate_of_its_own(
    tmp_path: Path, further: str
) -> None:
    clients = Authority(tmp_path, "clients")
    flags = ["--tls-client-ca", str(clients.file), "--tls-client-auth", "required"]
    flags += ["--admin-bind", "127.0.0.1:0"]
    if further:
        flags += ["--proxy-protocol", "required", "--trusted-proxies", "127.0.0.1"]
    gateway = EncryptedGateway(tmp_path, *flags)
    gateway.start()
    both = tmp_path / "proxy-both.pem"
    both.write_text("".join(path.read_text() for path in clients.issue("proxy", "proxy.test")))
    (port,) = free_ports(1)
    path = tmp_path / "haproxy.cfg"
    path.write_text(
        CONFIGURATION.format(
            port=port, gateway=gateway.port, ca=gateway.authority.file, host=HOST, crt=both,
            admin=gateway.admin_port(), further=further,
        )
    )  # fmt: skip
    try:
        with running(["haproxy", "-db", "-f", str(path)], port, tmp_path / "haproxy.log"):

            def status() -> int:
                with Client(socket.create_connection(("127.0.0.1", port), 20)) as asking:
                    fields = {"Content-Type": "application/json"}
                    body = json.dumps(METRICS).encode()
                    return asking.request("POST", "/v1/events/metrics", body, fields).status

            assert [status() for _ in range(20)] == [202] * 20
    finally:
        assert gateway.stop() == 0
    assert len(gateway.journal()) == 20


def test_no_request_fails_while_certificates_are_renewed_again_and_again(tmp_path: Path) -> None:
    gateway = EncryptedGateway(tmp_path, "--segment-fill", "0")
    gateway.start()
    kept = Wrk(gateway.port, tmp_path, scheme="https")
    anew = Wrk(gateway.port, tmp_path, scheme="https", fields=["Connection: close"])
    done = 'ingest_tls_reloads_total{result="done"}'
    for number in range(1, RENEWALS + 1):
        gateway.authority.issue("server", HOST)
        gateway.send_signal(signal.SIGHUP)
        until(lambda number=number: gateway.metric(done) >= number)  # type: ignore[misc]
    counted = [kept.stop(), anew.stop()]
    for one in counted:
        assert one.requests > 100
        assert (one.refused, one.broken) == (0, 0), one.text
    assert gateway.handshakes("done") >= counted[1].requests
    assert gateway.stop() == 0
