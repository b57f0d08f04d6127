"""The environ of a request: from a parsed head to the dictionary of PEP 3333.

PURE: this module must not know sockets, greenlets or applications.

What is left out on purpose: fields whose names hold `_`, because `X_User` and `X-User` would
become the same variable and one of them may be what a proxy has checked; and `Proxy`, which
HTTP libraries would read as the setting HTTP_PROXY (CVE-2016-5385).

Source: PEP 3333 section "environ Variables"; RFC 3875 section 4.1.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from ingest.http.head import Head

_UNTRUSTED = frozenset({"proxy"})
#: Fields that have a variable of their own, without HTTP_.
_OWN = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


def environ_of(
    head: Head, prefix: str, local: tuple[Any, ...], peer: tuple[Any, ...]
) -> dict[str, Any]:
    """The variables that a request's head decides.

    Args:
        prefix: path the application is mounted under, without a slash at its end.
        local: address and port of this side.
        peer: address and port of the client.
    """
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": prefix,
        "PATH_INFO": path_info(head.target, prefix),
        "QUERY_STRING": head.query,
        "REQUEST_URI": head.target.decode("latin-1"),
        "RAW_URI": head.target.decode("latin-1"),
        "SERVER_NAME": local[0],
        "SERVER_PORT": str(local[1]),
        "SERVER_PROTOCOL": "HTTP/{}.{}".format(*head.version),
        "REMOTE_ADDR": peer[0],
        "REMOTE_PORT": str(peer[1]),
    }
    for name, value in head.headers.items():
        if name in _OWN:
            environ[_OWN[name]] = value
        elif "_" not in name and name not in _UNTRUSTED:
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


def path_info(target: bytes, prefix: str) -> str:
    """What follows the prefix in a request target, percent-decoded; bytes as latin-1.

    Dot segments are removed as the router did; the rest is decoded whole, `%2F` included,
    as CGI has it, and dot segments that come out of that cannot leave the mount.

    Args:
        target: in origin-form or absolute-form; the router found the prefix in it.
    """
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        path = b"/" + path.split(b"/", 3)[3]
    if b"%" not in path and b"/." not in path:
        return path[len(prefix) :].decode("latin-1")
    segments = [unquote_to_bytes(segment) for segment in path.split(b"/")[1:]]
    rest = _without_dots(segments)[prefix.count("/") :]
    found = b"/".join(rest)
    if b"/." in found or found.startswith(b"."):
        found = b"/".join(_without_dots(found.split(b"/")))
    return ("/" + found.decode("latin-1")) if rest else ""


def _without_dots(segments: list[bytes]) -> list[bytes]:
    """RFC 3986 section 5.2.4: `..` takes the segment before it, never the root."""
    kept: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1:] in ([b"."], [b".."]):
        kept.append(b"")
    return kept
