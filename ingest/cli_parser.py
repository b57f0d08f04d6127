"""The grammar of the command line, built from the settings' declarations.

Settings' flags are read first and may stand anywhere; what is left over is the command.
This module must not know what the commands do, nor import anything that serves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, NoReturn

from ingest.exits import ExitCode
from ingest.settings import SECTIONS, SETTINGS
from ingest.settings_sources import suggest
from ingest.settings_values import Setting
from ingest.version import __version__

PROG = "python -m ingest"
SERVE = "serve"

#: Runnable as they stand in a checkout; a test parses and resolves them.
EXAMPLES: Sequence[tuple[str, str]] = (
    ("serve ./schemas on 127.0.0.1:8080", f"{PROG}"),
    ("on every interface, on a port of its own", f"{PROG} --bind 0.0.0.0:9000 --data data-9000"),
    ("the same by environment", f"INGEST_BIND=0.0.0.0:9000 INGEST_DATA=data-9000 {PROG}"),
    ("what is wrong, before deploying", f"{PROG} check"),
    ("the same for handlers only, and what they import that blocks", f"{PROG} check --handlers"),
    ("while writing handlers: what is saved is served", f"{PROG} --reload"),
    ("every stored event, one a line", f"{PROG} journal cat --data data"),
    ("what was refused once more, its schema put right", f"{PROG} replay --rejected"),
    ("whether the gateway of these settings is well", f"{PROG} health --ready"),
)

#: What each exit code says, for --help and docs/settings.md.
EXIT_MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "done; of serve: stopped, every request in flight answered",
    ExitCode.PROBLEMS: "schemas, handlers or a journal have problems, check and "
    "journal verify list them; of replay: the target refused events; of health: it is not well",
    ExitCode.USAGE: "the command line, the environment or the settings file cannot be used",
    ExitCode.DATA_LOCKED: "another process holds the data directory",
    ExitCode.BIND_FAILED: "the address cannot be listened on",
    ExitCode.DRAIN_INCOMPLETE: "time ran out at shutdown with requests in flight; "
    "none of those was answered 2xx",
    ExitCode.DATA_UNUSABLE: "the data directory cannot be read or written",
    ExitCode.OUTPUT_FAILED: "the output of journal export or replay cannot be written",
    ExitCode.TARGET_FAILED: "replay gave up on its target; run again with the same checkpoint, it "
    "goes on where it was",
    ExitCode.WORKER_FAILED: "a worker ended before it served, or died while all were stopping",
}


class UsageError(Exception):
    """The command line cannot be read; the message says why."""


class Invocation(NamedTuple):
    """A command line, read.

    Attributes:
        flags: setting name → text, of the settings' flags that were given.
        command: `serve`, `check`, `journal`, `replay` or `health`.
        arguments: the command's own arguments.
    """

    flags: dict[str, str]
    command: str
    arguments: argparse.Namespace


class _Parser(argparse.ArgumentParser):
    """Complains by exception, so that one place words and prints every complaint."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse(
    argv: Sequence[str],
    add_commands: Sequence[Callable[[argparse._SubParsersAction], object]],
) -> Invocation:
    """Read a command line.

    Args:
        argv: arguments without the program's name.
        add_commands: further commands; each is called with the action whose
            `add_parser` makes one.

    Raises:
        UsageError: it is none.
        SystemExit: --help or --version was printed.
    """
    flag_parser = _settings_parser()
    argv, handlers_only = _complete(argv)
    flags, rest = flag_parser.parse_known_args(argv)
    parser, commands = _command_parser(flag_parser, add_commands)
    if not rest:
        rest = [SERVE]
    if rest[0].startswith("-") and rest[0] not in ("-h", "--help", "--version"):
        raise UsageError(_unknown(rest[0]))
    if not rest[0].startswith("-") and rest[0] not in commands:
        raise UsageError(f"unknown command {rest[0]!r}; commands: {', '.join(commands)}")
    arguments, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UsageError(_unknown(unknown[0]))
    arguments.handlers_only = handlers_only
    return Invocation(dict(vars(flags)), arguments.command, arguments)


def _complete(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Give flags that may stand alone their value.

    Returns:
        the arguments, and whether `check --handlers` asks for nothing but the handlers.
    """
    complete: list[str] = []
    handlers_only = False
    for position, argument in enumerate(argv, 1):
        following = argv[position] if position < len(argv) else ""
        bare = following in ("", SERVE) or following.startswith("-")
        if argument == "--reload" and bare:
            complete.append("--reload=on")
        elif argument == "--handlers" and "check" in argv and bare:
            handlers_only = True
        else:
            complete.append(argument)
    return complete, handlers_only


def _unknown(argument: str) -> str:
    if not argument.startswith("-"):
        return f"{argument!r} is one argument too many"
    flag = argument.partition("=")[0]
    return f"unknown flag {flag}{suggest(flag, [setting.flag for setting in SETTINGS])}"


def _settings_parser() -> _Parser:
    """A parser of the settings' flags alone; flags that are not given leave no trace."""
    parser = _Parser(
        add_help=False, allow_abbrev=False, prog=PROG, argument_default=argparse.SUPPRESS
    )
    for section, introduction in SECTIONS.items():
        group = parser.add_argument_group(section, introduction)
        for setting in SETTINGS:
            if setting.section == section:
                group.add_argument(
                    setting.flag, dest=setting.name, metavar=setting.metavar, help=_help(setting)
                )
    return parser


def _help(setting: Setting) -> str:
    reloads = "; reloads" if setting.reloads else ""
    text = f"{setting.help} (default {setting.show(setting.default)}; {setting.env}{reloads})"
    return text.replace("%", "%%")


def _command_parser(
    settings: _Parser,
    add_commands: Sequence[Callable[[argparse._SubParsersAction], object]],
) -> tuple[_Parser, Collection[str]]:
    """The parser of what is left without the settings' flags, and the commands' names.

    It knows these flags all the same, for --help.
    """
    parser = _Parser(
        prog=PROG,
        usage=f"{PROG} [serve] [flags]\n       {PROG} check [--handlers] [--json] [flags]\n"
        f"       {PROG} journal COMMAND [flags]\n       {PROG} replay [flags]\n"
        f"       {PROG} health [--ready] [--url URL] [flags]",
        description="HTTP event gateway: JSON in, validated, durable, and only then 202. "
        "Flags may stand before or after the command; each is a variable and a key of "
        "ingest.yaml as well. Flag goes before environment, environment before file.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[settings],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ingest {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=_Parser)
    for name, summary in (
        (SERVE, "serve HTTP until SIGTERM (the default)"),
        ("check", "say what is wrong with settings, schemas and handlers, all at once"),
    ):
        command = commands.add_parser(
            name, help=summary, description=summary, parents=[settings], allow_abbrev=False
        )
        if name == "check":
            command.add_argument(
                "--json", action="store_true", help="print JSON, as when output is piped"
            )
    for add in add_commands:
        add(commands)
    return parser, commands.choices


def _epilog() -> str:
    lines = ["examples:"]
    for purpose, command in EXAMPLES:
        lines += [f"  # {purpose}", f"  {command}"]
    lines += ["", "exit codes:"]
    lines += [f"  {code:d} {code.name:<17} {EXIT_MEANINGS[code]}" for code in ExitCode]
    return "\n".join(lines)
