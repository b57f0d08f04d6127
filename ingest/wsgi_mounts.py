"""Finds the applications to mount: those of the setting `mounts`, and of handler files.

All that is wrong is reported at once, as for handlers. This module must not know requests
or how applications are called.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Collection, Mapping
from typing import Any

from ingest.handlers.loader import PACKAGE, Handler, HandlerProblem, HandlersError, describe
from ingest.settings_values import check_mounts, parse_mounts
from ingest.wsgi import Mount

#: What a handler file may call the path of its `app`; `/<name of the file>` otherwise.
PREFIX_NAME = "PREFIX"
#: Paths of the gateway's own; `/v1` stands for all below it.
OWN_PATHS = (
    "/v1", "/livez", "/readyz", "/health", "/startupz", "/metrics", "/openapi.json",
)  # fmt: skip


def load(
    text: str, source: str, handlers: Mapping[str, Handler], taken: Collection[str]
) -> list[Mount]:
    """Import every application.

    Args:
        text: the setting `mounts`.
        source: where that stands.
        handlers: the loaded handler files.
        taken: further paths that are not free, those of event types.

    Raises:
        HandlersError: one cannot be imported, is not callable, or has no path of its own.
    """
    problems: list[HandlerProblem] = []
    found: dict[str, tuple[str, Any]] = {}
    for handler in handlers.values():
        if handler.app is not None:
            prefix = _prefix_of(handler, problems)
            if prefix:
                _add(found, prefix, handler.file, handler.app, problems)
    for prefix, where in parse_mounts(text).items():
        try:
            app = _imported(where)
        except Exception as error:  # noqa: BLE001 - reported with its file and line
            problems.append(HandlerProblem(source, 0, f"{prefix}={where}: {_told(error)}"))
            continue
        if not callable(app):
            problems.append(HandlerProblem(source, 0, f"{prefix}={where} is not callable"))
            continue
        _add(found, prefix, source, app, problems)
    for prefix, (place, _) in found.items():
        for path in (*OWN_PATHS, *taken):
            if _overlap(prefix, path):
                message = f"{prefix} is not free to mount an application at: {path} is there"
                problems.append(HandlerProblem(place, 0, message))
    if problems:
        raise HandlersError(problems)
    return [Mount(prefix, app) for prefix, (_, app) in found.items()]


def overlapped(prefixes: Collection[str], paths: Collection[str]) -> list[str]:
    """Of paths that event types want, those that a mount has."""
    return [path for path in paths if any(_overlap(prefix, path) for prefix in prefixes)]


def _add(
    found: dict[str, tuple[str, Any]],
    prefix: str,
    place: str,
    app: Any,
    problems: list[HandlerProblem],
) -> None:
    if prefix in found:
        message = f"{prefix} has an application already, of {found[prefix][0]}"
        problems.append(HandlerProblem(place, 0, message))
    else:
        found[prefix] = place, app


def _prefix_of(handler: Handler, problems: list[HandlerProblem]) -> str:
    prefix = getattr(sys.modules[f"{PACKAGE}.{handler.type}"], PREFIX_NAME, f"/{handler.type}")
    try:
        check_mounts(f"{prefix}=a:b" if isinstance(prefix, str) else "")
    except ValueError:
        message = f"{PREFIX_NAME} must be a path such as /legacy, not {prefix!r:.80}"
        problems.append(HandlerProblem(handler.file, 0, message))
        return ""
    return prefix


def _overlap(prefix: str, path: str) -> bool:
    """Whether requests for a path, or for one of our own below it, would reach the mount."""
    below = path == "/v1" and prefix.startswith("/v1/")
    return below or path == prefix or path.startswith(prefix + "/")


def _imported(where: str) -> Any:
    """The application at `module:name`, or what `module:name()` returns."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m ingest` has it
    module, _, names = where.partition(":")
    app: Any = importlib.import_module(module)
    for name in names.removesuffix("()").split("."):
        app = getattr(app, name)
    return app() if names.endswith("()") else app


def _told(error: Exception) -> str:
    """What went wrong, with the last place of it that is not the import system's."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and "importlib" not in frame.filename
    ][1:]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return describe(error) + place
