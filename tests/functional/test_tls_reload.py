"""Certificates that change while it serves, and files that cannot be used."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest import cli
from ingest.tls.validity import validities
from tests.support.certificates import DAY, HOST, NOW, Authority, EncryptedGateway, Serve
from tests.support.events import METRICS
from tests.support.gateway import ROOT, Client
from tests.support.waiting import until

BODY = json.dumps(METRICS).encode()


def shown(gateway: EncryptedGateway) -> bytes:
    """The certificate that a new connection is shown."""
    with gateway.connect() as client:
        sock: Any = client.sock
        found: bytes = sock.getpeercert(binary_form=True)
        return found


def in_file(path: Path) -> bytes:
    text = path.read_text()
    return ssl.PEM_cert_to_DER_cert(text[: text.index("-----END")] + "-----END CERTIFICATE-----\n")


def replace(gateway: EncryptedGateway, **options: Any) -> bytes:
    """Renew the certificate as a tool does that writes both files."""
    gateway.authority.issue("server", HOST, **options)
    return in_file(gateway.certificate)


def expiry(gateway: EncryptedGateway) -> float:
    return gateway.metric('ingest_tls_certificate_expiry_timestamp_seconds{certificate="server"}')


def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_stay(
    new_encrypted: Serve,
) -> None:
    gateway = new_encrypted()
    first = shown(gateway)
    assert first == in_file(gateway.certificate)
    with gateway.connect() as client:
        assert client.request("GET", "/livez").status == 200
        second = replace(gateway, not_after=NOW + 90 * DAY)
        assert second != first
        until(lambda: shown(gateway) == second)
        assert client.request("GET", "/livez").status == 200
        sock: Any = client.sock
        assert sock.getpeercert(binary_form=True) == first
    assert expiry(gateway) == validities(gateway.certificate.read_text())[0].ends
    assert gateway.metric('ingest_tls_reloads_total{result="done"}') >= 1


def test_sighup_takes_it_at_once(new_encrypted: Serve) -> None:
    gateway = new_encrypted()
    second = replace(gateway)
    gateway.send_signal(signal.SIGHUP)
    until(lambda: shown(gateway) == second)


def test_a_file_that_cannot_be_used_changes_nothing_and_is_said_once(
    new_encrypted: Serve,
) -> None:
    gateway = new_encrypted()
    first = shown(gateway)
    gateway.certificate.write_text("no certificate\n")
    until(lambda: gateway.metric('ingest_tls_reloads_total{result="failed"}') == 1)
    assert shown(gateway) == first
    said = [line for line in gateway.log_lines() if line["event"] == "tls.reload_failed"]
    assert said[0]["problems"] == [f"{gateway.certificate}: no certificate in PEM is in it"]
    gateway.send_signal(signal.SIGHUP)
    until(lambda: "reload.refused" in gateway.log())
    assert shown(gateway) == first
    second = replace(gateway)
    until(lambda: shown(gateway) == second)


def test_operators_are_told_which_file_keeps_a_reload_from_happening(
    new_encrypted: Serve,
) -> None:
    gateway = new_encrypted("--admin-bind", "127.0.0.1:0")
    gateway.certificate.write_text("no certificate\n")
    with Client(socket.create_connection(("127.0.0.1", gateway.admin_port()), 30)) as operator:
        answer = operator.request("POST", "/admin/reload", b"")
    (problem,) = answer.json()["problems"]
    assert (problem["area"], problem["file"]) == ("tls", str(gateway.certificate))
    assert problem["message"] == "no certificate in PEM is in it"


def test_an_expired_certificate_is_not_taken(new_encrypted: Serve) -> None:
    gateway = new_encrypted()
    first = shown(gateway)
    replace(gateway, not_before=NOW - 3 * DAY, not_after=NOW - DAY)
    until(lambda: gateway.metric('ingest_tls_reloads_total{result="failed"}') >= 1)
    assert shown(gateway) == first


def test_a_directory_that_is_swapped_as_kubernetes_does_is_followed(
    tmp_path: Path, new_encrypted: Serve
) -> None:
    mount = tmp_path / "mounted"
    mount.symlink_to("one", target_is_directory=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Authority(tmp_path / name).issue("server", HOST)
    flags = ("--tls-cert", f"{mount}/server.pem", "--tls-key", f"{mount}/server.key")
    gateway = new_encrypted(*flags)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    gateway.context = context
    assert shown(gateway) == in_file(tmp_path / "one" / "server.pem")
    (tmp_path / "new").symlink_to("two", target_is_directory=True)
    os.replace(tmp_path / "new", mount)
    until(lambda: shown(gateway) == in_file(tmp_path / "two" / "server.pem"))


def test_each_of_several_workers_takes_it(new_encrypted: Serve) -> None:
    gateway = new_encrypted("--workers", "2")
    second = replace(gateway)
    until(lambda: gateway.metric('ingest_tls_reloads_total{result="done"}') == 2)
    assert {shown(gateway) for _ in range(20)} == {second}


# -- at start --------------------------------------------------------------------------------


def checked(*flags: str) -> tuple[int, dict[str, Any]]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = cli.main(["check", "--json", *flags])
    return code, json.loads(said.getvalue())


def test_check_finds_what_is_wrong_with_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = map(str, authority.issue("server", HOST))
    _, other = map(str, authority.issue("other", HOST))
    old, old_key = map(str, authority.expired("old", HOST))
    early, early_key = map(str, authority.issue("early", HOST, not_before=NOW + DAY))
    empty = tmp_path / "empty.pem"
    empty.touch()
    locked = tmp_path / "locked.key"
    locked.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIBFAIBADANBgkqhkiG9w0B\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    cases = [
        ((certificate, "missing.key"), "missing.key: No such file or directory"),
        ((str(empty), key), f"{empty}: no certificate in PEM is in it"),
        ((certificate, other), f"{other}: it is not the key of the certificate in {certificate}"),
        ((old, old_key), f"{old}: it has expired on "),
        ((early, early_key), f"{early}: it is not valid before "),
        ((certificate, str(empty)), f"{empty}: no private key in PEM is in it"),
        ((str(tmp_path), key), f"{tmp_path}: Is a directory"),
    ]
    for (one, two), said in cases:
        code, report = checked("--tls-cert", one, "--tls-key", two)
        found = [f"{f['file']}: {f['message']}" for f in report["problems"]]
        assert code == 1
        assert len(found) == 1 and found[0].startswith(said), (found, said)
        assert report["problems"][0]["area"] == "tls"


def test_check_warns_of_a_key_that_all_may_read_and_of_an_end_that_is_near(
    tmp_path: Path,
) -> None:
    soon = NOW + timedelta(days=3)
    certificate, key = Authority(tmp_path).issue("server", HOST, not_after=soon)
    key.chmod(0o644)
    code, report = checked("--tls-cert", str(certificate), "--tls-key", str(key))
    said = " ".join(warning["message"] for warning in report["warnings"])
    assert code == 0
    assert f"chmod o-r {key}" in said
    assert "a certificate in it expires on " in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tls-cert", "a"), "tls_cert needs tls_key"),
        (("--tls-key", "a"), "tls_key needs tls_cert"),
        (("--tls-client-auth", "required"), "tls_client_auth needs tls_client_ca"),
        (("--tls-client-ca", "a"), "tls_client_ca needs tls_client_auth"),
        (("--tls-min-version", "1.1"), "tls_min_version"),
    ],
)
def test_settings_that_do_not_go_together_are_named(flags: tuple[str, ...], said: str) -> None:
    code, report = checked(*flags)
    assert code == 1
    assert any(said in problem["message"] for problem in report["problems"])


def test_it_does_not_start_with_a_key_that_does_not_fit(tmp_path: Path) -> None:
    certificate, _ = Authority(tmp_path).issue("server", HOST)
    _, key = Authority(tmp_path, "another").issue("another", HOST)
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key), "--bind", "127.0.0.1:0")
    done = subprocess.run(
        [sys.executable, "-m", "ingest", "--data", str(tmp_path / "data"), *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "it is not the key of the certificate" in done.stderr


def test_ciphers_that_do_not_exist_are_named(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("server", HOST)
    flags = ("--tls-cert", str(certificate), "--tls-key", str(key), "--tls-ciphers", "NONSENSE")
    code, report = checked(*flags)
    assert code == 1
    assert "no cipher of TLS 1.2 is in NONSENSE" in report["problems"][0]["message"]
