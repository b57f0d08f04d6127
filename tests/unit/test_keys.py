"""The keys file, tokens, and what they let in."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest import cli
from ingest.access import keys_file
from ingest.access.keys import Denied, Keys, KeysError, new_key
from ingest.access.principal import Principal, Quota
from ingest.exits import ExitCode

NOW = 1_795_000_000.0


def made(name: str = "shop", **changed: Any) -> tuple[str, Keys]:
    options: dict[str, Any] = {
        "types": (), "rights": ("send", "read"), "quota": Quota(), "now": NOW, "expires": None,
    }  # fmt: skip
    token, entry = new_key(name, **{**options, **changed})
    return token, Keys.parse(Keys([entry]).text())


def test_a_token_finds_who_has_it_and_nothing_like_it_does() -> None:
    token, keys = made()
    assert keys.find(token, NOW).name == "shop"
    lead, _, secret = token.rpartition("_")
    other = f"{lead}_{'A' * len(secret)}"
    for wrong in ("", token[:-1], token + "A", token.upper(), other, f"{token} ", "ing__"):
        with pytest.raises(Denied, match="unknown"):
            keys.find(wrong, NOW)


def test_the_file_holds_no_secret() -> None:
    token, keys = made()
    assert token.rpartition("_")[2] not in keys.text()
    assert token not in json.dumps(keys.entries())


def test_a_key_ends_when_it_expires_and_when_it_is_revoked() -> None:
    token, keys = made(expires=NOW + 60)
    assert keys.changes_at(NOW) == NOW + 60
    assert keys.find(token, NOW + 59).name == "shop"
    with pytest.raises(Denied, match="expired"):
        keys.find(token, NOW + 60)
    key_id = keys.entries()[0]["id"]
    revoked = Keys.parse(keys.revoked(key_id, NOW).text())
    with pytest.raises(Denied, match="revoked"):
        revoked.find(token, NOW + 1)
    with pytest.raises(KeyError):
        keys.revoked("a" * 16, NOW)


@pytest.mark.parametrize(
    ("types", "name", "may"),
    [
        (None, "anything", True),
        (("billing.*",), "billing.paid", True),
        (("billing.*",), "billing", False),
        (("billing.*", "order"), "order", True),
        (("order",), "Order", False),
        (("ord?r",), "order", True),
    ],
)
def test_patterns_say_which_types_may_be_sent(types: Any, name: str, may: bool) -> None:
    assert Principal("x", types).may_send(name) is may


def test_who_may_only_read_sends_nothing() -> None:
    assert not Principal("x", rights=frozenset({"read"})).may_send("order")


def entry_of(token_and_keys: tuple[str, Keys]) -> dict[str, Any]:
    return dict(token_and_keys[1].entries()[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: e.pop("sha256"), "'sha256' is a required property"),
        (lambda e: e.update(sha256="0"), "sha256"),
        (lambda e: e.update(name="a b"), "name"),
        (lambda e: e.update(typo=1), "typo"),
        (lambda e: e.update(rights=["admin"]), "admin"),
        (lambda e: e.update(events_per_second=0), "events_per_second"),
        (lambda e: e.update(expires="2026-02-30T00:00:00Z"), "there is no such time"),
    ],
)
def test_a_bad_entry_is_named(change: Callable[[dict[str, Any]], object], said: str) -> None:
    entry = entry_of(made())
    change(entry)
    with pytest.raises(KeysError, match=said):
        Keys.parse(json.dumps({"keys": [entry]}))


def test_a_file_with_one_id_twice_is_refused() -> None:
    entry = entry_of(made())
    with pytest.raises(KeysError, match="two keys have the same id"):
        Keys.parse(json.dumps({"keys": [entry, entry]}))


def test_no_json_is_refused_in_words() -> None:
    with pytest.raises(KeysError, match="no JSON"):
        Keys.parse("{")


# -- the file --------------------------------------------------------------------------------


def test_a_saved_file_is_its_owners_alone_whatever_was_there(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    path.chmod(0o666)
    _, keys = made()
    keys_file.save(path, keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys_file.load(path).entries() == keys.entries()
    assert [each.name for each in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_used(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    keys_file.save(path, made()[1])
    path.chmod(mode)
    with pytest.raises(KeysError, match=f"others may write it .mode 0{mode:o}.; chmod 600"):
        keys_file.load(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        keys_file.load(tmp_path / "none.json")


# -- the command -----------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INGEST_KEYS_FILE", "keys.json")
    return tmp_path / "keys.json"


def run(*words: str) -> int:
    return cli.main(["keys", *words])


def test_an_added_key_lets_in_with_the_token_that_was_printed_and_a_revoked_one_does_not(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("add", "shop", "--types", "order, visit.*", "--rights", "send") == ExitCode.OK
    told = capsys.readouterr()
    token = told.out.strip()
    who = keys_file.load(path).find(token, NOW)
    assert (who.name, who.types, who.rights) == ("shop", ["order", "visit.*"], {"send"})
    assert token not in told.err
    assert run("list", "--json") == ExitCode.OK
    (listed,) = json.loads(capsys.readouterr().out)
    assert "sha256" not in listed
    assert run("revoke", listed["id"]) == ExitCode.OK
    with pytest.raises(Denied, match="revoked"):
        keys_file.load(path).find(token, 4e9)
    assert run("list") == ExitCode.OK
    assert "revoked" in capsys.readouterr().out


def test_quota_and_end_of_a_key_are_kept(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--events-per-second", "1000", "--bytes-per-second", "5e6", "--expires", "90d")
    assert run("add", "trial", *words, "--json") == ExitCode.OK
    token = json.loads(capsys.readouterr().out)["token"]
    keys = keys_file.load(path)
    (entry,) = keys.entries()
    assert keys.find(token, NOW).quota == Quota(1000, 5e6)
    assert entry["expires"] > entry["created"]


def test_what_is_wrong_is_said_and_changes_nothing(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("add", "shop") == ExitCode.OK
    before = path.read_bytes()
    assert run("revoke", "aaaaaaaaaaaaaaaa") == ExitCode.USAGE
    assert "has no key aaaaaaaaaaaaaaaa; nothing was changed" in capsys.readouterr().err
    for words in (("add", "a b"), ("add", "x", "--rights", "all"), ("add", "x", "--expires", "1y")):
        assert run(*words) == ExitCode.USAGE
    assert path.read_bytes() == before
    path.write_text("{")
    assert run("add", "late") == ExitCode.PROBLEMS
    assert path.read_text() == "{"
    monkeypatch.delenv("INGEST_KEYS_FILE")
    assert run("list") == ExitCode.USAGE
    assert "--keys-file keys.json" in capsys.readouterr().err


def test_keys_that_are_added_at_the_same_time_are_all_there(path: Path) -> None:
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            os._exit(run("add", f"n{number}"))
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    names = [entry["name"] for entry in keys_file.load(path).entries()]
    assert sorted(names) == ["n0", "n1", "n2", "n3"]
