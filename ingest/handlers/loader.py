"""Finds `handlers/<type>.py`, imports each, and checks that it fits its type.

All that is wrong is reported at once, with file and line. This module must not know
requests or the pool.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


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
    """A loaded handler: the event type it is for, its file, and its `handle(event)`."""

    type: str
    file: str
    handle: Callable[[Any], Any]


def load(directory: Path, types: Collection[str]) -> dict[str, Handler]:
    """Import every handler file of a directory.

    Args:
        directory: where `<type>.py` files stand; a missing directory holds none.
            Files whose name starts with `_` are helpers for the others to import.
        types: names of the event types that have a schema.

    Raises:
        HandlersError: a file does not import, is for no known type, or has no
            `handle(event)`.
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
        name = path.stem
        if name not in types:
            problems.append(
                HandlerProblem(str(path), 0, f"no event type {name!r}: there is no such schema")
            )
            continue
        try:
            module = _import(path)
        except Exception as error:  # noqa: BLE001 - reported with its file and line
            problems.append(HandlerProblem(str(path), _line(error, path), _describe(error)))
            continue
        problem = _unfit(module, path)
        if problem is not None:
            problems.append(problem)
        else:
            handlers[name] = Handler(name, str(path), module.handle)
    if problems:
        raise HandlersError(problems)
    return handlers


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ingest_handlers.{path.stem}", path)
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


def _unfit(module: ModuleType, path: Path) -> HandlerProblem | None:
    handle = getattr(module, "handle", None)
    if handle is None:
        return HandlerProblem(str(path), 0, "it defines no function handle(event)")
    if not callable(handle):
        return HandlerProblem(str(path), 0, "handle is not callable")
    code = getattr(handle, "__code__", None)
    line = code.co_firstlineno if code is not None else 0
    if inspect.iscoroutinefunction(handle) or inspect.isasyncgenfunction(handle):
        return HandlerProblem(
            str(path), line, "handle is async; write a plain function, blocking calls are fine"
        )
    try:
        inspect.signature(handle).bind(object())
    except TypeError as error:
        return HandlerProblem(str(path), line, f"handle must take one argument, event: {error}")
    except ValueError:
        pass  # a builtin without a signature: it will be called with one argument
    return None


def _line(error: Exception, path: Path) -> int:
    file = str(path.absolute())  # the import system makes it absolute, and so do tracebacks
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno or 0
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
    ]
    return (frames[-1].lineno or 0) if frames else 0


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]
