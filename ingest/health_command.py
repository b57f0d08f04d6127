"""`ingest health` on the command line: asks a running gateway how it is, for who has no curl.

Docker's HEALTHCHECK and shell scripts run it. It asks the address that the settings name: the
admin listener, where there is one, else the main one. This module must not know what the checks
are, nor load schemas, handlers or the journal.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import ssl
import sys
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent

from ingest.access.proxy_protocol import LOCAL
from ingest.exits import ExitCode
from ingest.settings import Settings
from ingest.settings_values import format_duration, parse_duration

PROG = "python -m ingest health"
DEFAULT_TIMEOUT_SECONDS = 3.0
#: What is read of an answer; one that is longer is none of ours.
BODY_MAX_BYTES = 64 << 10
#: How much of it is shown where it is not the gateway's own list of checks.
ECHO_MAX = 200
#: Addresses that mean "all of this machine's", and one of them that reaches it.
WILDCARDS = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}

_EPILOG = f"""\
examples:
  # the gateway that the same settings serve
  {PROG}
  # whether it takes events, rather than whether it runs
  {PROG} --ready
  # another one
  {PROG} --url https://events.example/readyz --timeout 10s

exit codes:
  {ExitCode.OK:d} it is well
  {ExitCode.PROBLEMS:d} it is not, or it does not answer in time
  {ExitCode.USAGE:d} nothing was asked: the command line or the settings cannot be used
"""


class Unusable(Exception):
    """There is nothing to ask; the message says why."""


class Target(NamedTuple):
    """What is asked.

    Attributes:
        host: name or address, without brackets.
        port: TCP port.
        path: request target.
        tls: how to talk TLS; None for plain HTTP.
        introduced: it wants a header of the PROXY protocol first.
    """

    host: str
    port: int
    path: str
    tls: ssl.SSLContext | None
    introduced: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}{self.path}"


def add_command(subparsers: Any) -> None:
    """Add `health` to the `add_subparsers` of a parser; it sets `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "health",
        prog=PROG,
        help="ask a running gateway how it is, as a container's health check",
        description="Ask a running gateway how it is: the one that --admin-bind or --bind name, "
        "by flag, environment or settings file, or any other with --url.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", metavar="URL", help="ask this one; a path of its own is kept")
    parser.add_argument(
        "--ready", action="store_true", help="/readyz, whether it takes events, instead of /livez"
    )
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        default=format_duration(DEFAULT_TIMEOUT_SECONDS),
        help="time for all of it (default %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask, say what is wrong, and return an `ExitCode`."""
    try:
        timeout = _timeout(arguments.timeout)
        path = "/readyz" if arguments.ready else "/livez"
        if arguments.url is None:
            target = target_of_settings(arguments.settings, path)
        else:
            target = target_of_url(arguments.url, path)
    except Unusable as error:
        return _say(str(error), ExitCode.USAGE)
    try:
        with gevent.Timeout(timeout, TimeoutError("timed out")):
            status, body = ask(target, timeout)
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        return _say(f"{target}: {_reason(error)}", ExitCode.PROBLEMS)
    if status == http.client.OK:
        print("ok", flush=True)  # noqa: T201
        return ExitCode.OK
    return _say(f"{target}: {status}\n{_shown(body)}".rstrip(), ExitCode.PROBLEMS)


def target_of_settings(settings: Settings, path: str) -> Target:
    """Where a gateway with these settings answers probes on this machine.

    On the main listener with TLS its certificate is not checked: it is for the names that
    clients use, and this asks a loopback or an own address and sends nothing that is secret.

    Raises:
        Unusable: the settings do not say.
    """
    admin = "" if settings.admin_bind == "off" else settings.admin_bind
    bind = urlsplit(f"//{admin or settings.bind}")
    host, port = bind.hostname or "", bind.port or 0
    if port == 0:
        raise Unusable("port 0 may be any: say --url, or the port in bind or admin_bind")
    context = None
    introduced = settings.proxy_protocol == "required" and not admin
    if settings.tls_cert != "off" and not admin:
        if settings.tls_client_auth == "required":
            raise Unusable("clients need a certificate: probes need a listener of admin_bind")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return Target(WILDCARDS.get(host, host), port, f"{path}?verbose", context, introduced)


def target_of_url(url: str, path: str) -> Target:
    """Read `--url`; its certificate is checked as usual.

    Args:
        path: taken where the URL has none.

    Raises:
        Unusable: it is no URL with http or https.
    """
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise Unusable("--url must not contain spaces, control characters or others beyond ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Unusable(f"--url: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise Unusable("--url must be http://host:port or https://host:port, and may have a path")
    context = ssl.create_default_context() if parts.scheme == "https" else None
    default = 80 if context is None else 443
    wanted = parts.path if parts.path not in ("", "/") else path
    query = f"?{parts.query}" if parts.query else "?verbose"
    return Target(parts.hostname, default if port is None else port, wanted + query, context)


def ask(target: Target, timeout: float) -> tuple[int, bytes]:
    """One request on a connection of its own.

    Args:
        timeout: longest single wait, in seconds; who calls bounds the whole.

    Returns:
        status and body.

    Raises:
        OSError, http.client.HTTPException: it does not answer, or not in HTTP.
    """
    connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout)
    try:
        connection.connect()
        if target.introduced:
            connection.sock.sendall(LOCAL)
        if target.tls is not None:
            connection.sock = target.tls.wrap_socket(connection.sock, server_hostname=target.host)
        connection.request("GET", target.path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_MAX_BYTES)
    finally:
        connection.close()


def _timeout(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise Unusable(f"--timeout {error}") from None
    if seconds <= 0:
        raise Unusable("--timeout must be more than 0")
    return seconds


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return f"its name is not known: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, UnicodeError):
        return "it is no name"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no answer in HTTP ({type(error).__name__})"


def _shown(body: bytes) -> str:
    """Of a list of checks those that failed, of anything else its beginning; printable."""
    lines = body.decode("utf-8", "backslashreplace").splitlines()
    failed = [line for line in lines if line.startswith("[-]")]
    text = "\n".join(failed) if failed else "\n".join(lines)[:ECHO_MAX]
    return "".join(mark if mark.isprintable() or mark == "\n" else "?" for mark in text)


def _say(message: str, code: ExitCode) -> int:
    print(f"ingest: {message}", file=sys.stderr, flush=True)  # noqa: T201
    return code
