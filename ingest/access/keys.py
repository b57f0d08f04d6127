"""What a keys file says, and whether a token is one of its keys. PURE: no files, no clock.

A token is `ing_<id>_<secret>`. The secret has 256 random bits, so a plain SHA-256 of the token
is all that need be kept: there is nothing to guess, and a slow hash would only make requests slow.
The id finds the key; the digests are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from base64 import b32encode
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from typing import Any, NamedTuple

from ingest.access.principal import Principal, Quota

ID_BYTES = 10
SECRET_BYTES = 32
#: Most keys in a file; their names are values of a metric's label.
KEYS_MAX = 10_000
RIGHTS = ("send", "read")
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}"
_TOKEN = re.compile(r"ing_([a-z2-7]{16})_[A-Za-z0-9_-]{43}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
#: Compared with where there is no such id, so that this takes as long.
_NO_DIGEST = bytes(32)

_RATE = {"type": "number", "exclusiveMinimum": 0, "maximum": 1e12}
_INSTANT = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
_MAY: Mapping[str, Any] = {
    "types": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "pattern": r"^[A-Za-z0-9._*?-]{1,128}$"},
    },
    "rights": {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"enum": list(RIGHTS)},
    },
    "events_per_second": _RATE,
    "bytes_per_second": _RATE,
}
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["keys"],
    "additionalProperties": False,
    "properties": {
        "keys": {
            "type": "array",
            "maxItems": KEYS_MAX,
            "items": {
                "type": "object",
                "required": ["id", "name", "sha256", "created"],
                "additionalProperties": False,
                "properties": {
                    "id": {"type": "string", "pattern": "^[a-z2-7]{16}$"},
                    "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    **_MAY,
                    "created": _INSTANT,
                    "expires": _INSTANT,
                    "revoked": _INSTANT,
                },
            },
        },
        "clients": {
            "type": "array",
            "maxItems": KEYS_MAX,
            "items": {
                "type": "object",
                "required": ["subject", "name"],
                "additionalProperties": False,
                "properties": {
                    "subject": {"type": "string", "minLength": 1, "maxLength": 1024},
                    "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
                    **_MAY,
                },
            },
        },
    },
}


@cache
def _validator() -> Any:
    # It takes more than a second to import, and most commands never read keys.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(SCHEMA)


class KeysError(Exception):
    """A keys file cannot be used.

    Args:
        problems: what is wrong with it, each with where.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class Denied(Exception):
    """A token is not taken.

    Attributes:
        reason: `unknown`, `revoked` or `expired`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Key(NamedTuple):
    """One key.

    Attributes:
        digest: SHA-256 of the token.
        entry: what the file says of it.
        principal: who has it.
        expires, revoked: seconds since 1970, None for never.
    """

    digest: bytes
    entry: Mapping[str, Any]
    principal: Principal
    expires: float | None
    revoked: float | None


class Keys:
    """The keys of a file.

    Args:
        entries: what it says of each.
        clients: whose certificates do as well as a key, by their subject.
    """

    def __init__(
        self,
        entries: Sequence[Mapping[str, Any]] = (),
        clients: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._by_id = {entry["id"]: _key(entry) for entry in entries}
        self._clients = list(clients)
        self._by_subject = {client["subject"]: _principal(client) for client in clients}

    def __len__(self) -> int:
        return len(self._by_id)

    @classmethod
    def parse(cls, text: str) -> Keys:
        """Read the content of a keys file.

        Raises:
            KeysError: it is none.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise KeysError([f"no JSON: {error}"]) from None
        faults = sorted(_validator().iter_errors(document), key=lambda fault: fault.json_path)
        if faults:
            raise KeysError([f"{fault.json_path}: {fault.message[:200]}" for fault in faults[:20]])
        entries = document["keys"]
        problems = []
        for member in ("id", "sha256"):
            values = [entry[member] for entry in entries]
            problems += [f"two keys have the same {member}"] if len({*values}) < len(values) else []
        for position, entry in enumerate(entries):
            for member in ("created", "expires", "revoked"):
                try:
                    _seconds(entry.get(member))
                except ValueError:
                    problems.append(f"$.keys[{position}].{member}: there is no such time")
        if problems:
            raise KeysError(problems)
        clients = document.get("clients", [])
        if len({client["subject"] for client in clients}) < len(clients):
            raise KeysError(["two clients have the same subject"])
        return cls(entries, clients)

    def text(self) -> str:
        """The content of a file with these keys."""
        document: dict[str, Any] = {"keys": self.entries()}
        if self._clients:
            document["clients"] = self._clients
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @property
    def has_clients(self) -> bool:
        """Whether certificates do for anybody."""
        return bool(self._clients)

    def client(self, *names: str) -> Principal | None:
        """Who has a certificate with these names; None for nobody who may come in.

        Args:
            names: its subject, as RFC 4514 writes it, then `URI:…`, `DNS:…` and `email:…`;
                compared as a whole, byte by byte. The first one that is known counts.
        """
        return next((self._by_subject[name] for name in names if name in self._by_subject), None)

    def entries(self) -> list[Mapping[str, Any]]:
        """What there is to say of each key; no secret is in it."""
        return [key.entry for key in self._by_id.values()]

    def find(self, token: str, now: float) -> Principal:
        """Who has a token.

        Args:
            now: seconds since 1970.

        Raises:
            Denied: nobody who may come in.
        """
        found = _TOKEN.fullmatch(token)
        key = self._by_id.get(found[1]) if found is not None else None
        digest = key.digest if key is not None else _NO_DIGEST
        same = hmac.compare_digest(digest_of(token), digest)
        if key is None or not same:
            raise Denied("unknown")
        if key.revoked is not None and key.revoked <= now:
            raise Denied("revoked")
        if key.expires is not None and key.expires <= now:
            raise Denied("expired")
        return key.principal

    def changes_at(self, now: float) -> float | None:
        """When the next key expires, in seconds since 1970; None when none does."""
        times = [t for k in self._by_id.values() for t in (k.expires, k.revoked) if t is not None]
        return min((t for t in times if t > now), default=None)

    def added(self, entry: Mapping[str, Any]) -> Keys:
        """These and one more."""
        return Keys([*self.entries(), entry], self._clients)

    def revoked(self, key_id: str, now: float) -> Keys:
        """These, with one revoked.

        Raises:
            KeyError: there is none of that id.
        """
        if key_id not in self._by_id:
            raise KeyError(key_id)
        return Keys(
            [
                {**entry, "revoked": entry.get("revoked", instant(now))}
                if entry["id"] == key_id
                else entry
                for entry in self.entries()
            ],
            self._clients,
        )


