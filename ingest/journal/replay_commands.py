"""`ingest replay` on the command line: its flags, its target, and what it says at the end."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from typing import Any

from ingest.exits import INTERRUPTED, ExitCode
from ingest.journal.checkpoints import CheckpointBroken, directory_of
from ingest.journal.commands import add_common, complain, guarded
from ingest.journal.output import OutputFailed
from ingest.journal.replay import Replay, Stopped
from ingest.journal.replay_http import HttpTarget, TargetFailed, Urls
from ingest.journal.replay_place import Place, PlaceTaken
from ingest.journal.replay_targets import Http, StandardOutput, Target, gateway_urls, url_of_bind
from ingest.journal.selection import UsageProblem, add_selection, journal_of

PROG = "python -m ingest replay"
#: Journals of what failed: all of it is sent to its own types unless something else is said, by a
#: checkpoint of the journal's name.
AGAIN = ("rejected", "dead")

_EPILOG = f"""\
examples:
  # what was refused, once its schema was put right, to the gateway that --bind names
  {PROG} --rejected
  # dead letters, once what consumes them was put right
  {PROG} --dead
  # a day of one type as another type of the same gateway, and on from there if it ends early
  {PROG} --type order --since 1d --to-type order_v2 --checkpoint order-to-v2
  # everything to another gateway, each event to its own type
  {PROG} --url http://10.0.0.7:8080 --checkpoint move
  # the data of some events to any URL, a hundred a second
  {PROG} --type order --to 'http://127.0.0.1:9000/hook/{{type}}' --rate 100
  # to standard output
  {PROG} --partition 0 --from-offset 100 --to-offset 200 --to -
"""
_FIELD = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\xff](?:[\t\x20-\xff]*[\x21-\xff])?)"
)
#: What the messages say themselves.
_FIELDS_TAKEN = frozenset(
    {"content-type", "content-length", "transfer-encoding", "host", "connection", "idempotency-key"}
)


def add_command(subparsers: Any) -> None:
    """Add `replay` to the `add_subparsers` of a parser; it sets `run` as `add_commands` does."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "replay",
        prog=PROG,
        help="send stored or rejected events again",
        description="Send stored, rejected or dead events again: to a gateway, a URL or standard "
        "output, one after the other, in the order of each partition.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_common(parser)
    add_selection(parser)
    where = parser.add_argument_group("where to")
    where.add_argument(
        "--to",
        metavar="URL",
        help="POST to this URL, in which {type} stands for the event's type; - for standard output",
    )
    where.add_argument(
        "--url",
        metavar="URL",
        help="of a gateway, each event to its type; by default the one that --bind names",
    )
    where.add_argument("--to-type", metavar="NAME", help="to this type of the gateway")
    where.add_argument(
        "--as",
        dest="form",
        choices=("data", "event"),
        help="send the data, or the whole CloudEvent; by default what it came as to a gateway, "
        "data to a URL, events to standard output",
    )
    where.add_argument(
        "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'",
        help="a further header field; may be given several times",
    )  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--rate", type=_positive, metavar="N", help="at most N events a second")
    how.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="go on where the replay of this name has ended, and keep its place; "
        "'rejected' or 'dead' by default for all of these to a gateway",
    )
    how.add_argument(
        "--on-refusal",
        choices=("skip", "stop"),
        default="skip",
        help="what to do after an event that the target does not want; default: skip",
    )
    how.add_argument(
        "--retries",
        type=_count,
        default=8,
        metavar="N",
        help="how often to try again what may go better later; default: 8, half a minute or so",
    )
    how.add_argument(
        "--timeout",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="to wait for an answer; default: 60",
    )
    parser.set_defaults(run=lambda arguments: guarded(run, arguments), bind="")


def run(arguments: argparse.Namespace) -> int:
    """Send the chosen events; see the module `replay`."""
    target = _target(arguments)
    try:
        return _run(arguments, target)
    except OutputFailed as error:
        return complain(str(error), ExitCode.OUTPUT_FAILED)
    except PlaceTaken as error:
        return complain(str(error), ExitCode.DATA_LOCKED)
    except CheckpointBroken as error:
        return complain(str(error), ExitCode.DATA_UNUSABLE)
    finally:
        target.close()


def _run(arguments: argparse.Namespace, target: Target) -> int:
    journal = journal_of(arguments)
    name = _checkpoint_name(arguments, journal)
    directory = directory_of(arguments.data, journal)
    try:
        place = Place(directory, name, target.flush)
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    try:
        replay = Replay(arguments, target, place)
        code: int = ExitCode.OK
        try:
            replay.run()
        except KeyboardInterrupt:
            code = INTERRUPTED
        except TargetFailed as error:
            code = complain(str(error), ExitCode.TARGET_FAILED)
        except Stopped:
            code = ExitCode.PROBLEMS
        place.save()
    finally:
        place.close()
    tally = replay.tally
    sys.stderr.write(tally.summary(str(target), target.retried) + "\n")
    if code and name is not None:
        sys.stderr.write(f"the same command goes on where it was: checkpoint {name}\n")
    elif code and place.last is not None:
        sys.stderr.write("it was at --partition {} --from-offset {}\n".format(*place.last))
    if code == ExitCode.OK and (tally.refused or tally.left_out or not tally.whole):
        return ExitCode.PROBLEMS
    return code


def _checkpoint_name(arguments: argparse.Namespace, journal: str) -> str | None:
    """The name that was given, or the default one where all of what failed is to be tried again."""
    given: str | None = arguments.checkpoint
    chosen = (
        arguments.type, arguments.since, arguments.until, arguments.from_offset,
        arguments.to_offset, arguments.to, arguments.to_type,
    )  # fmt: skip
    if given is None and journal in AGAIN and all(value is None for value in chosen):
        return journal
    return given


def _target(arguments: argparse.Namespace) -> Target:
    form = None if arguments.form is None else arguments.form == "event"
    to, url, kind = arguments.to, arguments.url, arguments.to_type
    if to is not None and (url is not None or kind is not None):
        raise UsageProblem("--to goes without --url and --to-type")
    if to == "-":
        return StandardOutput(form is not False)
    if to is None and url is None and kind is None and journal_of(arguments) not in AGAIN:
        raise UsageProblem("say where to: --to URL, --to -, --url URL, or --to-type NAME")
    try:
        if to is not None:
            urls, where = Urls(to, to), to
            form = bool(form)
        else:
            where = url if url is not None else url_of_bind(arguments.bind)
            urls = gateway_urls(where)
    except ValueError as error:
        raise UsageProblem(str(error)) from None
    http = HttpTarget(urls, dict(arguments.header), arguments.retries, arguments.timeout)
    return Http(http, where if kind is None else f"{kind} of {where}", form, kind)


def _header(text: str) -> tuple[str, str]:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no header field like 'Accept: text/plain'")
    if found[1].lower() in _FIELDS_TAKEN:
        raise argparse.ArgumentTypeError(f"{found[1]} is said by the messages themselves")
    return found[1], found[2]


def _number(kind: Callable[[str], float], low: float, text: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= 1_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {low:g} on")
    return value


def _positive(text: str) -> float:
    return _number(float, 0.001, text)


def _count(text: str) -> int:
    return int(_number(int, 0, text))
