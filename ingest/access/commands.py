"""`python -m ingest keys`: add, list and revoke keys.

A secret is printed once, when its key is made, and is nowhere afterwards. This module must not
know how keys are judged.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest.access import keys_file
from ingest.access.keys import KEYS_MAX, NAME_PATTERN, RIGHTS, KeysError, new_key
from ingest.access.principal import Quota
from ingest.exits import ExitCode

PROG = "python -m ingest keys"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_EPILOG = f"""\
examples:
  # a key for a producer of two families of types; the token is printed once
  {PROG} add billing --types 'invoice.*,payment' --keys-file keys.json
  # one that ends by itself, and may send a thousand events a second
  {PROG} add trial --expires 90d --events-per-second 1000 --keys-file keys.json
  # who has one
  {PROG} list --keys-file keys.json
  # no more
  {PROG} revoke mfrggzdfmztwq2lk --keys-file keys.json
"""


def add_commands(subparsers: Any) -> None:
    """Add `keys` to the `add_subparsers` of a parser; it sets `run`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "keys",
        prog=PROG,
        help="add, list and revoke API keys",
        description="API keys, in the file that the setting keys_file names. A running gateway "
        "notices a change within a second or two.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="keys_command", metavar="command", required=True)
    add = commands.add_parser("add", prog=f"{PROG} add", help="make a key and print its token")
    add.add_argument("name", type=_name, help="of who has it; several keys may have one name")
    add.add_argument(
        "--types", default="", metavar="LIST", help="event types it may send, such as 'billing.*'"
    )
    add.add_argument(
        "--rights", type=_rights, default=list(RIGHTS), metavar="LIST", help="default: send,read"
    )
    add.add_argument("--expires", type=_duration, metavar="TIME", help="such as 90d, 12h")
    add.add_argument("--events-per-second", type=_rate, metavar="N")
    add.add_argument("--bytes-per-second", type=_rate, metavar="N")
    listing = commands.add_parser("list", prog=f"{PROG} list", help="list keys, without secrets")
    revoke = commands.add_parser("revoke", prog=f"{PROG} revoke", help="revoke keys")
    revoke.add_argument("ids", nargs="+", metavar="ID", help="as `list` shows them")
    for command, run in ((add, _add), (listing, _list), (revoke, _revoke)):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=_guarded(run))


def _guarded(run: Callable[[argparse.Namespace, Path], int]) -> Callable[..., int]:
    def guarded(arguments: argparse.Namespace) -> int:
        path = keys_file.path_of(arguments.keys_file)
        if path is None:
            return _complain("keys are off: name their file, for example --keys-file keys.json")
        try:
            return run(arguments, path)
        except KeysError as error:
            return _complain("\n".join(error.problems), ExitCode.PROBLEMS)
        except OSError as error:
            return _complain(f"{error.filename or arguments.keys_file}: {error.strerror}")

    return guarded


def _add(arguments: argparse.Namespace, path: Path) -> int:
    now = time.time()
    types = [pattern.strip() for pattern in arguments.types.split(",") if pattern.strip()]
    with keys_file.changing(path) as keys:
        if len(keys) >= KEYS_MAX:
            return _complain(f"there are {len(keys)} keys, the most there can be")
        token, entry = new_key(
            arguments.name,
            types=types,
            rights=arguments.rights,
            quota=Quota(arguments.events_per_second, arguments.bytes_per_second),
            now=now,
            expires=None if arguments.expires is None else now + arguments.expires,
        )
        changed = keys.added(entry)
        type(changed).parse(changed.text())  # what could not be read back is not written
        keys_file.save(path, changed)
    if arguments.json:
        _print(json.dumps({"id": entry["id"], "name": entry["name"], "token": token}))
    else:
        _print(token)
        sys.stderr.write(
            f"key {entry['id']} of {entry['name']}; the token above is shown this once\n"
        )
    return ExitCode.OK


def _list(arguments: argparse.Namespace, path: Path) -> int:
    entries = keys_file.load(path).entries()
    if arguments.json:
        _print(json.dumps([{k: v for k, v in e.items() if k != "sha256"} for e in entries]))
        return ExitCode.OK
    for entry in entries:
        state = "revoked" if "revoked" in entry else f"until {entry.get('expires', 'revoked')}"
        types = ",".join(entry.get("types", ["all types"]))
        rights = ",".join(entry.get("rights", RIGHTS))
        _print(f"{entry['id']}  {entry['name']:<20}  {rights:<9}  {types:<24}  {state}")
    return ExitCode.OK


def _revoke(arguments: argparse.Namespace, path: Path) -> int:
    with keys_file.changing(path) as keys:
        for key_id in arguments.ids:
            try:
                keys = keys.revoked(key_id, time.time())
            except KeyError:
                return _complain(f"{path} has no key {key_id}; nothing was changed")
        keys_file.save(path, keys)
    if arguments.json:
        _print(json.dumps({"revoked": arguments.ids}))
    return ExitCode.OK


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _complain(message: str, code: ExitCode = ExitCode.USAGE) -> int:
    sys.stderr.write(f"ingest: {message}\n")
    return code


def _name(text: str) -> str:
    if re.fullmatch(NAME_PATTERN, text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name: letters, digits, '.', '_', '@', '-', at most 64"
        )
    return text


def _rights(text: str) -> list[str]:
    rights = [right.strip() for right in text.split(",")]
    if not set(rights) <= set(RIGHTS) or len(set(rights)) < len(rights):
        raise argparse.ArgumentTypeError(f"{text!r}: of {', '.join(RIGHTS)}")
    return rights


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90d, 12h, 30m")
    return float(int(found[1]) * _UNITS[found[2]])


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value
