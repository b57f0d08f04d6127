"""Names and times of certificates, as text and numbers."""

from __future__ import annotations

import ssl
from datetime import datetime, timezone
from typing import Any

import pytest
import trustme

from ingest.tls.names import names_of, subject
from ingest.tls.validity import validities


def part(name: str, value: str) -> tuple[tuple[str, str], ...]:
    return ((name, value),)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((), ""),
        ((part("countryName", "DE"), part("commonName", "a")), "CN=a,C=DE"),
        (((("commonName", "a"), ("userId", "u")),), "CN=a+UID=u"),
        ((part("commonName", 'a,b+"c"\\<d>;'),), 'CN=a\\,b\\+\\"c\\"\\\\\\<d\\>\\;'),
        ((part("commonName", " a "),), "CN=\\ a\\ "),
        ((part("commonName", "#a#"),), "CN=\\#a#"),
        ((part("commonName", " "),), "CN=\\ "),
        ((part("commonName", "a\0\nb"),), "CN=a\\00\\0ab"),
        ((part("commonName", "Zoë"),), "CN=Zoë"),
        ((part("1.2.3.4", "a"),), "1.2.3.4=a"),
    ],
)
def test_a_subject_is_written_as_rfc_4514_has_it(parts: Any, text: str) -> None:
    assert subject(parts) == text


def test_alternative_names_come_with_their_kind_and_are_bounded() -> None:
    names = [("DNS", "a.test"), ("URI", "spiffe://b/c"), ("IP Address", "192.0.2.1")]
    names += [("email", "x@y.test"), ("DNS", "a" * 2000)]
    certificate = {"subject": (part("commonName", "a"),), "subjectAltName": names}
    assert names_of(certificate) == ("CN=a", "DNS:a.test", "URI:spiffe://b/c", "email:x@y.test")
    many = {"subjectAltName": [("DNS", f"{n}.test") for n in range(1000)]}
    assert len(names_of(many)) == 33


@pytest.mark.parametrize(
    ("begins", "ends"), [(1960, 2049), (2020, 2050), (2049, 2051), (1950, 9999), (2001, 2002)]
)
def test_times_are_read_before_and_after_2050(begins: int, ends: int) -> None:
    first = datetime(begins, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    last = datetime(ends, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    made = trustme.CA().issue_cert("a.test", not_before=first, not_after=last)
    pem = b"".join(blob.bytes() for blob in made.cert_chain_pems).decode()
    assert validities(pem)[0] == (first.timestamp(), last.timestamp())


def test_all_certificates_of_a_file_are_read_and_nothing_else_of_it() -> None:
    ca = trustme.CA().create_child_ca()
    made = ca.issue_cert("a.test")
    chain = b"words\n".join(blob.bytes() for blob in made.cert_chain_pems).decode()
    assert len(validities(made.private_key_pem.bytes().decode() + chain)) == 2
    assert validities("") == []


@pytest.mark.parametrize("where", [10, 40, 100, 200])
def test_what_is_cut_off_or_not_base64_is_no_certificate(where: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(trustme.CA().cert_pem.bytes().decode())
    cut = ssl.DER_cert_to_PEM_cert(der[:where])
    with pytest.raises(ValueError):
        validities(cut)
    with pytest.raises(ValueError):
        validities(cut.replace("\n", "!", 2).replace("!", "\n", 1))
