"""The command line: arguments in, exit code out.

`main` reads the arguments, resolves the settings, and hands over to one command. What a
person got wrong is said in words, with where it stands, and never with a traceback. This
module must not know how anything is served, checked or stored; each command is imported
only when it is asked for.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace, _SubParsersAction
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ingest.cli_parser import PROG, SERVE, UsageError, parse
from ingest.exits import INTERRUPTED, ExitCode
from ingest.machine import usable_cores
from ingest.settings import SETTINGS, Reread, Settings, SettingsError
from ingest.settings_sources import Problem

#: `--workers auto`
AUTO = 0
#: Tells a process that it is a trial, and how far it is to go; see `ingest.handover`.
TRIAL_VARIABLE = "_INGEST_TRIAL"
#: Holds the descriptor of its supervisor's link in a process that is one of several workers.
WORKER_VARIABLE = "_INGEST_WORKER_LINK"


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name.

    Returns:
        an `ExitCode`.
    """
    try:
        # No setting, and it must not reach what handlers start.
        descriptor = os.environ.pop(WORKER_VARIABLE, None)
        return _run(argv) if descriptor is None else _work(descriptor)
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    try:
        invocation = parse(argv, [_add_journal])
    except UsageError as error:
        return _complain(f"{error}\nAll flags: {PROG} --help", ExitCode.USAGE)
    except SystemExit as done:  # --help and --version
        _print("")
        return int(done.code or 0)
    settings, problems = load_settings(invocation.flags, os.environ)
    if invocation.command == "check":
        return _check(settings, problems, invocation.arguments)
    wanted = os.environ.pop(TRIAL_VARIABLE, "")
    if invocation.command == SERVE and wanted:
        return _try(settings, problems, set_up=wanted == "set-up")
    if problems:
        return _complain(_listed("settings", problems), ExitCode.USAGE)
    if invocation.command == SERVE:
        return _serve(settings, lambda: load_settings(invocation.flags, os.environ))
    # The journal's commands take the data directory from the settings like everything else.
    invocation.arguments.data = Path(settings.data)
    invocation.arguments.bind = settings.bind
    invocation.arguments.keys_file = settings.keys_file
    invocation.arguments.settings = settings
    return invocation.arguments.run(invocation.arguments)


def load_settings(
    flags: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[Settings, list[Problem]]:
    """Read the settings file and resolve all sources.

    Args:
        flags: setting name → text, of the flags that were given.
        environ: the process's environment.

    Returns:
        the settings, and all that is wrong with them; with problems, each wrong one has
        a stand-in.
    """
    (declared,) = (setting for setting in SETTINGS if setting.name == "config")
    source, name = next(
        (
            (source, text)
            for source, text in (
                (declared.flag, flags.get("config")),
                (declared.env, environ.get(declared.env)),
            )
            if text is not None
        ),
        ("", str(declared.default)),
    )
    problems: list[Problem] = []
    text = _read(name, source, problems)
    try:
        settings = Settings.resolve(flags, environ, text, name)
    except SettingsError as error:
        problems += error.problems
        settings = error.usable
    if settings.workers == AUTO:
        settings = replace(settings, workers=len(usable_cores()))
    log_config = settings.origins.get("log_config")
    if log_config is not None and not Path(settings.log_config).is_file():
        message = f"log_config names no file: {settings.log_config}"
        problems.append(Problem("log_config", log_config, message))
    return settings, problems


def _read(name: str, source: str, problems: list[Problem]) -> str | None:
    """The settings file's text; None, with a problem, where it must be there and is not."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except FileNotFoundError:
        if source:
            problems.append(Problem("config", source, f"config names no file: {name}"))
    except OSError as error:
        problems.append(Problem("config", source or name, f"cannot read {name}: {error.strerror}"))
    except ValueError:
        problems.append(Problem("config", source or name, f"{name} is not UTF-8 text"))
    return None


def _add_journal(commands: _SubParsersAction) -> None:
    from ingest import health_command
    from ingest.access.commands import add_commands as add_keys
    from ingest.journal.commands import add_commands
    from ingest.journal.replay_commands import add_command

    add_commands(commands)
    add_command(commands)
    add_keys(commands)
    health_command.add_command(commands)


def _serve(settings: Settings, reread: Reread) -> int:
    try:
        if settings.workers > 1:
            from ingest import supervisor

            return supervisor.run(settings, reread)
        from ingest import service_single

        return service_single.run(settings, reread)
    except Exception as error:
        from ingest.handover import StartAnew

        if isinstance(error, StartAnew):
            error.now()
        refusal = _refusal(error)
        if refusal is None:
            raise
        return _complain(*refusal)


def _work(descriptor: str) -> int:
    from ingest import worker

    return worker.run(int(descriptor), _refusal)


def _refusal(error: Exception) -> tuple[str, ExitCode] | None:
    """What to say, and the exit code, when what is to be served cannot be used; else None."""
    from ingest import findings
    from ingest.access.keys import KeysError
    from ingest.handlers.loader import HandlersError
    from ingest.logs import LogConfigError
    from ingest.registry import RegistryError
    from ingest.tls.context import TlsError

    if isinstance(error, TlsError):
        return _listed("tls", error.problems), ExitCode.PROBLEMS
    if isinstance(error, KeysError):
        return _listed("keys", error.problems), ExitCode.PROBLEMS
    if isinstance(error, LogConfigError):
        return _listed("logging configuration", [error]), ExitCode.USAGE
    if isinstance(error, RegistryError):
        found = findings.schema_findings(error.problems)
    elif isinstance(error, HandlersError):
        found = findings.handler_findings(error.problems)
    else:
        return None
    return _listed(found[0].area, found), ExitCode.PROBLEMS


def _check(settings: Settings, problems: Sequence[Problem], arguments: Namespace) -> int:
    from ingest import check

    report = check.check(settings, problems)
    if arguments.handlers_only:
        report = check.only_handlers(report)
    as_json = arguments.json or not sys.stdout.isatty()
    _print(report.as_json() if as_json else report.as_text())
    return ExitCode.PROBLEMS if report.problems else ExitCode.OK


def _try(settings: Settings, problems: Sequence[Problem], *, set_up: bool) -> int:
    """Whether this command line would serve, now that files or the code have changed."""
    from ingest import check

    report = check.check(settings, problems, set_up=set_up)
    _print(report.as_json())
    return ExitCode.PROBLEMS if report.problems else ExitCode.OK


def _print(text: str) -> None:
    """Write to standard output and flush it, whether or not anybody still reads."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # `check | head -1`: the reader has what it wanted. Python flushes once more at
        # exit, so it is given somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _listed(what: str, problems: Sequence[object]) -> str:
    lines = [f"  {problem}" for problem in problems]
    return "\n".join([f"the {what} cannot be used:", *lines])


def _complain(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"ingest: {message}\n")
    return code