def new_key(
    name: str,
    *,
    types: Sequence[str],
    rights: Sequence[str],
    quota: Quota,
    now: float,
    expires: float | None,
) -> tuple[str, dict[str, Any]]:
    """A new token, and what a file says of it.

    Args:
        now, expires: seconds since 1970.
    """
    key_id = b32encode(secrets.token_bytes(ID_BYTES)).decode().lower()
    token = f"ing_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    entry: dict[str, Any] = {
        "id": key_id,
        "name": name,
        "sha256": digest_of(token).hex(),
        "rights": list(rights),
        "created": instant(now),
    }
    if types:
        entry["types"] = list(types)
    if expires is not None:
        entry["expires"] = instant(expires)
    entry |= {name: value for name, value in quota._asdict().items() if value is not None}
    return token, entry


def digest_of(token: str) -> bytes:
    """SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def instant(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339 text."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime(_TIME)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc).timestamp()


def _key(entry: Mapping[str, Any]) -> Key:
    return Key(
        bytes.fromhex(entry["sha256"]),
        entry,
        _principal(entry),
        _seconds(entry.get("expires")),
        _seconds(entry.get("revoked")),
    )


def _principal(entry: Mapping[str, Any]) -> Principal:
    quota = Quota(entry.get("events_per_second"), entry.get("bytes_per_second"))
    return Principal(
        entry["name"],
        entry.get("types"),
        frozenset(entry.get("rights", RIGHTS)),
        quota if quota != Quota() else None,
    )
