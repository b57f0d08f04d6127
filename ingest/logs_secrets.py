"""Keeps credentials out of log lines, whoever logs them.

Nothing of ours logs a request's header fields. Handlers, mounted applications and libraries may,
by name (`headers=event.headers`) or in a text (`Authorization: Bearer …`), and clients put tokens
into URLs. So names that hold credentials lose their values when a line is rendered, and texts lose
what has the form of one. It is a net below the rope, not the rope.

PURE: this module must not know where lines come from or go to.

Sources: RFC 9110 section 11 (credentials in fields), RFC 6750 (Bearer), RFC 7617 (Basic),
RFC 3986 section 3.2.1 (`user:password` in a URI).
"""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

#: Names of fields, variables and members whose values are credentials; `_` stands for `-` too.
_NAME = (
    r"(?:http_)?(?:(?:proxy_)?authorization|(?:set_)?cookie|(?:\w+_)?(?:api_?key|passw(?:or)?d"
    r"|passphrase|secret|private_key|credentials?|(?:access|refresh|auth|session|id|csrf)_token)"
    r"|token|(?:x_)?(?:hub_|stripe_)?signature(?:_256)?)"
)
_NAMES = re.compile(_NAME, re.IGNORECASE)
#: `'x-api-key': 'value'`, `("X-API-Key", "value")` and the like: what Python shows of a mapping or
#: of a list of fields. Double quotes are those within a string of JSON, so they are escaped: one
#: that is not belongs to the line's own structure.
_QUOTED = re.compile(
    r"(?i)('|\\\")(" + _NAME.replace("_", "[_-]").replace(r"\w+[_-]", r"[\w-]+[_-]") + r")\1"
    r"(\s*[:,=]\s*b?)('|\\\")(?:[^'\"\\]|\\[^'\"])+"
)
#: `X-API-Key: value`, as in a head.
_FIELD = re.compile(
    r"(?i)(?<![\w-])((?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-hub-signature(?:-256)?"
    r"|stripe-signature): *(?:(?:bearer|basic|digest|token) +)?)"
    r"(?!\[hidden\])[^\s;\"'\\]+(?:; ?[^\s;\"'\\]+)*"
)
#: The same in the query of a URL, where a name stands before its value.
_QUERY = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:token|secret|passw(?:or)?d|api[_-]?key|signature|credential)|key|sig"
    r"|auth|authorization|code)=)[^&#;\s\"\\]+"
)
#: A scheme and what follows it; a digit, a sign or a capital tell a credential from a word.
_SCHEMES = re.compile(
    r"\b([Bb]earer|BEARER|[Bb]asic|BASIC)( +)"
    r"(?=[^\s\"',]*(?:[0-9=+/_~-]|\.\w|[a-z][A-Z]))[A-Za-z0-9+/_.~=-]{6,}"
)
_USERINFO = re.compile(r"(://[^/\s:@\"\\]*:)[^/\s@\"\\]+(?=@)")
#: A key of our own: its id may be shown, see `ingest.access.keys`.
_KEYS = re.compile(r"\b(ing_[a-z2-7]{16}_)[A-Za-z0-9_-]{43}")


def is_secret(name: str) -> bool:
    """Whether the value that goes by a name is a credential."""
    return _NAMES.fullmatch(name.replace("-", "_").replace(".", "_")) is not None


def scrub(text: str) -> str:
    """A text without what has the form of a credential.

    Args:
        text: plain, or JSON: nothing that it takes out changes a JSON text's structure.
    """
    if "://" in text:
        text = _USERINFO.sub(rf"\1{HIDDEN}", text)
    if "?" in text:
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
    if ": " in text or "'" in text or '"' in text:
        text = _QUOTED.sub(rf"\1\2\1\3\4{HIDDEN}", text)
        text = _FIELD.sub(rf"\1{HIDDEN}", text)
    if "ing_" in text:
        text = _KEYS.sub(rf"\1{HIDDEN}", text)
    return _SCHEMES.sub(rf"\1\2{HIDDEN}", text)


def scrub_target(target: str) -> str:
    """A request target without the credentials in its query."""
    return _QUERY.sub(rf"\1{HIDDEN}", target) if "?" in target else target
