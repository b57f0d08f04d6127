"""Finds the files of `handlers/`, imports each, and checks that it fits its type.

All that is wrong is reported at once, with file and line. This module must not know
requests or the pool.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

#: Modules of handler files are imported under this name, so that none hides a package.
PACKAGE = "ingest_handlers"
#: What a file may set to have a time limit of its own for `handle`, in seconds.
TIMEOUT_NAME = "TIMEOUT_SECONDS"
#: What a file must define at least one of.
PURPOSES = ("handle", "consume", "app")


class HandlerProblem(NamedTuple):
    """One thing wrong with a handler file; `line` is 0 where no line is at fault."""

    file: str
    line: int
    message: str


class HandlersError(Exception):
    """The handlers cannot be used.

    Args:
        problems: all of them.
    """

    def __init__(self, problems: list[HandlerProblem]) -> None:
        super().__init__("; ".join(f"{p.file}:{p.line}: {p.message}" for p in problems))
        self.problems = problems


class Handler(NamedTuple):
    """A loaded file of `handlers/`; None stands for what it does not define.

    Attributes:
        type: the event type it is for; of a file with nothing but `app` only its name.
        file: its path.
        handle: called with one event before the answer.
        consume: called with a batch of events after the commit.
        setup: called once in each worker before anything else of it.
        teardown: called once in each worker at the end.
        app: a WSGI application.
        timeout_seconds: limit for one call of `handle`; None leaves it to the setting.
    """

    type: str
    file: str
    handle: Callable[[Any], Any] | None = None
    consume: Callable[[Any], Any] | None = None
    setup: Callable[[], Any] | None = None
    teardown: Callable[[], Any] | None = None
    app: Callable[..., Any] | None = None
    timeout_seconds: float | None = None


def load(directory: Path, types: Collection[str]) -> dict[str, Handler]:
    """Import every handler file of a directory.

    Args:
        directory: where `<type>.py` files stand; a missing directory holds none.
            Files whose name starts with `_` are helpers for the others to import.
        types: names of the event types that have a schema.

    Returns:
        by `Handler.type`, in the order of file names.

    Raises:
        HandlersError: a file does not import, is for no known type, or defines nothing
            that could be called for it.
    """
    handlers: dict[str, Handler] = {}
    problems: list[HandlerProblem] = []
    if not directory.is_dir():
        return handlers
    folder = str(directory.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # so that handlers can import their own helpers
    for path in sorted(directory.glob("*.py")):
        if path.name.startswith("_"):
            continue
        try:
            module = import_file(f"{PACKAGE}.{path.stem}", path)
        except Exception as error:  # noqa: BLE001 - reported with its file and line
            problems.append(HandlerProblem(str(path), line_of(error, path), describe(error)))
            continue
        handler = _handler_of(module, path)
        found = _problems(handler, types)
        problems += found
        if not found:
            handlers[path.stem] = handler
    if problems:
        raise HandlersError(problems)
    return handlers


def before_answers(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """Those with a `handle`: events of the other types take the shorter way."""
    return {name: handler for name, handler in handlers.items() if handler.handle is not None}


def import_file(name: str, path: Path) -> ModuleType:
    """Import a file that stands in no package.

    Args:
        name: of the module; what is in it can be pickled under that name.

    Raises:
        Exception: whatever the file raises.
    """
    parent = name.partition(".")[0]
    if parent != name and parent not in sys.modules:
        package = sys.modules[parent] = ModuleType(parent)
        package.__path__ = []
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return module


def _handler_of(module: ModuleType, path: Path) -> Handler:
    """The handler in a module, which may not be fit for use."""
    return Handler(
        path.stem,
        str(path),
        handle=getattr(module, "handle", None),
        consume=getattr(module, "consume", None),
        setup=getattr(module, "setup", None),
        teardown=getattr(module, "teardown", None),
        app=getattr(module, "app", None),
        timeout_seconds=getattr(module, TIMEOUT_NAME, None),
    )


def _problems(handler: Handler, types: Collection[str]) -> list[HandlerProblem]:
    """All that is wrong with one file that could be imported."""
    file = handler.file
    found = []
    if all(getattr(handler, name) is None for name in PURPOSES):
        message = "it defines no function handle(event) or consume(events), and no app"
        found.append(HandlerProblem(file, 0, message))
    elif handler.type not in types and (handler.handle or handler.consume):
        message = f"no event type {handler.type!r}: there is no such schema"
        found.append(HandlerProblem(file, 0, message))
    for name, parameters in (
        ("handle", ("event",)),
        ("consume", ("events",)),
        ("setup", ()),
        ("teardown", ()),
        ("app", ("environ", "start_response")),
    ):
        function = getattr(handler, name)
        if function is not None:
            found += _unfit(file, name, function, parameters)
    limit = handler.timeout_seconds
    if limit is not None and not (_is_number(limit) and limit > 0):
        message = f"{TIMEOUT_NAME} must be a number of seconds above 0, not {limit!r:.80}"
        found.append(HandlerProblem(file, 0, message))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unfit(
    file: str, name: str, function: Any, parameters: tuple[str, ...]
) -> list[HandlerProblem]:
    """What is wrong with one thing that is to be called."""
    if not callable(function):
        return [HandlerProblem(file, 0, f"{name} is not callable")]
    code = getattr(inspect.unwrap(function), "__code__", None)
    line = code.co_firstlineno if code is not None else 0
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        message = f"{name} is async; write a plain function, blocking calls are fine"
        return [HandlerProblem(file, line, message)]
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError as error:
        wanted = (
            f"one argument, {parameters[0]}"
            if len(parameters) == 1
            else (f"the arguments {', '.join(parameters)}" if parameters else "no argument")
        )
        return [HandlerProblem(file, line, f"{name} must take {wanted}: {error}")]
    except ValueError:
        pass  # a builtin without a signature: it will be called all the same
    return []


def line_of(error: BaseException, path: Path) -> int:
    """The innermost line of a file that an exception came through; 0 for none."""
    file = str(path.absolute())  # the import system makes it absolute, and so do tracebacks
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
    ]
    return (frames[-1].lineno or 0) if frames else 0


def describe(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}"[:500]
